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
"""Alignment of shapes: position, rotation and size are removed, and outlying landmarks hardly count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Similarity", "align_shapes", "common_shape", "fit_similarity", "known_points", "nan_median"]

_ROUNDS = 10  # of reweighting; the weights of a gross outlier are near zero after about five
_SETTLED = 1e-3  # change of the weights that ends it earlier
_COLLAPSED = 1e-8  # size relative to the distance from the origin: all points are at one place
_REFERENCES = 12  # shapes tried as the first common shape
_SAMPLE = 100  # shapes that each of them is compared with


@dataclass(frozen=True)
class Similarity:
    """Similarity transforms of K shapes: ``scales * points @ rotations^T + shifts``.

    Args:
        scales: array (K,).
        rotations: array (K, D, D), orthogonal matrices.
        shifts: array (K, D).
    """

    scales: np.ndarray
    rotations: np.ndarray
    shifts: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Transform points (K, N, D)."""
        turned = np.einsum("kij,knj->kni", self.rotations, points)
        return self.scales[:, None, None] * turned + self.shifts[:, None]


def fit_similarity(
    points: np.ndarray, reference: np.ndarray, weights: np.ndarray, mirrored: bool = False
) -> Similarity:
    """Fit weighted least-squares similarity transforms of shapes to a reference.

    The scale is the ratio of the sizes. Unlike the least-squares scale, it does not shrink a shape that fits badly.

    Args:
        points: array (K, N, D), NaN where missing.
        reference: array (N, D) or (K, N, D), NaN where unknown.
        weights: array (K, N).
        mirrored: whether to fit a rotation with a reflection instead of a rotation.

    Returns:
        The transforms, NaN for shapes that have fewer than two points in common with the reference.
    """
    known = known_points(points) & known_points(reference)
    w = np.where(known, weights, 0.0)[..., None]
    x, y = np.where(known[..., None], points, 0.0), np.where(known[..., None], reference, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = w.sum(axis=1)
        center_x, center_y = (w * x).sum(axis=1) / total, (w * y).sum(axis=1) / total
    enough = known.sum(axis=1) >= 2
    center_x, center_y = (np.where(enough[:, None], center, 0.0) for center in (center_x, center_y))
    x, y = x - center_x[:, None], y - center_y[:, None]
    u, _, vt = np.linalg.svd(np.einsum("kni,knj->kij", w * y, x))
    sign = np.sign(np.linalg.det(u @ vt))
    u[..., -1] *= (-sign if mirrored else sign)[:, None]
    rotations = u @ vt
    with np.errstate(invalid="ignore", divide="ignore"):
        scales = np.sqrt((w * y**2).sum(axis=(1, 2)) / (w * x**2).sum(axis=(1, 2)))
    extended = np.sqrt((w * x**2).sum(axis=(1, 2))) > _COLLAPSED * np.linalg.norm(center_x, axis=-1)
    scales = np.where(enough & extended & np.isfinite(scales) & (scales > 0), scales, np.nan)
    shifts = center_y - scales[:, None] * np.einsum("kij,kj->ki", rotations, center_x)
    return Similarity(scales, rotations, shifts)


def align_shapes(points: np.ndarray, reference: np.ndarray, mirrored: bool = False) -> Similarity:
    """Fit similarity transforms in which outlying landmarks have little weight.

    The weights are those of a Cauchy distribution whose width is twice the median distance of the landmarks of each
    shape. They are found by iterative reweighting.

    Args:
        points: array (K, N, D), NaN where missing.
        reference: array (N, D), NaN where unknown.
        mirrored: whether to fit a rotation with a reflection.

    Returns:
        The transforms, NaN for shapes that have too few points in common with the reference.
    """
    weights = np.ones(points.shape[:2])
    fit = fit_similarity(points, reference, weights, mirrored)
    for _ in range(_ROUNDS):
        distances = np.linalg.norm(fit(points) - reference, axis=-1)
        usual = nan_median(distances, axis=1)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            new = np.nan_to_num(1 / (1 + (distances / np.maximum(2 * usual, 1e-9)) ** 2))
        settled = np.abs(new - weights).max() < _SETTLED
        weights = new
        fit = fit_similarity(points, reference, weights, mirrored)
        if settled:
            break
    return fit


def common_shape(points: np.ndarray, rounds: int = 5) -> np.ndarray:
    """Return the shape that most shapes resemble, by a generalized Procrustes alignment with medians.

    Args:
        points: array (K, N, D), NaN where missing.
        rounds: number of alignments.

    Returns:
        Array (N, D), centered, of the median size, in the pose of the first reference. NaN where no shape has the
        landmark.
    """
    reference = _first_reference(points)
    for _ in range(rounds):
        fit = align_shapes(points, reference)
        reference = nan_median(fit(points), axis=0) / nan_median(fit.scales, axis=0)
        reference = reference - np.nanmean(reference, axis=0)
    return reference


def known_points(points: np.ndarray) -> np.ndarray:
    """Return a mask (..., N) of the points (..., N, D) that are not missing."""
    return np.asarray(np.isfinite(points).all(axis=-1))


def nan_median(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the median of the values that are not NaN; NaN if there are none."""
    ordered = np.sort(values, axis=axis)  # NaN last
    count = np.isfinite(ordered).sum(axis=axis, keepdims=True)
    low, high = np.maximum((count - 1) // 2, 0), np.minimum(count // 2, ordered.shape[axis] - 1)
    pair = np.take_along_axis(ordered, low, axis) + np.take_along_axis(ordered, high, axis)
    return np.asarray(np.where(count > 0, pair / 2, np.nan).squeeze(axis))


def _first_reference(points: np.ndarray) -> np.ndarray:
    """Return the shape with the smallest median distance from the others, among those with the most landmarks."""
    count = known_points(points).sum(axis=1)
    richest = np.flatnonzero(count >= min(count.max(), np.quantile(count, 0.75)))
    tried = richest[np.linspace(0, len(richest) - 1, min(_REFERENCES, len(richest))).astype(int)]
    sample = points[np.linspace(0, len(points) - 1, min(_SAMPLE, len(points))).astype(int)]
    best, lowest = tried[0], np.inf
    for index in tried:
        reference = points[index] - np.nanmean(points[index], axis=0)
        distances = np.linalg.norm(align_shapes(sample, reference)(sample) - reference, axis=-1)
        score = nan_median(nan_median(distances, axis=1), axis=0) / np.sqrt(np.nanmean(reference**2))
        if score < lowest:
            best, lowest = index, score
    return points[best] - np.nanmean(points[best], axis=0)
