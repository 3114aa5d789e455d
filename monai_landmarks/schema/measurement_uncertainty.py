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
from statistics import NormalDist

import numpy as np

from .landmark_schema import LandmarkSchema

__all__ = ["MeasuredValues", "measure_with_uncertainty"]

_CHUNK = 32  # images whose points are moved at once; 136 landmark coordinates need some MB for each


@dataclass(frozen=True, eq=False)
class MeasuredValues:
    """The values of one measurement in B images.

    Args:
        name: name of the measurement.
        unit: unit of the values.
        values: array (B,), NaN where a landmark is missing.
        std: array (B,), standard deviations; NaN where a covariance is unknown.
        coverage: probability that an interval contains the true value, if the covariances are right.
        classes: B names of classes; empty for a value in no class, or if the measurement has no classes.
    """

    name: str
    unit: str
    values: np.ndarray
    std: np.ndarray
    coverage: float
    classes: tuple[str, ...]

    @property
    def half_widths(self) -> np.ndarray:
        """Half the length of each interval (B,)."""
        return NormalDist().inv_cdf(0.5 + self.coverage / 2) * self.std

    def row(self, index: int) -> dict[str, str | float]:
        """Return the row of an image for a table, without the image."""
        value, half = float(self.values[index]), float(self.half_widths[index])
        return {
            "measurement": self.name,
            "value": value,
            "unit": self.unit,
            "std": float(self.std[index]),
            "low": value - half,
            "high": value + half,
            "coverage": self.coverage,
            "class": self.classes[index],
        }


def measure_with_uncertainty(
    schema: LandmarkSchema, points: np.ndarray, covariances: np.ndarray | None = None, coverage: float = 0.9
) -> dict[str, MeasuredValues]:
    r"""Measure images, with standard deviations that follow from the covariances of the landmarks.

    The landmarks of an image are taken as independent and normally distributed. Each is moved by one standard deviation
    to both sides along each principal axis of its covariance, and the measurement is made again. The variance is half
    the sum of the squared changes. For an expression that is nearly linear within one standard deviation, this is the
    first-order propagation :math:`J \Sigma J^T`. Unlike derivatives, it also holds where an expression has a kink, such as
    an unsigned distance near 0.

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
    std = {name: np.full(len(points), np.nan) for name in values}
    if covariances is not None:
        for start in range(0, len(points), _CHUNK):
            part = slice(start, start + _CHUNK)
            for name, found in _std(schema, points[part], np.asarray(covariances[part], dtype=np.float64)).items():
                std[name][part] = found
    numbers = schema.classify(values)
    result = {}
    for measurement in schema.measurements:
        names = ("", *(known.name for known in measurement.classes))
        classes = numbers.get(measurement.name, np.zeros(len(points), dtype=int))
        result[measurement.name] = MeasuredValues(
            measurement.name,
            measurement.unit,
            values[measurement.name],
            std[measurement.name],
            coverage,
            tuple(names[int(number)] for number in classes),
        )
    return result


def _std(schema: LandmarkSchema, points: np.ndarray, covariances: np.ndarray) -> dict[str, np.ndarray]:
    """Return the standard deviations (B,) of each measurement."""
    images, count, dims = points.shape
    known = np.isfinite(covariances).all(axis=(-2, -1))
    lengths, axes = np.linalg.eigh(np.where(known[..., None, None], covariances, 0.0))
    steps = np.swapaxes(axes * np.sqrt(np.maximum(lengths, 0))[..., None, :], -1, -2)  # (B, N, D, D), one step per row
    steps[~known] = np.nan
    moved = np.broadcast_to(points[:, None, None], (images, 2, count * dims, count, dims)).copy()
    for n in range(count):
        rows = slice(n * dims, (n + 1) * dims)
        moved[:, 0, rows, n] += steps[:, n]
        moved[:, 1, rows, n] -= steps[:, n]
    before, after = schema.measure(points), schema.measure(moved)
    return {
        name: np.sqrt(0.5 * ((after[name] - value[:, None, None]) ** 2).sum(axis=(1, 2)))
        for name, value in before.items()
    }
