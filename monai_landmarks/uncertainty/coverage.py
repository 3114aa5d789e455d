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
"""Check of a stated uncertainty: where the true point lies relative to the stated covariance or region."""

from __future__ import annotations

import math

import numpy as np

from monai_landmarks.data import LandmarkSet

__all__ = ["covered", "gaussian_coverage", "gaussian_level", "mahalanobis_distance"]

_FLAT = 1e-9  # relative to the largest eigenvalue; a smaller eigenvalue counts as zero
_erf = np.frompyfunc(math.erf, 1, 1)


def mahalanobis_distance(offsets: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    r"""Return the Mahalanobis distance :math:`\sqrt{x^T \Sigma^{-1} x}` of offsets.

    Args:
        offsets: (..., D).
        matrices: (..., D, D), symmetric and positive semi-definite, in the squared unit of the offsets.

    Returns:
        Distances (...). NaN where an offset or a matrix is unknown; inf for an offset in a direction in which the
        covariance is zero.

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
    """Return whether the stated regions contain the true landmarks.

    Args:
        predicted: landmarks with regions.
        true: the true landmarks, with the same names, order, coordinate system and dimension.

    Returns:
        Array (N,): 1 where the region contains the landmark, 0 where it does not, NaN where there is no region or no
        ground truth.
    """
    if predicted.regions is None:
        return np.full(len(predicted), np.nan)
    distance = mahalanobis_distance(true.points - predicted.points, predicted.regions)
    return np.where(np.isnan(distance), np.nan, distance <= 1)


def gaussian_level(predicted: LandmarkSet, true: LandmarkSet) -> np.ndarray:
    """Return the probability of the Gaussian region that just reaches the true landmark.

    If the covariances are correct, these levels are distributed uniformly between 0 and 1: a fraction c of them is at
    most c. The probability of the region within the Mahalanobis distance m is the cumulative chi-squared distribution
    with D degrees of freedom at m^2.

    Args:
        predicted: landmarks with covariances.
        true: the true landmarks, with the same names, order, coordinate system and dimension.

    Returns:
        Array (N,) of numbers between 0 and 1, NaN where the covariance or the ground truth is unknown.
    """
    if predicted.covariances is None:
        return np.full(len(predicted), np.nan)
    distances = mahalanobis_distance(true.points - predicted.points, predicted.covariances)
    return gaussian_coverage(distances, predicted.spatial_dims)


def gaussian_coverage(distances: np.ndarray, dims: int) -> np.ndarray:
    """Return the probability that a normal vector is within Mahalanobis distances (...) in 2 or 3 dimensions.

    Example:
        >>> gaussian_coverage(np.array([1.0, 2.0]), 2).round(3)
        array([0.393, 0.865])
    """
    m = np.asarray(distances, dtype=np.float64)
    within = 1 - np.exp(-0.5 * m**2)
    if dims == 2:
        return np.asarray(within)
    with np.errstate(invalid="ignore"):  # inf * 0 at a distance of inf
        tail = np.where(np.isinf(m), 0.0, np.sqrt(2 / np.pi) * m * np.exp(-0.5 * m**2))
    return np.asarray(_erf(m / np.sqrt(2)), dtype=np.float64) - tail
