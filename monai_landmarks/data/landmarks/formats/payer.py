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

"""Wide tables of Christian Payer's landmark projects (``.csv``): no header, one row per image.

::

    3142,297,1913,324,1812,nan,nan

The first cell is the image. The coordinates of all points follow: x, y or x, y, z, and ``nan`` for a missing landmark.
Negative numbers are valid coordinates. The file has neither names nor coordinate system: 2-D points are pixel index,
and 3-D points are mm in LPS, as in SimpleITK, with which these projects read images. See
https://github.com/christianpayer/MedicalDataAugmentationTool-HeatmapRegression.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from monai_landmarks.data.files.csv_rows import (
    NumberCells,
    TableRows,
    cell_text,
    first_cells,
    format_number,
    is_missing,
    is_number,
    text_cell,
)
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import assumed_system, common_set, names_or_numbers, require_index, require_world

__all__ = ["is_payer", "read_payer", "write_payer"]

_MIN_NUMBERS = 8  # fewer numbers after the first cell may be another format, such as a name with x, y, z


def is_payer(text: str) -> bool:
    """Return whether text begins with a row of many numbers after the first cell."""
    cells = first_cells(text, _may_be_number)[1:]
    return len(cells) >= _MIN_NUMBERS and all(map(_may_be_number, cells))


def read_payer(
    path: Path,
    names: Sequence[str] | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
    assumptions: list[str] | None = None,
) -> dict[str, LandmarkSet]:
    """Read a table.

    Args:
        path: the file.
        names: names of the points, in the order of the file. Default: 1, 2, ...
        coordinate_system: coordinate system of the points. Default: pixel index in 2-D, LPS in 3-D.
        assumptions: gets a sentence if the coordinate system of 3-D points is not given.

    Raises:
        ValueError: if the file is malformed, with the line; or the number of coordinates is divisible by two and three,
            so that the dimension is unknown without names.
    """
    table = TableRows(read_lines(path), _may_be_number, comments=False)
    rows = list(table)
    if not rows:
        raise ValueError("the file is empty; expected one row of numbers per image.")
    width = len(rows[0][1]) - 1
    dims = _dims(width, names)
    labels = names_or_numbers(width // dims, names)
    system = CoordinateSystem(coordinate_system or ("index" if dims == 2 else "LPS"))
    if dims == 3 and coordinate_system is None and assumptions is not None:
        assumptions.append(assumed_system(system))
    numbers = NumberCells(table.delimiter)
    sets: dict[str, LandmarkSet] = {}
    for line, (cell, *cells) in rows:
        if len(cells) != width:
            raise ValueError(f"line {line}: {len(cells)} numbers; expected {width}, as in the first row.")
        image = cell_text(cell)
        if not image or image in sets:
            raise ValueError(f"line {line}: the image is {image!r}; expected a name that no earlier row has.")
        points = np.reshape([numbers.parse(cell, line, f"number {i + 1}") for i, cell in enumerate(cells)], (-1, dims))
        partly = np.isnan(points).any(axis=1) & ~np.isnan(points).all(axis=1)
        if partly.any():
            raise ValueError(f"line {line}: landmark {labels[partly.argmax()]!r} has fewer than {dims} numbers.")
        sets[image] = LandmarkSet(labels, points, system, image=image)
    numbers.require_one_meaning()
    return sets


def write_payer(path: Path, sets: Mapping[str, LandmarkSet]) -> None:
    """Write a table, without names and header.

    Raises:
        ValueError: if 2-D points are not pixel index, or 3-D points are, because the file cannot state it.
    """
    common = common_set(list(sets.values()))
    (require_index if common.spatial_dims == 2 else require_world)(common, f"tables of {common.spatial_dims}-D points")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for image, landmark_set in sets.items():
            ordered = landmark_set.reorder(common.names)
            points = ordered.points if ordered.spatial_dims == 2 else ordered.to(CoordinateSystem.LPS).points
            writer.writerow([text_cell(image), *(format_number(value, missing="nan") for value in points.ravel())])


def _may_be_number(cell: str) -> bool:
    return is_missing(cell) or is_number(cell.replace(",", "."))


def _dims(width: int, names: Sequence[str] | None) -> int:
    possible = [dims for dims in (2, 3) if width > 0 and width % dims == 0]
    if names is not None and width in (2 * len(names), 3 * len(names)):
        possible = [width // len(names)]
    if len(possible) != 1:
        points = " or ".join(f"{width // dims} {dims}-D points" for dims in possible) or "whole points"
        raise ValueError(f"{width} numbers per row may be {points}; give the names of the points to decide.")
    return possible[0]
