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
"""Continue a training from its last saved epoch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
from monai.handlers import CheckpointSaver
from monai.utils import CommonKeys
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from monai_landmarks.data.files.tensor_files import atomic_save, load_tensors, non_finite_weights

from .engine_output import Engine, Events, from_rank, gather, is_main_process
from .learning_rate_plan import LearningRatePlan
from .plain_errors import note_continuation

__all__ = ["ResumeTraining"]

_ADVICE = "Start from the beginning with ResumeTraining(enabled=False) (--resume false), or use another folder."


class ResumeTraining:
    """
    Save the state of a training at the end of an epoch, and continue from it when the training is started again.

    The file contains everything in ``load_dict``, the trainer's epoch and iteration, and the gradient scaler. In a
    single process it also contains the random states of torch and of the transforms of the training data. For the
    validator it contains the best metric and the name of the best model that its ``CheckpointSaver`` has saved, so that
    a worse model does not replace it after a restart. All of these are tensors and plain values, which are read with
    ``weights_only=True``.

    A training may continue with more epochs, other training images, another batch size or another precision. The rules
    are:

    * The training continues after the last saved epoch. Progress is counted in epochs.
    * The learning rate is that of the schedule as it is configured now, for the new length, at this progress. A
      schedule of 10 epochs that continues to 20 is at its half after epoch 10. The learning rate may therefore rise
      again. With unchanged settings, it is exactly that of an uninterrupted training. (``ReduceLROnPlateau`` has no
      length; its own state continues.)
    * The best metric is kept if the validation images and their labels are the same, and if the file of the best model
      can be read. Otherwise the next validation is the best so far.
    * If the trainer runs again without loading, as in the rounds of federated learning, a schedule that would end in
      this round (``OneCycleLR``) starts again. All others continue.

    Under distributed training, rank 0 writes the file. The ranks need no common disk: all of them continue from the
    file with the most epochs that any rank finds, and rank 0 decides whether the best model is kept.

    Put this handler first among the trainer's handlers. Only :class:`GradientScale` comes before it. It loads at the
    start of the run, before the other handlers read the state. It saves after all other handlers of an epoch, so the
    file includes the learning rate and the validation of that epoch. An unfinished epoch starts again.

    Args:
        load_dict: the objects to save and load, by name: network, optimizer, scheduler, a loss with weights, or any
            object with ``state_dict`` and ``load_state_dict``. The trainer is always included.
        path: the file, or a folder in which the file is ``training_state.pt``.
        validator: the evaluator whose best metric and best model are kept.
        save_interval: number of epochs between two saves. The state is also saved after the last epoch.
        enabled: if False, the training starts from the beginning, and the first save replaces an older file.
        map_location: device to which tensors are loaded, by default the CPU. They are copied to their own device from
            there.

    Raises:
        ValueError: for an empty ``load_dict`` or a reserved name in it; at the start of the run, if the file does not
            match the objects to load or is damaged, or if it has other weights where the network does not learn, such as
            those of another coarse network.
    """

    def __init__(
        self,
        load_dict: Mapping[str, Any],
        path: str | os.PathLike,
        validator: Engine | None = None,
        save_interval: int = 1,
        enabled: bool = True,
        map_location: str | torch.device = "cpu",
    ) -> None:
        if not load_dict:
            raise ValueError("load_dict must not be empty, use for example {'model': network, 'optimizer': optimizer}.")
        reserved = {"trainer", "scaler", "validator", "random"} & set(load_dict)
        if reserved:
            raise ValueError(f"load_dict must not use the names {sorted(reserved)}, which are reserved.")
        path = Path(path)
        self.path = path if path.suffix in (".pt", ".pth") else path / "training_state.pt"
        self.load_dict = dict(load_dict)
        self.validator = validator
        self.save_interval = save_interval
        self.enabled = enabled
        self.map_location = map_location
        self._saves = False
        self._saved_at = 0
        self._plans: dict[str, LearningRatePlan] = {}
        self._part: str | None = None

    def attach(self, engine: Engine) -> None:
        """
        Attach the handler.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        if not self._saves:  # added here, so that it runs after all handlers that are attached at construction
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.save_interval), self._save)
            engine.add_event_handler(Events.COMPLETED, self._save)
            engine.add_event_handler(Events.COMPLETED, lambda engine: note_continuation(None))
            self._saves = True
            self._part = None if self.validator is None else from_rank(_validation_part(self.validator))
            self._plans = {name: LearningRatePlan(holder) for name, holder in self._schedules().items()}
        self._saved_at = 0
        state = self._newest_state() if self.enabled else None
        if state is not None:
            self._load(engine, state)
            self._saved_at = engine.state.iteration
        else:
            if self.enabled:
                engine.logger.info(f"nothing to resume at {self.path}: training starts from the beginning.")
            if engine.state.iteration > 0:
                for name, plan in self._plans.items():
                    if plan.start_again(engine):
                        engine.logger.info(f"{name} would end in this round, and starts again.")
        if engine.state.epoch <= engine.state.max_epochs:
            for name, plan in self._plans.items():
                plan.require_length(engine, name)
        if is_main_process():
            note_continuation(self._how_to_continue)

    def _schedules(self) -> dict[str, LRScheduler]:
        return {
            name: holder
            for name, holder in self.load_dict.items()
            if isinstance(holder, LRScheduler) and not isinstance(holder, ReduceLROnPlateau)
        }

    def _how_to_continue(self) -> str:
        """Say what Ctrl-C leaves. The file is asked, because Ctrl-C may come right after it has been replaced."""
        if not self._saved_at or not self.path.is_file():
            return "No epoch was completed, so there is nothing to continue."
        epoch = _epoch_of(load_tensors(self.path, self.map_location, _ADVICE))
        return f"{self.path} is at epoch {epoch}. To continue, repeat the command with --resume true."

    def _state_holders(self, engine: Engine) -> dict[str, Any]:
        holders: dict[str, Any] = {**self.load_dict, "trainer": _Progress(engine), "random": _RandomState(engine)}
        if getattr(engine, "scaler", None) is not None:
            holders["scaler"] = engine.scaler  # type: ignore[attr-defined]
        if self.validator is not None:
            holders["validator"] = _BestModel(self.validator, self._part)
        return holders

    def _save(self, engine: Engine) -> None:
        if engine.state.iteration == self._saved_at:
            return
        self._saved_at = engine.state.iteration
        state = {name: _unwrap(holder).state_dict() for name, holder in self._state_holders(engine).items()}
        if is_main_process():
            atomic_save(state, self.path)

    def _newest_state(self) -> Any:
        """Return the content of the file, of the rank whose file has the most epochs; None if no rank has a file."""
        state = load_tensors(self.path, self.map_location, _ADVICE) if self.path.is_file() else None
        epochs = gather([-1 if state is None else _epoch_of(state)])
        return from_rank(state, epochs.index(max(epochs)))

    def _load(self, engine: Engine, state: Any) -> None:
        holders = self._state_holders(engine)
        if "scaler" in holders and isinstance(state, dict) and "scaler" not in state:
            del holders["scaler"]  # saved without float16, perhaps on a newer GPU
            engine.logger.info(f"{self.path} has no gradient scale: it starts anew.")
        absent = sorted(set(holders) - set(state)) if isinstance(state, dict) else sorted(holders)
        if absent:
            raise ValueError(f"{self.path} does not contain {absent}, which load_dict requires. {_ADVICE}")
        self._require_same_frozen(state)
        length = state["trainer"]["epoch_length"]
        for name, holder in holders.items():
            if name in self._plans:
                continue
            try:
                _unwrap(holder).load_state_dict(state[name])
            except (ValueError, KeyError, RuntimeError) as error:
                raise ValueError(f"{name!r} in {self.path} does not match this training: {error}\n{_ADVICE}") from error
        if engine.state.epoch <= engine.state.max_epochs:  # a schedule of fewer epochs has no learning rate there
            for name, plan in self._plans.items():  # after the optimizers, whose learning rates they set
                plan.go_to(state[name], engine, length, name)
        unused = sorted(set(state) - set(holders))
        if unused:
            engine.logger.warning(f"{self.path} also contains {unused}, which this training does not use.")
        best = ""
        if self.validator is not None and self.validator.state.best_metric_epoch > 0:
            best = (
                f", best {self.validator.state.key_metric_name} so far {self.validator.state.best_metric:.4f}"
                f" at epoch {self.validator.state.best_metric_epoch}"
            )
        at = f"epoch {engine.state.epoch} of {engine.state.max_epochs}, iteration {engine.state.iteration}"
        engine.logger.info(f"resumed {', '.join(self.load_dict)} from {self.path}: {at}{best}.")
        if engine.state.epoch >= engine.state.max_epochs:
            engine.logger.info(
                f"this training is complete: {self.path} is at epoch {engine.state.epoch} of max_epochs="
                f"{engine.state.max_epochs}. To continue, increase max_epochs. To start again, set enabled=False."
            )
            engine.terminate()

    def _require_same_frozen(self, state: Mapping[str, Any]) -> None:
        """Raise an error if weights that the training does not change, and that were loaded before, differ from the file."""
        for name, holder in self.load_dict.items():
            module, known = _unwrap(holder), state[name]
            if not isinstance(module, nn.Module) or not isinstance(known, Mapping):
                continue
            for key, value in module.named_parameters():
                before = known.get(key)
                if not value.requires_grad and before is not None and not torch.equal(before.to(value), value):
                    raise ValueError(
                        f"{self.path} is the state of a training with other weights in {name!r} where it does not learn, the"
                        f" first of them {key}. It may belong to another coarse network. Train what does learn from the"
                        " beginning (fine_training with --resume false), or use another folder."
                    )


