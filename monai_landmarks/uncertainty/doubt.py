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

"""Doubt about predictions: configurations and heatmaps that differ from those of training and validation images."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import is_number
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.shapes import (
    MIN_LANDMARKS,
    MIN_SHAPES,
    Deviations,
    ShapeModel,
    examine_shape,
    fit_shape_model,
    usable_shapes,
)

from .weights_files import read_kind, write_kind

__all__ = ["Doubt", "DoubtModel", "HeatmapStatistics"]

_KIND = "shapes and heatmaps of landmarks"
_PLACE = 6.0  # smallest limit of a landmark's deviation, in usual deviations; that of annotations is 5
_MARGIN = 1.25  # between the largest value in a validation image and a limit
_MIN_IMAGES = 8  # with fewer validation images, nothing is said about heatmaps
_FLOOR = 0.1  # smallest spread of a logarithm; heatmaps of a phantom are almost equal
_LANDMARK, _IMAGE = 6.0, 3.0  # smallest limits of a landmark's heatmap, and of the mean over an image, in usual spreads
_FOUND = 0.8  # of the smallest number of landmarks in a validation image


@dataclass(frozen=True)
class Doubt:
    """What is doubtful about the prediction of one image.

    Args:
        reasons: reasons to doubt the image, without a period at the end. Empty: none.
        landmarks: reasons to doubt single landmarks, by index.
    """

    reasons: tuple[str, ...] = ()
    landmarks: dict[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.reasons)

    def __str__(self) -> str:
        return "; ".join(self.reasons)

    def cells(self, count: int) -> list[tuple[str, str]]:
        """Return the reason of the image, and that of the landmark, for each of ``count`` landmarks."""
        return [(str(self), self.landmarks.get(n, "")) for n in range(count)]


@dataclass(frozen=True, eq=False)
class HeatmapStatistics:
    """Usual scores and sizes of the peaks of heatmaps, and limits, from validation images.

    Args:
        scores: array (N, 2): median and spread of the logarithm of the scores; NaN if unknown.
        sizes: array (N, 2): the same for the standard deviation of the peak.
        score_limits: largest deviation below the usual score, of a landmark and of the mean over an image, in spreads.
        size_limits: the same above the usual size.
        found: smallest number of landmarks that was found in an image.
    """

    scores: np.ndarray
    sizes: np.ndarray
    score_limits: tuple[float, float]
    size_limits: tuple[float, float]
    found: int

    @classmethod
    def fit(cls, scores: np.ndarray, sizes: np.ndarray) -> HeatmapStatistics:
        """Learn from scores and sizes (K, N) of validation images, NaN where a landmark was not found."""
        both = [_log(values) for values in (scores, sizes)]
        usual = [_usual(values) for values in both]
        low, wide = -_deviations(both[0], usual[0]), _deviations(both[1], usual[1])
        found = int(np.isfinite(scores).sum(axis=1).min())
        return cls(usual[0], usual[1], _limits(low), _limits(wide), found)

    def deviations(self, scores: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how far scores (N,) are below, and sizes (N,) above, the usual ones, in spreads."""
        return -_deviations(_log(scores), self.scores), _deviations(_log(sizes), self.sizes)


