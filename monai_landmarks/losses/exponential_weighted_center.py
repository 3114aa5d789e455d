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

"""The Exponential Weighted Center loss of FARNet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.utils import LossReduction

from .targets import GaussianTarget
from .voxel_sum import Slopes
from .voxelwise import VoxelwiseLoss

__all__ = ["EWCLoss", "ExponentialWeightedCenterLoss"]


class ExponentialWeightedCenterLoss(VoxelwiseLoss):
    r"""
    Squared error that counts exponentially more near the landmark (FARNet, Ao and Wu),
    :math:`\sum_x \alpha^{t_n(x)} (h_n(x) - t_n(x))^2`.

    A voxel weighs 1 in the background, :math:`\sqrt{\alpha}` where the target is one half, and alpha at the landmark.
    How far that lifts the landmark out of the background depends on how much of the map its Gaussian fills. The share of
    all weight that falls on voxels with a target above 0.05, see :meth:`weight_share`:

    ========================  =========  ==========  =========  =========  =========  ==========
    map                       sigma      alpha 1     40         100        400        1000
    ========================  =========  ==========  =========  =========  =========  ==========
    800 x 640                 10         0.37 %      **2.0 %**  3.6 %      9.5 %      18 %
    400 x 320                 10         1.5 %       **7.7 %**  13 %       30 %       47 %
    96 x 96 x 192             4          0.22 %      0.74 %     1.2 %      2.6 %      4.6 %
    96 x 96 x 192             2          0.028 %     0.09 %     0.15 %     0.33 %     0.60 %
    ========================  =========  ==========  =========  =========  =========  ==========

    The two in bold are the published settings, of the fine and the coarse heatmaps. The same 2 % needs an alpha of about
    300 in the volume at sigma 4; at sigma 2 no sensible alpha reaches it.

    Args:
        target: makes the target maps when the loss is called with points. Its peak must be 1. Default: sigma 3 voxels.
        alpha: weight at the landmark, at least 1. At 1 this is the plain squared error.
        missing: what a NaN landmark means. ``"ignore"``: its position is unknown, it adds nothing to the loss.
            ``"absent"``: it is known not to be in the image, its target is a flat zero map.
        reduction: ``"mean"``, the published form, over all voxels of the maps that count (weights are not divided out);
            ``"sum"``; or ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Raises:
        ValueError: for alpha below 1, or a target whose peak is not 1: with a peak of 10 the weight would be alpha ** 10.

    Example:
        >>> loss = ExponentialWeightedCenterLoss(GaussianTarget(sigma=10.0), alpha=40.0)
        >>> points = torch.tensor([[[30.0, 20.5], [float("nan"), float("nan")]]])
        >>> prediction = GaussianTarget(sigma=10.0)(points, (64, 48))
        >>> loss(prediction, points)
        tensor(0.)
        >>> round(loss.weight_share((800, 640)), 3)
        0.02
    """

    unit_targets = True

    def __init__(
        self,
        target: GaussianTarget | None = None,
        alpha: float = 40.0,
        missing: str = "ignore",
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(target, missing, reduction)
        if not alpha >= 1:
            raise ValueError(f"alpha must be at least 1, so that no voxel counts less near the landmark, got {alpha}.")
        self.alpha = alpha

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Exponentially weighted squared error of each voxel."""
        return torch.pow(self.alpha, maps) * (heatmaps - maps).square()

    def voxel_slopes(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor, of_target: bool) -> Slopes:
        """Derivatives of :meth:`voxel_loss`."""
        error = heatmaps - maps
        slope = 2 * torch.pow(self.alpha, maps) * error
        return Slopes(slope, slope * (0.5 * math.log(self.alpha) * error - 1) if of_target else None)

    @torch.no_grad()
    def weight_share(self, spatial_shape: Sequence[int], num_landmarks: int = 1) -> float:
        """
        Share of all weight that falls on voxels with a target above 0.05, for landmarks in the middle of the map.

        Args:
            spatial_shape: D sizes of the heatmaps, in voxels.
            num_landmarks: needed only where the target has a sigma for each landmark; the share is that of all maps.

        Returns:
            A number between 0 and 1.
        """
        middle = torch.tensor([(size - 1) / 2 for size in spatial_shape], dtype=torch.float64)
        maps = self.target(middle.to(self.target.sigma.device).expand(num_landmarks, -1), tuple(spatial_shape))
        weight = torch.pow(self.alpha, maps.double())
        return float((weight * (maps > 0.05)).sum() / weight.sum())


EWCLoss = ExponentialWeightedCenterLoss
