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
"""The error report: what a table of a paper shows, from the errors of all landmarks in all images."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from monai_landmarks.data import atomic_write

from .functional import (
    image_specific_error,
    known_max,
    known_mean,
    known_median,
    known_std,
    outlier_count,
    success_detection_rate,
)

__all__ = ["ErrorReport"]


@dataclass(eq=False)
class ErrorReport:
    """Statistics of the point errors of N landmarks in B images, as tables for a file or a reader.

    A landmark without truth counts nowhere. One that is there but was not predicted (missed) counts as an outlier at
    every threshold, but not in mean, standard deviation, median and maximum; the report says how many there are.
    A landmark is found within r when ``error <= r`` (``error < r`` with ``strict``). Standard deviations divide by n.

    Args:
        errors: (B, N) from `monai_landmarks.metrics.point_error`: NaN without truth, inf when missed.
        names: N names of the landmarks, their numbers by default.
        images: B names of the images, their numbers by default.
        thresholds: radii of the success detection rate and the outlier counts, in ``unit``.
        unit: of the errors: ``"mm"``, ``"px"``.
        strict: whether a landmark exactly at a threshold is lost.
        further: ``(metric, value, unit)`` rows of other measurements, for the end of the summary.

    Raises:
        ValueError: when names or images do not fit the errors.

    Example:
        >>> report = ErrorReport(torch.tensor([[1.0, 3.0], [2.0, float("inf")]]), names=("nasion", "sella"), thresholds=(2.0,))
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
    _errors: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._errors = torch.as_tensor(self.errors, dtype=torch.float64, device="cpu")
        if self._errors.ndim != 2:
            raise ValueError(f"errors must have shape (images, landmarks), got {tuple(self._errors.shape)}.")
        for what, given, count in zip(("names", "images"), (self.names, self.images), reversed(self._errors.shape)):
            if given is not None and len(given) != count:
                raise ValueError(
                    f"got {len(given)} {what} for errors of shape {tuple(self._errors.shape)}: expected {count}."
                )

    def summary(self) -> list[tuple[str, float, str]]:
        """All images and landmarks together: ``(metric, value, unit)`` rows."""
        errors, found = self._errors, self._found
        per_image = image_specific_error(found)
        rows = [
            ("images", len(errors), "images"),
            ("landmarks with truth", int((~errors.isnan()).sum()), "landmarks"),
            ("missed", int(errors.isinf().sum()), "landmarks"),
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
        """One row a landmark: number with truth, missed ones, mean, std, median, max, SDR in percent."""
        rates = 100 * success_detection_rate(self._errors, self.thresholds, self.strict, dim=0)
        rows: list[dict[str, str | float]] = []
        for n, name in enumerate(self._names):
            errors, found = self._errors[:, n], self._found[:, n]
            row: dict[str, str | float] = {
                "landmark": name,
                "n": int((~errors.isnan()).sum()),
                "missed": int(errors.isinf().sum()),
                "mean": float(known_mean(found)),
                "std": float(known_std(found)),
                "median": float(known_median(found)),
                "max": float(known_max(found)),
            }
            row |= {f"sdr_{r:g}{self.unit}_percent": float(rate) for r, rate in zip(self.thresholds, rates[:, n])}
            rows.append(row)
        return rows

    def per_image(self) -> list[dict[str, str | float]]:
        """One row an image, sorted by its name: mean error and the error of each landmark (NaN without truth, inf missed)."""
        means = image_specific_error(self._found)
        rows = [
            {"image": image, "mean": float(means[b])} | dict(zip(self._names, self._errors[b].tolist()))
            for b, image in enumerate(self._images)
        ]
        return sorted(rows, key=lambda row: row["image"]) if self.images is not None else rows

    def write(self, folder: str | os.PathLike) -> list[Path]:
        """Write ``metrics.csv``, ``errors_per_landmark.csv`` and ``errors_per_image.csv``.

        Args:
            folder: made if it is not there. An unknown value is an empty cell.

        Returns:
            The paths of the three files.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        summary = [dict(zip(("metric", "value", "unit"), row)) for row in self.summary()]
        tables = {"metrics": summary, "errors_per_landmark": self.per_landmark(), "errors_per_image": self.per_image()}
        return [_write_csv(folder / f"{name}.csv", rows) for name, rows in tables.items()]

    def __str__(self) -> str:
        value = {metric: value for metric, value, _ in self.summary()}
        unit, comparison = self.unit, "<" if self.strict else "<="
        lines = [
            f"point error in {unit}: {value['images']} images, {value['landmarks with truth']} landmarks with truth, {value['missed']} missed",
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
    def _found(self) -> torch.Tensor:
        return self._errors.masked_fill(self._errors.isinf(), torch.nan)

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


def _write_csv(path: Path, rows: Iterable[dict]) -> Path:
    rows = list(rows)
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["image"])
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})
    return path


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if value != value else f"{value:.4f}"
