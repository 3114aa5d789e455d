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

"""Points layers of napari (``.csv``).

::

    index,axis-0,axis-1,label
    0,12.5,40.0,nasion

napari uses the axes of the array that it shows. These are ``(y, x)`` and ``(z, y, x)`` for images read with PIL, ITK or
tifffile: the last axis is x. The axes are reversed on reading and writing, so that points are pixel index with x first.
If napari showed an array with x first, as nibabel returns it, exchange the axes of the points before.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_landmarks.data.files.csv_rows import NumberCells, TableRows, cell_text, first_cells, format_number, text_cell
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import names_or_numbers, require_index

__all__ = ["is_napari", "read_napari", "write_napari"]

_AXES = ("axis-0", "axis-1", "axis-2", "axis-3")
_NAME_COLUMNS = ("label", "name", "landmark")


def is_napari(text: str) -> bool:
    """Return whether text begins with the header of a points layer."""
    return {"axis-0", "axis-1"} <= set(first_cells(text, _AXES))


def read_napari(path: Path, names: Sequence[str] | None = None) -> LandmarkSet:
    """Read a points layer.

    Args:
        path: the file.
        names: names of the points, in the order of the file, if it has no column ``label``, ``name`` or ``landmark``.
            Default: 1, 2, ...

    Raises:
        ValueError: if the file is malformed, with the line, or is a shapes layer.
    """
    table = TableRows(read_lines(path), _AXES, comments=False)
    rows = list(table)
    header = rows[0][1] if rows else []
    axes = [name for name in _AXES if name in header]
    if not axes or "shape-type" in header or len({*header}) < len(header):
        raise ValueError(f"line 1: the header is {','.join(header)[:80]!r}; expected that of a points layer of napari.")
    if axes not in ([*_AXES[:2]], [*_AXES[:3]]):
        raise ValueError(f"line 1: the points have the axes {axes}; expected axis-0, axis-1 and, in 3-D, axis-2.")
    column = next((header.index(name) for name in _NAME_COLUMNS if name in header), None)
    if column is not None and names is not None:
        raise ValueError(f"the column {header[column]!r} holds the names; give names only for files without them.")
    numbers = NumberCells(table.delimiter)
    points: list[list[float]] = []
    found: dict[str, None] = {}
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise ValueError(f"line {line}: {len(cells)} columns; expected {len(header)}.")
        points.append([numbers.parse(cells[header.index(axis)], line, axis) for axis in reversed(axes)])
        if 0 < np.isnan(points[-1]).sum() < len(axes):
            raise ValueError(f"line {line}: the point has no number for one of its axes.")
        if column is not None:
            name = cell_text(cells[column])
            if not name or name in found:
                raise ValueError(f"line {line}: the name is {name!r}; expected distinct names.")
            found[name] = None
    numbers.require_one_meaning()
    return LandmarkSet(
        names=names_or_numbers(len(points), names) if column is None else tuple(found),
        points=np.reshape(points, (-1, len(axes))),
        coordinate_system=CoordinateSystem.INDEX,
    )


def write_napari(path: Path, landmark_set: LandmarkSet) -> None:
    """Write a points layer with the names as property ``label``. Missing landmarks are left out.

    Raises:
        ValueError: if the points are not pixel index.
    """
    require_index(landmark_set, "napari's files")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", *_AXES[: landmark_set.spatial_dims], "label"])
        there = np.flatnonzero(~landmark_set.missing)
        for i, row in enumerate(there):
            cells = [format_number(value) for value in landmark_set.points[row][::-1]]
            writer.writerow([i, *cells, text_cell(landmark_set.names[row])])
