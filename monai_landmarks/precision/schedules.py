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


"""Sigmas that follow a rule: the baselines of a search, and its recipe without an agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from .actions import SigmaRange
from .controller import Decision, PrecisionController
from .evaluation import Evaluation
from .objective import PrecisionObjective
from .trajectory import PrecisionTrajectory

__all__ = ["Adaloss", "CalibratedSigma", "FixedSigma", "LinearSigma", "ReplayedSigma"]


class FixedSigma(PrecisionController):
    """
    The same sigma throughout.

    Args:
        sigma: of all landmarks; None keeps that of the loss.
    """

    def __init__(self, sigma: float | None = None) -> None:
        self.sigma = sigma

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """That sigma."""
        return sigma if self.sigma is None else torch.full_like(sigma, self.sigma)


class LinearSigma(PrecisionController):
    """
    From wide to narrow in a straight line.

    Args:
        first: sigma at the start.
        last: sigma from ``until`` on.
        until: part of the training, 0 to 1.

    Raises:
        ValueError: for numbers that are not positive.
    """

    def __init__(self, first: float = 6.0, last: float = 1.5, until: float = 0.75) -> None:
        if min(first, last, until) <= 0:
            raise ValueError(f"expected positive numbers, got first={first}, last={last}, until={until}.")
        self.first, self.last, self.until = first, last, until

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """The first sigma."""
        return torch.full_like(sigma, self.first)

    def update(self, evaluation: Evaluation) -> Decision:
        """The sigma of that progress."""
        part = min(evaluation.progress / self.until, 1.0)
        return Decision(torch.full_like(evaluation.sigma, self.first + part * (self.last - self.first)))


class Adaloss(PrecisionController):
    r"""
    Sigma by the variance of the last training losses of each landmark (Teixeira et al., Adaloss, 2019):

    .. math:: \sigma_n \leftarrow \sigma_n + \rho \left(1 - V_n^\text{before} / V_n\right)

    with the variance V of the last losses. It shrinks while the losses settle. The published code can divide by zero and
    move sigma without limit: here :math:`10^{-12}` is added to V, and a change is at most ``max_change``.

    Args:
        rate: rho.
        window: losses in a variance.
        max_change: greatest change of sigma at once.
        sigma_range: bounds of sigma.
        only_shrink: never let it grow.
    """

    def __init__(
        self,
        rate: float = 0.9,
        window: int = 3,
        max_change: float = 1.0,
        sigma_range: SigmaRange | None = None,
        only_shrink: bool = False,
    ) -> None:
        self.rate, self.window, self.max_change, self.only_shrink = rate, window, max_change, only_shrink
        self.sigma_range = sigma_range or SigmaRange()
        self._losses: list[torch.Tensor] = []

    def update(self, evaluation: Evaluation) -> Decision:
        """The rule, once there are losses for two windows."""
        self._losses = [*self._losses[-self.window :], evaluation.train_loss]
        if len(self._losses) <= self.window:
            return Decision(evaluation.sigma)
        losses = torch.stack(self._losses)
        before, now = (part.var(dim=0, correction=0) + 1e-12 for part in (losses[:-1], losses[1:]))
        change = (self.rate * (1 - before / now)).clamp(-self.max_change, self.max_change).nan_to_num()
        if self.only_shrink:
            change = change.clamp(max=0)
        return Decision(self.sigma_range.clamp(evaluation.sigma + change))

    def state_dict(self) -> dict[str, Any]:
        """The last losses."""
        return {"losses": list(self._losses)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
        self._losses = list(state["losses"])


class CalibratedSigma(PrecisionController):
    """
    Sigma follows the error that remains: after each validation, ``margin`` times the standard deviation of the last errors
    along an axis.

    This is where :class:`PrecisionObjective` has its minimum if the error does not depend on sigma, without any search.

    Args:
        spatial_dims: D.
        margin: sigma is this many times that deviation.
        warmup: part of the training in which sigma stays.
        until: part of the training after which it stays.
        sigma_range: bounds of sigma.
    """

    def __init__(
        self,
        spatial_dims: int,
        margin: float = 2.0,
        warmup: float = 0.15,
        until: float = 0.75,
        sigma_range: SigmaRange | None = None,
    ) -> None:
        self.objective = PrecisionObjective(spatial_dims, margin=margin)
        self.warmup, self.until, self.sigma_range = warmup, until, sigma_range or SigmaRange()
        self._history: list[Evaluation] = []

    def update(self, evaluation: Evaluation) -> Decision:
        """The deviation, where it is known."""
        self._history = [*self._history, evaluation][-self.objective.window :]
        if not self.warmup <= evaluation.progress < self.until:
            return Decision(evaluation.sigma)
        deviation = self.objective.deviation(self._history)
        return Decision(self.sigma_range.clamp(deviation.where(~deviation.isnan(), evaluation.sigma)))

    def state_dict(self) -> dict[str, Any]:
        """The last validations."""
        return {"history": [e.state_dict() for e in self._history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
        self._history = [Evaluation.from_state(e) for e in state["history"]]


class ReplayedSigma(PrecisionController):
    """
    The sigmas of an earlier training, at the same progress: a search's result as a recipe that needs no agent and no
    validation images, such as for the final training on all images.

    Args:
        path: trajectory file of the earlier training.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.trajectory = PrecisionTrajectory.read(path)

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """The first sigmas of the file.

        Raises:
            ValueError: when the file has another number of landmarks.
        """
        return self._at(0.0, sigma)

    def update(self, evaluation: Evaluation) -> Decision:
        """The sigmas of the file at that progress."""
        return Decision(self._at(evaluation.progress, evaluation.sigma))

    def _at(self, progress: float, like: torch.Tensor) -> torch.Tensor:
        sigma = torch.tensor(self.trajectory.sigma_at(progress), dtype=like.dtype)
        if len(sigma) != len(like):
            raise ValueError(f"the trajectory has {len(sigma)} landmarks and the loss has {len(like)}.")
        return sigma
