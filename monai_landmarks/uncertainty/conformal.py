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
"""Split-conformal regions: ellipses and balls in mm that contain a landmark with a stated probability.

The guarantee holds for new images that come from the same distribution as the calibration images. No training may have
used the calibration images. There are no other assumptions, and there is no guarantee for other images. The stated
probability is an average over images and, if the landmarks are pooled, over landmarks as well.

References:
    Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*, Springer 2005; Angelopoulos, Bates, *Conformal
    prediction: a gentle introduction*, Foundations and Trends in Machine Learning 16 (2023) 494-591.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, cast, get_args

import numpy as np

from monai_landmarks.data import CoordinateSystem, LandmarkSet
from monai_landmarks.data.files.json_values import is_number
from monai_landmarks.data.files.safe_files import naming_file

from .coverage import mahalanobis_distance
from .weights_files import read_kind, write_kind

__all__ = ["ConformalRegions", "conformal_quantile"]

_Shape = Literal["ball", "ellipse"]
_KIND = "conformal regions of landmarks"


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """Return the bound that the score of a new image does not exceed with a stated probability.

    The bound is the ceil((n + 1) coverage)-th smallest of n exchangeable scores. A new score is at most this bound with
    a probability of at least ``coverage``, and of at most coverage + 1 / (n + 1) if there are no ties.

    The scores of several landmarks in one image are not independent. They are pooled according to Lee, Barber, Willett,
    *Distribution-free inference with hierarchical data*, arXiv:2306.06342: each image has the weight 1 / (n + 1), and
    so has the new image, with a score of infinity. The lower limit of the probability then holds for a landmark that is
    drawn uniformly from those of a new image.

    Args:
        scores: (n,), one score per image, or (n, K), one per image and landmark. NaN where there is none.
        coverage: probability between 0 and 1.

    Returns:
        The bound; inf if n is too small for the coverage, that is smaller than coverage / (1 - coverage).

    Raises:
        ValueError: if the coverage is not between 0 and 1.

    Example:
        >>> conformal_quantile(np.arange(1.0, 20.0), 0.9), conformal_quantile(np.arange(8.0), 0.9)
        (18.0, inf)
    """
    _require_coverage(coverage)
    scores = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    known = ~np.isnan(scores)
    count = known.sum(axis=1, keepdims=True)
    images = int((count > 0).sum())
    weights = np.broadcast_to(1 / ((images + 1) * np.maximum(count, 1)), scores.shape)[known]
    order = np.argsort(scores[known], kind="stable")
    # without the tolerance, a rounding error of the sum could move the bound to the next score
    reached = np.flatnonzero(np.cumsum(weights[order]) >= coverage - 1e-9)
    return float(scores[known][order[reached[0]]]) if len(reached) else math.inf


@dataclass(frozen=True)
class ConformalRegions:
    """Regions of landmarks with a stated coverage, calibrated on images with known true landmarks.

    Args:
        names: names of the N landmarks.
        coverage: the stated probability, for example 0.9.
        bounds: N bounds: the radius in mm for ``"ball"``, or the factor on the semi-axes of the covariance's ellipsoid
            for ``"ellipse"``.
        cases: N numbers of calibration images, one per bound.
        spatial_dims: 2 or 3.
        shape: ``"ball"``: the same radius in every image. ``"ellipse"``: the covariance of the prediction gives the
            shape and relative size, and the calibration gives the factor.
        pooled: whether all landmarks share one bound.
        min_std: standard deviation in mm whose square is added to the variance of an ellipse in every direction.
            Without it, a prediction with a covariance of zero would have no region.

    Raises:
        ValueError: if the values contradict each other.
    """

    names: tuple[str, ...]
    coverage: float
    bounds: tuple[float, ...]
    cases: tuple[int, ...]
    spatial_dims: int
    shape: _Shape = "ball"
    pooled: bool = False
    min_std: float = 0.1

    def __post_init__(self) -> None:
        _require_coverage(self.coverage)
        _require_shape(self.shape, self.min_std)
        if not len(self.names) == len(self.bounds) == len(self.cases) or len(set(self.names)) < len(self.names):
            raise ValueError("names, bounds and cases must have the same length, and the names must be distinct.")
        if self.spatial_dims not in (2, 3) or not all(math.isfinite(b) and b >= 0 for b in self.bounds):
            raise ValueError("spatial_dims must be 2 or 3, and the bounds finite and not negative.")

    @classmethod
    def calibrate(
        cls,
        predicted: Sequence[LandmarkSet],
        true: Sequence[LandmarkSet],
        coverage: float = 0.9,
        shape: _Shape = "ball",
        pooled: bool = False,
        min_std: float = 0.1,
    ) -> ConformalRegions:
        """Calibrate regions with predictions of images that no training has used.

        Landmarks without a prediction or without ground truth are left out: the coverage is that of landmarks that were
        found.

        Args:
            predicted: predicted landmarks in world mm; with covariances for ellipses.
            true: true landmarks of the same images, in the same order.
            coverage: the probability to state.
            shape: ``"ball"`` or ``"ellipse"``, see the class.
            pooled: whether all landmarks share one bound, for data with few images. The coverage is then that of a
                landmark drawn uniformly from those of an image, not that of each landmark.
            min_std: see the class.

        Returns:
            The calibrated regions.

        Raises:
            ValueError: if there are too few images for the coverage, if points are pixels, or if the shape is
                ``"ellipse"`` and a prediction has no covariances.

        Example:
            >>> random = np.random.default_rng(0)
            >>> true = [LandmarkSet(("tip",), random.uniform(0, 100, (1, 2))) for _ in range(99)]
            >>> found = [LandmarkSet(("tip",), case.points + random.normal(0, 1, (1, 2))) for case in true]
            >>> regions = ConformalRegions.calibrate(found, true, coverage=0.9)
            >>> regions.add_to(found[0]).region_radius.round(1).tolist()  # 2.15 for this noise and infinitely many images
            [2.1]
        """
        _require_shape(shape, min_std)
        if not predicted or len(predicted) != len(true):
            raise ValueError(f"got {len(predicted)} predictions and {len(true)} truths; expected the same images.")
        names = tuple(dict.fromkeys(name for landmarks in true for name in landmarks.names))
        found = {name for landmarks in predicted for name in landmarks.names}
        names = tuple(name for name in names if name in found)
        pairs = _same_dims([(first.reorder(names), second.reorder(names)) for first, second in zip(predicted, true)])
        scores = np.array([_scores(first, second, shape, min_std) for first, second in pairs])
        columns = [scores] * len(names) if pooled else list(scores.T)
        bounds = [conformal_quantile(column, coverage) for column in columns]
        cases = [int((~np.isnan(column.reshape(len(scores), -1))).any(axis=1).sum()) for column in columns]
        needed = math.ceil(coverage / (1 - coverage) - 1e-9)
        endless = [name for name, bound, count in zip(names, bounds, cases) if math.isinf(bound) and count >= needed]
        if endless:
            raise ValueError(
                f"no ellipse contains enough of the errors of {', '.join(endless[:5])}, because the covariances are zero in"
                " a direction in which there are errors; give a min_std above 0."
            )
        short = [f"{name} ({count})" for name, bound, count in zip(names, bounds, cases) if math.isinf(bound)]
        if short or not names:
            raise ValueError(
                f"too few calibration images for a coverage of {coverage:g}, which takes at least"
                f" {needed} with truth and prediction:"
                f" {', '.join(short[:5]) or 'no landmark'}."
                " Add images, state a smaller coverage, or pool the landmarks."
            )
        dims = pairs[0][0].spatial_dims
        return cls(names, float(coverage), tuple(bounds), tuple(cases), dims, shape, bool(pooled), float(min_std))

    def add_to(self, landmarks: LandmarkSet) -> LandmarkSet:
        """Return the same landmarks with their regions.

        Args:
            landmarks: landmarks in world mm. A landmark has no region if it is missing, if it was not calibrated, or if
                the shape is ``"ellipse"`` and it has no covariance.

        Returns:
            The landmarks with ``regions`` and ``coverage``.

        Raises:
            ValueError: if the points are pixels, or have another dimension than those of the calibration.
        """
        _ensure_ras(landmarks)
        if (
            landmarks.spatial_dims == 3 and self.spatial_dims == 2
        ):  # 3D Slicer's files have 3-D points for 2-D images, too
            return self.add_to(landmarks.with_spatial_dims(2)).with_spatial_dims(3)
        if landmarks.spatial_dims != self.spatial_dims:
            raise ValueError(
                f"the regions are for {self.spatial_dims}-D points, but these are {landmarks.spatial_dims}-D."
            )
        bound = dict(zip(self.names, self.bounds))
        factor = np.array([bound.get(name, np.nan) for name in landmarks.names]) ** 2
        shapes = _shapes(landmarks, self.shape, self.min_std)
        return replace(landmarks, regions=factor[:, None, None] * shapes, coverage=self.coverage)

    def save(self, path: str | os.PathLike) -> None:
        """Write a small JSON file, completely or not at all."""
        content = asdict(self) | {"names": None, "bounds": None, "cases": None}
        content = {key: value for key, value in content.items() if value is not None}
        content["landmarks"] = {
            name: {"bound": bound, "cases": cases} for name, bound, cases in zip(self.names, self.bounds, self.cases)
        }
        write_kind(path, _KIND, content)

    @classmethod
    def load(cls, path: str | os.PathLike) -> ConformalRegions:
        """Read a file that :meth:`save` has written.

        Raises:
            ValueError: if the file contains something else or is malformed.
        """
        with naming_file(path):
            content = read_kind(path, _KIND, "expected a file written by ConformalRegions.save.")
            landmarks = content.get("landmarks")
            numbers = [content.get("coverage"), content.get("min_std"), content.get("spatial_dims")]
            if not isinstance(landmarks, dict) or not all(isinstance(entry, dict) for entry in landmarks.values()):
                raise ValueError("'landmarks' is malformed; expected the bound and the cases of each landmark.")
            numbers += [entry.get(key) for entry in landmarks.values() for key in ("bound", "cases")]
            if not all(is_number(number) for number in numbers):
                raise ValueError(
                    "coverage, min_std, spatial_dims, and bound and cases of each landmark must be numbers."
                )
            return cls(
                tuple(landmarks),
                float(content["coverage"]),
                tuple(float(entry["bound"]) for entry in landmarks.values()),
                tuple(int(entry["cases"]) for entry in landmarks.values()),
                int(content["spatial_dims"]),
                cast(_Shape, str(content.get("shape"))),  # the constructor refuses others
                content.get("pooled") is True,
                float(content["min_std"]),
            )


def _scores(predicted: LandmarkSet, true: LandmarkSet, shape: _Shape, min_std: float) -> np.ndarray:
    if shape == "ellipse" and predicted.covariances is None:
        raise ValueError("a prediction has no covariances, which ellipses need; calibrate shape='ball'.")
    return mahalanobis_distance(true.points - predicted.points, _shapes(predicted, shape, min_std))


def _shapes(landmarks: LandmarkSet, shape: _Shape, min_std: float) -> np.ndarray:
    """Return matrices (N, D, D); a region is a multiple of its matrix."""
    unit = np.broadcast_to(np.eye(landmarks.spatial_dims), (*landmarks.points.shape, landmarks.spatial_dims))
    if shape == "ball":
        return unit
    return np.full_like(unit, np.nan) if landmarks.covariances is None else landmarks.covariances + min_std**2 * unit


def _same_dims(pairs: Sequence[tuple[LandmarkSet, LandmarkSet]]) -> list[tuple[LandmarkSet, LandmarkSet]]:
    """Return all landmarks in RAS, and as 2-D points if all of them lie in the plane z = 0."""
    world = [(_ensure_ras(first), _ensure_ras(second)) for first, second in pairs]
    for pair in world:
        heights = [np.nan_to_num(landmarks.points[:, 2:]) for landmarks in pair if landmarks.spatial_dims == 3]
        if len(heights) == 1 and heights[0].any():
            raise ValueError(
                f"points with z = {heights[0][heights[0] != 0][0]:g} mm cannot be compared with 2-D points; give both with"
                " z, or both without."
            )
    flat = not any(np.nan_to_num(landmarks.points[:, 2:]).any() for pair in world for landmarks in pair)
    dims = 2 if flat else 3
    return [(first.with_spatial_dims(dims), second.with_spatial_dims(dims)) for first, second in world]


def _ensure_ras(landmarks: LandmarkSet) -> LandmarkSet:
    if landmarks.coordinate_system == CoordinateSystem.INDEX:
        raise ValueError("the points are pixels, but regions are in mm; use to_world(affine) first.")
    return landmarks.to(CoordinateSystem.RAS)


def _require_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; expected a probability between 0 and 1, for example 0.9.")


def _require_shape(shape: _Shape, min_std: float) -> None:
    if shape not in get_args(_Shape):
        raise ValueError(f"shape is {shape!r}; expected one of {', '.join(get_args(_Shape))}.")
    if not 0 <= min_std < math.inf:
        raise ValueError(f"min_std is {min_std}; expected a number of mm, 0 or more.")
