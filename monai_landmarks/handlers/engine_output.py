# Copyright (c) monai_landmarks contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Helpers of the handlers: the cases of an iteration, their entries and file names, and gathering over all ranks."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from monai.data import MetaTensor, decollate_batch
from monai.utils import IgniteInfo, ImageMetaKey, min_version, optional_import

from monai_landmarks.spaces import points_of_image, world_points

if TYPE_CHECKING:
    from ignite.engine import Events
    from monai.engines.workflow import Workflow as Engine
else:
    Engine, _ = optional_import("ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Engine", as_type="base")
    Events, _ = optional_import("ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Events")

_Row = TypeVar("_Row")

__all__ = [
    "Engine",
    "Events",
    "batch_items",
    "cpu_world_points",
    "from_rank",
    "gather",
    "image_path",
    "is_best",
    "is_main_process",
    "loss_of",
    "output_items",
    "take",
]


def output_items(engine: Engine) -> list[dict[Hashable, Any]]:
    """Return the engine's output of the current iteration, one dictionary per case, whether the engine decollates or not."""
    return _items(engine.state.output)


def batch_items(engine: Engine) -> list[dict[Hashable, Any]]:
    """Return the data loader's items of the current iteration, which have entries that the engine's output leaves out."""
    return _items(engine.state.batch)


def _items(batch: Any) -> list[dict[Hashable, Any]]:
    return list(batch) if isinstance(batch, list) else decollate_batch(batch)


def loss_of(engine: Engine, loss_key: str) -> float | None:
    """Return the loss of the current iteration, or None if the engine has none."""
    output = engine.state.output
    if isinstance(output, (list, tuple)) and output:
        output = output[0]  # MONAI repeats the loss of the batch in each case
    loss = output.get(loss_key) if isinstance(output, dict) else output
    if isinstance(loss, torch.Tensor):
        key = (engine.state.iteration, id(loss))
        if getattr(engine.state, "read_loss", (None,))[0] != key:  # a GPU is waited for once, not by each handler
            engine.state.read_loss = (key, loss.detach().float().mean().item())
        loss = engine.state.read_loss[1]
    return float(loss) if isinstance(loss, (int, float)) else None


def take(item: dict[Hashable, Any], key: str, handler: object) -> Any:
    """Return an entry of a case.

    Args:
        item: the case.
        key: the key of the entry.
        handler: the handler that needs the entry, for the error message.

    Raises:
        KeyError: if the entry is missing. The message lists the entries that exist.
    """
    if key not in item:
        raise KeyError(
            f"{type(handler).__name__} needs {key!r} in the engine's output, which has {sorted(map(str, item))}. Add it in "
            "the evaluator's postprocessing, or set another key."
        )
    return item[key]


def cpu_world_points(points: torch.Tensor, image: Any, what: str) -> torch.Tensor:
    """Return points in world mm, as float64 on the CPU.

    Args:
        points: (N, D) or (1, N, D). A :class:`~monai.data.MetaTensor` is mapped by its own affine. A plain tensor holds
            index points of the image.
        image: the image of the points. If it has no affine, plain points are returned unchanged.
        what: name of the points, for the error message.

    Returns:
        Points (N, D).
    """
    return points_of_image(world_points(points, image), what).detach().cpu().double()


def image_path(item: dict[Hashable, Any], image_key: str) -> str | None:
    """Return the path of the file that an image was read from, or None if its metadata has no path."""
    image = item.get(image_key)
    path = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(image, MetaTensor) else None
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) and os.fspath(path) else None


def gather(rows: list[_Row]) -> list[_Row]:
    """Return the rows of all ranks, in the order of the ranks. All ranks must call this function."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    of_rank: list[list[_Row]] = [[]] * dist.get_world_size()
    dist.all_gather_object(of_rank, rows)
    return [row for rows in of_rank for row in rows]


def from_rank(value: _Row, rank: int = 0) -> _Row:
    """Return the value of one rank, by default the main process, on each rank. All ranks must call this function.

    Decisions that depend on files are made by the rank that has the files: nodes may have disks of their own.

    Args:
        value: the value of this rank.
        rank: the rank whose value is returned.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return value
    values = [value]
    dist.broadcast_object_list(values, src=rank)
    return values[0]


def is_best(engine: Engine) -> bool:
    """Return whether this evaluation has the best key metric so far. It is True if there is no key metric."""
    return engine.state.key_metric_name is None or engine.state.best_metric_epoch == engine.state.epoch


def is_main_process() -> bool:
    """Return whether this process writes the files and the log."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
