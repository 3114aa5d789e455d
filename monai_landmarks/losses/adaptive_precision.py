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


"""A heatmap loss whose target has a precision of its own for each landmark, which others may set while training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_landmarks.spaces import plain_tensor

from .heatmap_cross_entropy import HeatmapCrossEntropyLoss
from .targets import as_batch_points
from .voxelwise import counted_maps

__all__ = ["AdaptivePrecisionLoss"]


class AdaptivePrecisionLoss(_Loss):
    r"""
    Any heatmap loss with one sigma per landmark, which may change while the network trains.

    Zhou et al. (IEEE JBHI 2021) search the precision of each target heatmap during training. This is what such a search
    acts on; who sets the sigmas is left open: nobody (fixed), a schedule, a file, a search
    (:mod:`monai_landmarks.precision`), or your own loop through :meth:`set_sigma`.

    A change of sigma in itself changes neither the size of the loss nor how much a landmark counts beside the others. A
    sum over voxels grows with the size of the target, :math:`\sigma^D` for a peak of 1 and :math:`\sigma^{-D}` for a mass
    of 1, so the term of each landmark is multiplied by

    .. math:: w_n = c_0 / c(\sigma_n)

    with c what a flat map costs at that sigma, and :math:`c_0` its mean at the first sigmas. The cross-entropy compares
    distributions of mass 1, is zero for a perfect prediction at every sigma, and needs no weight.

    Args:
        num_landmarks: N.
        spatial_dims: D, 2 or 3.
        base: the loss of a pair of heatmap and target: a :class:`VoxelwiseLoss` such as ``HeatmapL2Loss`` or ``EWCLoss``,
            or :class:`HeatmapCrossEntropyLoss`, the default. The sigma of its target and its reduction are set here.
        sigma: first sigma, a number or one per landmark; in mm where ``spacing`` is given, else in voxels.
        spacing: size of a voxel of the heatmaps in mm, a number or one per axis.
        weight_range: least and greatest w.
        reduction: ``"mean"`` over the maps that count, of their sums over voxels; ``"sum"``; or ``"none"``: (B, N) terms,
            zero for maps that do not count.

    Raises:
        ValueError: for sigmas that are not N positive numbers, or a base whose target learns its sigma.

    Sigma, weights and the base's buffers are in the ``state_dict``.

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
        self.base = _with_fixed_sigma(HeatmapCrossEntropyLoss() if base is None else base)
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

    def set_sigma(self, sigma: float | Sequence[float] | torch.Tensor) -> None:
        """
        Change the precision of the targets.

        Args:
            sigma: a number or one per landmark, in mm or voxels as in the constructor.

        Raises:
            ValueError: for sigmas that are not N positive numbers.
        """
        self._write(sigma)
        self.weight.copy_((self.flat_cost / self._cost_of_flat_maps()).clamp(*self.weight_range))

    def _write(self, sigma: Any) -> None:
        value = torch.as_tensor(sigma, dtype=torch.float32).detach().flatten().to(self.sigma.device)
        if value.numel() not in (1, self.num_landmarks) or not bool(((value > 0) & value.isfinite()).all()):
            raise ValueError(f"sigma must be one positive number or {self.num_landmarks} of them, got {sigma}.")
        self.sigma.copy_(value.expand(self.num_landmarks))
        self.base.target.raw_sigma.copy_(self.sigma[:, None] / self.voxel)

    @torch.no_grad()
    def _cost_of_flat_maps(self) -> torch.Tensor:
        """(N,) losses of an empty map with the landmark in its middle."""
        if isinstance(self.base, HeatmapCrossEntropyLoss):
            return torch.ones_like(self.sigma)
        table = self.base.target.sigma_table(self.num_landmarks, self.spatial_dims)
        radius = [math.ceil(4 * s) for s in table.amax(dim=0).tolist()]
        flat = torch.zeros(1, self.num_landmarks, *(2 * r + 1 for r in radius), device=table.device)
        middle = torch.tensor(radius, dtype=torch.float32, device=table.device)
        return self.base(flat, middle.expand(1, self.num_landmarks, -1))[0]

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: predicted heatmaps (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D). NaN is missing.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``. ``landmark_loss`` is then the mean of each landmark over the
            batch, (N,), without gradient, NaN where the batch has none of it.

        Raises:
            ValueError: for points that do not belong to the heatmaps, and for target heatmaps.
        """
        input, target = plain_tensor(input), plain_tensor(target)
        if target.shape == input.shape:
            raise ValueError("AdaptivePrecisionLoss makes its targets itself: pass index points, not heatmaps.")
        points = as_batch_points(target, input)
        per_map = self.base(input, points) * self.weight
        known = ~points.isnan().any(dim=-1)
        self.landmark_loss = per_map.detach().sum(dim=0) / known.sum(dim=0).where(known.any(dim=0), math.nan)
        if self.reduction == LossReduction.NONE.value:
            return per_map
        if self.reduction == LossReduction.SUM.value:
            return per_map.sum()
        counts = counted_maps(~known, getattr(self.base, "missing", "ignore"))
        return per_map.sum() / counts.sum().clamp(min=1)


def _with_fixed_sigma(base: Any) -> Any:
    """The base loss, which gives a term per map from now on, if a sigma can be set in it."""
    if not hasattr(base, "target") or list(base.target.parameters()):
        raise ValueError(
            f"base must be a loss whose target has a fixed sigma, to be set here; got {type(base).__name__}."
        )
    base.reduction = LossReduction.NONE.value
    return base
