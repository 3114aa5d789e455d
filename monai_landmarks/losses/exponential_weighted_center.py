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
from .voxelwise import Missing, VoxelwiseLoss

__all__ = ["EWCLoss", "ExponentialWeightedCenterLoss"]


class ExponentialWeightedCenterLoss(VoxelwiseLoss):
    r"""
    The Exponential Weighted Center loss (FARNet, Ao and Wu), :math:`\sum_x \alpha^{t_n(x)} (h_n(x) - t_n(x))^2`.

    It is a squared error with a weight of 1 in the background, :math:`\sqrt{\alpha}` where the target is one half, and
    :math:`\alpha` at the landmark. The effect depends on the fraction of the map that the Gaussian fills. The table
    shows the share of the total weight that voxels with a target above 0.05 have, see :meth:`weight_share`:

    ========================  =========  ==========  =========  =========  =========  ==========
    map                       sigma      alpha 1     40         100        400        1000
    ========================  =========  ==========  =========  =========  =========  ==========
    800 x 640                 10         0.37 %      **2.0 %**  3.6 %      9.5 %      18 %
    400 x 320                 10         1.5 %       **7.7 %**  13 %       30 %       47 %
    96 x 96 x 192             4          0.22 %      0.74 %     1.2 %      2.6 %      4.6 %
    96 x 96 x 192             2          0.028 %     0.09 %     0.15 %     0.33 %     0.60 %
    ========================  =========  ==========  =========  =========  =========  ==========

    The published settings of the fine and the coarse heatmaps are in bold. In the volume at sigma 4, the same 2 %
    require an alpha of about 300. At sigma 2 no reasonable alpha reaches 2 %.

    Args:
        target: makes the target maps when the loss is called with points. Its peak must be 1. Default: sigma 3 voxels.
        alpha: weight at the landmark, at least 1. With 1 the loss is the squared error.
        missing: meaning of a NaN landmark: ``"ignore"``, ``"absent"`` or ``"chain"``, see :class:`VoxelwiseLoss`.
        reduction: ``"mean"``, the published form, over all voxels of the maps that count, not divided by the weights;
            ``"sum"``; or ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Raises:
        ValueError: for an alpha below 1, or a target whose peak is not 1: a peak of 10 would have a weight of alpha **
            10.

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
        missing: Missing = "ignore",
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(target, missing, reduction)
        if not alpha >= 1:
            raise ValueError(f"alpha must be at least 1, got {alpha}.")
        self.alpha = alpha

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Return the exponentially weighted squared error of each voxel."""
        return torch.pow(self.alpha, maps) * (heatmaps - maps).square()

    def voxel_slopes(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor, of_target: bool) -> Slopes:
        """Return the derivatives of :meth:`voxel_loss`."""
        error = heatmaps - maps
        slope = 2 * torch.pow(self.alpha, maps) * error
        return Slopes(slope, slope * (0.5 * math.log(self.alpha) * error - 1) if of_target else None)

    @torch.no_grad()
    def weight_share(self, spatial_shape: Sequence[int], num_landmarks: int = 1) -> float:
        """
        Share of the total weight that voxels with a target above 0.05 have, for landmarks in the middle of the map.

        Args:
            spatial_shape: D sizes of the heatmaps, in voxels.
            num_landmarks: N, required if the target has one sigma per landmark. The share is that of all maps together.

        Returns:
            A number between 0 and 1.
        """
        middle = torch.tensor([(size - 1) / 2 for size in spatial_shape], dtype=torch.float64)
        maps = self.target(middle.to(self.target.sigma.device).expand(num_landmarks, -1), tuple(spatial_shape))
        weight = torch.pow(self.alpha, maps.double())
        return float((weight * (maps > 0.05)).sum() / weight.sum())


EWCLoss = ExponentialWeightedCenterLoss
