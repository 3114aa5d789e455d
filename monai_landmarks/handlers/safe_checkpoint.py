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
"""MONAI's checkpoint handlers, with files that are complete and weights that are finite."""

from __future__ import annotations

import hashlib
import math
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.handlers import CheckpointLoader, CheckpointSaver
from monai.utils import IgniteInfo, is_scalar, min_version, optional_import

from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, has_both_networks
from monai_landmarks.data.files.safe_files import atomic_write
from monai_landmarks.data.files.tensor_files import atomic_save, load_tensors, non_finite_weights
from monai_landmarks.uncertainty import calibration_path, doubt_path, remove_reliability

from .engine_output import Events, gather, is_main_process

if TYPE_CHECKING:
    from ignite.engine import Engine
    from ignite.handlers.checkpoint import BaseSaveHandler
else:
    Engine, _ = optional_import("ignite.engine", IgniteInfo.OPT_IMPORT_VERSION, min_version, "Engine", as_type="base")
    BaseSaveHandler, _ = optional_import(
        "ignite.handlers.checkpoint", IgniteInfo.OPT_IMPORT_VERSION, min_version, "BaseSaveHandler", as_type="base"
    )

__all__ = ["SafeCheckpointLoader", "SafeCheckpointSaver", "load_weights"]

_READ_CLOSE_LOOK = (
    "Read configs/close_look.json, too, for example"
    " --config_file \"['configs/inference.json','configs/close_look.json']\", or use monai-landmarks predict, which does so."
)


class SafeCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver``, but a save never damages the weights that are already saved.

    The differences are:

    * A file is written completely or not at all. MONAI removes the old file and writes the new one in its place, so
      that a full disk or the end of the process destroys both.
    * Weights that are NaN or infinite are an error, and are not saved.
    * A key metric that is NaN or infinite is never the best. The evaluator does not count it as the best metric, and
      its weights are not saved.
    * After an exception, nothing is saved as the final model. Continue the training with :class:`ResumeTraining`
      instead.
    * The calibration and the model of shape and heatmaps of the old weights are removed before, because they do not
      hold for the new ones. :class:`ReliabilitySaver` writes new ones.

    Args:
        save_dir: folder of the files.
        save_dict: objects to save, by name.
        kwargs: other arguments of ``monai.handlers.CheckpointSaver``.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(save_dir, save_dict, **kwargs)
        self._rising = not kwargs.get("key_metric_negative_sign", False)
        self._metric_name = kwargs.get("key_metric_name")
        for checkpoint in (self._final_checkpoint, self._key_metric_checkpoint, self._interval_checkpoint):
            if checkpoint is not None:
                handler: Any = checkpoint.save_handler
                checkpoint.save_handler = _AtomicSaver(Path(handler.dirname), handler.filename, save_dict)

    def attach(self, engine: Any) -> None:
        """Attach the handler.

        Args:
            engine: the trainer, validator or evaluator.
        """
        super().attach(engine)
        if self._key_metric_checkpoint is not None and self._metric_name is None:
            engine.add_event_handler(Events.EPOCH_STARTED, self._set_worst)

    def _set_worst(self, engine: Any) -> None:
        """Without a best metric so far, MONAI takes any, also NaN."""
        state: Any = engine.state  # MONAI adds attributes
        if state.best_metric_epoch == -1:
            state.best_metric = -math.inf if self._rising else math.inf
            state.best_metric_epoch = 0

    def exception_raised(self, engine: Any, e: Exception) -> None:
        """Raise the exception again, without saving."""
        raise e

    def metrics_completed(self, engine: Any) -> None:
        """Save the weights if the key metric is the best so far.

        Args:
            engine: the evaluator.
        """
        state: Any = engine.state  # MONAI adds attributes
        name = self._metric_name or state.key_metric_name
        metric = engine.state.metrics.get(name)
        if metric is not None and is_scalar(metric) and not math.isfinite(float(metric)):
            self.logger.warning(f"{name} is {float(metric)}: these weights are not saved as the best.")
            return
        checkpoint: Any = self._key_metric_checkpoint
        saved = list(checkpoint._saved)
        try:
            super().metrics_completed(engine)
        except BaseException:
            checkpoint._saved = saved  # what is on the disk
            raise


