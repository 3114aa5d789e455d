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


"""Sums over the voxels of heatmaps and Gaussian targets, computed in parts, so that no target map is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from monai_landmarks.heatmaps import outer_product

__all__ = ["Slopes", "VoxelTerm", "in_loss_precision", "loss_dtype", "sum_over_voxels"]

# A term holds about five intermediate results of a part at a time. With 128 parts they take less than 5 % of the memory
# of the heatmaps.
_NUM_PARTS = 128
# In smaller parts, the overhead of the calls is larger than the computation, and little memory is saved. A GPU starts
# about 20 kernels per part: a part must be large enough to keep it busy meanwhile. 2**24 voxels take 64 MiB in float32.
_LEAST_VOXELS = {"cpu": 2**16, "cuda": 2**24}
# Larger parts do not fit into the cache of a CPU.
_MOST_VOXELS = {"cpu": 2**16}


def loss_dtype(heatmaps: torch.Tensor) -> torch.dtype:
    """Return the type in which a loss is computed: float32 or float64. Half precision cannot sum a million voxels."""
    return torch.float64 if heatmaps.dtype == torch.float64 else torch.float32


def in_loss_precision(heatmaps: torch.Tensor) -> torch.Tensor:
    """Convert heatmaps to :func:`loss_dtype`."""
    return heatmaps.to(loss_dtype(heatmaps))


class Slopes(NamedTuple):
    """Derivatives of the term of each voxel, with the shape of the heatmaps. None means zero."""

    heatmaps: torch.Tensor
    maps: torch.Tensor | None = None
    peak: torch.Tensor | None = None


class VoxelTerm:
    """The term of one voxel in a loss. It is evaluated for a few rows of the maps at a time."""

    # True if the term depends on the targets of neighboring voxels: it is then evaluated for whole maps
    whole_maps = False

    def voxel_loss(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
        """
        Compute the term of each voxel.

        Args:
            heatmaps: predictions (b, n, rows, ...), in float32 or float64, as all arguments.
            maps: targets of the same shape; or a single zero, (1, 1, 1, ...), if the targets are zero in the whole
                part.
            peak: largest value of each complete target map, (b, n, 1, ...).

        Returns:
            (b, n, rows, ...).
        """
        raise NotImplementedError

    def voxel_slopes(self, heatmaps: torch.Tensor, maps: torch.Tensor, peak: torch.Tensor, of_target: bool) -> Slopes:
        """
        Compute the derivatives of :meth:`voxel_loss` by automatic differentiation. A subclass can override it with a
        faster formula.

        Args:
            heatmaps: see :meth:`voxel_loss`.
            maps: see :meth:`voxel_loss`.
            peak: see :meth:`voxel_loss`.
            of_target: also compute the derivatives with respect to ``maps`` and ``peak``.

        Returns:
            The derivatives.
        """
        with torch.enable_grad():
            heatmaps = heatmaps.detach().requires_grad_()
            maps, peak = (t.detach().expand_as(heatmaps).requires_grad_(of_target) for t in (maps, peak))
            value = self.voxel_loss(heatmaps, maps, peak)
        leaves = (heatmaps, maps, peak) if of_target else (heatmaps,)
        return Slopes(*torch.autograd.grad(value, leaves, torch.ones_like(value), materialize_grads=True))


def sum_over_voxels(term: VoxelTerm, heatmaps: torch.Tensor, factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """
    Sum a term over the voxels of each map, for targets that are a product of one factor per axis.

    Value and gradients are those of ``term.voxel_loss(heatmaps, outer_product(factors), peak)``, but targets are made
    for a few rows at a time. The backward pass makes them again. The only large tensor that it allocates is the
    gradient of the heatmaps.

    Args:
        term: the term of each voxel.
        heatmaps: (B, N, *spatial), any floating-point type, device and memory format.
        factors: D tensors (B, N, size of the axis), not negative, in :func:`loss_dtype`. They may require a gradient.

    Returns:
        (B, N), with the type of the factors.

    Raises:
        RuntimeError: in the backward pass with ``create_graph=True``: there are no second derivatives.
    """
    first, *others = factors
    peak = math.prod([factor.amax(dim=-1) for factor in others], start=first.amax(dim=-1))
    peak = peak.view(*peak.shape, *[1] * len(factors))
    return _SumOverVoxels.apply(term, heatmaps, peak, first, *others)


class _Part(NamedTuple):
    """The indices of a few rows, along the first spatial axis, of a few maps."""

    rows: tuple[slice, slice, slice]
    maps: tuple[slice, slice]

    def of(self, factors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the factors of this part: its rows of the first factor, and the other factors completely."""
        first, *others = factors
        return [first[self.rows], *(factor[self.maps] for factor in others)]


