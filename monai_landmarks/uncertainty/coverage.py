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
"""Is a stated uncertainty honest? Where the true point lies, measured by what was stated of it."""

from __future__ import annotations

import math

import numpy as np

from monai_landmarks.data import LandmarkSet

__all__ = ["covered", "gaussian_level", "mahalanobis_distance"]

_FLAT = 1e-9  # of the greatest eigenvalue: less is no extent at all
_erf = np.frompyfunc(math.erf, 1, 1)


def mahalanobis_distance(offsets: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Length of offsets in units of what a covariance expects: the root of ``x^T S^-1 x``.

    Args:
        offsets: (..., D).
        matrices: (..., D, D), symmetric and positive semi-definite, in the square of the offsets' unit.

    Returns:
        (...): NaN where either is unknown; inf for an offset in a direction in which the covariance is zero.

    Example:
        >>> mahalanobis_distance(np.array([3.0, 0.0]), np.diag([4.0, 0.0])).item()
        1.5
    """
    offsets, matrices = np.asarray(offsets, dtype=np.float64), np.asarray(matrices, dtype=np.float64)
    known = np.isfinite(offsets).all(axis=-1) & np.isfinite(matrices).all(axis=(-2, -1))
    result = np.full(known.shape, np.nan)
    values, vectors = np.linalg.eigh(matrices[known])
    along = np.einsum("...ij,...i->...j", vectors, offsets[known])
    least = _FLAT * np.maximum(values[..., -1:], 0)
    none = values <= least
    squares = np.where(none, np.where(along**2 > least, np.inf, 0.0), along**2 / np.where(none, 1.0, values))
    result[known] = np.sqrt(squares.sum(axis=-1))
    return result


def covered(predicted: LandmarkSet, true: LandmarkSet) -> np.ndarray:
    """Whether the stated regions hold the true landmarks.

    Args:
        predicted: with regions.
        true: the same landmarks in the same order, coordinate system and dimension.

    Returns:
        (N,): 1 where the region holds the landmark, 0 where not, NaN where no region is stated or the truth is unknown.
    """
    if predicted.regions is None:
        return np.full(len(predicted), np.nan)
    distance = mahalanobis_distance(true.points - predicted.points, predicted.regions)
    return np.where(np.isnan(distance), np.nan, distance <= 1)


def gaussian_level(predicted: LandmarkSet, true: LandmarkSet) -> np.ndarray:
    """Probability content of the Gaussian region that just reaches the true landmark, if the covariances are right.

    If they are, these levels are uniform between 0 and 1: a share c of them is at most c. The content of the region within
    the Mahalanobis distance m is that of the chi-squared distribution with D degrees of freedom at m^2.

    Args:
        predicted: with covariances.
        true: the same landmarks in the same order, coordinate system and dimension.

    Returns:
        (N,) between 0 and 1, NaN where covariance or truth are unknown.
    """
    if predicted.covariances is None:
        return np.full(len(predicted), np.nan)
    m = mahalanobis_distance(true.points - predicted.points, predicted.covariances)
    within = 1 - np.exp(-0.5 * m**2)
    if predicted.spatial_dims == 2:
        return within
    with np.errstate(invalid="ignore"):  # inf * 0 at a distance of inf
        tail = np.where(np.isinf(m), 0.0, np.sqrt(2 / np.pi) * m * np.exp(-0.5 * m**2))
    return _erf(m / np.sqrt(2)).astype(np.float64) - tail
