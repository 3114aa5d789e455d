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


"""What sets the sigmas of a training: the interface that searches and schedules share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .evaluation import Evaluation

__all__ = ["Decision", "PrecisionController"]


@dataclass(frozen=True)
class Decision:
    """
    The sigmas for the time until the next validation, and what a search has to tell about them.

    Attributes:
        sigma: (N,).
        action: (N,) of :class:`Action`, or None where nobody decided.
        reward: (N,) of the actions before, NaN for landmarks that are not searched any more.
        taken: (N,) those actions: in a population, of the child that goes on.
        values: (N, 4) of the actions, NaN where the agent has none.
        stopped: (N,) why the search of a landmark has ended, empty while it goes on.
        save_as: in a population, the name under which the present network is to be kept.
        load: and the one with which to go on; None for the present one.
        evaluation: and the validation of that child.
        complete: False between the children of a population.
    """

    sigma: torch.Tensor
    action: torch.Tensor | None = None
    reward: torch.Tensor | None = None
    taken: torch.Tensor | None = None
    values: torch.Tensor | None = None
    stopped: tuple[str, ...] | None = None
    save_as: str | None = None
    load: str | None = None
    evaluation: Evaluation | None = None
    complete: bool = True


class PrecisionController:
    """Keeps the sigmas of the loss as they are. Searches and schedules are subclasses."""

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """
        Args:
            sigma: (N,) of the loss as it was made.

        Returns:
            (N,) for the time until the first validation.
        """
        return sigma

    def update(self, evaluation: Evaluation) -> Decision:
        """
        Args:
            evaluation: the validation that is just done.

        Returns:
            what holds until the next.
        """
        return Decision(evaluation.sigma)

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
