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

"""Standard deviations and intervals of measurements, from the covariances of their landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .landmark_schema import LandmarkSchema

__all__ = ["MeasuredValues", "measure_with_uncertainty"]

_SAMPLES = 4000  # of each image; they give a standard deviation to 2 %
_SEED = 0  # the same images have the same intervals


@dataclass(frozen=True, eq=False)
class MeasuredValues:
    """The values of one measurement in B images.

    Args:
        name: name of the measurement.
        unit: unit of the values.
        values: array (B,), NaN where a landmark is missing.
        std: array (B,), standard deviations; NaN where a covariance is unknown.
        lows: array (B,), lower ends of the intervals.
        highs: array (B,), upper ends.
        coverage: probability that an interval contains the true value, if the covariances are right.
        classes: B names of classes; empty for a value in no class, or if the measurement has no classes.
    """

    name: str
    unit: str
    values: np.ndarray
    std: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    coverage: float
    classes: tuple[str, ...]

    def row(self, index: int) -> dict[str, str | float]:
        """Return the row of an image for a table, without the image."""
        return {
            "measurement": self.name,
            "value": float(self.values[index]),
            "unit": self.unit,
            "std": float(self.std[index]),
            "low": float(self.lows[index]),
            "high": float(self.highs[index]),
            "coverage": self.coverage,
            "class": self.classes[index],
        }


def measure_with_uncertainty(
    schema: LandmarkSchema, points: np.ndarray, covariances: np.ndarray | None = None, coverage: float = 0.9
) -> dict[str, MeasuredValues]:
    """Measure images, with standard deviations and intervals that follow from the covariances of the landmarks.

    The landmarks of an image are taken as independent and normally distributed around their points. Each measurement is
    made on 4000 random samples of them, always the same ones. Its interval lies between two quantiles of the samples,
    moved so that the median of the samples is the measured value. Random errors make the largest of many angles larger,
    in the predicted points and once more in the samples; without the move, the interval would not contain the value. The
    interval of a quantity that is never negative does not go below 0, and that of an angle from 0 to 180 degrees not
    above 180.

    Errors that landmarks have in common, as those of a vertebra that is taken for its neighbor, are not independent.
    Intervals of angles and lengths are then too large.

    Args:
        schema: schema with the measurements.
        points: array (B, N, D) in mm, in the order of the schema, NaN where missing.
        covariances: array (B, N, D, D) in mm^2, NaN where unknown. None: no standard deviations.
        coverage: probability of the intervals.

    Returns:
        The values of each measurement, by name.

    Example:
        >>> from monai_landmarks.schema import load_landmark_schema
        >>> schema = load_landmark_schema("lumbar_5")
        >>> points = np.stack([np.zeros(5), np.zeros(5), -35 * np.arange(5.0)], axis=1)[None]
        >>> measured = measure_with_uncertainty(schema, points, np.broadcast_to(np.eye(3), (1, 5, 3, 3)))
        >>> length = measured["lumbar_length"]  # from L1 to L5, each with a standard deviation of 1 mm
        >>> length.values.round(1).tolist(), length.std.round(1).tolist()
        ([140.0], [1.4])
    """
    points = np.asarray(points, dtype=np.float64)
    values = schema.measure(points)
    spread = {name: np.full((3, len(points)), np.nan) for name in values}
    units = {measurement.name: measurement.unit for measurement in schema.measurements}
    if covariances is not None:
        noise = _noise(points.shape[1:])
        for index, (place, matrices) in enumerate(zip(points, np.asarray(covariances, dtype=np.float64))):
            samples = (place[:, None] + noise @ np.swapaxes(_roots(matrices), 1, 2)).swapaxes(0, 1)
            for name, found in schema.measure(samples).items():
                if np.isfinite(found).all():
                    low, middle, high = np.quantile(found, [0.5 - coverage / 2, 0.5, 0.5 + coverage / 2])
                    value = values[name][index]
                    low, high = low - middle + value, high - middle + value
                    if min(value, found.min()) >= 0:
                        low = max(low, 0.0)
                        if units[name] == "degree" and max(value, found.max()) <= 180:
                            high = min(high, 180.0)
                    spread[name][:, index] = found.std(), low, high
    numbers = schema.classify(values)
    result = {}
    for measurement in schema.measurements:
        names = ("", *(known.name for known in measurement.classes))
        std, lows, highs = spread[measurement.name]
        classes = numbers.get(measurement.name, np.zeros(len(points), dtype=int))
        result[measurement.name] = MeasuredValues(
            measurement.name,
            measurement.unit,
            values[measurement.name],
            std,
            lows,
            highs,
            coverage,
            tuple(names[int(number)] for number in classes),
        )
    return result


@lru_cache(maxsize=1)
def _noise(shape: tuple[int, ...]) -> np.ndarray:
    """Return the random samples of landmarks (N, K, D); images that are measured one by one share them."""
    noise = np.random.default_rng(_SEED).standard_normal((_SAMPLES // 2, *shape)).swapaxes(0, 1)
    return np.concatenate([noise, -noise], axis=1)


def _roots(covariances: np.ndarray) -> np.ndarray:
    """Return square roots (N, D, D) of covariances, NaN where they are unknown."""
    known = np.asarray(np.isfinite(covariances).all(axis=(-2, -1)))
    lengths, axes = np.linalg.eigh(np.where(known[:, None, None], covariances, 0.0))
    roots = axes * np.sqrt(np.maximum(lengths, 0))[:, None, :]
    roots[~known] = np.nan
    return np.asarray(roots)