class _AtomicSaver(BaseSaveHandler):
    """Save handler of ignite whose files are complete; outdated ones are removed after the new one is written."""

    def __init__(self, folder: Path, filename: str | None, save_dict: Mapping[str, Any]) -> None:
        self.dirname = folder
        self.filename = filename
        self.save_dict = save_dict
        self._outdated: list[str] = []

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        path = self.dirname / (self.filename or filename)
        for holder in self.save_dict.values():
            reason = non_finite_weights(getattr(holder, "module", holder))
            if reason is not None:
                raise ValueError(f"{path}: the weights are not saved, because {reason}. An old file is unchanged.")
        if not is_main_process():
            return
        with atomic_write(path) as temporary:
            atomic_save(checkpoint, temporary)
            remove_reliability(path)  # as late as this, because a full disk leaves the old weights
        for outdated in set(self._outdated) - {path.name}:
            (self.dirname / outdated).unlink(missing_ok=True)
        self._outdated = []

    def remove(self, filename: str) -> None:
        if self.filename is None:  # a fixed name is replaced
            self._outdated.append(filename)


class SafeCheckpointLoader(CheckpointLoader):
    """MONAI's ``CheckpointLoader``, but its errors name the file, and weights that are NaN or infinite are refused.

    Under distributed evaluation, all ranks must read the same weights, calibration and shapes. Nodes without a common
    disk need copies of these files, because a training writes them on the node of rank 0 only.

    Args:
        kwargs: arguments of ``monai.handlers.CheckpointLoader``.
    """

    def __call__(self, engine: Any) -> None:
        """Load the weights.

        Args:
            engine: the engine that starts.

        Raises:
            ValueError: if the file does not exist, is damaged, is of another network, or contains weights that are NaN or
                infinite; if ranks have other files than rank 0.
        """
        advice = "Train the bundle, copy the file again, or give another file as checkpoint."
        absent = not Path(self.load_path).exists()
        if absent and Path(self.load_path).with_name(CLOSE_LOOK_PRETRAINED).is_file():
            advice = f"The bundle has weights for its close look, {CLOSE_LOOK_PRETRAINED}. {_READ_CLOSE_LOOK}"
        load_tensors(self.load_path, advice=advice)
        try:
            super().__call__(engine)
        except RuntimeError as error:
            raise ValueError(f"{self.load_path}: {self._misfit(str(error))}") from error
        for holder in self.load_dict.values():
            reason = non_finite_weights(getattr(holder, "module", holder)) if hasattr(holder, "state_dict") else None
            if reason is not None:
                raise ValueError(f"{self.load_path}: these weights are useless, because {reason}. Give another file.")
        _require_same_files(Path(self.load_path))

    def _misfit(self, reason: str) -> str:
        """Say why the weights do not fit, and what to do."""
        network = next(iter(self.load_dict.values()))
        network = getattr(network, "module", network)
        pair = {name for name, _ in network.named_children()} == {"coarse", "fine"}
        if pair and not has_both_networks(self.load_path):
            shipped = Path(self.load_path).with_name(CLOSE_LOOK_PRETRAINED)
            other = f", or give the shipped weights of both: --checkpoint {shipped}" if shipped.is_file() else ""
            return (
                "these are weights of one network, such as the coarse one, and the close look needs both networks. Train"
                f" it with configs/close_look.json{other}."
            )
        if not pair and has_both_networks(self.load_path):
            return f"these are weights of both networks of a close look. {_READ_CLOSE_LOOK}"
        first = "".join(reason.splitlines()[1:2]).strip()  # torch lists all names, of which a network has hundreds
        return (
            f"these weights do not belong to the network {type(network).__name__} with its present settings: {first[:300]} Give"
            " the settings with which they were trained, or another file as checkpoint."
        )


def _require_same_files(weights: Path) -> None:
    """Raise ``ValueError`` on each rank if ranks have other weights, calibration or shapes than rank 0."""
    digest = hashlib.sha256()
    for path in (weights, calibration_path(weights), doubt_path(weights)):
        digest.update(path.read_bytes() if path.is_file() else b"")
        digest.update(b"\0")
    files = gather([(digest.hexdigest(), f"rank {{rank}} ({socket.gethostname()}): {weights}")])
    others = [where.format(rank=rank) for rank, (value, where) in enumerate(files) if value != files[0][0]]
    if others:
        raise ValueError(
            f"{files[0][1].format(rank=0)}: other ranks have other weights, calibration or shapes: {', '.join(others)}. "
            "Copy the folder of the weights from the node of rank 0 to the other nodes."
        )


def load_weights(network: torch.nn.Module, path: str) -> None:
    """Load the weights of a network that is a part of another one.

    Args:
        network: the network.
        path: file of its weights.

    Raises:
        ValueError: if the file does not exist, is damaged, is of another network, or contains weights that are NaN or
            infinite.
    """
    advice = "Train this network first, or give another file."
    weights = load_tensors(path, advice=advice)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: the weights do not fit {type(network).__name__}: {error} {advice}") from error
    reason = non_finite_weights(network)
    if reason is not None:
        raise ValueError(f"{path}: these weights are useless, because {reason}. {advice}")
