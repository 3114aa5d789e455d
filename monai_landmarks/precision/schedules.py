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


"""Rules that set sigma during a training without a search. They are the baselines of the search."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from .controller import Decision, PrecisionController, SigmaRange, ValidationResult
from .objective import PrecisionObjective
from .trajectory import PrecisionTrajectory

__all__ = ["Adaloss", "CalibratedSigma", "FixedSigma", "LinearSigma", "ReplayedSigma"]


class FixedSigma(PrecisionController):
    """
    The same sigma during the whole training.

    Args:
        sigma: sigma of all landmarks; None keeps the sigmas of the loss.
    """

    def __init__(self, sigma: float | None = None) -> None:
        self.sigma = sigma

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return the fixed sigma for each landmark, (N,)."""
        return sigma if self.sigma is None else torch.full_like(sigma, self.sigma)


class LinearSigma(PrecisionController):
    """
    A linear decay from a wide to a narrow target.

    Args:
        first: sigma at the start.
        last: sigma from ``until`` on.
        until: fraction of the training, 0 to 1.

    Raises:
        ValueError: for a number that is not positive.
    """

    def __init__(self, first: float = 6.0, last: float = 1.5, until: float = 0.75) -> None:
        if min(first, last, until) <= 0:
            raise ValueError(f"expected positive numbers, got first={first}, last={last}, until={until}.")
        self.first, self.last, self.until = first, last, until

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return the first sigma for each landmark, (N,)."""
        return torch.full_like(sigma, self.first)

    def update(self, validation: ValidationResult) -> Decision:
        """Return the sigma at the progress of the training."""
        part = min(validation.progress / self.until, 1.0)
        return Decision(torch.full_like(validation.sigma, self.first + part * (self.last - self.first)))


class Adaloss(PrecisionController):
    r"""
    Sigma from the variance of the latest training losses of each landmark (Teixeira et al., Adaloss, 2019).

    .. math:: \sigma_n \leftarrow \sigma_n + \rho \left(1 - V_n^\text{before} / V_n\right)

    Here V is the variance of the latest losses. Sigma shrinks while the losses settle. The published code can divide by
    zero and change sigma without limit. Here :math:`10^{-12}` is added to V, and a change is at most ``max_change``.

    Args:
        rate: :math:`\rho`.
        window: number of losses in a variance.
        max_change: largest change of sigma per validation.
        sigma_range: bounds of sigma.
        only_shrink: do not let sigma grow.
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

    def update(self, validation: ValidationResult) -> Decision:
        """Apply the rule. Sigma stays the same until there are losses for two windows."""
        self._losses = [*self._losses[-self.window :], validation.train_loss]
        if len(self._losses) <= self.window:
            return Decision(validation.sigma)
        losses = torch.stack(self._losses)
        before, now = (part.var(dim=0, correction=0) + 1e-12 for part in (losses[:-1], losses[1:]))
        change = (self.rate * (1 - before / now)).clamp(-self.max_change, self.max_change).nan_to_num()
        if self.only_shrink:
            change = change.clamp(max=0)
        return Decision(self.sigma_range.clamp(validation.sigma + change))

    def state_dict(self) -> dict[str, Any]:
        """Return the latest losses."""
        return {"losses": list(self._losses)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self._losses = list(state["losses"])


class CalibratedSigma(PrecisionController):
    """
    Sigma in proportion to the remaining error: ``margin`` times the standard deviation of the latest errors per axis.

    If the error does not depend on sigma, this is the minimum of :class:`PrecisionObjective`, found without a search.

    Args:
        spatial_dims: D.
        margin: ratio of sigma to that standard deviation.
        warmup: fraction of the training before the first change of sigma.
        until: fraction of the training after which sigma stays the same.
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
        self._history: list[ValidationResult] = []

    def update(self, validation: ValidationResult) -> Decision:
        """Return the calibrated sigmas. A landmark without a known error keeps its sigma."""
        self._history = [*self._history, validation][-self.objective.window :]
        if not self.warmup <= validation.progress < self.until:
            return Decision(validation.sigma)
        deviation = self.objective.deviation(self._history)
        return Decision(self.sigma_range.clamp(deviation.where(~deviation.isnan(), validation.sigma)))

    def state_dict(self) -> dict[str, Any]:
        """Return the latest validations."""
        return {"history": [v.state_dict() for v in self._history]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self._history = [ValidationResult.from_state_dict(v) for v in state["history"]]


class ReplayedSigma(PrecisionController):
    """
    The sigmas of an earlier training, at the same progress.

    The result of a search is thereby a recipe that needs no agent and no validation images, for example for the final
    training on all images.

    Args:
        path: trajectory file of the earlier training, see :class:`PrecisionTrajectory`.
        names: names of the landmarks of this training. None: the file may be of other landmarks.
        unit: unit of the sigmas of this training. None: the file may have another one.

    Raises:
        ValueError: if the file is not a trajectory, or one of other landmarks or in another unit.
    """

    def __init__(
        self, path: str | os.PathLike, names: Sequence[str] | None = None, unit: Literal["voxel", "mm"] | None = None
    ) -> None:
        self.trajectory = PrecisionTrajectory.read(path)
        for what, found, needed in (
            ("of the landmarks", self.trajectory.names, None if names is None else list(names)),
            ("in the unit", self.trajectory.unit, unit),
        ):
            if needed is not None and found != needed:
                raise ValueError(f"{path}: the record is {what} {found}, but this training is {what} {needed}.")

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return the first sigmas of the file, (N,).

        Raises:
            ValueError: if the file has another number of landmarks.
        """
        return self._at(0.0, sigma)

    def update(self, validation: ValidationResult) -> Decision:
        """Return the sigmas of the file at the progress of the training."""
        return Decision(self._at(validation.progress, validation.sigma))

    def _at(self, progress: float, like: torch.Tensor) -> torch.Tensor:
        sigma = torch.tensor(self.trajectory.sigma_at(progress), dtype=like.dtype)
        if len(sigma) != len(like):
            raise ValueError(f"the trajectory has {len(sigma)} landmarks and the loss has {len(like)}.")
        return sigma
