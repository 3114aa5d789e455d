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

"""What losses that compare heatmaps voxel by voxel have in common: targets, missing landmarks, reduction."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_landmarks.spaces import plain_tensor

from .targets import GaussianTarget, as_batch_points
from .voxel_sum import VoxelTerm, in_loss_precision, loss_dtype, sum_over_voxels

__all__ = ["VoxelwiseLoss", "check_missing", "counted_maps", "sum_per_map"]

_MISSING = ("ignore", "absent", "chain")


def check_missing(missing: str) -> str:
    """Return ``missing`` if it is one of the three meanings, else raise ValueError."""
    if missing not in _MISSING:
        raise ValueError(f"missing must be 'ignore', 'absent' or 'chain', got {missing!r}.")
    return missing


def counted_maps(unknown: torch.Tensor, missing: str) -> torch.Tensor:
    """
    Which maps a loss counts.

    Args:
        unknown: (B, N) bool, landmarks without a position.
        missing: ``"ignore"``: none of these. ``"absent"``: all maps. ``"chain"``: not those of unknown landmarks next to one
            that is there.

    Returns:
        (B, N) bool.

    Example:
        >>> counted_maps(torch.tensor([[True, True, False, False, True]]), "chain").tolist()
        [[True, False, True, True, False]]
    """
    if missing == "ignore":
        return ~unknown
    if missing == "absent":
        return torch.ones_like(unknown)
    known = ~unknown
    beside = torch.zeros_like(known)
    beside[:, 1:] |= known[:, :-1]
    beside[:, :-1] |= known[:, 1:]
    return known | ~beside


def sum_per_map(
    term: VoxelTerm, heatmaps: torch.Tensor, target: torch.Tensor, make_target: GaussianTarget, missing: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Sum of a term over the voxels of each map, and which maps the loss counts.

    Args:
        term: what a voxel adds.
        heatmaps: predictions (B, N, *spatial).
        target: index points (B, N, D) or (B, 1, N, D), NaN where missing: the targets are made part by part and never
            stored. Or maps of the shape of ``heatmaps``, where a map with a NaN is missing.
        make_target: makes targets from points.
        missing: ``"ignore"``: the position is unknown, the map counts not at all. ``"absent"``: the landmark is known
            not to be in the image, its target is flat zero. ``"chain"``: see :class:`VoxelwiseLoss`.

    Returns:
        sums (B, N), zero where a map does not count, and weights (B, N), 0 or 1.
    """
    dtype = loss_dtype(heatmaps)
    if target.shape == heatmaps.shape:
        unknown = target.flatten(2).isnan().any(dim=-1)
        ones = [1] * (target.ndim - 2)
        maps = torch.nan_to_num(target) * ~unknown.view(*unknown.shape, *ones)
        maps = maps.to(heatmaps.device, dtype)
        peak = maps.flatten(2).amax(dim=-1).view(*unknown.shape, *ones)
        sums = term.voxel_loss(in_loss_precision(heatmaps), maps, peak).flatten(2).sum(dim=-1)
    else:
        points = as_batch_points(target, heatmaps)
        unknown = points.isnan().any(dim=-1)
        sums = sum_over_voxels(term, heatmaps, make_target.factors(points, heatmaps.shape[2:], dtype))
    weight = counted_maps(unknown, missing).to(heatmaps.device, dtype)
    return sums * weight, weight


class VoxelwiseLoss(_Loss, VoxelTerm):
    """
    A sum over the voxels of each map; a subclass says in ``voxel_loss`` what a voxel adds.

    Called with points, it needs no memory for targets: they are made for a few rows at a time, in the forward and again in
    the backward pass. Beside the gradient of the heatmaps, that takes less than 5 % of their size, or a few MiB where that
    is more, for any number of landmarks.

    Args:
        target: makes the target maps when the loss is called with points. Default: sigma 3 voxels, peak 1.
        missing: what a NaN landmark means. ``"ignore"``: its position is unknown, it adds nothing to the loss.
            ``"absent"``: it is known not to be in the image, its target is a flat zero map. ``"chain"``: landmarks follow each
            other, as vertebrae do, and all that are wholly in the image have a position; the next one at either end may be
            there in part, and is ignored, and those beyond it are absent.
        reduction: ``"mean"`` over all voxels of the maps that count (weights are not divided out), ``"sum"``, or
            ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Raises:
        ValueError: for an unknown ``missing`` or ``reduction``; for targets whose peak is not 1, where
            ``unit_targets`` says that the formula needs it.
    """

    unit_targets = False

    def __init__(
        self,
        target: GaussianTarget | None = None,
        missing: str = "ignore",
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        self.target = target or GaussianTarget()
        self.missing = check_missing(missing)
        if self.unit_targets and (self.target.normalize != "peak" or self.target.amplitude != 1):
            raise ValueError(
                f"{type(self).__name__} has the target in an exponent, so the target's peak must be 1; got "
                f"normalize={self.target.normalize!r}, amplitude={self.target.amplitude}. "
                "Use GaussianTarget(sigma, normalize='peak', amplitude=1.0)."
            )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: predicted heatmaps (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D), or target heatmaps of the shape of ``input``. NaN is missing.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``.

        Raises:
            ValueError: for points that do not belong to the heatmaps; for target heatmaps outside [0, 1], where the
                formula needs that.
        """
        input, target = plain_tensor(input), plain_tensor(target)
        if self.unit_targets and target.shape == input.shape:
            self._check_unit(target.detach())
        per_map, weight = sum_per_map(self, input, target, self.target, self.missing)
        if self.reduction == LossReduction.SUM.value:
            return per_map.sum()
        if self.reduction == LossReduction.MEAN.value:
            return per_map.sum() / (weight.sum() * input.shape[2:].numel()).clamp(min=1)
        return per_map

    def _check_unit(self, maps: torch.Tensor) -> None:
        # a map with a NaN is missing; resampled maps are off by rounding
        low, high = (float(v) for v in torch.nan_to_num(maps).aminmax())
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(
                f"{type(self).__name__} needs target heatmaps in [0, 1], got values from {low:.4g} to {high:.4g}: "
                "divide them by their peak."
            )
