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

"""The squared error between predicted and target heatmaps."""

from __future__ import annotations

import torch
from monai.utils import LossReduction

from .targets import GaussianTarget
from .voxel_sum import Slopes
from .voxelwise import Missing, VoxelwiseLoss

__all__ = ["HeatmapL2Loss"]


class HeatmapL2Loss(VoxelwiseLoss):
    r"""
    Squared error between heatmaps, :math:`\sum_x w_n(x) (h_n(x) - t_n(x))^2`.

    Args:
        target: makes the target maps when the loss is called with points. Default: sigma 3 voxels, peak 1. On a large
            image the background dominates a peak of 1; 10 to 100 trains better.
        missing: meaning of a NaN landmark: ``"ignore"``, ``"absent"`` or ``"chain"``, see :class:`VoxelwiseLoss`.
        foreground_weight: f in :math:`w_n(x) = 1 + f\, t_n(x) / a`, where a is the largest value of the target in the
            map: the additional weight at the landmark, or at the nearest voxels if the landmark is outside the map.
            With 0 all voxels have the same weight, and the predicted maps may stay flat for a long time, because a flat
            map has a small error in almost all voxels.
        reduction: ``"mean"`` over all voxels of the maps that count, not divided by the weights; ``"sum"``; or
            ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Raises:
        ValueError: for a negative ``foreground_weight``.

    Example:
        >>> loss = HeatmapL2Loss(GaussianTarget(sigma=2.0, amplitude=10.0))
        >>> points = torch.tensor([[[8.0, 9.5], [float("nan"), float("nan")]]])
        >>> prediction = GaussianTarget(sigma=2.0, amplitude=10.0)(points, (24, 24))
        >>> loss(prediction, points)
        tensor(0.)
    """

    def __init__(
        self,
        target: GaussianTarget | None = None,
        missing: Missing = "ignore",
        foreground_weight: float = 0.0,
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(target, missing, reduction)
        if foreground_weight < 0:
            raise ValueError(f"foreground_weight must not be negative, got {foreground_weight}.")
        self.foreground_weight = foreground_weight

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Return the weighted squared error of each voxel."""
        squared = (heatmaps - maps).square()
        if self.foreground_weight > 0:
            squared = squared * (1 + self.foreground_weight * maps / _divisor(peak))
        return squared

    def voxel_slopes(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor, of_target: bool) -> Slopes:
        """Return the derivatives of :meth:`voxel_loss`."""
        error = heatmaps - maps
        if self.foreground_weight == 0:
            return Slopes(2 * error, -2 * error if of_target else None)
        peak = _divisor(peak)
        slope = 2 * (1 + self.foreground_weight * maps / peak) * error
        if not of_target:
            return Slopes(slope)
        of_weight = self.foreground_weight / peak * error.square()
        return Slopes(slope, of_weight - slope, -of_weight * maps / peak)


def _divisor(peak: torch.Tensor) -> torch.Tensor:
    """The peak, or 1 for an empty target."""
    return torch.where(peak > 0, peak, torch.ones_like(peak))
