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

"""Errors of clinical measurements that are made with predicted landmarks or by another observer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_landmarks.spaces import to_array

from .landmark_schema import LandmarkSchema

__all__ = ["MeasurementComparison", "MeasurementReport", "compare_measurements"]


@dataclass(frozen=True, eq=False)
class MeasurementComparison:
    """Predicted and true values of one measurement in many images.

    Args:
        name: name of the measurement.
        unit: unit of the measurement and its errors.
        errors: (n,) predicted minus true value, of the images that have both.
        missed: number of images with a true value but no predicted value.
        classes: names of the K classes of the measurement.
        confusion: (K, K + 1) number of images by true class (row) and predicted class (column). The last column counts
            images whose predicted value is missing or in no class. Images whose true value is in no class are not
            counted.
    """

    name: str
    unit: str
    errors: np.ndarray
    missed: int
    classes: tuple[str, ...]
    confusion: np.ndarray

    @property
    def bias(self) -> float:
        """Mean error, positive if predictions are too large; NaN without images, as all statistics below."""
        return _mean(self.errors)

    @property
    def mean_absolute_error(self) -> float:
        """Mean of the absolute errors."""
        return _mean(np.abs(self.errors))

    @property
    def std(self) -> float:
        """Standard deviation of the errors, divided by n."""
        return math.sqrt(_mean((self.errors - self.bias) ** 2))

    @property
    def agreement(self) -> float:
        """Fraction of the images, in [0, 1], in which the predicted class is the true class."""
        count = int(self.confusion.sum())
        return int(self.confusion.trace()) / count if count else math.nan

    @property
    def mean_class_agreement(self) -> float:
        """Mean of the agreement over the classes that occur, in which a rare class has the same weight."""
        counts = self.confusion.sum(axis=1)
        return _mean(self.confusion.diagonal()[counts > 0] / counts[counts > 0])

    def row(self) -> dict[str, str | float]:
        """Return a row for a table; agreements are in percent, NaN if the measurement has no classes."""
        return {
            "measurement": self.name,
            "unit": self.unit,
            "n": len(self.errors),
            "missed": self.missed,
            "mean_absolute_error": self.mean_absolute_error,
            "bias": self.bias,
            "std": self.std,
            "agreement_percent": 100 * self.agreement,
            "mean_class_agreement_percent": 100 * self.mean_class_agreement,
        }


@dataclass(frozen=True, eq=False)
class MeasurementReport:
    """Predicted and true values of all measurements of a schema.

    Args:
        comparisons: comparison of each measurement, by name, in the order of the schema.
    """

    comparisons: dict[str, MeasurementComparison]

    def __getitem__(self, name: str) -> MeasurementComparison:
        return self.comparisons[name]

    def rows(self) -> list[dict[str, str | float]]:
        """Return one row per measurement, see :meth:`MeasurementComparison.row`."""
        return [comparison.row() for comparison in self.comparisons.values()]

    def __str__(self) -> str:
        width = max(len(name) for name in ("measurement", *self.comparisons))
        heads = "".join(f"{head:>10}" for head in ("unit", "n", "missed", "MAE", "bias", "std", "agree %", "by class"))
        lines = [f"{'measurement':<{width}}{heads}"]
        for row in self.rows():
            name, unit, n, missed, *numbers = row.values()
            cells = "".join(f"{number:>10.2f}" if number == number else f"{'':>10}" for number in numbers)
            lines.append(f"{name:<{width}}{unit:>10}{n:>10}{missed:>10}{cells}".rstrip())
        return "\n".join(lines)


def compare_measurements(
    schema: LandmarkSchema, predicted: Any, true: Any, spacing: float | Sequence[float] | None = None
) -> MeasurementReport:
    """Compare measurements from predicted landmarks with those from true landmarks.

    Args:
        schema: schema with the measurements.
        predicted: points (..., N, D), as in :meth:`LandmarkSchema.measure`.
        true: points of the same shape; for a comparison of two observers, those of the other observer.
        spacing: as in :meth:`LandmarkSchema.measure`.

    Returns:
        The errors of each measurement. For a measurement with classes also the agreement of the classes, which is the
        success classification rate of the ISBI 2015 challenge.

    Raises:
        ValueError: if the shapes differ, or do not fit the schema.

    Example:
        >>> from monai_landmarks.schema import load_landmark_schema
        >>> schema = load_landmark_schema("lumbar_5")
        >>> true = np.stack([np.zeros(5), np.zeros(5), -35 * np.arange(5.0)], axis=1)
        >>> print(compare_measurements(schema, 1.1 * true, true))
        measurement        unit         n    missed       MAE      bias       std   agree %  by class
        lumbar_length        mm         1         0     14.00     14.00      0.00
    """
    if tuple(predicted.shape) != tuple(true.shape):
        raise ValueError(
            f"predicted points have the shape {tuple(predicted.shape)} and true ones {tuple(true.shape)}; "
            "expected the same."
        )
    values = [schema.measure(points, spacing) for points in (predicted, true)]
    numbers = [schema.classify(known) for known in values]
    comparisons = {}
    for measurement in schema.measurements:
        pred, target = (to_array(known[measurement.name]).ravel() for known in values)
        both = ~np.isnan(pred) & ~np.isnan(target)
        count = len(measurement.classes)
        confusion = np.zeros((count, count + 1), dtype=np.int64)
        if count:
            of_pred, of_target = (to_array(known[measurement.name]).ravel().astype(np.int64) for known in numbers)
            # class 0 (no class) becomes the last column; its row is left out
            pairs = ((of_target - 1) % (count + 1)) * (count + 1) + (of_pred - 1) % (count + 1)
            confusion = np.bincount(pairs, minlength=(count + 1) ** 2).reshape(count + 1, count + 1)[:-1]
        comparisons[measurement.name] = MeasurementComparison(
            measurement.name,
            measurement.unit,
            errors=(pred - target)[both],
            missed=int((np.isnan(pred) & ~np.isnan(target)).sum()),
            classes=tuple(known.name for known in measurement.classes),
            confusion=confusion,
        )
    return MeasurementReport(comparisons)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
