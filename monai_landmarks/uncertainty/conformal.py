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
"""Split-conformal regions: ellipses and balls in mm that hold a landmark as often as they say.

Vovk, Gammerman, Shafer, *Algorithmic Learning in a Random World*, Springer 2005; Angelopoulos, Bates, *Conformal prediction: a
gentle introduction*, Foundations and Trends in Machine Learning 16 (2023) 494-591. The regions hold for new images that are
drawn as those of the calibration were, which no training has seen; nothing else is assumed, and nothing is promised for other
images. They hold on average: over images, and where landmarks are pooled over landmarks, too.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data import CoordinateSystem, LandmarkSet, atomic_write
from monai_landmarks.data.files.json_values import is_number, load_json
from monai_landmarks.data.files.safe_files import naming_file, read_text

from .coverage import mahalanobis_distance

__all__ = ["ConformalRegions", "conformal_quantile"]

_SHAPES = ("ball", "ellipse")
_KIND = "conformal regions of landmarks"


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """The bound that the score of a new image keeps with a stated probability.

    Of n exchangeable scores it is the ceil((n + 1) coverage)-th smallest. A new one is at most that with a probability of
    at least the coverage, and of at most coverage + 1 / (n + 1) where scores do not tie.

    Scores of several landmarks of an image, which are not independent, are pooled as Lee, Barber, Willett, *Distribution-free
    inference with hierarchical data*, arXiv:2306.06342: each image weighs 1 / (n + 1), and so does the new one, at infinity. The
    lower bound then holds for a landmark of a new image, drawn evenly from those it has.

    Args:
        scores: (n,) one an image, or (n, K) one a landmark and image. NaN where there is none.
        coverage: between 0 and 1.

    Returns:
        the bound; inf where n is too small for the coverage: fewer than coverage / (1 - coverage).

    Raises:
        ValueError: if the coverage is not between 0 and 1.

    Example:
        >>> conformal_quantile(np.arange(1.0, 20.0), 0.9), conformal_quantile(np.arange(8.0), 0.9)
        (18.0, inf)
    """
    _check_coverage(coverage)
    scores = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    known = ~np.isnan(scores)
    count = known.sum(axis=1, keepdims=True)
    images = int((count > 0).sum())
    weights = np.broadcast_to(1 / ((images + 1) * np.maximum(count, 1)), scores.shape)[known]
    order = np.argsort(scores[known], kind="stable")
    # what rounding takes from a sum must not push the bound to the next score
    reached = np.flatnonzero(np.cumsum(weights[order]) >= coverage - 1e-9)
    return float(scores[known][order[reached[0]]]) if len(reached) else math.inf


@dataclass(frozen=True)
class ConformalRegions:
    """Regions of landmarks with a stated coverage, calibrated on images whose true landmarks are known.

    Args:
        names: of the N landmarks.
        coverage: that is stated, such as 0.9.
        bounds: N bounds: the radius in mm (``"ball"``), or the factor on the covariance's ellipsoid (``"ellipse"``).
        cases: N numbers of calibration images behind each bound.
        spatial_dims: 2 or 3.
        shape: ``"ball"``: the same radius in every image; ``"ellipse"``: the covariance tells the shape and how sure this
            image is, the calibration how much of it is needed.
        pooled: whether all landmarks share one bound.
        min_std: mm that are added to the standard deviations of an ellipse in every direction (as variances), so that a
            prediction which is too sure of itself has a region at all.

    Raises:
        ValueError: if the values contradict each other.
    """

    names: tuple[str, ...]
    coverage: float
    bounds: tuple[float, ...]
    cases: tuple[int, ...]
    spatial_dims: int
    shape: str = "ball"
    pooled: bool = False
    min_std: float = 0.1

    def __post_init__(self) -> None:
        _check_coverage(self.coverage)
        _check_shape(self.shape, self.min_std)
        if not len(self.names) == len(self.bounds) == len(self.cases) or len(set(self.names)) < len(self.names):
            raise ValueError("names, bounds and cases must be of one length, and the names distinct.")
        if self.spatial_dims not in (2, 3) or not all(math.isfinite(b) and b >= 0 for b in self.bounds):
            raise ValueError("spatial_dims must be 2 or 3, and the bounds finite and not negative.")

    @classmethod
    def calibrate(
        cls,
        predicted: Sequence[LandmarkSet],
        true: Sequence[LandmarkSet],
        coverage: float = 0.9,
        shape: str = "ball",
        pooled: bool = False,
        min_std: float = 0.1,
    ) -> ConformalRegions:
        """Learn the regions from predictions of images that no training has seen.

        A landmark that is missing on either side does not count: what is stated is where a landmark is that was found.

        Args:
            predicted: landmarks in the world, in mm; with covariances for ellipses.
            true: of the same images, in the same order.
            coverage: to be stated.
            shape: ``"ball"`` or ``"ellipse"``, see the class.
            pooled: one bound for all landmarks, for data with few images. It holds for a landmark drawn evenly from those of
                an image, and not for each of them.
            min_std: see the class.

        Raises:
            ValueError: if there are too few images for the coverage, the points are pixels, or an ellipse is asked for
                without covariances.

        Example:
            >>> random = np.random.default_rng(0)
            >>> true = [LandmarkSet(("tip",), random.uniform(0, 100, (1, 2))) for _ in range(99)]
            >>> found = [LandmarkSet(("tip",), case.points + random.normal(0, 1, (1, 2))) for case in true]
            >>> regions = ConformalRegions.calibrate(found, true, coverage=0.9)
            >>> regions.add_to(found[0]).region_radius.round(1).tolist()  # 2.15 for this noise and infinitely many images
            [2.1]
        """
        _check_shape(shape, min_std)
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
        short = [f"{name} ({count})" for name, bound, count in zip(names, bounds, cases) if math.isinf(bound)]
        if short or not names:
            raise ValueError(
                f"too few calibration images for a coverage of {coverage:g}, which takes at least"
                f" {math.ceil(coverage / (1 - coverage) - 1e-9)} with truth and prediction: {', '.join(short[:5]) or 'no landmark'}."
                " Add images, state a smaller coverage, or pool the landmarks."
            )
        dims = pairs[0][0].spatial_dims
        return cls(names, float(coverage), tuple(bounds), tuple(cases), dims, shape, bool(pooled), float(min_std))

    def add_to(self, landmarks: LandmarkSet) -> LandmarkSet:
        """The same landmarks with the regions of these bounds.

        Args:
            landmarks: in the world, in mm. A landmark that is missing, that was not calibrated, or whose covariance an ellipse
                needs and does not have, has no region.

        Raises:
            ValueError: if the points are pixels, or of another dimension than those of the calibration.
        """
        _require_mm(landmarks)
        if landmarks.spatial_dims == 3 and self.spatial_dims == 2:  # as 3D Slicer's files have the points of a picture
            return self.add_to(landmarks.with_spatial_dims(2)).with_spatial_dims(3)
        if landmarks.spatial_dims != self.spatial_dims:
            raise ValueError(
                f"the regions are for {self.spatial_dims}-D points, and these are {landmarks.spatial_dims}-D."
            )
        bound = dict(zip(self.names, self.bounds))
        factor = np.array([bound.get(name, np.nan) for name in landmarks.names]) ** 2
        shapes = _shapes(landmarks, self.shape, self.min_std)
        return replace(landmarks, regions=factor[:, None, None] * shapes, coverage=self.coverage)

    def save(self, path: str | os.PathLike) -> None:
        """Write a small JSON file, whole or not at all."""
        content = asdict(self) | {"names": None, "bounds": None, "cases": None}
        content = {"kind": _KIND} | {key: value for key, value in content.items() if value is not None}
        content["landmarks"] = {
            name: {"bound": bound, "cases": cases} for name, bound, cases in zip(self.names, self.bounds, self.cases)
        }
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike) -> ConformalRegions:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: if the file is something else or malformed.
        """
        with naming_file(path):
            content = load_json(read_text(Path(path)))
            if not isinstance(content, dict) or content.get("kind") != _KIND:
                raise ValueError(f"holds no {_KIND}; expected a file that ConformalRegions.save has written.")
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
                str(content.get("shape")),
                content.get("pooled") is True,
                float(content["min_std"]),
            )


