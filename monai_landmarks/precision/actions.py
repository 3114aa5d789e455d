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


"""What a search may do to a sigma."""

from __future__ import annotations

from enum import IntEnum

import torch

__all__ = ["Action", "SigmaRange"]


class Action(IntEnum):
    """One decision about one landmark: a narrower target, the same, a wider one, or the end of its search."""

    SHRINK = 0
    KEEP = 1
    GROW = 2
    STOP = 3


class SigmaRange:
    """
    The sigmas that a search may reach, and how far one action goes.

    Args:
        low: least sigma, in the unit of the loss; not below one voxel, where a Gaussian is no longer one.
        high: greatest sigma; not above what a predicted heatmap is decoded by: `HeatmapToLandmarks` looks 8 voxels around
            the maximum in 2-D and 6 in 3-D.
        step: factor of ``GROW``; ``SHRINK`` divides by it.

    Raises:
        ValueError: unless 0 < low < high and step > 1.

    Example:
        >>> SigmaRange(1.0, 10.0).apply(torch.tensor([4.0, 4.0, 9.0]), torch.tensor([Action.SHRINK, Action.STOP, Action.GROW]))
        tensor([ 3.2000,  4.0000, 10.0000])
    """

    def __init__(self, low: float = 1.0, high: float = 6.0, step: float = 1.25) -> None:
        if not 0 < low < high or not step > 1:
            raise ValueError(f"expected 0 < low < high and step > 1, got low={low}, high={high}, step={step}.")
        self.low, self.high, self.step = low, high, step

    def clamp(self, sigma: torch.Tensor) -> torch.Tensor:
        """Sigmas within the range."""
        return sigma.clamp(self.low, self.high)

    def apply(self, sigma: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """
        Args:
            sigma: (N,).
            actions: (N,) of :class:`Action`.

        Returns:
            (N,) sigmas after the actions.
        """
        factor = torch.tensor([1 / self.step, 1.0, self.step, 1.0], dtype=sigma.dtype)
        return self.clamp(sigma * factor[actions])

    def allowed(self, sigma: torch.Tensor) -> torch.Tensor:
        """(N, 4) which actions would change something, or are meant to change nothing."""
        mask = torch.ones(len(sigma), len(Action), dtype=torch.bool)
        mask[:, Action.SHRINK] = sigma > self.low * 1.001
        mask[:, Action.GROW] = sigma < self.high / 1.001
        return mask
