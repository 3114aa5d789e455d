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

"""The probability that a predicted landmark is within a distance of its true place, learned on validation images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import is_number

from .coverage import gaussian_coverage

__all__ = ["LandmarkProbabilities", "ProbabilityModel"]

_MIN_IMAGES = 8  # with fewer validation images, nothing is said
_CLIP = 1e-3  # a covariance alone is never surer than this
_FAR = 6.0  # largest deviation of a score that counts, in usual deviations
_FLOOR = 0.05  # smallest spread of the logarithm of a score
_PRIOR = np.array([0.0, 1.0, 0.0])  # the covariance is right, and the score adds nothing
_STRENGTH = np.array([0.0, 1.0, 1.0])  # of the prior, in observations of a standard deviation of 1
_STEPS = 50


@dataclass(frozen=True, eq=False)
class LandmarkProbabilities:
    """Probabilities of the landmarks of one image.

    Args:
        values: array (N,): probability that the error is at most ``radius``; NaN where unknown.
        radius: in mm.
    """

    values: np.ndarray
    radius: float


@dataclass(frozen=True, eq=False)
class ProbabilityModel:
    r"""Logistic regression from covariance and score to the probability that an error is at most a radius.

    The score of a method is the value of a heatmap, a sum of votes, or another number without a unit. This model makes
    it comparable between landmarks and methods:

    .. math:: \operatorname{logit} P = w_0 + w_1 \operatorname{logit} G + w_2 z

    G is the probability that a normal variable with the variance of the calibrated covariance, equal along all axes, is
    within the radius. z is the deviation of the logarithm of the score from its median over the validation images, in
    usual deviations of that landmark. The weights are common to all landmarks, so that few images suffice.

    Args:
        names: names of the N landmarks.
        radius: in mm.
        weights: the three weights.
        scores: array (N, 2): median and spread of the logarithm of the scores; NaN if unknown.

    Raises:
        ValueError: if the radius is not positive or the shapes differ.
    """

    names: tuple[str, ...]
    radius: float
    weights: tuple[float, float, float]
    scores: np.ndarray

    def __post_init__(self) -> None:
        if not (math.isfinite(self.radius) and self.radius > 0):
            raise ValueError(f"the radius is {self.radius}; expected a positive number of mm.")
        if np.shape(self.scores) != (len(self.names), 2) or len(self.weights) != 3:
            raise ValueError("malformed: expected three weights, and median and spread of the score of each landmark.")

    @classmethod
    def fit(
        cls, names: Sequence[str], errors: np.ndarray, scores: np.ndarray, covariances: np.ndarray, radius: float
    ) -> ProbabilityModel:
        """Learn from images with ground truth that no training has used.

        Args:
            names: names of the N landmarks.
            errors: array (K, N) in mm, NaN where prediction or ground truth is missing.
            scores: array (K, N).
            covariances: calibrated, (K, N, D, D) in mm^2.
            radius: in mm.

        Raises:
            ValueError: if fewer than 8 images have a landmark with error and covariance.
        """
        logarithms = _log(np.where(np.isfinite(errors), scores, np.nan))
        usual = np.array([_usual(column) for column in logarithms.T]).reshape(len(names), 2)
        model = cls(tuple(names), float(radius), (0.0, 1.0, 0.0), usual)
        features = model._features(scores, covariances)
        known = np.isfinite(errors) & np.isfinite(features).all(axis=-1)
        images = int(known.any(axis=1).sum())
        if images < _MIN_IMAGES:
            raise ValueError(f"{images} images have a landmark with error and covariance; {_MIN_IMAGES} are required.")
        rows, inside = features[known], (errors[known] <= radius).astype(np.float64)
        # half an observation inside and half outside, so that the weights are finite if all errors are on one side
        middle = np.concatenate([rows.mean(axis=0)[:2], [0.0]])
        rows = np.vstack([rows, middle, middle])
        weights = _logistic(rows, np.append(inside, [1.0, 0.0]), np.append(np.ones(len(inside)), [0.5, 0.5]))
        return cls(model.names, model.radius, (weights[0], weights[1], weights[2]), usual)

    def probabilities(self, scores: np.ndarray, covariances: np.ndarray) -> LandmarkProbabilities:
        """Return the probabilities of landmarks.

        Args:
            scores: array (..., N), NaN where unknown.
            covariances: calibrated, (..., N, D, D) in mm^2, NaN for a landmark that was not found.
        """
        logits = self._features(np.asarray(scores), np.asarray(covariances)) @ np.array(self.weights)
        return LandmarkProbabilities(1 / (1 + np.exp(-logits)), self.radius)

    def _features(self, scores: np.ndarray, covariances: np.ndarray) -> np.ndarray:
        """Return the features (..., N, 3)."""
        dims = covariances.shape[-1]
        variances = np.trace(covariances, axis1=-2, axis2=-1) / dims
        with np.errstate(divide="ignore"):
            level = gaussian_coverage(self.radius / np.sqrt(variances), dims)
        level = np.clip(level, _CLIP, 1 - _CLIP)
        # an unknown score says nothing
        deviations = np.nan_to_num((_log(scores) - self.scores[:, 0]) / self.scores[:, 1], nan=0.0)
        deviations = np.clip(deviations, -_FAR, _FAR)
        return np.stack([np.ones_like(level), np.log(level / (1 - level)), deviations], axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        scores = [[None if math.isnan(value) else value for value in row] for row in self.scores.tolist()]
        return {"radius_mm": self.radius, "weights": list(self.weights), "scores": dict(zip(self.names, scores))}

    @classmethod
    def from_dict(cls, content: Any) -> ProbabilityModel:
        """Return the model that :meth:`to_dict` has described.

        Raises:
            ValueError: if the content is malformed.
        """
        malformed = (
            "'probability' is malformed; expected radius_mm, weights and scores; train again, or remove the file."
        )
        if not isinstance(content, Mapping) or not isinstance(content.get("scores"), Mapping):
            raise ValueError(malformed)
        weights, rows = content.get("weights"), list(content["scores"].values())
        pairs = all(
            isinstance(row, list) and len(row) == 2 and all(value is None or is_number(value) for value in row)
            for row in rows
        )
        right = isinstance(weights, list) and len(weights) == 3 and all(map(is_number, weights))
        if not (pairs and right and is_number(content.get("radius_mm"))):
            raise ValueError(malformed)
        scores = np.array([[math.nan if value is None else float(value) for value in row] for row in rows])
        first, second, third = map(float, weights)
        names = tuple(map(str, content["scores"]))
        return cls(names, float(content["radius_mm"]), (first, second, third), scores.reshape(len(names), 2))


def _log(values: np.ndarray) -> np.ndarray:
    """Return logarithms; those of numbers that are not positive are very small."""
    return np.asarray(np.log(np.maximum(np.asarray(values, dtype=np.float64), 1e-9)))


def _usual(values: np.ndarray) -> tuple[float, float]:
    """Return median and spread; NaN with fewer than four values."""
    known = values[np.isfinite(values)]
    if len(known) < 4:
        return math.nan, math.nan
    median = float(np.median(known))
    return median, max(1.4826 * float(np.median(np.abs(known - median))), _FLOOR)


def _logistic(rows: np.ndarray, inside: np.ndarray, counts: np.ndarray) -> list[float]:
    """Return the weights of a logistic regression with a prior, by Newton's method.

    The logarithm of the posterior is concave, and half steps are taken until it increases.
    """

    def objective(weights: np.ndarray) -> float:
        logits = rows @ weights
        likelihood = float((counts * (np.logaddexp(0, logits) - inside * logits)).sum())
        return likelihood + 0.5 * float((_STRENGTH * (weights - _PRIOR) ** 2).sum())

    weights = _PRIOR.copy()
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(-(rows @ weights)))
        gradient = rows.T @ (counts * (expected - inside)) + _STRENGTH * (weights - _PRIOR)
        curvature = (rows.T * (counts * expected * (1 - expected))) @ rows + np.diag(_STRENGTH)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(weights)), gradient)
        scale, value = 1.0, objective(weights)
        while objective(weights - scale * step) > value and scale > 1e-6:
            scale /= 2
        weights = weights - scale * step
        if np.abs(scale * step).max() < 1e-9:
            break
    return [float(weight) for weight in weights]
