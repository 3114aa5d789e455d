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
"""The learning rate of a training whose length changes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from monai.handlers import LrScheduleHandler
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from .engine_output import Engine

__all__ = ["LearningRatePlan"]

# settings of a parameter group that torch's schedulers change
_RATES = ("lr", "initial_lr", "max_lr", "min_lr")
_SCHEDULED = (*_RATES, "momentum", "betas", "max_momentum", "base_momentum")


class LearningRatePlan:
    """A schedule as it was configured, which can be moved to any step.

    The learning rates of torch's schedulers depend only on the configuration and the number of steps. A saved state
    also contains the configuration of its time, such as ``total_steps``, so loading it would bring back an outdated
    plan.

    Args:
        scheduler: a scheduler that has not made a step yet.
    """

    def __init__(self, scheduler: LRScheduler) -> None:
        self.scheduler = scheduler
        self._state = deepcopy(scheduler.state_dict())
        self._groups = [
            deepcopy({key: value for key, value in group.items() if key in _SCHEDULED})
            for group in scheduler.optimizer.param_groups
        ]

    def go_to(self, saved: Mapping[str, Any], engine: Engine, epoch_length: int, name: str) -> None:
        """Set the scheduler and its optimizer to the progress of a saved state.

        Args:
            saved: state of the scheduler.
            engine: the trainer, at its resumed epoch.
            epoch_length: number of iterations of an epoch when the state was saved.
            name: name of the scheduler, for errors.
        """
        steps = saved["last_epoch"] if "last_epoch" in saved else saved["_schedulers"][0]["last_epoch"]
        by_epoch = self._by_epoch(engine)
        if by_epoch is None:
            by_epoch = steps == engine.state.epoch
        if not by_epoch:
            steps = round(steps * (engine.state.epoch_length or epoch_length) / epoch_length)
        self._go_to(steps, name)

    def start_again(self, engine: Engine) -> bool:
        """Start again if the schedule would end before the trainer, and return whether it did."""
        last = self._last_step(engine)
        if not isinstance(self.scheduler, OneCycleLR) or last is None or last <= self.scheduler.total_steps:
            return False
        self._go_to(0, "the schedule")
        return True

    def require_length(self, engine: Engine, name: str) -> None:
        """Raise a ``ValueError`` if the schedule ends before the trainer."""
        last = self._last_step(engine)
        if isinstance(self.scheduler, OneCycleLR) and last is not None and last > self.scheduler.total_steps:
            raise ValueError(
                f"{name} is planned for {self.scheduler.total_steps} steps, but the training ends at step {last}. Set its "
                "total_steps by the number of epochs, as the bundles do: "
                "$@train#trainer#max_epochs * len(@train#dataloader)."
            )

    def _last_step(self, engine: Engine) -> int | None:
        """Return the step at the end of the training, or None if it is not known."""
        by_epoch, length = self._by_epoch(engine), engine.state.epoch_length
        if by_epoch is None or length is None:
            return None
        epochs = max(engine.state.max_epochs - engine.state.epoch, 0)
        return self.scheduler.last_epoch + epochs * (1 if by_epoch else length)

    def _by_epoch(self, engine: Engine) -> bool | None:
        """Return whether the schedule makes a step per epoch; None if no ``LrScheduleHandler`` makes its steps."""
        handlers = [entry[0] for entries in engine._event_handlers.values() for entry in entries]
        for owner in (getattr(handler, "__self__", handler) for handler in handlers):
            if isinstance(owner, LrScheduleHandler) and owner.lr_scheduler is self.scheduler:
                return owner.epoch_level
        return None

    def _go_to(self, steps: int, name: str) -> None:
        for group, first in zip(self.scheduler.optimizer.param_groups, self._groups):
            group.update(deepcopy(first))
        self.scheduler.load_state_dict(deepcopy(self._state))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the steps of the optimizer were made before
                for _ in range(steps):
                    self.scheduler.step()
        except ValueError as error:
            raise ValueError(
                f"{name} has no learning rate for step {steps}: {error} Plan it for more steps."
            ) from error
