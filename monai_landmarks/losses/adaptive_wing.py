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
from .voxelwise import VoxelwiseLoss

__all__ = ["AdaptiveWingLoss"]


class AdaptiveWingLoss(VoxelwiseLoss):
    r"""
    A loss between heatmaps that is steep for small errors near the landmark and square in the background (Wang et al.,
    ICCV 2019, equation 3).

    With the error :math:`e = |h_n(x) - t_n(x)|` and the target :math:`t = t_n(x)` of a voxel,

    .. math::
        L = \begin{cases}
            \omega \ln\left(1 + (e / \epsilon)^{\alpha - t}\right) & e < \theta \\
            A e - C & \text{otherwise}
        \end{cases}

    A and C make value and slope continuous at theta:
    :math:`A = \omega \frac{r}{1 + r} \frac{\alpha - t}{\theta}` and :math:`C = \theta A - \omega \ln(1 + r)` with
    :math:`r = (\theta / \epsilon)^{\alpha - t}`.

    Args:
        target: makes the target maps when the loss is called with points. Its peak must be 1. Default: sigma 3 voxels.
        omega: height of the logarithmic part.
        epsilon: error at which the logarithmic part bends.
        alpha: above 2, so that the exponent is above 1 up to the peak of the target: only then does the slope go to zero
            with the error.
        theta: error beyond which the loss is linear.
        foreground_weight: W of the published weighted loss: a voxel whose 3 x 3 (x 3) neighborhood reaches a target of
            0.2 weighs 1 + W, every other 1. The paper has 10.
        missing: what a NaN landmark means. ``"ignore"``: its position is unknown, it adds nothing to the loss.
            ``"absent"``: it is known not to be in the image, its target is a flat zero map.
        reduction: ``"mean"`` over all voxels of the maps that count (weights are not divided out), ``"sum"``, or
            ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Raises:
        ValueError: for omega, epsilon or theta that are not positive, alpha of 2 or less, a negative foreground weight,
            or a target whose peak is not 1.

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
        missing: str = "ignore",
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(target, missing, reduction)
        if not min(omega, epsilon, theta) > 0:
            raise ValueError(f"omega, epsilon and theta must be positive, got {omega}, {epsilon} and {theta}.")
        if not alpha > 2:
            raise ValueError(f"alpha must be above 2, one more than the largest target, got {alpha}.")
        if foreground_weight < 0:
            raise ValueError(f"foreground_weight must not be negative, got {foreground_weight}.")
        self.omega, self.epsilon, self.alpha, self.theta = omega, epsilon, alpha, theta
        self.foreground_weight = foreground_weight
        self.whole_maps = foreground_weight > 0

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Adaptive wing of each voxel."""
        error = (heatmaps - maps).abs()
        exponent = self.alpha - maps
        r = torch.pow(self.theta / self.epsilon, exponent)
        slope = self.omega * r / (1 + r) * exponent / self.theta
        # the wing up to theta plus the line beyond it: the form without C, in which no large numbers cancel
        wing = self.omega * torch.log1p((error.clamp(max=self.theta) / self.epsilon) ** exponent)
        # at theta itself the gradient is that of the clamp above; relu has none there, a second clamp would double it
        loss = wing + slope * F.relu(error - self.theta)
        if self.foreground_weight > 0:
            dilate = F.max_pool2d if maps.ndim == 4 else F.max_pool3d
            loss = loss * (1 + self.foreground_weight * (dilate(maps, 3, stride=1, padding=1) >= 0.2))
        return loss
