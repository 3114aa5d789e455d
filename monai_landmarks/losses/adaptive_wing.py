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

"""The Adaptive Wing loss for heatmaps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.utils import LossReduction

from .targets import GaussianTarget
from .voxelwise import Missing, VoxelwiseLoss

__all__ = ["AdaptiveWingLoss"]


class AdaptiveWingLoss(VoxelwiseLoss):
    r"""
    The Adaptive Wing loss (Wang et al., ICCV 2019, equation 3).

    It is steep for small errors near the landmark and quadratic in the background. With the error
    :math:`e = |h_n(x) - t_n(x)|` and the target :math:`t = t_n(x)` of a voxel,

    .. math::
        L = \begin{cases}
            \omega \ln\left(1 + (e / \epsilon)^{\alpha - t}\right) & e < \theta \\
            A e - C & \text{otherwise}
        \end{cases}

    A and C make value and slope continuous at :math:`\theta`:
    :math:`A = \omega \frac{r}{1 + r} \frac{\alpha - t}{\theta}` and :math:`C = \theta A - \omega \ln(1 + r)` with
    :math:`r = (\theta / \epsilon)^{\alpha - t}`.

    Args:
        target: makes the target maps when the loss is called with points. Its peak must be 1. Default: sigma 3 voxels.
        omega: height of the logarithmic part.
        epsilon: scale of the error in the logarithmic part.
        alpha: larger than 2. The exponent is then larger than 1 up to the peak of the target, so that the slope goes to
            zero with the error.
        theta: error above which the loss is linear.
        foreground_weight: W of the published weighted loss. A voxel has weight 1 + W if a target of at least 0.2 is in
            its 3 x 3 (x 3) neighborhood, and weight 1 otherwise. The paper uses 10.
        missing: meaning of a NaN landmark: ``"ignore"``, ``"absent"`` or ``"chain"``, see :class:`VoxelwiseLoss`.
        reduction: ``"mean"`` over all voxels of the maps that count, not divided by the weights; ``"sum"``; or
            ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Raises:
        ValueError: for omega, epsilon or theta that are not positive, an alpha of 2 or less, a negative foreground
            weight, or a target whose peak is not 1.

    Example:
        >>> loss = AdaptiveWingLoss(GaussianTarget(sigma=2.0), foreground_weight=10.0)
        >>> points = torch.tensor([[[8.0, 9.5], [float("nan"), float("nan")]]])
        >>> prediction = GaussianTarget(sigma=2.0)(points, (24, 24))
        >>> loss(prediction, points)
        tensor(0.)
    """

    unit_targets = True

    def __init__(
        self,
        target: GaussianTarget | None = None,
        omega: float = 14.0,
        epsilon: float = 1.0,
        alpha: float = 2.1,
        theta: float = 0.5,
        foreground_weight: float = 0.0,
        missing: Missing = "ignore",
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(target, missing, reduction)
        if not min(omega, epsilon, theta) > 0:
            raise ValueError(f"omega, epsilon and theta must be positive, got {omega}, {epsilon} and {theta}.")
        if not alpha > 2:
            raise ValueError(f"alpha must be larger than 2, got {alpha}.")
        if foreground_weight < 0:
            raise ValueError(f"foreground_weight must not be negative, got {foreground_weight}.")
        self.omega, self.epsilon, self.alpha, self.theta = omega, epsilon, alpha, theta
        self.foreground_weight = foreground_weight
        self.whole_maps = foreground_weight > 0

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Return the Adaptive Wing term of each voxel."""
        error = (heatmaps - maps).abs()
        exponent = self.alpha - maps
        r = torch.pow(self.theta / self.epsilon, exponent)
        slope = self.omega * r / (1 + r) * exponent / self.theta
        # the logarithmic part up to theta plus the linear part above it: without C, so that no large numbers cancel
        wing = self.omega * torch.log1p((error.clamp(max=self.theta) / self.epsilon) ** exponent)
        # at an error of exactly theta, only the clamp above has a gradient: relu has none, a second clamp would add one
        loss = wing + slope * F.relu(error - self.theta)
        if self.foreground_weight > 0:
            dilate = F.max_pool2d if maps.ndim == 4 else F.max_pool3d
            loss = loss * (1 + self.foreground_weight * (dilate(maps, 3, stride=1, padding=1) >= 0.2))
        return loss
