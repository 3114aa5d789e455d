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


"""The scale of the gradients of a training in float16."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from monai.engines.utils import IterationEvents
from torch.nn.utils import get_total_norm

from .engine_output import Engine, Events

__all__ = ["GradientScale"]

LARGEST_FLOAT16 = 65504.0


class _Inferer(Protocol):
    def dtype_on(self, device: torch.device) -> torch.dtype: ...


class GradientScale:
    """Scale the loss of a training in float16 such that the gradients fit into its range.

    torch's ``GradScaler`` starts with a scale of 65536 and halves it after each overflow. The loss of a heatmap network
    is often a sum over voxels. Its gradients are so large that only scales below about 100 fit, so that ten to twenty
    steps are lost at the start, and another one each time that the scale grows again. This handler starts at 1. After
    each step it chooses the scale at which the largest gradient of a parameter will be near ``largest``. A step that
    overflows nevertheless is skipped, as with ``GradScaler``, and the next scale is 64 times smaller.

    Nothing happens if the network does not compute in float16: bfloat16 has the range of float32.

    Args:
        optimizer: the optimizer of the trainer.
        inferer: the inferer of the trainer, an :class:`~monai_landmarks.inferers.AutocastInferer`.
        largest: the largest scaled gradient that is aimed for. The default leaves a factor of 64 for gradients that
            grow, and for those of feature maps, which can be larger than those of the parameters.

    Raises:
        ValueError: if ``largest`` is not in the range of float16.

    Note:
        Attach this handler before :class:`ResumeTraining`, which saves and loads the scale, and before
        :class:`GradientClipping`, which divides the gradients by it.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, inferer: _Inferer, largest: float = LARGEST_FLOAT16 / 64
    ) -> None:
        if not 0 < largest < LARGEST_FLOAT16:
            raise ValueError(f"largest must be between 0 and {LARGEST_FLOAT16}, got {largest}.")
        self.optimizer = optimizer
        self.inferer = inferer
        self.largest = largest
        self._is_active = False
        self._scale: torch.Tensor | None = None
        self._next_scale: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Add the handler to a trainer.

        Args:
            engine: a MONAI trainer.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._measure)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._set_scale)

    def _start(self, engine: Engine) -> None:
        device = torch.device(engine.state.device)
        self._is_active, self._scale = self.inferer.dtype_on(device) == torch.float16, None
        if not self._is_active:
            return
        engine.amp, engine.amp_kwargs = True, {"enabled": False}  # the inferer turns autocast on, on any device
        scaler: Any = torch.amp.GradScaler(device.type, init_scale=1.0)  # the parent of the class that MONAI names
        engine.scaler = scaler

    def _measure(self, engine: Engine) -> None:
        if not self._is_active or engine.scaler is None:
            return
        if self._scale is None:  # once: the first scale, or the one that ResumeTraining has loaded
            self._scale = torch.full((), engine.scaler.get_scale(), device=engine.state.device)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        greatest = get_total_norm(gradients, norm_type=float("inf")) / self._scale
        fitting = torch.exp2(torch.floor(torch.log2(self.largest / greatest))).clamp(2.0**-16, 2.0**16)
        self._next_scale = torch.where(torch.isfinite(greatest), fitting, self._scale / 64)

    def _set_scale(self, engine: Engine) -> None:
        if self._next_scale is not None and engine.scaler is not None:
            self._scale, self._next_scale = self._next_scale, None
            engine.scaler.update(self._scale)
