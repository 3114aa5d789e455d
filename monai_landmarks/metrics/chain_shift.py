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
"""Errors of a chain of structures, such as vertebrae, that may be shifted as a whole by one or more of them."""

from __future__ import annotations

from typing import NamedTuple

import torch

from monai_landmarks.spaces import plain_tensor

__all__ = ["ChainShift", "best_chain_shift"]


class ChainShift(NamedTuple):
    """Result of :func:`best_chain_shift`."""

    shift: torch.Tensor
    """Number of structures by which the prediction is shifted along the chain, (...). 0 means that it is not shifted."""
    errors: torch.Tensor
    """(..., N) distance of each predicted landmark from the ground truth of the structure that it shows, NaN for
    landmarks beyond the end of the chain."""


def best_chain_shift(pred: torch.Tensor, target: torch.Tensor, size: int = 1, max_shift: int = 3) -> ChainShift:
    """Find the shift of a whole chain that explains the prediction best.

    A network often finds each vertebra exactly and counts wrongly, so that all of them are named as their neighbors.
    The mean error then mixes two faults. The errors after the best shift show how exact the points are, and the shift
    shows whether they were counted correctly.

    With shift s, structure v of the prediction is compared with structure v + s of the ground truth. The best shift has
    the smallest mean error of all landmarks that have a partner. If two shifts are equally good, the smaller one is
    chosen.

    Args:
        pred: (..., N, D) predicted points, structure by structure along the chain. NaN is missing.
        target: true points of the same shape. NaN is missing.
        size: number of landmarks of each structure, for example 4 for the corners of vertebrae.
        max_shift: largest shift that is tried, in both directions. At least half of the structures always overlap.

    Returns:
        :class:`ChainShift`. The shift is 0 and all errors are NaN if no landmark has both points.

    Raises:
        ValueError: if the shapes differ, or N is not a multiple of ``size``.

    Example:
        >>> truth = torch.tensor([[0.0, 0.0], [0.0, 10.0], [0.0, 20.0], [0.0, 30.0]])
        >>> shift, errors = best_chain_shift(truth + torch.tensor([1.0, 10.0]), truth)
        >>> int(shift), errors.tolist()
        (1, [1.0, 1.0, 1.0, nan])
    """
    pred, target = plain_tensor(pred), plain_tensor(target)
    if pred.shape != target.shape or pred.ndim < 2 or size < 1 or pred.shape[-2] % size:
        raise ValueError(
            f"predicted and true points must have the same shape (..., N, D), and N must be a multiple of {size}, got "
            f"{tuple(pred.shape)} and {tuple(target.shape)}."
        )
    count = pred.shape[-2] // size
    limit = min(max_shift, count // 2)
    shifts = sorted(range(-limit, limit + 1), key=abs)
    errors = []
    for shift in shifts:
        moved = torch.full_like(target, torch.nan)
        overlap = (count - abs(shift)) * size
        own, other = max(-shift, 0) * size, max(shift, 0) * size
        moved[..., own : own + overlap, :] = target[..., other : other + overlap, :]
        errors.append(torch.linalg.vector_norm(pred - moved, dim=-1))
    every = torch.stack(errors)
    best = every.nanmean(dim=-1).nan_to_num(nan=torch.inf).argmin(dim=0)  # the first of equal ones
    return ChainShift(
        torch.tensor(shifts, device=pred.device)[best], every.take_along_dim(best[None, ..., None], dim=0)[0]
    )
