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


"""When the search of a landmark ends, and with which sigma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .actions import Action

__all__ = ["Decisions", "NoImprovement", "Oscillation", "Settled", "StopChosen", "StopRule", "default_stop_rules"]


@dataclass(frozen=True)
class Decisions:
    """
    All decisions of a search so far, oldest first, the last one being made: tensors (T, N).

    Attributes:
        sigma: before the action.
        cost: with that sigma.
        best_action: what the agent takes to be best.
        gain: how much better its best move is than keeping sigma, in its values; NaN for an agent without values.
    """

    sigma: torch.Tensor
    cost: torch.Tensor
    best_action: torch.Tensor
    gain: torch.Tensor


class StopRule:
    """A reason to end the search of a landmark; a subclass says when."""

    reason = ""

    def __call__(self, decisions: Decisions) -> torch.Tensor:
        """(N,) the sigma to stay with, NaN for landmarks that are searched on."""
        raise NotImplementedError

    @staticmethod
    def _where(stop: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return sigma.where(stop, torch.nan)


class StopChosen(StopRule):
    """
    The agent takes stop to be best, several decisions in a row: no move promises anything.

    Args:
        times: how many.
    """

    reason = "stop chosen"

    def __init__(self, times: int = 2) -> None:
        self.times = times

    def __call__(self, decisions: Decisions) -> torch.Tensor:
        """Stay with the present sigma."""
        last = decisions.best_action[-self.times :] == Action.STOP
        return self._where(last.all(dim=0) & (len(last) == self.times), decisions.sigma[-1])


class Settled(StopRule):
    """
    No move is worth more than keeping sigma, several decisions in a row.

    Args:
        gain: least gain in value that would be worth a move.
        times: how many decisions.
    """

    reason = "settled"

    def __init__(self, gain: float = 0.02, times: int = 3) -> None:
        self.gain, self.times = gain, times

    def __call__(self, decisions: Decisions) -> torch.Tensor:
        """Stay with the present sigma."""
        last = decisions.gain[-self.times :] < self.gain
        return self._where(last.all(dim=0) & (len(last) == self.times), decisions.sigma[-1])


class Oscillation(StopRule):
    """
    Sigma goes up and down: the direction of its last changes alternates.

    Args:
        changes: how many changes, with no pause between them.
    """

    reason = "oscillation"

    def __init__(self, changes: int = 4) -> None:
        self.changes = changes

    def __call__(self, decisions: Decisions) -> torch.Tensor:
        """Stay with the geometric mean of the sigmas between which it went."""
        last = decisions.sigma[-self.changes - 1 :].log()
        direction = last.diff(dim=0).sign()
        alternates = (direction[1:] * direction[:-1] == -1).all(dim=0) & (len(direction) == self.changes)
        return self._where(alternates, last[-2:].mean(dim=0).exp())


class NoImprovement(StopRule):
    """
    The best cost is some decisions old: go back to the sigma that had it.

    Args:
        patience: how many decisions.
    """

    reason = "no improvement"

    def __init__(self, patience: int = 6) -> None:
        self.patience = patience

    def __call__(self, decisions: Decisions) -> torch.Tensor:
        """Go back to the sigma of the best cost."""
        cost = decisions.cost.nan_to_num(nan=torch.inf)
        best = cost.argmin(dim=0, keepdim=True)
        old = (len(cost) - 1 - best[0] >= self.patience) & cost.isfinite().any(dim=0)
        return self._where(old, decisions.sigma.gather(0, best)[0])


def default_stop_rules() -> Sequence[StopRule]:
    """All of the above, with their defaults; the first that holds gives the reason."""
    return (StopChosen(), Settled(), Oscillation(), NoImprovement())