class _Progress:
    """The progress of the trainer, in epochs, because data or batch size may have changed the length of an epoch."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def state_dict(self) -> dict[str, Any]:
        state = self.engine.state  # completed epochs only: state.epoch also counts an epoch that was interrupted
        return {"epoch": state.iteration // state.epoch_length, "epoch_length": state.epoch_length}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.engine.state.epoch = state["epoch"]
        length = self.engine.state.epoch_length or state["epoch_length"]
        self.engine.state.iteration = state["epoch"] * length
        if length != state["epoch_length"]:
            self.engine.logger.warning(
                f"an epoch had {state['epoch_length']} iterations and now has {length}. The learning rate schedule "
                "continues at the same epoch."
            )


class _BestModel:
    """The best metric of a validator, and the best models of its ``CheckpointSaver`` with ``save_key_metric``."""

    def __init__(self, validator: Engine, part: str | None) -> None:
        self.validator = validator
        self.part = part

    def _savers(self) -> list[CheckpointSaver]:
        handlers = [entry[0] for entries in self.validator._event_handlers.values() for entry in entries]
        owners = (getattr(handler, "__self__", None) for handler in handlers)
        savers = {id(owner): owner for owner in owners if isinstance(owner, CheckpointSaver)}
        return [saver for saver in savers.values() if saver._key_metric_checkpoint is not None]

    @staticmethod
    def _held(saver: CheckpointSaver) -> list[tuple[float, str]]:
        checkpoint: Any = saver._key_metric_checkpoint
        return [(float(item.priority), item.filename) for item in checkpoint._saved]

    def state_dict(self) -> dict[str, Any]:
        state = self.validator.state
        return {
            "best_metric": float(state.best_metric),
            "best_metric_epoch": int(state.best_metric_epoch),
            "savers": [self._held(saver) for saver in self._savers()],
            "part": self.part,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        part = state.get("part")
        if part is not None and part != self.part:
            self._start_again(state, "the validation images or their labels have changed")
            return
        for saver, saved in zip(self._savers(), state["savers"]):
            checkpoint: Any = saver._key_metric_checkpoint
            folder, fixed = Path(saver.save_dir), checkpoint.save_handler.filename
            held = []
            for priority, name in saved:
                fault = from_rank(_fault(folder / (fixed or name)))
                if fault is None:
                    held.append((priority, name))
                elif (priority, name) == max(map(tuple, saved)):
                    self._start_again(state, fault)
                    return
            saver.load_state_dict({"_saved": held})
        self.validator.state.best_metric = state["best_metric"]
        self.validator.state.best_metric_epoch = state["best_metric_epoch"]

    def _start_again(self, state: Mapping[str, Any], reason: str) -> None:
        for saver in self._savers():
            saver.load_state_dict({"_saved": []})
        self.validator.state.best_metric = self.validator.state.best_metric_epoch = -1
        if state["best_metric_epoch"] > 0:
            self.validator.logger.warning(
                f"The best metric so far, {state['best_metric']:.4f} at epoch {state['best_metric_epoch']}, is not kept, "
                f"because {reason}. The next validation is the best so far."
            )


def _epoch_of(state: Any) -> int:
    trainer = state.get("trainer") if isinstance(state, Mapping) else None
    return int(trainer.get("epoch", 0)) if isinstance(trainer, Mapping) else 0


def _validation_part(validator: Engine) -> str | None:
    """Return a hash of the validation images and their labels, or None if they are not known."""
    items = getattr(getattr(validator.data_loader, "dataset", None), "data", None)
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, Mapping) for item in items):
        return None
    paths = [os.path.abspath(value) for item in items for value in item.values() if _is_path(value)]
    root = os.path.commonpath(paths) if paths else ""  # the folder may have been moved

    def plain(value: Any) -> str:
        if _is_path(value):
            return os.path.relpath(os.path.abspath(value), root)
        if isinstance(value, (np.ndarray, torch.Tensor)):
            return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return repr(value)

    def labels(item: Mapping[Any, Any]) -> str:
        """Return the hash of a label file, whose points may have been corrected; empty if there is none."""
        file = Path(item[CommonKeys.LABEL]) if _is_path(item.get(CommonKeys.LABEL)) else None
        return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else ""

    rows = [repr([*sorted((str(key), plain(value)) for key, value in item.items()), labels(item)]) for item in items]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) and os.path.exists(value)


def _fault(path: Path) -> str | None:
    """Return why the weights of a file cannot be used, or None if they can."""
    try:
        content = load_tensors(path)
    except ValueError as error:  # it may also have been removed
        return str(error).rstrip(". ")
    reason = non_finite_weights(content) if isinstance(content, Mapping) else None
    return None if reason is None else f"{path}: {reason}"


class _RandomState:
    """
    The random states of a training in a single process.

    Torch's random state determines the order of the cases, dropout, and the seeds of workers. Without workers, the
    random transforms of the training data use their own numpy random states.
    """

    def __init__(self, engine: Engine) -> None:
        loader = engine.state.dataloader
        self.transforms = list(_random_states(getattr(loader, "dataset", None), set()))

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        transforms = []
        for random in self.transforms:
            drawn: Any = random.get_state()
            kind, key, *rest = drawn
            transforms.append([kind, torch.from_numpy(key.astype(np.int64)), *rest])
        return {"cpu": torch.get_rng_state(), "cuda": cuda, "transforms": transforms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return  # the file has the state of one rank, but ranks must draw different numbers
        torch.set_rng_state(state["cpu"].cpu())
        if len(state["cuda"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        transforms = state.get("transforms", [])
        if len(transforms) == len(self.transforms):
            for random, (kind, key, *rest) in zip(self.transforms, transforms):
                random.set_state((kind, key.cpu().numpy().astype(np.uint32), *rest))


def _random_states(item: Any, seen: set[int]) -> Iterator[np.random.RandomState]:
    """The random states in a dataset, each once, found in the same way as by MONAI's ``set_rnd``."""
    if id(item) in seen or isinstance(item, (type, ModuleType)):
        return
    seen.add(id(item))
    if isinstance(item, np.random.RandomState):
        yield item
    parts = item if isinstance(item, (tuple, list)) else getattr(item, "__dict__", {}).values()
    for part in parts:
        yield from _random_states(part, seen)


def _unwrap(holder: Any) -> Any:
    """The network inside ``(Distributed)DataParallel``, because a file can be used with any number of processes."""
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    return holder.module if isinstance(holder, parallel) else holder
