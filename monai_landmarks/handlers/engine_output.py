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
"""What the handlers of an evaluator share: the cases of an iteration, their names, and a gathering over all ranks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

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

__all__ = [
    "Engine",
    "Events",
    "batch_items",
    "gather",
    "image_path",
    "is_best",
    "is_main_process",
    "loss_of",
    "output_items",
    "take",
    "world",
]


def output_items(engine: Engine) -> list[dict[str, Any]]:
    """The cases of the current iteration, one dictionary each, whether the engine decollates or not."""
    return _items(engine.state.output)


def batch_items(engine: Engine) -> list[dict[str, Any]]:
    """The cases of the current iteration as the data loader gave them, with what the engine's output leaves out."""
    return _items(engine.state.batch)


def _items(batch: Any) -> list[dict[str, Any]]:
    return list(batch) if isinstance(batch, list) else decollate_batch(batch)


def loss_of(engine: Engine, loss_key: str) -> float | None:
    """The loss of the current iteration; None where the engine has none."""
    output = engine.state.output
    if isinstance(output, (list, tuple)) and output:
        output = output[0]  # MONAI repeats the loss of the batch in each of its cases
    loss = output.get(loss_key) if isinstance(output, dict) else output
    if isinstance(loss, torch.Tensor):
        loss = loss.detach().float().mean().item()
    return float(loss) if isinstance(loss, (int, float)) else None


def take(item: dict[str, Any], key: str, handler: object) -> Any:
    """An entry of a case.

    Raises:
        KeyError: when it is not there, with what is there and where it should come from.
    """
    if key not in item:
        raise KeyError(
            f"{type(handler).__name__} needs {key!r} in the engine's output, which has {sorted(item)}: add it in the "
            "evaluator's postprocessing, or name another key."
        )
    return item[key]


def world(points: torch.Tensor, image: Any, what: str) -> torch.Tensor:
    """Points in world mm.

    Args:
        points: (N, D) or (1, N, D). A `MetaTensor` goes through its own affine; a plain tensor is index points of the image.
        image: the image of the points; where it has no affine either, plain points are taken as they stand.
        what: name of the points, for the error.

    Returns:
        (N, D), float64, on the CPU.
    """
    return points_of_image(world_points(points, image), what).detach().cpu().double()


def image_path(item: dict[str, Any], image_key: str) -> str | None:
    """The file that an image was read from; None where the image does not know it."""
    image = item.get(image_key)
    path = image.meta.get(ImageMetaKey.FILENAME_OR_OBJ) if isinstance(image, MetaTensor) else None
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) and os.fspath(path) else None


def gather(rows: list[Any]) -> list[Any]:
    """The rows of all ranks, in the order of the ranks. Every rank must call it and gets them all."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    of_rank: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_rank, rows)
    return [row for rows in of_rank for row in rows]


def is_best(engine: Engine) -> bool:
    """Whether this evaluation is the best so far by its key metric; always, where there is none."""
    return engine.state.key_metric_name is None or engine.state.best_metric_epoch == engine.state.epoch


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
