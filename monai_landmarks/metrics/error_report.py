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
"""The error report: the statistics that a paper reports, from the errors of all landmarks in all images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_landmarks.data.files.csv_tables import write_rows
from monai_landmarks.spaces import to_array

from .functional import (
    image_specific_error,
    known_max,
    known_mean,
    known_median,
    known_std,
    outlier_count,
    success_detection_rate,
)

if TYPE_CHECKING:
    import torch

__all__ = ["ErrorReport"]


@dataclass(eq=False)
class ErrorReport:
    """Statistics of the point errors of N landmarks in B images, as tables for files and as text.

    A landmark without ground truth is not counted. A missed landmark is an outlier at every threshold, but does not
    contribute to mean, standard deviation, median and maximum; the report contains the number of missed landmarks. A
    landmark is found within r if ``error <= r``, or with ``strict`` if ``error < r``. Standard deviations are divided
    by n.

    Args:
        errors: (B, N) from :func:`monai_landmarks.metrics.point_error`: NaN without ground truth, inf for a missed
            landmark.
        names: names of the N landmarks. None: their numbers.
        images: names of the B images. None: their numbers.
        thresholds: radii of the success detection rate and of the outlier counts, in ``unit``.
        unit: unit of the errors as it is written in the tables, such as ``"mm"`` or ``"px"``.
        strict: whether an error equal to a threshold is too large.
        further: rows ``(metric, value, unit)`` of other measurements, for the end of the summary.

    Raises:
        ValueError: if the number of names or images is not that of the errors.

    Example:
        >>> report = ErrorReport(np.array([[1.0, 3.0], [2.0, np.inf]]), names=("nasion", "sella"), thresholds=(2.0,))
        >>> {metric: value for metric, value, unit in report.summary()}["MRE"]
        2.0
    """

    errors: torch.Tensor | np.ndarray
    names: Sequence[str] | None = None
    images: Sequence[str] | None = None
    thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0)
    unit: str = "mm"
    strict: bool = False
    further: Sequence[tuple[str, float, str]] = ()
    _errors: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._errors = to_array(self.errors)
        if self._errors.ndim != 2:
            raise ValueError(f"errors must have shape (images, landmarks), got {tuple(self._errors.shape)}.")
        for what, given, count in zip(("names", "images"), (self.names, self.images), reversed(self._errors.shape)):
            if given is not None and len(given) != count:
                raise ValueError(
                    f"got {len(given)} {what} for errors of shape {tuple(self._errors.shape)}: expected {count}."
                )

    def summary(self) -> list[tuple[str, float, str]]:
        """Return the statistics of all images and landmarks as rows ``(metric, value, unit)``."""
        errors, found = self._errors, self._found
        per_image = image_specific_error(found)
        rows = [
            ("images", len(errors), "images"),
            ("landmarks with truth", int((~np.isnan(errors)).sum()), "landmarks"),
            ("missed", int(np.isinf(errors).sum()), "landmarks"),
            ("MRE", float(known_mean(found)), self.unit),
            ("std", float(known_std(found)), self.unit),
            ("median", float(known_median(found)), self.unit),
            ("max", float(known_max(found)), self.unit),
        ]
        rates = 100 * success_detection_rate(errors, self.thresholds, self.strict)
        counts = outlier_count(errors, self.thresholds, self.strict)
        rows += [(f"SDR {r:g} {self.unit}", float(rate), "%") for r, rate in zip(self.thresholds, rates)]
        rows += [(f"outliers {r:g} {self.unit}", int(count), "landmarks") for r, count in zip(self.thresholds, counts)]
        rows += [
            ("IPE mean", float(known_mean(per_image)), self.unit),
            ("IPE std", float(known_std(per_image)), self.unit),
            ("IPE median", float(known_median(per_image)), self.unit),
        ]
        return rows + list(self.further)

    def per_landmark(self) -> list[dict[str, str | float]]:
        """Return one row per landmark: numbers with ground truth and missed, mean, std, median, max, SDR in percent."""
        rates = 100 * success_detection_rate(self._errors, self.thresholds, self.strict, dim=0)
        rows: list[dict[str, str | float]] = []
        for n, name in enumerate(self._names):
            errors, found = self._errors[:, n], self._found[:, n]
            row: dict[str, str | float] = {
                "landmark": name,
                "n": int((~np.isnan(errors)).sum()),
                "missed": int(np.isinf(errors).sum()),
                "mean": float(known_mean(found)),
                "std": float(known_std(found)),
                "median": float(known_median(found)),
                "max": float(known_max(found)),
            }
            row |= {f"sdr_{r:g}{self.unit}_percent": float(rate) for r, rate in zip(self.thresholds, rates[:, n])}
            rows.append(row)
        return rows

    def per_image(self) -> list[dict[str, str | float]]:
        """Return one row per image, sorted by name: the mean error and the errors of the landmarks, NaN or inf as given."""
        means = image_specific_error(self._found)
        # a landmark may have the name of one of the other columns
        names = [f"{name} (landmark)" if name in ("image", "mean") else name for name in self._names]
        rows = [
            {"image": image, "mean": float(means[b])} | dict(zip(names, self._errors[b].tolist()))
            for b, image in enumerate(self._images)
        ]
        return sorted(rows, key=lambda row: row["image"]) if self.images is not None else rows

    def write(self, output_dir: str | os.PathLike) -> list[Path]:
        """Write ``metrics.csv``, ``errors_per_landmark.csv`` and ``errors_per_image.csv``.

        An unknown value is an empty cell.

        Args:
            output_dir: folder of the files; created if it does not exist.

        Returns:
            The paths of the three files.
        """
        output_dir = Path(output_dir)
        summary = [dict(zip(("metric", "value", "unit"), row)) for row in self.summary()]
        tables = {"metrics": summary, "errors_per_landmark": self.per_landmark(), "errors_per_image": self.per_image()}
        return [write_rows(output_dir / f"{name}.csv", rows, ["image"]) for name, rows in tables.items()]

    def __str__(self) -> str:
        value = {metric: value for metric, value, _ in self.summary()}
        unit, comparison = self.unit, "<" if self.strict else "<="
        lines = [
            f"point error in {unit}: {value['images']} images, {value['landmarks with truth']} landmarks with truth, "
            f"{value['missed']} missed",
            f"  MRE {value['MRE']:.2f} +- {value['std']:.2f}, median {value['median']:.2f}, max {value['max']:.2f}, "
            f"IPE {value['IPE mean']:.2f} +- {value['IPE std']:.2f}",
            "  " + ", ".join(f"{comparison} {r:g} {unit}: {value[f'SDR {r:g} {unit}']:.2f} %" for r in self.thresholds),
        ]
        width = max([len("landmark"), *(len(name) for name in self._names)])
        radii = "".join(f"{f'{comparison}{r:g} {unit}':>10}" for r in self.thresholds)
        lines.append(f"  {'landmark':<{width}}{'n':>6}{'mean':>8}{'std':>8}{'median':>8}{'max':>8}{radii}")
        for row in self.per_landmark():
            numbers = "".join(f"{row[key]:>8.2f}" for key in ("mean", "std", "median", "max"))
            rates = "".join(f"{row[f'sdr_{r:g}{unit}_percent']:>10.1f}" for r in self.thresholds)
            lines.append(f"  {row['landmark']:<{width}}{row['n']:>6}{numbers}{rates}")
        return "\n".join(lines)

    @property
    def _found(self) -> np.ndarray:
        return np.where(np.isinf(self._errors), np.nan, self._errors)

    @property
    def _names(self) -> list[str]:
        return (
            [str(name) for name in self.names]
            if self.names is not None
            else [str(n) for n in range(self._errors.shape[1])]
        )

    @property
    def _images(self) -> list[str]:
        return [str(i) for i in self.images] if self.images is not None else [str(b) for b in range(len(self._errors))]
