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
"""Point errors and their statistics, as pure functions.

All statistics take one tensor ``errors`` of shape (B, N), the distance of each of N landmarks in each of B images, with

* ``nan`` where there is no ground truth: such a landmark is never counted, whatever was predicted;
* ``inf`` where there is ground truth but no prediction (a missed landmark): farther away than any threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = [
    "image_specific_error",
    "known_max",
    "known_mean",
    "known_median",
    "known_std",
    "outlier_count",
    "point_error",
    "success_detection_rate",
]


def point_error(
    pred: torch.Tensor, target: torch.Tensor, spacing: float | Sequence[float] | torch.Tensor | None = None
) -> torch.Tensor:
    """Return the Euclidean distance between predicted and true landmarks, the point error (PE).

    Args:
        pred: (..., N, D) predicted points; a non-finite coordinate means that there is no prediction.
        target: true points of the same shape; a NaN coordinate means that there is no ground truth.
        spacing: size of a pixel in mm, to convert index points: one number, one per axis, or a tensor (..., D) that
            broadcasts against the points.

    Returns:
        Errors (..., N), in mm for world points or with ``spacing``, in pixels for index points without it. NaN without
        ground truth, inf with ground truth but without a prediction.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> nan = float("nan")
        >>> point_error(torch.tensor([[3.0, 4.0], [nan, nan]]), torch.zeros(2, 2), spacing=0.5)
        tensor([2.5000,    inf])
    """
    if pred.shape != target.shape or pred.ndim < 2:
        raise ValueError(
            f"predicted and true points must have the same shape (..., N, D), got {tuple(pred.shape)} and "
            f"{tuple(target.shape)}."
        )
    dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    difference = pred.to(dtype) - target.to(pred.device, dtype)
    if spacing is not None:
        difference = difference * torch.as_tensor(spacing, dtype=dtype, device=difference.device)
    error = torch.linalg.vector_norm(difference, dim=-1)
    missed = ~torch.isfinite(pred).all(dim=-1)
    unknown = torch.isnan(target).any(dim=-1).to(error.device)
    return error.masked_fill(missed, torch.inf).masked_fill(unknown, torch.nan)


def known_mean(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values that are not NaN, or NaN if there are none."""
    return torch.nanmean(values)


def known_std(values: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of the values that are not NaN, divided by their number as in ``numpy.nanstd``."""
    return torch.nanmean((values - torch.nanmean(values)) ** 2).sqrt()


def known_median(values: torch.Tensor) -> torch.Tensor:
    """Return the median of the values that are not NaN; the mean of the middle two for an even number of values."""
    known = values[~torch.isnan(values)].sort().values
    if known.numel() == 0:
        return values.new_tensor(torch.nan)
    return (known[(known.numel() - 1) // 2] + known[known.numel() // 2]) / 2


def known_max(values: torch.Tensor) -> torch.Tensor:
    """Return the largest of the values that are not NaN, or NaN if there are none."""
    known = values[~torch.isnan(values)]
    return known.max() if known.numel() else values.new_tensor(torch.nan)


def success_detection_rate(
    errors: torch.Tensor,
    thresholds: float | Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    strict: bool = False,
    dim: int | tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Return the success detection rate (SDR): the fraction of landmarks that were found, in [0, 1].

    A landmark is found if ``error <= threshold``, or with ``strict`` if ``error < threshold``. A missed landmark (inf)
    is not found. A landmark without ground truth (NaN) is not counted.

    Args:
        errors: (B, N) from :func:`point_error`.
        thresholds: one radius or several, in the unit of the errors.
        strict: whether an error equal to the threshold is too large.
        dim: axes to average over; None: all. 0 returns one rate per landmark, 1 one per image.

    Returns:
        The rates, with the thresholds along the first axis; without this axis for a single threshold.

    Example:
        >>> success_detection_rate(torch.tensor([[1.0, 2.0, 5.0, float("nan")]]), (1.5, 2.0))
        tensor([0.3333, 0.6667])
    """
    found = _within(errors, thresholds, strict).to(errors.dtype)
    found = found.masked_fill(torch.isnan(errors), torch.nan)
    return torch.nanmean(found, dim=_behind_thresholds(errors, thresholds, dim))


def outlier_count(
    errors: torch.Tensor,
    thresholds: float | Sequence[float] = (2.0, 4.0, 10.0),
    strict: bool = False,
    dim: int | tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Return the number of outliers (#O_r): landmarks that were not found, see :func:`success_detection_rate`.

    An outlier has ``error > threshold``, or with ``strict`` ``error >= threshold``, as Payer et al. count (Med. Image
    Anal. 2019). A missed landmark (inf) is an outlier.

    Args:
        errors: see :func:`success_detection_rate`.
        thresholds: see :func:`success_detection_rate`.
        strict: see :func:`success_detection_rate`.
        dim: axes to sum over; None: all. 0 returns one count per landmark, 1 one per image.

    Returns:
        The counts, with the thresholds along the first axis; without this axis for a single threshold.

    Example:
        >>> outlier_count(torch.tensor([[1.0, 2.0, 5.0, float("nan")]]), 2.0, strict=True)
        tensor(2)
    """
    lost = ~_within(errors, thresholds, strict) & ~torch.isnan(errors)
    return lost.sum(dim=_behind_thresholds(errors, thresholds, dim))


def image_specific_error(errors: torch.Tensor) -> torch.Tensor:
    """Return the mean point error of each image (IPE): (B, N) to (B,), NaN for an image without ground truth."""
    return torch.nanmean(errors, dim=-1)


def _within(errors: torch.Tensor, thresholds: float | Sequence[float], strict: bool) -> torch.Tensor:
    radius = torch.as_tensor(thresholds, dtype=errors.dtype, device=errors.device)
    radius = radius.reshape(radius.shape + (1,) * errors.ndim)
    return errors < radius if strict else errors <= radius


def _behind_thresholds(
    errors: torch.Tensor, thresholds: float | Sequence[float], dim: int | tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the axes of ``errors`` to reduce, counted from the end, because the thresholds add an axis in front."""
    axes = range(errors.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return tuple(axis % errors.ndim - errors.ndim for axis in axes)