def _parts(heatmaps: torch.Tensor, whole_maps: bool) -> Iterator[_Part]:
    # at least 1, because an axis may be empty
    num_cases, num_maps, num_rows, row = (max(1, n) for n in (*heatmaps.shape[:3], heatmaps.shape[3:].numel()))
    kind = heatmaps.device.type
    voxels = max(heatmaps.numel() // _NUM_PARTS, _LEAST_VOXELS.get(kind, _LEAST_VOXELS["cuda"]))
    voxels = min(voxels, _MOST_VOXELS.get(kind, voxels))
    case_step, map_step = voxels // (num_maps * num_rows * row), voxels // (num_rows * row)
    if heatmaps.stride(1) < heatmaps.stride(2):  # channels last: one row of all maps is contiguous
        map_step, row_step = num_maps, voxels // (num_maps * row)
    else:
        row_step = voxels // row
    for cases in _slices(num_cases, case_step):
        for maps in _slices(num_maps, map_step):
            for rows in _slices(num_rows, num_rows if whole_maps else row_step):
                yield _Part((cases, maps, rows), (cases, maps))


def _slices(size: int, step: int) -> list[slice]:
    step = max(1, step)
    return [slice(start, start + step) for start in range(0, size, step)]


def _has_target(part: _Part, row_has_target: torch.Tensor | None) -> bool:
    return row_has_target is None or bool(row_has_target[part.rows].any())


def _target(part: _Part, factors: Sequence[torch.Tensor], has_target: bool) -> torch.Tensor:
    return outer_product(part.of(factors)) if has_target else factors[0].new_zeros([1] * (2 + len(factors)))


class _SumOverVoxels(torch.autograd.Function):
    """See :func:`sum_over_voxels`."""

    @staticmethod
    def forward(
        ctx: Any, term: VoxelTerm, heatmaps: torch.Tensor, peak: torch.Tensor, *factors: torch.Tensor
    ) -> torch.Tensor:
        # Far from the landmarks the targets are zero, which saves half of the work on a CPU. A GPU has few parts, and
        # to ask it takes longer than to compute them.
        row_has_target = factors[0] != 0 if heatmaps.device.type == "cpu" else None
        sums = torch.zeros_like(factors[0][..., 0])
        for part in _parts(heatmaps, term.whole_maps):
            maps = _target(part, factors, _has_target(part, row_has_target))
            values = term.voxel_loss(in_loss_precision(heatmaps[part.rows]), maps, peak[part.maps])
            sums[part.maps] += values.flatten(2).sum(dim=-1)
        ctx.term, ctx.row_has_target = term, row_has_target
        ctx.save_for_backward(heatmaps, peak, *factors)
        return sums

    @staticmethod
    def backward(ctx: Any, *sums_gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "a heatmap loss that is called with points has no second derivatives (create_graph=True): call it with "
                "target heatmaps, which GaussianTarget makes from points."
            )
        heatmaps, peak, *factors = ctx.saved_tensors
        scale = sums_gradient[0].view_as(peak)
        of_target = any(ctx.needs_input_grad[2:])
        gradient = torch.empty_like(heatmaps)
        of_peak, *of_factors = (torch.zeros_like(tensor) for tensor in (peak, *factors))
        for part in _parts(heatmaps, ctx.term.whole_maps):
            has_target = _has_target(part, ctx.row_has_target)
            maps = _target(part, factors, has_target)
            slopes = ctx.term.voxel_slopes(
                in_loss_precision(heatmaps[part.rows]), maps, peak[part.maps], of_target and has_target
            )
            here = scale[part.maps]
            torch.mul(slopes.heatmaps, here, out=gradient[part.rows])
            if slopes.maps is not None:
                for total, found in zip(part.of(of_factors), _of_factors(part.of(factors), slopes.maps * here)):
                    total += found
            if slopes.peak is not None:
                of_peak[part.maps] += (slopes.peak * here).flatten(2).sum(dim=-1).view_as(here)
        return (None, gradient, *((of_peak, *of_factors) if of_target else [None] * (1 + len(factors))))


def _of_factors(factors: Sequence[torch.Tensor], gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients of the factors, from the gradient of their product."""
    with torch.enable_grad():
        leaves = [factor.detach().requires_grad_() for factor in factors]
        product = outer_product(leaves)
    return torch.autograd.grad(product, leaves, gradient)
