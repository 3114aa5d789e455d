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

"""The loss of SpatialConfiguration-Net: heatmap regression with a learned target width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_landmarks.spaces import plain_tensor

from .targets import GaussianTarget
from .voxel_sum import Slopes, VoxelTerm
from .voxelwise import Missing, reduce_sums, require_missing, sum_per_map

__all__ = ["SCNLoss"]


class SCNLoss(_Loss, VoxelTerm):
    r"""
    Squared heatmap error plus a penalty on the learned sigma of each landmark (Payer et al., MedIA 2019).

    .. math::
        L = \frac{1}{2B} \sum_b \sum_n \sum_x (h_{bn}(x) - t_{bn}(x; \sigma_n))^2
            + \frac{\alpha}{2B} \sum_b \sum_{n \text{ present in } b} \sigma_n^2

    The target is a Gaussian with integral :math:`\gamma`. A narrow Gaussian is high, which costs more if the network
    cannot locate the landmark. Sigma converges to a value that increases with the uncertainty of the landmark, below a
    ceiling of :math:`(\gamma^2 / 4 \pi \alpha)^{1/4}` voxels in 2-D and :math:`(3 \gamma^2 / (2 (4\pi)^{3/2}
    \alpha))^{1/5}` voxels in 3-D. For another spacing, choose :math:`\alpha` by the ceiling.

    The sum over a map is large. The published settings use SGD with learning rates of 5e-8 to 1e-6. Adam does not
    depend on the scale. Sigma is a parameter of this loss: give it to the optimizer, without weight decay
    (:func:`parameter_groups`).

    Args:
        num_landmarks: N.
        spatial_dims: 2 or 3. It selects the published defaults of the other arguments.
        sigma: initial sigma in voxels, one number or N. Default: 2.5 in 2-D, 4 in 3-D.
        amplitude: :math:`\gamma`, the integral of the target. Default: 100 in 2-D, 1000 in 3-D.
        sigma_weight: :math:`\alpha`. Default: 20 in 2-D, 100 in 3-D.
        learn_sigma: False keeps sigma constant and omits the penalty.
        missing: meaning of a NaN landmark: ``"ignore"``, ``"absent"`` as in the published code, or ``"chain"``, see
            :class:`VoxelwiseLoss`. Missing landmarks never add to the penalty on sigma.
        reduction: ``"sum"``, the published form above, divided by the batch size only; ``"mean"``, the same, divided by
            the number of landmarks and voxels; ``"none"``, (B, N) terms of the double sum, including the penalty.

    Raises:
        ValueError: if ``spatial_dims`` is not 2 or 3, or for an unknown ``missing`` or ``reduction``.

    Example:
        >>> loss = SCNLoss(num_landmarks=19, spatial_dims=2)
        >>> loss.sigma.shape, round(loss.sigma_ceiling(), 2)
        (torch.Size([19]), 2.51)
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma: float | Sequence[float] | None = None,
        amplitude: float | None = None,
        sigma_weight: float | None = None,
        learn_sigma: bool = True,
        missing: Missing = "ignore",
        reduction: LossReduction | str = LossReduction.SUM,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        flat = spatial_dims == 2
        self.num_landmarks, self.spatial_dims = num_landmarks, spatial_dims
        self.sigma_weight = (20.0 if flat else 100.0) if sigma_weight is None else sigma_weight
        initial = torch.as_tensor((2.5 if flat else 4.0) if sigma is None else sigma, dtype=torch.float32)
        self.target = GaussianTarget(
            # one row per landmark, because a flat list could also mean one value per axis
            sigma=initial.flatten().expand(num_landmarks)[:, None],
            normalize="mass",
            amplitude=(100.0 if flat else 1000.0) if amplitude is None else amplitude,
            learnable=learn_sigma,
        )
        self.learn_sigma = learn_sigma
        require_missing(missing)
        self.missing: Missing = missing

    @property
    def sigma(self) -> torch.Tensor:
        """Sigma of each landmark in voxels, (N,)."""
        return self.target.sigma[:, 0]

    def sigma_ceiling(self) -> float:
        """Return the sigma in voxels of a landmark that cannot be located at all."""
        ratio = self.target.amplitude**2 / self.sigma_weight
        if self.spatial_dims == 2:
            return (ratio / (4 * torch.pi)) ** 0.25
        return (1.5 * ratio / (4 * torch.pi) ** 1.5) ** 0.2

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """Return half of the squared error of each voxel."""
        return 0.5 * (heatmaps - maps).square()

    def voxel_slopes(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor, of_target: bool) -> Slopes:
        """Return the derivatives of :meth:`voxel_loss`."""
        error = heatmaps - maps
        return Slopes(error, -error if of_target else None)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Args:
            input: predicted heatmaps (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D), NaN where missing.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``.

        Raises:
            ValueError: for points that do not match the heatmaps, and for target heatmaps: sigma can only be learned
                from points.
        """
        input, target = plain_tensor(input), plain_tensor(target)
        if target.shape == input.shape:
            raise ValueError("SCNLoss makes its targets from points: pass index points (B, N, D), not heatmaps.")
        per_map, _ = sum_per_map(self, input, target, self.target, self.missing)
        if self.learn_sigma:
            present = (~target.isnan().any(dim=-1)).reshape(per_map.shape).to(per_map)
            per_map = per_map + 0.5 * self.sigma_weight * self.sigma.square() * present
        return reduce_sums(per_map, self.reduction, input.shape[2:].numel())