@dataclass(frozen=True, eq=False)
class DoubtModel:
    """The shapes of training points, and the heatmaps of validation images, with which predictions are compared.

    Position, rotation and size of a shape do not count in its form; an unusual rotation or size is a reason of its own.
    All limits come from the validation images: they are a quarter larger than the largest value there, without
    outliers, and not smaller than a fixed number.

    Args:
        names: names of the N landmarks.
        shape: model of shape. None: there were too few training shapes.
        place_limit: largest deviation of a landmark from its expected place, in usual deviations.
        heatmaps: usual heatmaps. None: there were too few validation images.
        form_limit: largest squared Mahalanobis distance of a shape from the mean shape, divided by its number of
            coordinates. It sees many small deviations, such as those of a spine that is upside down. Infinite if there
            were too few validation images.
    """

    names: tuple[str, ...]
    shape: ShapeModel | None
    place_limit: float = _PLACE
    heatmaps: HeatmapStatistics | None = None
    form_limit: float = math.inf

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        training_points: np.ndarray,
        points: np.ndarray,
        scores: np.ndarray,
        covariances: np.ndarray,
    ) -> DoubtModel:
        """Learn from training points, and from predictions of validation images.

        Args:
            names: names of the N landmarks.
            training_points: ground truth of the training images in mm, (K, N, D), NaN where missing.
            points: predictions of validation images in mm, (V, N, D), NaN where missing.
            scores: (V, N).
            covariances: in mm^2, (V, N, D, D).
        """
        shape = None
        if len(training_points) and usable_shapes(training_points).sum() >= MIN_SHAPES:
            shape = fit_shape_model(training_points)
        limit, form_limit = _PLACE, math.inf
        if shape is not None and len(points):
            compared = shape.compare(points)
            limit = max(limit, _MARGIN * _largest(_maxima(compared.distances)))
            if len(points) >= _MIN_IMAGES:
                form_limit = _MARGIN**2 * _largest(_mean_costs(points, compared))  # a square
        heatmaps = None
        if len(points) >= _MIN_IMAGES:
            missing = ~np.isfinite(points).all(axis=-1)
            heatmaps = HeatmapStatistics.fit(
                np.where(missing, np.nan, scores), np.where(missing, np.nan, _size(covariances))
            )
        return cls(tuple(names), shape, float(limit), heatmaps, float(form_limit))

    def examine(self, points: np.ndarray, scores: np.ndarray | None, covariances: np.ndarray | None) -> Doubt:
        """Examine the prediction of one image.

        Args:
            points: (N, D) in mm, NaN where missing.
            scores: (N,). None: unknown.
            covariances: (N, D, D) in mm^2, before calibration. None: unknown.

        Returns:
            The doubts; empty if there are none.
        """
        reasons: list[str] = []
        marks: dict[int, list[str]] = {}
        missing = ~np.isfinite(points).all(axis=-1)
        if self.heatmaps is not None:
            unknown = np.full(len(points), np.nan)
            scores = unknown if scores is None else np.where(missing, np.nan, scores)
            sizes = unknown if covariances is None else np.where(missing, np.nan, _size(covariances))
            reasons += self._heatmaps(scores, sizes, marks)
        found = int((~missing).sum())
        if found < (_FOUND * self.heatmaps.found if self.heatmaps is not None else 1):
            reasons.append(f"only {found} of {len(points)} landmarks were found")
        if self.shape is not None:
            if usable_shapes(points[None])[0]:
                reasons += self._form(points, self.shape, marks)
            elif found >= MIN_LANDMARKS:
                reasons.append("all landmarks are at one place")
        return Doubt(tuple(reasons), {index: "; ".join(texts) for index, texts in sorted(marks.items())})

    def _form(self, points: np.ndarray, shape: ShapeModel, marks: dict[int, list[str]]) -> list[str]:
        one = points[None]
        aligned = shape.align(one)(one)
        if (
            _distance_from_mean(aligned[0], shape) > self.place_limit
            and _distance_from_mean(shape.align(one, mirrored=True)(one)[0], shape) > self.place_limit
        ):
            # single landmarks would say nothing
            return ["the landmarks do not form a shape like those of the training images"]
        finding = examine_shape(points, shape, self.place_limit)
        for index, distance in finding.displaced.items():
            marks.setdefault(index, []).append(f"{distance:.3g} mm away from the expected place")
        if finding:
            return [finding.describe(self.names)]
        if (_mean_costs(one, shape.deviations(aligned)) > self.form_limit).any():
            return ["the landmarks together form another shape than in any validation image"]
        return []

    def _heatmaps(self, scores: np.ndarray, sizes: np.ndarray, marks: dict[int, list[str]]) -> list[str]:
        assert self.heatmaps is not None
        low, wide = self.heatmaps.deviations(scores, sizes)
        reasons = []
        for deviations, (of_landmark, of_image), text in (
            (low, self.heatmaps.score_limits, "weaker"),
            (wide, self.heatmaps.size_limits, "wider"),
        ):
            for index in np.flatnonzero(deviations > of_landmark).tolist():
                marks.setdefault(index, []).append(f"its heatmap is {text} than in any validation image")
            if np.isfinite(deviations).any() and np.nanmean(deviations) > of_image:
                reasons.append(f"the heatmaps are {text} than in any validation image")
        return reasons

    def save(self, path: str | os.PathLike) -> None:
        """Write a JSON file of numbers, completely or not at all."""
        content: dict[str, Any] = {"names": list(self.names), "place_limit": self.place_limit}
        content["form_limit"] = self.form_limit if math.isfinite(self.form_limit) else None
        content["shape"] = None if self.shape is None else self.shape.to_dict()
        content["heatmaps"] = None
        if self.heatmaps is not None:
            content["heatmaps"] = {
                "scores": _lists(self.heatmaps.scores),
                "sizes": _lists(self.heatmaps.sizes),
                "score_limits": list(self.heatmaps.score_limits),
                "size_limits": list(self.heatmaps.size_limits),
                "found": self.heatmaps.found,
            }
        write_kind(path, _KIND, content, indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike) -> DoubtModel:
        """Read a file that :meth:`save` has written.

        Raises:
            ValueError: if the file contains something else or is malformed.
        """
        with naming_file(path):
            content = read_kind(path, _KIND, "train again, or remove the file.")
            try:
                return cls._parse(content)
            except (KeyError, TypeError, IndexError, AttributeError) as error:
                raise ValueError(
                    f"malformed ({type(error).__name__}: {error}); train again, or remove the file."
                ) from error

    @classmethod
    def _parse(cls, content: dict[str, Any]) -> DoubtModel:
        names = tuple(str(name) for name in content["names"])
        shape = None if content["shape"] is None else ShapeModel.from_dict(content["shape"])
        if shape is not None and (
            shape.mean.shape[0] != len(names)
            or shape.covariance.shape != (shape.mean.size,) * 2
            or not np.isfinite(shape.covariance).all()
        ):
            raise ValueError("malformed: the model of shape does not have one point for each name.")
        if not is_number(content["place_limit"]):
            raise ValueError("malformed: place_limit must be a number.")
        form_limit = content.get("form_limit")  # files of older trainings have none
        if form_limit is not None and not is_number(form_limit):
            raise ValueError("malformed: form_limit must be a number.")
        heatmaps = None
        if content["heatmaps"] is not None:
            known = content["heatmaps"]
            scores, sizes = (_array(known[key], len(names)) for key in ("scores", "sizes"))
            (score, score_mean), (size, size_mean) = (map(float, known[key]) for key in ("score_limits", "size_limits"))
            heatmaps = HeatmapStatistics(scores, sizes, (score, score_mean), (size, size_mean), int(known["found"]))
        form = math.inf if form_limit is None else float(form_limit)
        return cls(names, shape, float(content["place_limit"]), heatmaps, form)


