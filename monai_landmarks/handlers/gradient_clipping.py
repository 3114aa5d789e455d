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

"""Gradient clipping for MONAI trainers."""

from __future__ import annotations

import torch
from monai.engines.utils import IterationEvents
from torch.nn.utils import clip_grad_norm_

from .engine_output import Engine

__all__ = ["GradientClipping"]


class GradientClipping:
    """Limit the total norm of the gradients of all parameters before each step of the optimizer.

    The published SCN trainings clip at 1e4 (cephalograms) to 1e5 (vertebrae), with a loss that is a sum over voxels.

    Args:
        optimizer: the trainer's optimizer, whose parameters are clipped.
        max_norm: largest Euclidean norm of the gradients. None disables clipping.

    Raises:
        ValueError: if ``max_norm`` is not positive.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float | None) -> None:
        if max_norm is not None and max_norm <= 0:
            raise ValueError(f"max_norm must be positive, got {max_norm}.")
        self.optimizer = optimizer
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Add the handler to a trainer.

        Args:
            engine: a MONAI trainer.
        """
        if self.max_norm is not None:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)

    def _clip(self, engine: Engine) -> None:
        assert self.max_norm is not None
        scaler = getattr(engine, "scaler", None)
        if scaler is not None:
            # under mixed precision the gradients still carry the loss scale; the scaler does not unscale them a second
            # time
            scaler.unscale_(self.optimizer)
        clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], self.max_norm)
