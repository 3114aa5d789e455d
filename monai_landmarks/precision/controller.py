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


"""The interface that sets the sigmas of a training, and the values that pass through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import torch

__all__ = ["Action", "Decision", "PrecisionController", "SigmaRange", "ValidationResult"]


class Action(IntEnum):
    """A decision about the sigma of one landmark: make it smaller, keep it, make it larger, or end its search."""

    SHRINK = 0
    KEEP = 1
    GROW = 2
    STOP = 3


class SigmaRange:
    """
    The bounds of sigma and the size of one step.

    Args:
        low: smallest sigma, in the unit of the loss. Use at least one voxel: a narrower Gaussian is poorly sampled.
        high: largest sigma. Use at most the width that the decoder can see: ``HeatmapToLandmarks`` fits a window of 8
            voxels around the maximum in 2-D and of 6 voxels in 3-D.
        step: ``GROW`` multiplies sigma by this factor, ``SHRINK`` divides by it.

    Raises:
        ValueError: unless 0 < low < high and step > 1.

    Example:
        >>> actions = torch.tensor([Action.SHRINK, Action.STOP, Action.GROW])
        >>> SigmaRange(1.0, 10.0).apply(torch.tensor([4.0, 4.0, 9.0]), actions)
        tensor([ 3.2000,  4.0000, 10.0000])
    """

    def __init__(self, low: float = 1.0, high: float = 6.0, step: float = 1.25) -> None:
        if not 0 < low < high or not step > 1:
            raise ValueError(f"expected 0 < low < high and step > 1, got low={low}, high={high}, step={step}.")
        self.low, self.high, self.step = low, high, step

    def clamp(self, sigma: torch.Tensor) -> torch.Tensor:
        """Limit sigmas to the range."""
        return sigma.clamp(self.low, self.high)

    def apply(self, sigma: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """
        Change sigmas by one action per landmark.

        Args:
            sigma: (N,) sigmas.
            actions: (N,) values of :class:`Action`.

        Returns:
            (N,) new sigmas, within the range.
        """
        factor = torch.tensor([1 / self.step, 1.0, self.step, 1.0], dtype=sigma.dtype)
        return self.clamp(sigma * factor[actions])

    def allowed(self, sigma: torch.Tensor) -> torch.Tensor:
        """
        Mask the actions that would have no effect: ``SHRINK`` at the lower bound and ``GROW`` at the upper one.

        Args:
            sigma: (N,) sigmas.

        Returns:
            (N, 4) bool, one column per :class:`Action`.
        """
        # a tolerance of 0.1 %, because sigmas are products of rounded factors
        mask = torch.ones(len(sigma), len(Action), dtype=torch.bool)
        mask[:, Action.SHRINK] = sigma > self.low * 1.001
        mask[:, Action.GROW] = sigma < self.high / 1.001
        return mask


@dataclass(frozen=True)
class ValidationResult:
    """
    The result of one validation, per landmark. Unknown values are NaN.

    Attributes:
        progress: fraction of the training that is done, 0 to 1.
        sigma: (N,) sigmas with which the network was trained before this validation.
        error: (N,) mean radial error over the images, in the unit of sigma.
        square_error: (N,) mean squared radial error.
        train_loss: (N,) mean training loss since the previous validation.
        radius: (N,) mean width of the predicted heatmaps: the standard deviation per axis, in the unit of sigma.
        peak: (N,) mean height of the predicted heatmaps.
    """

    progress: float
    sigma: torch.Tensor
    error: torch.Tensor
    square_error: torch.Tensor
    train_loss: torch.Tensor
    radius: torch.Tensor
    peak: torch.Tensor

    @property
    def mean_error(self) -> float:
        """Mean error over the landmarks whose error is known."""
        return float(self.error.nanmean())

    def state_dict(self) -> dict[str, Any]:
        """Return all fields as tensors and plain values."""
        return asdict(self)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> ValidationResult:
        """Make a result from a :meth:`state_dict`."""
        return cls(**state)


@dataclass(frozen=True)
class Decision:
    """
    The sigmas until the next validation. A search adds how it came to them.

    Attributes:
        sigma: (N,) sigmas.
        action: (N,) values of :class:`Action`; None for a schedule.
        values: (N, 4) the agent's values of the actions, NaN for an agent without values.
        stopped: (N,) reason why the search of a landmark has ended; an empty string while it continues.
        reward: (N,) rewards of the previous actions, NaN for landmarks whose search has ended.
        previous_action: (N,) the previous actions. In a population they are those of the child that is kept.
        validation: in a population, the validation of the child that is kept.
        save_as: in a population, the name under which the current network must be saved.
        load: in a population, the name of the saved network that is trained next; None for the current network.
        complete: False if other children of a population follow.
    """

    sigma: torch.Tensor
    action: torch.Tensor | None = None
    values: torch.Tensor | None = None
    stopped: tuple[str, ...] | None = None
    reward: torch.Tensor | None = None
    previous_action: torch.Tensor | None = None
    validation: ValidationResult | None = None
    save_as: str | None = None
    load: str | None = None
    complete: bool = True


class PrecisionController:
    """
    Keep the sigmas of the loss unchanged.

    This is the base class of the search and of the schedules, which override :meth:`start` and :meth:`update`.

    Attributes:
        children: number of copies of the network that are trained for each decision.
    """

    children: int = 1

    @property
    def done(self) -> bool:
        """True if no search is in progress."""
        return True

    def start(self, sigma: torch.Tensor) -> torch.Tensor:
        """
        Set the sigmas until the first validation.

        Args:
            sigma: (N,) initial sigmas of the loss.

        Returns:
            (N,) sigmas to use.
        """
        return sigma

    def update(self, validation: ValidationResult) -> Decision:
        """
        Set the sigmas until the next validation.

        Args:
            validation: result of the latest validation.

        Returns:
            The decision.
        """
        return Decision(validation.sigma)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next update depends on, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
