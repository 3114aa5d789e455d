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

"""A robust model of the shape that the landmarks of a dataset form, and how far a shape deviates from it.

The model is a normal distribution of the aligned points. A landmark is compared with the place that the other landmarks
predict for it. This is more sensitive than the distance from the mean shape, because neighbors vary together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .alignment import Similarity, align_shapes, common_shape, known_points, nan_median

__all__ = [
    "MIN_LANDMARKS",
    "MIN_SHAPES",
    "Deviations",
    "ShapeModel",
    "fit_left_out_models",
    "fit_shape_model",
    "turn_angles",
    "usable_shapes",
]

MIN_SHAPES = 8  # with fewer, a spread cannot be estimated
MIN_LANDMARKS = 3  # two points always form the same shape

_QUANTILES = (0.5, 0.8)
# these quantiles of the squared length of a 2-D or 3-D normal vector; the second sees heavy tails
_CHI2 = {2: (1.386294, 3.218876), 3: (2.365974, 4.641628)}
_FLOOR = 0.01  # of the size: the smallest standard deviation; a model of exact phantoms would allow nothing
_POSE_VARIANCE = 100.0**2  # relative to the size: position, rotation and scale are as good as unknown
_SHRINKAGES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of correlations between landmarks; the left-out shapes choose
_GROSS = 6.0  # times the median distance: points that are left out of the first estimate
_OUTLYING = 4.0  # times the usual deviation: points that are left out of the later estimates
_ROUNDS = 3
_FOLDS = 10
_SAMPLE = 100  # shapes with which the shrinkage is chosen


@dataclass(frozen=True)
class Deviations:
    """How far the landmarks of K shapes are from the places where the other landmarks make them expected.

    Args:
        distances: array (K, N), deviation divided by its usual size; about 1 for ordinary points. NaN where missing.
        offsets: array (K, N, D), deviations in the unit of the model.
        costs: array (K,), squared Mahalanobis distance of each shape from the mean shape.
    """

    distances: np.ndarray
    offsets: np.ndarray
    costs: np.ndarray


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """A normal distribution of shapes, with position, rotation and size removed.

    Each landmark has an expected place given the others, and a usual distance from it.

    Args:
        mean: array (N, D), the mean shape in its usual pose and size, in mm. NaN for landmarks that are unknown.
        covariance: array (N * D, N * D) of the aligned points, in squared mm.
        factors: array (N,), by which the squared deviations of shapes that were left out exceed the expected ones.
        size_spread: usual deviation of the logarithm of the size.
        turn_spread: usual rotation away from the pose of the mean shape, in radians.
        count: number of shapes that the model was learned from.
    """

    mean: np.ndarray
    covariance: np.ndarray
    factors: np.ndarray
    size_spread: float
    turn_spread: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file, None instead of NaN."""
        arrays = {key: getattr(self, key).tolist() for key in ("covariance", "factors")}
        arrays["mean"] = [None if np.isnan(point).any() else point.tolist() for point in self.mean]
        plain = {key: getattr(self, key) for key in ("size_spread", "turn_spread", "count")}
        return arrays | plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ShapeModel:
        """Return the model that :meth:`to_dict` stored."""
        factors = np.asarray(values["factors"], dtype=np.float64)
        covariance = np.asarray(values["covariance"], dtype=np.float64)
        missing = [np.nan] * (len(covariance) // len(factors))
        mean = np.asarray([missing if point is None else point for point in values["mean"]], dtype=np.float64)
        return cls(mean, covariance, factors, values["size_spread"], values["turn_spread"], values["count"])

    @property
    def spatial_dims(self) -> int:
        """Number of coordinates, 2 or 3."""
        return self.mean.shape[1]

    def align(self, points: np.ndarray, mirrored: bool = False) -> Similarity:
        """Align shapes (K, N, D) with the mean shape."""
        return align_shapes(points, self.mean, mirrored=mirrored)

    def compare(self, points: np.ndarray, mirrored: bool = False) -> Deviations:
        """Align shapes (K, N, D) and compare each landmark with its expected place given the others."""
        return self.deviations(self.align(points, mirrored)(points))

    def deviations(self, aligned: np.ndarray) -> Deviations:
        """Compare each landmark of aligned shapes (K, N, D) with its expected place given the others.

        The small errors that the alignment leaves do not matter, because pose and size count as unknown.
        """
        dims = self.spatial_dims
        difference = aligned - self.mean
        known = known_points(difference)
        distances, costs = np.full(known.shape, np.nan), np.full(len(known), np.nan)
        offsets = np.full(difference.shape, np.nan)
        patterns, group = np.unique(known, axis=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            if pattern.sum() < MIN_LANDMARKS:
                continue
            rows = np.flatnonzero(group.ravel() == index)
            precision = self.precision(pattern)
            z = difference[rows][:, pattern].reshape(len(rows), -1)
            q = (z @ precision).reshape(len(rows), -1, dims)
            blocks = precision.reshape(pattern.sum(), dims, pattern.sum(), dims)
            own = np.linalg.inv(np.einsum("aiaj->aij", blocks))
            r = np.einsum("aij,kaj->kai", own, q)
            squared = np.maximum((q * r).sum(axis=-1), 0) / dims / self.factors[pattern]
            place = np.ix_(rows, np.flatnonzero(pattern))
            distances[place], offsets[place] = np.sqrt(squared), r
            costs[rows] = np.maximum((z * q.reshape(z.shape)).sum(axis=1), 0)
        return Deviations(distances, offsets, costs)

    def own_variances(self) -> np.ndarray:
        """Return the variance (N,) of each landmark given all others, the mean over the axes, without the factors."""
        known = known_points(self.mean)
        precision = self.precision(known)
        dims, count = self.spatial_dims, int(known.sum())
        blocks = np.einsum("aiaj->aij", precision.reshape(count, dims, count, dims))
        result = np.full(len(known), np.inf)
        result[known] = np.trace(np.linalg.inv(blocks), axis1=1, axis2=2) / dims
        return result

    def precision(self, known: np.ndarray) -> np.ndarray:
        """Return the inverse covariance of the known landmarks, a mask (N,), for any pose and size."""
        chosen = np.repeat(known, self.spatial_dims)
        pose = _pose_directions(self.mean)[chosen]
        return np.linalg.inv(self.covariance[np.ix_(chosen, chosen)] + _POSE_VARIANCE * pose @ pose.T)

    def expected(self, aligned: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the places (N, D) where known landmarks of one aligned shape make all expected, and the covariances."""
        dims = self.spatial_dims
        chosen = np.repeat(known, dims)
        pose = np.nan_to_num(_pose_directions(self.mean))
        full = self.covariance + _POSE_VARIANCE * pose @ pose.T
        gain = full[:, chosen] @ self.precision(known)
        offsets = gain @ (aligned - self.mean)[known].ravel()
        rest = full - gain @ full[chosen]
        covariances = np.einsum("aiaj->aij", rest.reshape(len(known), dims, len(known), dims))
        return self.mean + offsets.reshape(-1, dims), covariances * self.factors[:, None, None]


def usable_shapes(points: np.ndarray) -> np.ndarray:
    """Return a mask (K,) of the shapes (K, N, D) that have three landmarks, not all at one place."""
    known = known_points(points)
    low, high = (np.where(known[..., None], points, fill) for fill in (np.inf, -np.inf))
    several = (low.min(axis=1) < high.max(axis=1)).any(axis=1)
    return np.asarray((known.sum(axis=1) >= MIN_LANDMARKS) & several)


def fit_shape_model(points: np.ndarray) -> ShapeModel:
    """Learn the model of shapes (K, N, D) in mm, NaN where missing. Outlying points and shapes hardly count.

    Raises:
        ValueError: if fewer than 8 shapes have three landmarks.
    """
    points = points[usable_shapes(points)]
    if len(points) < MIN_SHAPES:
        raise ValueError(
            f"{len(points)} shapes have {MIN_LANDMARKS} or more landmarks; a model of shape requires {MIN_SHAPES}."
        )
    return _fit(points)[0]


def fit_left_out_models(points: np.ndarray) -> tuple[list[ShapeModel], np.ndarray]:
    """Learn models from all shapes but one part.

    Args:
        points: array (K, N, D) in mm, NaN where missing. All are usable, see :func:`usable_shapes`.

    Returns:
        The models, and for each shape the index (K,) of the model that was learned without it.
    """
    _, models, parts = _fit(points)
    return models, parts


def _fit(points: np.ndarray) -> tuple[ShapeModel, list[ShapeModel], np.ndarray]:
    """Return the model of all shapes, the models without one part each, and the part of each shape.

    Points that are far away are left out of the estimates, and shapes where most points are. How far is usual, and how
    much correlations are shrunk, is measured on shapes that the model was not learned from.
    """
    mean = common_shape(points)
    size = np.sqrt(np.nanmean((mean**2).sum(axis=1)))
    floor = (_FLOOR * size) ** 2
    parts = np.arange(len(points)) % min(_FOLDS, len(points))
    fit = align_shapes(points, mean)
    distances = np.linalg.norm(fit(points) - mean, axis=-1)
    left_out = ~(distances <= _GROSS * np.maximum(nan_median(distances, axis=0), _FLOOR * size))
    shrinkage: float | None = None
    for _ in range(_ROUNDS):
        fit = align_shapes(points, mean)
        aligned = fit(points)
        used = np.where(left_out[..., None], np.nan, aligned)
        used[(left_out & known_points(points)).mean(axis=1) > 0.5] = np.nan
        sums = [_Moments.of(used[parts == part]) for part in range(parts.max() + 1)]
        total = sum(sums[1:], sums[0])
        if shrinkage is None:
            sample = np.arange(len(points)) % -(-len(points) // _SAMPLE) == 0
            offsets = [
                _left_out_deviations(aligned[sample], parts[sample], total, sums, candidate, floor).offsets
                for candidate in _SHRINKAGES
            ]
            errors = [nan_median(np.linalg.norm(offset, axis=-1), axis=0) for offset in offsets]
            shrinkage = _SHRINKAGES[int(np.argmin([np.nansum(np.log(e + 0.1 * _FLOOR * size)) for e in errors]))]
        distances = _left_out_deviations(aligned, parts, total, sums, shrinkage, floor).distances
        model = total.model(shrinkage, floor)
        factors = _factors(np.where(left_out, np.nan, distances), mean.shape[1])
        factors = np.maximum(factors, floor / model.own_variances())
        left_out = left_out | (distances / np.sqrt(factors) > _OUTLYING)
        mean = model.mean
    assert shrinkage is not None
    turn, turn_spread = _usual_rotation(fit.rotations, mean)
    sizes = -np.log(fit.scales)
    size_spread = float(1.4826 * nan_median(np.abs(sizes - nan_median(sizes, axis=0)), axis=0))
    zoom = np.exp(nan_median(sizes, axis=0))

    def finished(moments: _Moments) -> ShapeModel:
        model = moments.model(shrinkage, floor)
        rotate = zoom * np.kron(np.eye(len(mean)), turn)
        return replace(
            model,
            mean=zoom * (model.mean - np.nanmean(model.mean, axis=0)) @ turn.T,
            covariance=rotate @ model.covariance @ rotate.T,
            factors=factors,
            size_spread=size_spread,
            turn_spread=turn_spread,
        )

    return finished(total), [finished(total - own) for own in sums], parts


def _left_out_deviations(
    aligned: np.ndarray, parts: np.ndarray, total: _Moments, sums: list[_Moments], shrinkage: float, floor: float
) -> Deviations:
    """Compare each shape with the model of the other parts."""
    shape = aligned.shape
    result = Deviations(np.full(shape[:2], np.nan), np.full(shape, np.nan), np.full(shape[0], np.nan))
    for part, own in enumerate(sums):
        rows = parts == part
        found = (total - own).model(shrinkage, floor).deviations(aligned[rows])
        result.distances[rows], result.offsets[rows], result.costs[rows] = found.distances, found.offsets, found.costs
    return result


def _factors(distances: np.ndarray, dims: int) -> np.ndarray:
    """Return by how much the squared deviations (K, N) exceed those of the normal distribution, per landmark (N,)."""
    factors = np.ones(distances.shape[1])
    known = np.isfinite(distances).any(axis=0)
    quantiles = np.nanquantile(distances[:, known] ** 2 * dims, _QUANTILES, axis=0)
    factors[known] = (quantiles / np.array(_CHI2[dims])[:, None]).max(axis=0)
    return factors


@dataclass(frozen=True)
class _Moments:
    """Sums over shapes, for means and covariances without some of them."""

    counts: np.ndarray  # (N, N), shapes that have both landmarks
    sums: np.ndarray  # (N, D)
    products: np.ndarray  # (N * D, N * D)
    crossed: np.ndarray  # (N * D, N), sums of a coordinate over the shapes that have another landmark
    shapes: int

    @classmethod
    def of(cls, points: np.ndarray) -> _Moments:
        dims = points.shape[-1]
        known = known_points(points).astype(np.float64)
        values: np.ndarray = np.nan_to_num(points)
        flat = values.reshape(len(points), points.shape[1] * dims)
        return cls(known.T @ known, values.sum(axis=0), flat.T @ flat, flat.T @ known, int(known.any(axis=1).sum()))

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(*(getattr(self, key) + getattr(other, key) for key in self.__dataclass_fields__))

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(*(getattr(self, key) - getattr(other, key) for key in self.__dataclass_fields__))

    def model(self, shrinkage: float, floor: float) -> ShapeModel:
        dims = self.sums.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(np.diag(self.counts)[:, None] > 0, self.sums / np.diag(self.counts)[:, None], np.nan)
        counts = np.kron(self.counts, np.ones((dims, dims)))
        flat = np.nan_to_num(mean).ravel()
        ones = np.ones((1, dims))
        # sum of (x - mean)(y - mean) over the shapes that have both landmarks
        first = np.kron(self.crossed, ones) * flat[None]
        products = self.products - first - first.T + counts * np.outer(flat, flat)
        covariance = products / np.maximum(counts - 1, 1)
        within = np.kron(np.eye(len(mean)), np.ones((dims, dims)))
        covariance = (1 - shrinkage) * covariance + shrinkage * covariance * within
        if (self.counts != self.counts[0, 0]).any():  # with missing points, it may not be positive
            values, vectors = np.linalg.eigh(covariance)
            covariance = (vectors * np.maximum(values, 0)) @ vectors.T
        covariance = covariance + floor * np.eye(len(flat))
        return ShapeModel(mean, covariance, np.ones(len(mean)), 0.0, 0.0, self.shapes)


def _pose_directions(mean: np.ndarray) -> np.ndarray:
    """Return how all points move with position, rotation and size: columns (N * D, number of parameters)."""
    dims = mean.shape[1]
    size = np.sqrt(np.nanmean((mean**2).sum(axis=1)))
    columns = [np.broadcast_to(size * axis, mean.shape) for axis in np.eye(dims)]
    for i in range(dims):
        for j in range(i + 1, dims):
            turned = np.zeros_like(mean)
            turned[:, i], turned[:, j] = -mean[:, j], mean[:, i]
            columns.append(turned)
    columns.append(mean)
    return np.stack([column.ravel() for column in columns], axis=1)


def _usual_rotation(rotations: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the rotation of the mean shape to the pose that most shapes are close to, and the usual angle from it."""
    to_shape = np.swapaxes(rotations[np.isfinite(rotations).all(axis=(1, 2))], 1, 2)
    sample = to_shape[np.linspace(0, len(to_shape) - 1, min(200, len(to_shape))).astype(int)]
    spreads = [nan_median(turn_angles(sample, one, mean), axis=0) for one in sample]
    middle = sample[int(np.argmin(spreads))]
    angles = turn_angles(to_shape, middle, mean)
    u, _, vt = np.linalg.svd(to_shape[angles <= np.median(angles)].mean(axis=0))
    u[:, -1] *= np.sign(np.linalg.det(u @ vt))
    turn = u @ vt
    return turn, float(np.median(turn_angles(to_shape, turn, mean)))


def turn_angles(rotations: np.ndarray, other: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return angles (K,) between rotations (K, D, D) and another, as far as they move the points of a shape (N, D).

    A rotation about the line of collinear points does not count.
    """
    shape = shape[known_points(shape)]
    moved = np.einsum("kij,nj->kni", rotations - other, shape)
    chord = np.sqrt((moved**2).sum(axis=(1, 2)) / (shape**2).sum())
    return 2 * np.arcsin(np.minimum(chord / 2, 1.0))
