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
"""Point errors and their statistics, as pure functions of arrays or tensors.

The result has the type of the input, and a tensor stays on its device. All statistics take ``errors`` of shape (B, N),
the distance of each of N landmarks in each of B images, with

* ``nan`` where there is no ground truth: such a landmark is never counted, whatever was predicted;
* ``inf`` where there is ground truth but no prediction (a missed landmark): farther away than any threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_landmarks.spaces import NdarrayTensor, array_functions, array_like, is_tensor, vector_lengths

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
    pred: NdarrayTensor, target: NdarrayTensor, spacing: float | Sequence[float] | NdarrayTensor | None = None
) -> NdarrayTensor:
    """Return the Euclidean distance between predicted and true landmarks, the point error (PE).

    Args:
        pred: (..., N, D) predicted points; a non-finite coordinate means that there is no prediction.
        target: true points of the same shape; a NaN coordinate means that there is no ground truth.
        spacing: size of a pixel in mm, to convert index points: one number, one per axis, or (..., D), which
            broadcasts against the points.

    Returns:
        Errors (..., N), in mm for world points or with ``spacing``, in pixels for index points without it. NaN without
        ground truth, inf with ground truth but without a prediction.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> point_error(np.array([[3.0, 4.0], [np.nan, np.nan]]), np.zeros((2, 2)), spacing=0.5)
        array([2.5, inf])
    """
    if pred.shape != target.shape or pred.ndim < 2:
        raise ValueError(
            f"predicted and true points must have the same shape (..., N, D), got {tuple(pred.shape)} and "
            f"{tuple(target.shape)}."
        )
    xp = array_functions(pred)
    dtype = xp.promote_types(xp.promote_types(pred.dtype, target.dtype), xp.float32)
    pred = array_like(pred, pred, dtype)
    target = array_like(target, pred)
    with np.errstate(invalid="ignore"):  # infinite coordinates
        difference = pred - target
        if spacing is not None:
            difference = difference * array_like(spacing, difference)
    error = xp.where(xp.isfinite(pred).all(-1), vector_lengths(difference), xp.inf)
    return xp.where(xp.isnan(target).any(-1), xp.nan, error)


def known_mean(values: NdarrayTensor, dim: int | tuple[int, ...] | None = None) -> NdarrayTensor:
    """Return the mean of the values that are not NaN, or NaN if there are none.

    Args:
        values: values of any shape.
        dim: axes to average over; None: all.
    """
    xp = array_functions(values)
    unknown = xp.isnan(values)
    axes = tuple(range(values.ndim)) if dim is None else dim
    total, count = xp.where(unknown, 0, values).sum(axes), (~unknown).sum(axes)
    return xp.where(count > 0, total, xp.nan) / array_like(count.clip(1), total)


def known_std(values: NdarrayTensor) -> NdarrayTensor:
    """Return the standard deviation of the values that are not NaN, divided by their number as in ``numpy.nanstd``."""
    return array_functions(values).sqrt(known_mean((values - known_mean(values)) ** 2))


def known_median(values: NdarrayTensor) -> NdarrayTensor:
    """Return the median of the values that are not NaN; the mean of the middle two for an even number of values."""
    known = _known(values)
    ordered = known.sort().values if is_tensor(known) else np.sort(known)
    if len(ordered) == 0:
        return array_like(np.nan, values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def known_max(values: NdarrayTensor) -> NdarrayTensor:
    """Return the largest of the values that are not NaN, or NaN if there are none."""
    known = _known(values)
    return known.max() if len(known) else array_like(np.nan, values)


def success_detection_rate(
    errors: NdarrayTensor,
    thresholds: float | Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    strict: bool = False,
    dim: int | tuple[int, ...] | None = None,
) -> NdarrayTensor:
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
        >>> success_detection_rate(np.array([[1.0, 2.0, 3.0, 5.0, np.nan]]), (1.5, 2.0))
        array([0.25, 0.5 ])
    """
    xp = array_functions(errors)
    found = xp.where(xp.isnan(errors), xp.nan, array_like(_within(errors, thresholds, strict), errors))
    return known_mean(found, _behind_thresholds(errors, dim))


def outlier_count(
    errors: NdarrayTensor,
    thresholds: float | Sequence[float] = (2.0, 4.0, 10.0),
    strict: bool = False,
    dim: int | tuple[int, ...] | None = None,
) -> NdarrayTensor:
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
        >>> outlier_count(np.array([[1.0, 2.0, 5.0, np.nan]]), (1.5, 2.0), strict=True).tolist()
        [2, 2]
    """
    lost = ~_within(errors, thresholds, strict) & ~array_functions(errors).isnan(errors)
    return lost.sum(_behind_thresholds(errors, dim))


def image_specific_error(errors: NdarrayTensor) -> NdarrayTensor:
    """Return the mean point error of each image (IPE): (B, N) to (B,), NaN for an image without ground truth."""
    return known_mean(errors, -1)


def _known(values: Any) -> Any:
    return values[~array_functions(values).isnan(values)]


def _within(errors: NdarrayTensor, thresholds: float | Sequence[float], strict: bool) -> NdarrayTensor:
    radius = array_like(thresholds, errors)
    radius = radius.reshape(tuple(radius.shape) + (1,) * errors.ndim)
    return errors < radius if strict else errors <= radius


def _behind_thresholds(errors: NdarrayTensor, dim: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the axes of ``errors`` to reduce, counted from the end, because the thresholds add an axis in front."""
    axes = range(errors.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return tuple(axis % errors.ndim - errors.ndim for axis in axes)
