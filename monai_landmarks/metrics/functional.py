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
"""Point error and what is counted from it, as pure functions.

One array carries everything: ``errors`` of shape (B, N), the distance of each of N landmarks in each of B images, with

* ``nan`` where there is no truth: such a landmark is never counted, whatever was predicted;
* ``inf`` where there is truth but no prediction (a missed landmark): farther away than any threshold.
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
    """Euclidean distance between predicted and true landmarks (PE).

    Args:
        pred: (..., N, D) predicted points; a non-finite coordinate means that there is no prediction.
        target: points of the same shape; a NaN coordinate means that there is no truth.
        spacing: size of a pixel, one number or one an axis (or a tensor (..., D) that broadcasts against the points):
            turns index points into mm.

    Returns:
        (..., N): in mm for world points and wherever ``spacing`` is given, in pixels for index points.
        NaN without truth, inf with truth but without prediction.

    Raises:
        ValueError: when the shapes differ.

    Example:
        >>> nan = float("nan")
        >>> point_error(torch.tensor([[3.0, 4.0], [nan, nan]]), torch.zeros(2, 2), spacing=0.5)
        tensor([2.5000,    inf])
    """
    if pred.shape != target.shape or pred.ndim < 2:
        raise ValueError(
            f"predicted and true points must have the same shape (..., N, D), got {tuple(pred.shape)} and {tuple(target.shape)}."
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
    """Mean of the values that are not NaN; NaN where there is none."""
    return torch.nanmean(values)


def known_std(values: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the values that are not NaN, divided by their number (numpy's `nanstd`)."""
    return torch.nanmean((values - torch.nanmean(values)) ** 2).sqrt()


def known_median(values: torch.Tensor) -> torch.Tensor:
    """Median of the values that are not NaN, the mean of the two middle ones where their number is even."""
    known = values[~torch.isnan(values)].sort().values
    if known.numel() == 0:
        return values.new_tensor(torch.nan)
    return (known[(known.numel() - 1) // 2] + known[known.numel() // 2]) / 2


def known_max(values: torch.Tensor) -> torch.Tensor:
    """Greatest of the values that are not NaN; NaN where there is none."""
    known = values[~torch.isnan(values)]
    return known.max() if known.numel() else values.new_tensor(torch.nan)


def success_detection_rate(
    errors: torch.Tensor,
    thresholds: float | Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    strict: bool = False,
    dim: int | tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Share of the landmarks that were found (SDR), in [0, 1].

    A landmark is found when ``error <= threshold``, or ``error < threshold`` where ``strict``. A missed landmark
    (inf) is not found; one without truth (NaN) does not count.

    Args:
        errors: (B, N) from `point_error`.
        thresholds: one radius or several, in the unit of the errors.
        strict: which of the two comparisons.
        dim: axes to average over, all by default. 0 gives one rate a landmark, 1 one an image.

    Returns:
        The rates with an axis for the thresholds in front; without that axis for a single number.

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
    """Number of landmarks that were not found (#O_r): the complement of `success_detection_rate`.

    An outlier has ``error > threshold``; with ``strict`` (only ``error < threshold`` is found) ``error >= threshold``,
    which is how Payer et al. (Med. Image Anal. 2019) count. A missed landmark (inf) is an outlier.

    Args and shapes as in `success_detection_rate`.

    Example:
        >>> outlier_count(torch.tensor([[1.0, 2.0, 5.0, float("nan")]]), 2.0, strict=True)
        tensor(2)
    """
    lost = ~_within(errors, thresholds, strict) & ~torch.isnan(errors)
    return lost.sum(dim=_behind_thresholds(errors, thresholds, dim))


def image_specific_error(errors: torch.Tensor) -> torch.Tensor:
    """Mean point error of each image (IPE): (B, N) to (B,), NaN for an image without truth."""
    return torch.nanmean(errors, dim=-1)


def _within(errors: torch.Tensor, thresholds: float | Sequence[float], strict: bool) -> torch.Tensor:
    radius = torch.as_tensor(thresholds, dtype=errors.dtype, device=errors.device)
    radius = radius.reshape(radius.shape + (1,) * errors.ndim)
    return errors < radius if strict else errors <= radius


def _behind_thresholds(
    errors: torch.Tensor, thresholds: float | Sequence[float], dim: int | tuple[int, ...] | None
) -> tuple[int, ...]:
    """The axes of `errors` to reduce, counted from the end: there the thresholds' axis in front does not shift them."""
    axes = range(errors.ndim) if dim is None else (dim,) if isinstance(dim, int) else dim
    return tuple(axis % errors.ndim - errors.ndim for axis in axes)