def _scores(predicted: LandmarkSet, true: LandmarkSet, shape: str, min_std: float) -> np.ndarray:
    if shape == "ellipse" and predicted.covariances is None:
        raise ValueError("a prediction has no covariances, which ellipses need; calibrate shape='ball'.")
    return mahalanobis_distance(true.points - predicted.points, _shapes(predicted, shape, min_std))


def _shapes(landmarks: LandmarkSet, shape: str, min_std: float) -> np.ndarray:
    """(N, D, D): a region is a multiple of it."""
    unit = np.broadcast_to(np.eye(landmarks.spatial_dims), (*landmarks.points.shape, landmarks.spatial_dims))
    if shape == "ball":
        return unit
    return np.full_like(unit, np.nan) if landmarks.covariances is None else landmarks.covariances + min_std**2 * unit


def _same_dims(pairs: Sequence[tuple[LandmarkSet, LandmarkSet]]) -> list[tuple[LandmarkSet, LandmarkSet]]:
    """All in RAS, and 2-D if all lie in the plane z = 0."""
    world = [(_require_mm(first), _require_mm(second)) for first, second in pairs]
    flat = not any(np.nan_to_num(landmarks.points[:, 2:]).any() for pair in world for landmarks in pair)
    dims = 2 if flat else 3
    return [(first.with_spatial_dims(dims), second.with_spatial_dims(dims)) for first, second in world]


def _require_mm(landmarks: LandmarkSet) -> LandmarkSet:
    if landmarks.coordinate_system == CoordinateSystem.INDEX:
        raise ValueError("the points are pixels, and regions are in mm; use to_world(affine) first.")
    return landmarks.to(CoordinateSystem.RAS)


def _check_coverage(coverage: Any) -> None:
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; expected a probability between 0 and 1, such as 0.9.")


def _check_shape(shape: str, min_std: float) -> None:
    if shape not in _SHAPES:
        raise ValueError(f"shape is {shape!r}; expected one of {', '.join(_SHAPES)}.")
    if not 0 <= min_std < math.inf:
        raise ValueError(f"min_std is {min_std}; expected mm, 0 or more.")
