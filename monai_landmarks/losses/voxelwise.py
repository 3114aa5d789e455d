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

"""Base of the losses that compare heatmaps voxel by voxel: targets, missing landmarks, reduction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_landmarks.spaces import plain_tensor

from .targets import GaussianTarget, ensure_batch_points
from .voxel_sum import VoxelTerm, in_loss_precision, loss_dtype, sum_over_voxels

__all__ = ["Missing", "VoxelwiseLoss", "counted_maps", "reduce_sums", "require_missing", "sum_per_map"]

Missing = Literal["ignore", "absent", "chain"]


def require_missing(missing: str) -> None:
    """Raise ``ValueError`` unless ``missing`` is one of the three meanings."""
    if missing not in get_args(Missing):
        raise ValueError(f"missing must be one of {get_args(Missing)}, got {missing!r}.")


def counted_maps(unknown: torch.Tensor, missing: Missing) -> torch.Tensor:
    """
    Find the maps that a loss counts.

    Args:
        unknown: (B, N) bool, landmarks without a position.
        missing: ``"ignore"``: maps of unknown landmarks do not count. ``"absent"``: all maps count. ``"chain"``: maps
            of unknown landmarks do not count if a neighbor in the chain is known.

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


def reduce_sums(per_map: torch.Tensor, reduction: str, num_voxels: int) -> torch.Tensor:
    """
    Reduce the sums over the voxels of each map, where a sum is divided by the batch size only.

    Args:
        per_map: (B, N).
        reduction: ``"none"``, ``"sum"`` or ``"mean"``, which also divides by the number of landmarks and voxels.
        num_voxels: number of voxels of a map.

    Returns:
        A scalar, or (B, N) for ``"none"``.
    """
    if reduction == LossReduction.NONE.value:
        return per_map
    total = per_map.sum() / len(per_map)
    return total / (per_map.shape[1] * num_voxels) if reduction == LossReduction.MEAN.value else total


def sum_per_map(
    term: VoxelTerm, heatmaps: torch.Tensor, target: torch.Tensor, make_target: GaussianTarget, missing: Missing
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Sum a term over the voxels of each map, and find the maps that the loss counts.

    Args:
        term: the term of each voxel.
        heatmaps: predictions (B, N, *spatial).
        target: index points (B, N, D) or (B, 1, N, D), NaN where missing; their target maps are made in parts and never
            stored. Or target maps with the shape of ``heatmaps``; a map that contains NaN is missing.
        make_target: makes targets from points.
        missing: meaning of a NaN landmark, see :class:`VoxelwiseLoss`.

    Returns:
        Sums (B, N), zero for maps that do not count, and weights (B, N), 0 or 1.
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
        points = ensure_batch_points(target, heatmaps)
        unknown = points.isnan().any(dim=-1)
        sums = sum_over_voxels(term, heatmaps, make_target.factors(points, heatmaps.shape[2:], dtype))
    weight = counted_maps(unknown, missing).to(heatmaps.device, dtype)
    return sums * weight, weight


class VoxelwiseLoss(_Loss, VoxelTerm):
    """
    Base class of the losses that are a sum over the voxels of each map.

    A subclass implements ``voxel_loss``, the term of one voxel.

    Called with points, the loss does not store target maps. It makes them for a few rows at a time, in the forward pass
    and again in the backward pass. In addition to the gradient of the heatmaps, this takes less than 5 % of the memory
    of the heatmaps, or a few MiB if that is more, for any number of landmarks.

    Args:
        target: makes the target maps when the loss is called with points. Default: sigma 3 voxels, peak 1.
        missing: meaning of a NaN landmark.

            - ``"ignore"``: its position is unknown. Its map does not count.
            - ``"absent"``: it is not in the image. Its target is a flat zero map.
            - ``"chain"``: the landmarks form a chain, such as vertebrae. All that are completely in the image have a
              position. The next landmark at either end may be partly in the image and is ignored. The landmarks beyond
              it are absent.
        reduction: ``"mean"`` over all voxels of the maps that count, not divided by the weights; ``"sum"``; or
            ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Raises:
        ValueError: for an unknown ``missing`` or ``reduction``; for targets whose peak is not 1, if the formula of the
            loss requires a peak of 1 (``unit_targets``).
    """

    # True if the formula requires targets between 0 and 1
    unit_targets = False

    def __init__(
        self,
        target: GaussianTarget | None = None,
        missing: Missing = "ignore",
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        self.target = target or GaussianTarget()
        require_missing(missing)
        self.missing: Missing = missing
        if self.unit_targets and (self.target.normalize != "peak" or self.target.amplitude != 1):
            raise ValueError(
                f"{type(self).__name__} uses the target as an exponent, so the target's peak must be 1; got "
                f"normalize={self.target.normalize!r}, amplitude={self.target.amplitude}. "
                "Use GaussianTarget(sigma, normalize='peak', amplitude=1.0)."
            )

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Args:
            input: predicted heatmaps (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D), or target heatmaps with the shape of ``input``. NaN is
                missing.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``.

        Raises:
            ValueError: for points that do not match the heatmaps; for target heatmaps outside [0, 1], if the formula of
                the loss requires that range.
        """
        input, target = plain_tensor(input), plain_tensor(target)
        if self.unit_targets and target.shape == input.shape:
            self._require_unit(target.detach())
        per_map, weight = sum_per_map(self, input, target, self.target, self.missing)
        if self.reduction == LossReduction.SUM.value:
            return per_map.sum()
        if self.reduction == LossReduction.MEAN.value:
            return per_map.sum() / (weight.sum() * input.shape[2:].numel()).clamp(min=1)
        return per_map

    def counted_maps(self, points: torch.Tensor, spatial_shape: Sequence[int]) -> torch.Tensor:
        """
        Find the maps that count, see ``missing``.

        Args:
            points: index points (B, N, D).
            spatial_shape: of the heatmaps. A landmark outside them counts: its target is the part of the Gaussian in
                the map.

        Returns:
            (B, N) bool.
        """
        return counted_maps(points.isnan().any(dim=-1), self.missing)

    def _require_unit(self, maps: torch.Tensor) -> None:
        # a map that contains NaN is missing; resampled maps have rounding errors
        low, high = (float(v) for v in torch.nan_to_num(maps).aminmax())
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(
                f"{type(self).__name__} requires target heatmaps in [0, 1], got values from {low:.4g} to {high:.4g}: "
                "divide them by their peak."
            )
