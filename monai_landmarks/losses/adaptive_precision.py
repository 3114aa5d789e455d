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


"""A heatmap loss with one sigma per landmark that can be set during training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn as nn
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_landmarks.spaces import plain_tensor

from .heatmap_cross_entropy import HeatmapCrossEntropyLoss
from .targets import ensure_batch_points

__all__ = ["AdaptivePrecisionLoss"]


class AdaptivePrecisionLoss(_Loss):
    r"""
    A heatmap loss with one sigma per landmark that can be changed while the network trains.

    Zhou et al. (IEEE JBHI 2021) search the precision of each target heatmap during training. This loss is what such a
    search changes. The sigmas can stay fixed, or be set by a schedule, a file or a search
    (:mod:`monai_landmarks.precision`), or by your own training loop with :meth:`set_sigma`.

    A change of sigma alone changes neither the magnitude of the loss nor the relative weight of a landmark. A sum over
    voxels is proportional to the size of the target, :math:`\sigma^D` for a peak of 1 and :math:`\sigma^{-D}` for a
    mass of 1. The term of each landmark is therefore multiplied by

    .. math:: w_n = c_0 / c(\sigma_n)

    where :math:`c(\sigma)` is the loss of a flat map and :math:`c_0` is its mean at the initial sigmas. The
    cross-entropy compares distributions of mass 1, is zero for a perfect prediction at every sigma, and has weights of
    1.

    Sigma, weights and the buffers of the base loss are in the ``state_dict``.

    Args:
        num_landmarks: N.
        spatial_dims: D, 2 or 3.
        base: the loss of heatmaps and targets: a :class:`VoxelwiseLoss`, such as :class:`HeatmapL2Loss` or
            :class:`EWCLoss`, or :class:`HeatmapCrossEntropyLoss`, the default. A copy of it is used, with another
            reduction and another sigma; the given object stays unchanged.
        sigma: initial sigma, one number or one per landmark, in mm if ``spacing`` is given, else in voxels.
        spacing: voxel size of the heatmaps in mm, one number or one per axis.
        weight_range: smallest and largest w.
        reduction: ``"mean"`` of the sums over voxels, over the maps that count; ``"sum"``; or ``"none"``: (B, N) terms,
            zero for maps that do not count.

    Raises:
        ValueError: for sigmas that are not N positive numbers, for a spacing that is not positive, or for a base whose
            target learns its sigma.

    Example:
        >>> loss = AdaptivePrecisionLoss(num_landmarks=3, spatial_dims=2, sigma=4.0)
        >>> value = loss(torch.zeros(1, 3, 32, 32), torch.full((1, 3, 2), 15.5))
        >>> loss.set_sigma([1.0, 2.0, 4.0])
        >>> loss.sigma, loss.landmark_loss.shape
        (tensor([1., 2., 4.]), torch.Size([3]))
    """

    base: Any
    weight: torch.Tensor
    sigma: torch.Tensor
    flat_cost: torch.Tensor

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        base: nn.Module | None = None,
        sigma: float | Sequence[float] = 4.0,
        spacing: float | Sequence[float] | None = None,
        weight_range: tuple[float, float] = (0.25, 16.0),
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        self.base = _copy_with_fixed_sigma(HeatmapCrossEntropyLoss() if base is None else base)
        self.num_landmarks, self.spatial_dims, self.weight_range = num_landmarks, spatial_dims, tuple(weight_range)
        voxel = torch.as_tensor(1.0 if spacing is None else spacing, dtype=torch.float32)
        if not bool((voxel > 0).all()):
            raise ValueError(f"spacing must be positive, got {spacing}.")
        self.register_buffer("voxel", voxel.expand(spatial_dims).clone(), persistent=False)
        self.register_buffer("sigma", torch.ones(num_landmarks))
        self.register_buffer("weight", torch.ones(num_landmarks))
        self.base.target.raw_sigma = torch.ones(num_landmarks, spatial_dims)
        self.landmark_loss: torch.Tensor | None = None
        self._write(sigma)
        self.register_buffer("flat_cost", self._cost_of_flat_maps().mean())
        self.set_sigma(sigma)

    def set_sigma(self, sigma: float | Sequence[float] | torch.Tensor) -> None:
        """
        Change the precision of the targets.

        Args:
            sigma: one number or one per landmark, in the unit of the constructor's ``sigma``.

        Raises:
            ValueError: for sigmas that are not N positive numbers.
        """
        self._write(sigma)
        self.weight.copy_((self.flat_cost / self._cost_of_flat_maps()).clamp(*self.weight_range))

    def _write(self, sigma: float | Sequence[float] | torch.Tensor) -> None:
        value = torch.as_tensor(sigma, dtype=torch.float32).detach().flatten().to(self.sigma.device)
        if value.numel() not in (1, self.num_landmarks) or not bool(((value > 0) & value.isfinite()).all()):
            raise ValueError(f"sigma must be one positive number or {self.num_landmarks} of them, got {sigma}.")
        self.sigma.copy_(value.expand(self.num_landmarks))
        self.base.target.raw_sigma.copy_(self.sigma[:, None] / self.voxel)

    @torch.no_grad()
    def _cost_of_flat_maps(self) -> torch.Tensor:
        """Loss of an empty map with the landmark in its middle, per landmark, (N,)."""
        if isinstance(self.base, HeatmapCrossEntropyLoss):
            return torch.ones_like(self.sigma)
        table = self.base.target.sigma_table(self.num_landmarks, self.spatial_dims)
        radius = [math.ceil(4 * s) for s in table.amax(dim=0).tolist()]
        flat = torch.zeros(1, self.num_landmarks, *(2 * r + 1 for r in radius), device=table.device)
        middle = torch.tensor(radius, dtype=torch.float32, device=table.device)
        return self.base(flat, middle.expand(1, self.num_landmarks, -1))[0]

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Args:
            input: predicted heatmaps (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D). NaN is missing.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``. In addition, the attribute ``landmark_loss`` is set to the
            mean of each landmark over the batch, (N,), without gradient. It is NaN if no map of a landmark
            counts.

        Raises:
            ValueError: for points that do not match the heatmaps, and for target heatmaps.
        """
        input, target = plain_tensor(input), plain_tensor(target)
        if target.shape == input.shape:
            raise ValueError(
                "AdaptivePrecisionLoss makes its targets from points: pass index points (B, N, D), not heatmaps."
            )
        points = ensure_batch_points(target, input)
        per_map = self.base(input, points) * self.weight
        counts = self.base.counted_maps(points, input.shape[2:])
        self.landmark_loss = per_map.detach().sum(dim=0) / counts.sum(dim=0).where(counts.any(dim=0), math.nan)
        if self.reduction == LossReduction.NONE.value:
            return per_map
        if self.reduction == LossReduction.SUM.value:
            return per_map.sum()
        return per_map.sum() / counts.sum().clamp(min=1)


def _copy_with_fixed_sigma(base: Any) -> Any:
    """A copy of the base loss that returns one term per map, if its sigma can be set."""
    if not hasattr(base, "target") or not hasattr(base, "counted_maps") or list(base.target.parameters()):
        raise ValueError(
            "base must be HeatmapL2Loss or another loss of maps whose target has a sigma that is not learned, got"
            f" {type(base).__name__}."
        )
    base = deepcopy(base)
    base.reduction = LossReduction.NONE.value
    return base
