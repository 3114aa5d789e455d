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

"""Squared heatmap error whose targets have a learned covariance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_landmarks.spaces import plain_tensor

from .targets import LearnedCovarianceTarget, ensure_batch_points
from .voxel_sum import in_loss_precision
from .voxelwise import Missing, counted_maps, reduce_sums, require_missing

__all__ = ["LearnedCovarianceLoss"]

# a little below the ceilings of the default weights, 1.85 and 2.18 voxels
_SIGMA = {2: 1.73, 3: 2.0}
_AMPLITUDE = {2: 100.0, 3: 1000.0}


class LearnedCovarianceLoss(_Loss):
    r"""
    Squared heatmap error plus a penalty on the learned covariance of each landmark (Thaler et al., MELBA 2021).

    .. math::
        L = \frac{1}{2B} \sum_b \sum_n \sum_x (h_{bn}(x) - t_{bn}(x; \Sigma_n))^2
            + \frac{\alpha}{B} \sum_b \sum_{n \text{ present in } b} |\Sigma_n|^p

    As in :class:`SCNLoss`, the target is a Gaussian with integral :math:`\gamma`, which costs more the narrower it is.
    Here it may have another width in each direction, so that the covariance shows in which direction a landmark is
    uncertain. The paper has this in 2-D; the same formula serves 3-D here. The determinant of a landmark that cannot be
    located at all converges to :meth:`determinant_ceiling`.

    A mirrored or turned image has a mirrored or turned uncertainty, but the covariance is learned along the axes of the
    network's grid. So it describes images as they are after the augmentation.

    Unlike the other losses, this one stores its target maps: a turned Gaussian is not a product of one factor per axis.
    The covariance is a parameter of this loss: give it to the optimizer, without weight decay
    (:func:`parameter_groups`).

    Args:
        num_landmarks: N.
        spatial_dims: 2 or 3. It selects the defaults of the other arguments.
        sigma: initial standard deviation in voxels, one number or N. Default: 1.73 in 2-D, the published variance of 3;
            2 in 3-D.
        amplitude: :math:`\gamma`, the integral of the target. Default: 100 in 2-D, 1000 in 3-D.
        covariance_weight: :math:`\alpha`.
        exponent: :math:`p`.
        missing: meaning of a NaN landmark: ``"ignore"``, ``"absent"`` or ``"chain"``, see :class:`VoxelwiseLoss`.
            Missing landmarks never add to the penalty on the covariance.
        reduction: ``"sum"``, the form above, divided by the batch size only; ``"mean"``, the same, divided by the
            number of landmarks and voxels; ``"none"``, (B, N) terms of the double sum, including the penalty.

    Raises:
        ValueError: for other dimensions, an unknown ``missing``, or a sigma or amplitude that is not positive.

    Example:
        >>> loss = LearnedCovarianceLoss(num_landmarks=1, spatial_dims=2)
        >>> loss(torch.zeros(1, 1, 32, 32), torch.tensor([[[16.0, 16.0]]])).round()
        tensor(178., grad_fn=<RoundBackward0>)
        >>> loss.covariance.shape
        torch.Size([1, 2, 2])
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma: float | Sequence[float] | None = None,
        amplitude: float | None = None,
        covariance_weight: float = 5.0,
        exponent: float = 1.0,
        missing: Missing = "ignore",
        reduction: LossReduction | str = LossReduction.SUM,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        self.num_landmarks, self.spatial_dims = num_landmarks, spatial_dims
        self.covariance_weight, self.exponent = covariance_weight, exponent
        self.target = LearnedCovarianceTarget(
            num_landmarks,
            spatial_dims,
            _SIGMA[spatial_dims] if sigma is None else sigma,
            _AMPLITUDE[spatial_dims] if amplitude is None else amplitude,
        )
        require_missing(missing)
        self.missing: Missing = missing

    @property
    def covariance(self) -> torch.Tensor:
        """Covariance of each landmark in squared voxels, (N, D, D)."""
        return self.target.covariance

    def determinant_ceiling(self) -> float:
        """Return the determinant of the covariance of a landmark that cannot be located at all, in voxels^(2 D)."""
        energy = self.target.amplitude**2 / (4 * torch.pi) ** (self.spatial_dims / 2)
        width = (energy / (4 * self.exponent * self.covariance_weight)) ** (1 / (2 * self.exponent + 1))
        return width**2

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Args:
            input: predicted heatmaps (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D), NaN where missing.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``.

        Raises:
            ValueError: for points that do not match the heatmaps, and for target heatmaps: the covariance can only be
                learned from points.
        """
        input, target = plain_tensor(input), plain_tensor(target)
        if target.shape == input.shape:
            raise ValueError(
                "LearnedCovarianceLoss makes its targets from points: pass index points (B, N, D), not heatmaps."
            )
        heatmaps = in_loss_precision(input)
        points = ensure_batch_points(target, heatmaps).to(heatmaps.dtype)
        expected = (self.num_landmarks, self.spatial_dims)
        if tuple(points.shape[1:]) != expected:
            raise ValueError(
                f"there are {points.shape[1]} landmarks in {points.shape[2]}-D, but the loss is for {expected[0]} in"
                f" {expected[1]}-D."
            )
        unknown = points.isnan().any(dim=-1)
        maps = self.target(points, heatmaps.shape[2:])
        counted = counted_maps(unknown, self.missing)
        per_map = 0.5 * (heatmaps - maps).square().flatten(2).sum(dim=-1)
        per_map = torch.where(counted, per_map, 0)
        determinant = self.target.diagonal.to(per_map.dtype).prod(dim=-1).square()
        per_map = per_map + self.covariance_weight * determinant**self.exponent * ~unknown
        return reduce_sums(per_map, self.reduction, input.shape[2:].numel())
