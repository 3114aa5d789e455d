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

"""The squared difference between predicted and target heatmaps."""

from __future__ import annotations

import torch
from monai.utils import LossReduction

from .targets import GaussianTarget
from .voxel_sum import Slopes
from .voxelwise import VoxelwiseLoss

__all__ = ["HeatmapL2Loss"]


class HeatmapL2Loss(VoxelwiseLoss):
    r"""
    Squared error between heatmaps, :math:`\sum_x w_n(x) (h_n(x) - t_n(x))^2`.

    Args:
        target: makes the target maps when the loss is called with points. Default: sigma 3 voxels, peak 1. A peak of
            1 on a large image is easily drowned by the background; 10 to 100 trains better.
        missing: what a NaN landmark means. ``"ignore"``: its position is unknown, it adds nothing to the loss.
            ``"absent"``: it is known not to be in the image, its target is a flat zero map.
        foreground_weight: f in :math:`w_n(x) = 1 + f\, t_n(x) / a` with the target's peak a: how much more a voxel at
            the landmark counts than one in the background. At 0 all count alike, and a network may stay flat for long,
            because a flat map is almost right almost everywhere.
        reduction: ``"mean"`` over all voxels of the maps that count (weights are not divided out), ``"sum"``, or
            ``"none"``: (B, N) sums per map, zero for maps that do not count.

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
        missing: str = "ignore",
        foreground_weight: float = 0.0,
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(target, missing, reduction)
        if foreground_weight < 0:
            raise ValueError(f"foreground_weight must not be negative, got {foreground_weight}.")
        self.foreground_weight = foreground_weight

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Weighted squared error of each voxel."""
        squared = (heatmaps - maps).square()
        if self.foreground_weight > 0:
            squared = squared * (1 + self.foreground_weight * maps / _divisor(peak))
        return squared

    def voxel_slopes(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor, of_target: bool) -> Slopes:
        """Derivatives of :meth:`voxel_loss`."""
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
    """The peak, or 1 where there is no target."""
    return torch.where(peak > 0, peak, torch.ones_like(peak))
