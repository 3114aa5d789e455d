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

"""Clinical measurements of each image, with intervals, as a table and as lines and angles of 3D Slicer."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data import CoordinateSystem, LandmarkSet, atomic_write
from monai_landmarks.data.files.csv_rows import text_cell
from monai_landmarks.data.landmarks.formats.slicer_markups import add_markup_nodes, markup_node
from monai_landmarks.schema import (
    LandmarkSchema,
    MeasuredValues,
    match_landmarks,
    measure_with_uncertainty,
    measurement_drawings,
)

__all__ = ["ImageMeasurements", "matched_names", "measure_images", "write_measurements"]


@dataclass(frozen=True, eq=False)
class ImageMeasurements:
    """The measurements of B images.

    Args:
        schema: schema of the measurements.
        images: names of the images.
        points: landmarks of the schema in each image, (B, N, D) in mm, NaN where missing.
        measured: values of each measurement, by name.
        notes: what is to know about them, one sentence each.
    """

    schema: LandmarkSchema
    images: tuple[str, ...]
    points: np.ndarray
    measured: Mapping[str, MeasuredValues]
    notes: tuple[str, ...] = ()

    def rows(self, index: int) -> list[dict[str, Any]]:
        """Return the table of an image, one row per measurement."""
        return [values.row(index) for values in self.measured.values()]

    def with_assumed_size(self) -> ImageMeasurements:
        """Return the same measurements with a unit of lengths that says that the pixel size is not known.

        Such lengths are in no class, because the limits of classes are in mm.
        """
        unit, no_classes = "mm (pixel size assumed)", ("",) * len(self.images)
        measured = {
            name: replace(values, unit=unit, classes=no_classes) if values.unit == "mm" else values
            for name, values in self.measured.items()
        }
        return replace(self, measured=measured)

    def write(self, path: str | os.PathLike) -> Path:
        """Write a CSV file with one row per image and measurement. Unknown numbers are blank."""
        return write_measurements(path, ((image, self.rows(index)) for index, image in enumerate(self.images)))

    def add_to_markups(self, path: str | os.PathLike, index: int, plane: float = 0.0, doubt: str = "") -> None:
        """Add lines and angles of an image to its ``.mrk.json`` file, beside the points.

        Args:
            path: the file.
            index: index of the image.
            plane: z of a 2-D image.
            doubt: reason to doubt the image, which the description of each line and angle begins with.
        """
        nodes = []
        warning = f"IN DOUBT ({doubt}): " if doubt else ""
        for drawing in measurement_drawings(self.schema, self.points[index]):
            values = self.measured[drawing.measurement]
            if math.isnan(values.values[index]):
                continue
            points = drawing.points
            if points.shape[1] == 2:
                points = np.column_stack([points, np.full(len(points), plane)])
            nodes.append(
                markup_node(
                    "Line" if drawing.kind == "line" else "Angle",
                    drawing.measurement,
                    points,
                    CoordinateSystem.RAS,
                    warning + _describe(values, index),
                )
            )
        if nodes:
            add_markup_nodes(Path(path), nodes)


def write_measurements(
    path: str | os.PathLike,
    images: Iterable[tuple[str, Sequence[Mapping[str, Any]]]],
    doubts: Mapping[str, str] | None = None,
) -> Path:
    """Write the table of :meth:`ImageMeasurements.write`.

    Args:
        path: the CSV file. It is written completely or not at all.
        images: path and rows of each image.
        doubts: reasons to doubt an image, by its path; the column ``doubt``. None: there is no such column.

    Returns:
        The path.
    """
    header = ["image", "measurement", "value", "unit", "std", "low", "high", "coverage", "class"]
    header += [] if doubts is None else ["doubt"]
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for image, rows in images:
            for row in rows:
                cells = {"image": image, **row, "doubt": (doubts or {}).get(image, "")}
                table.writerow([_cell(cells[key]) for key in header])
    return Path(path)


def measure_images(
    schema: LandmarkSchema, landmarks: Mapping[str, LandmarkSet], coverage: float = 0.9
) -> ImageMeasurements:
    """Measure the landmarks of images.

    Args:
        schema: landmark schema. Its landmarks are found by name or abbreviation, see
            :func:`monai_landmarks.schema.match_landmarks`.
        landmarks: landmarks of each image in world mm, by the name of the image. Their covariances give the intervals.
        coverage: probability of the intervals.

    Returns:
        The measurements.

    Raises:
        ValueError: if the schema has no measurements, has none of the landmarks, or has another dimension.
    """
    names = list(dict.fromkeys(name for one in landmarks.values() for name in one.names))
    columns, notes = matched_names(schema, names)
    sets = []
    for image, one in landmarks.items():
        if one.spatial_dims != schema.spatial_dims:
            raise ValueError(
                f"{image}: the schema {schema.name} has {schema.spatial_dims}-D landmarks, but these are"
                f" {one.spatial_dims}-D."
            )
        sets.append(one.to(CoordinateSystem.RAS).reorder(columns))
    points = np.stack([one.points for one in sets])
    unknown = np.full((*points.shape, schema.spatial_dims), np.nan)
    covariances = np.stack([unknown[0] if one.covariances is None else one.covariances for one in sets])
    measured = measure_with_uncertainty(schema, points, covariances, coverage)
    return ImageMeasurements(schema, tuple(landmarks), points, measured, notes)


def matched_names(schema: LandmarkSchema, names: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the name in the data of each landmark of a schema, and notes about abbreviations and unknown names.

    Raises:
        ValueError: if the schema has no measurements, or none of the landmarks.
    """
    if not schema.measurements:
        raise ValueError(f"the schema {schema.name} has no measurements.")
    match = match_landmarks(schema, names)
    if len(match.absent) == len(schema):
        raise ValueError(f"the schema {schema.name} has none of the landmarks {', '.join(names[:5])}.")
    note = match.note(schema)
    found = match.names(names)
    # a landmark that the data lack keeps its own name, unless another landmark of the data has it
    columns = [
        name if name is not None else (own if own not in found else f"{own} (absent)")
        for own, name in zip(schema.names, found)
    ]
    return columns, ((note,) if note else ())


def _describe(values: MeasuredValues, index: int) -> str:
    """Return the value of an image in words, for example ``"ANB: 4.1 degree (90 %: 3.4 to 4.8), class I"``."""
    row = values.row(index)
    digits = 3 if values.unit == "ratio" else 1
    unit = "" if values.unit == "ratio" else f" {values.unit}"
    text = f"{values.name}: {row['value']:.{digits}f}{unit}"
    if math.isfinite(float(row["std"])):
        text += f" ({100 * values.coverage:g} %: {row['low']:.{digits}f} to {row['high']:.{digits}f})"
    return f"{text}, {row['class']}" if row["class"] else text


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return text_cell(value) if isinstance(value, str) else value