def _distance_from_mean(aligned: np.ndarray, shape: ShapeModel) -> float:
    """Return the median distance of aligned landmarks (N, D) from the mean shape, in standard deviations."""
    offsets = aligned - shape.mean
    variances = np.diagonal(shape.covariance).reshape(offsets.shape).mean(axis=1)
    distances = np.sqrt((offsets**2).mean(axis=1) / variances)
    known = distances[np.isfinite(distances)]
    return float(np.median(known)) if len(known) else 0.0


def _mean_costs(points: np.ndarray, compared: Deviations) -> np.ndarray:
    """Return the squared distances (K,) of shapes (K, N, D) from the mean shape per coordinate, without unknown ones."""
    counts = np.isfinite(compared.distances).sum(axis=1) * points.shape[-1]
    costs = compared.costs / np.maximum(counts, 1)
    return costs[np.isfinite(costs)]


def _size(covariances: np.ndarray) -> np.ndarray:
    """Return the root mean square distance (..., N) of covariances (..., N, D, D)."""
    return np.asarray(np.sqrt(np.trace(covariances, axis1=-2, axis2=-1)))


def _log(values: np.ndarray) -> np.ndarray:
    """Return logarithms; those of numbers that are not positive are very small."""
    known = np.isfinite(values)
    return np.where(known, np.log(np.maximum(np.where(known, values, 1.0), 1e-9)), np.nan)


def _usual(values: np.ndarray) -> np.ndarray:
    """Return median and spread (N, 2) of values (K, N); NaN without values."""
    result = np.full((values.shape[1], 2), np.nan)
    for n, column in enumerate(values.T):
        known = column[np.isfinite(column)]
        if len(known):
            median = float(np.median(known))
            result[n] = median, max(1.4826 * float(np.median(np.abs(known - median))), _FLOOR)
    return result


def _deviations(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    return np.asarray((values - usual[:, 0]) / usual[:, 1])


def _maxima(values: np.ndarray) -> np.ndarray:
    """Return the largest value of each row, without rows that have none."""
    known = values[np.isfinite(values).any(axis=1)]
    return np.nanmax(known, axis=1) if len(known) else np.zeros(0)


def _limits(deviations: np.ndarray) -> tuple[float, float]:
    """Return the limits of a landmark and of the mean over an image, from deviations (K, N) of validation images."""
    rows = deviations[np.isfinite(deviations).any(axis=1)]
    means = np.nanmean(rows, axis=1) if len(rows) else np.zeros(0)
    return max(_LANDMARK, _MARGIN * _largest(_maxima(deviations))), max(_IMAGE, _MARGIN * _largest(means))


def _largest(values: np.ndarray) -> float:
    """Return the largest value that is no outlier; 0 without values."""
    if not len(values):
        return 0.0
    median = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - median)))
    usual = values[values <= median + 6 * max(spread, 0.1)]
    return float(usual.max())


def _lists(values: np.ndarray) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in values.tolist()]


def _array(rows: Any, count: int) -> np.ndarray:
    values = np.array([[math.nan if value is None else float(value) for value in row] for row in rows])
    if values.shape != (count, 2):
        raise ValueError("malformed: expected median and spread of each landmark.")
    return values
