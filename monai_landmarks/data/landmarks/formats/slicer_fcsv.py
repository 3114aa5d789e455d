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

"""3D Slicer's older point lists (``.fcsv``)."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_landmarks.data.files.csv_rows import TableRows, format_number, is_missing, parse_number
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import require_world
from .point_description import describe_points, parse_descriptions

__all__ = ["read_fcsv", "write_fcsv", "write_point_list"]

_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID".split(",")
_SLICER3_COLUMNS = "label,x,y,z,sel,vis".split(",")
# up to version 4.10 Slicer wrote a number, RAS by default; since 4.11 it writes a name, LPS by default
_SYSTEMS = {"0": "RAS", "1": "LPS", "2": "index", "RAS": "RAS", "LPS": "LPS", "IJK": "index"}
# Slicer 5 adds two columns after the declared ones; the first is the position status: 0 undefined, 1 preview, 2 defined
_DEFINED = "2"


def read_fcsv(path: Path) -> LandmarkSet:
    """Read a point list of any version of Slicer.

    Points are 3-D; :meth:`LandmarkSet.with_spatial_dims` converts them to 2-D. A point is missing if its position is
    blank or ``nan``, or if its status (written since Slicer 5) is not ``defined``. A hidden point (``vis`` is 0) is
    present.

    Raises:
        ValueError: if the file is malformed, with the line and what was expected.
    """
    lines = read_lines(path)
    header = _read_header(lines)
    system = _SYSTEMS.get(header.get("coordinatesystem", "RAS").upper())
    if system is None:
        raise ValueError(f"CoordinateSystem is {header['coordinatesystem']!r}; expected one of {', '.join(_SYSTEMS)}.")
    versioned = "markups fiducial file version" in header
    default = _COLUMNS if versioned or "coordinatesystem" in header else _SLICER3_COLUMNS
    columns = [name.strip() for name in header["columns"].split(",")] if "columns" in header else default
    absent = [name for name in ("label", "x", "y", "z") if name not in columns]
    if absent:
        raise ValueError(f"the header declares the columns {','.join(columns)}; expected {absent[0]!r} among them.")
    index = {name: i for i, name in enumerate(columns)}
    names: dict[str, None] = {}
    points, descriptions = [], []
    # a comment becomes a blank line, which keeps the numbers of the others
    for line, cells in TableRows(("\n" if text.startswith("#") else text for text in lines), delimiter=","):
        needed = max(index[name] for name in ("label", "x", "y", "z"))
        if not needed < len(cells) <= len(columns) + 2:
            raise ValueError(f"line {line}: {len(cells)} columns; expected {len(columns)} ({','.join(columns)}).")
        name = cells[index["label"]]
        if not name:
            raise ValueError(f"line {line}: column 'label' is blank; expected the name of the landmark.")
        if name in names:
            raise ValueError(f"line {line}: landmark {name!r} occurs twice; expected distinct labels.")
        point = [parse_number(cells[index[axis]], line, axis) for axis in "xyz"]
        if 0 < np.isnan(point).sum() < 3:
            raise ValueError(f"line {line}: landmark {name!r} is at {point}; expected three numbers.")
        has_status = len(cells) > len(columns) and not is_missing(cells[len(columns)])
        undefined = has_status and cells[len(columns)] != _DEFINED
        descriptions.append(cells[index["desc"]] if index.get("desc", len(cells)) < len(cells) else "")
        names[name] = None
        points.append([math.nan] * 3 if undefined else point)
    if not names and "columns" not in header:  # an empty list of Slicer declares its columns
        raise ValueError("no points and no header with '# columns ='; the file is empty or cut short.")
    return LandmarkSet(
        names=tuple(names),
        points=np.reshape(points, (-1, 3)),
        coordinate_system=CoordinateSystem(system),
        **parse_descriptions(descriptions),
    )


def write_fcsv(path: Path, landmark_set: LandmarkSet) -> None:
    """Write a point list as Slicer 5 does, in the coordinate system of the set, RAS or LPS.

    2-D points lie in the plane z = 0. A missing landmark has the position ``nan`` and the status ``undefined``. Score,
    covariance and region are kept in the description. Slicer has no left-right pairs; they are not written.

    Raises:
        ValueError: if the points are pixel index.
    """
    write_point_list(path, landmark_set, landmark_set.names, describe_points(landmark_set))


def write_point_list(path: Path, landmark_set: LandmarkSet, labels: Sequence[str], descriptions: Sequence[str]) -> None:
    """Write the points of a landmark set with given labels and descriptions."""
    require_world(landmark_set, "3D Slicer's files")
    points = landmark_set.with_spatial_dims(3).points
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write("# Markups fiducial file version = 5.6\n")
        file.write(f"# CoordinateSystem = {landmark_set.coordinate_system}\n")
        file.write(f"# columns = {','.join(_COLUMNS)}\n")
        writer = csv.writer(file, lineterminator="\n")
        for i, (label, point, description) in enumerate(zip(labels, points, descriptions)):
            position = [format_number(value, missing="nan") for value in point]
            status = "0" if math.isnan(point[0]) else _DEFINED
            # identity orientation; visible, selected, not locked
            writer.writerow([i + 1, *position, *"0001110", label, description, "", status, 0])


def _read_header(lines: list[str]) -> dict[str, str]:
    header = {}
    for line in lines:
        if line.startswith("#"):
            key, equals, value = line.lstrip("#").partition("=")
            if equals:
                header[key.strip().lower()] = value.strip().rstrip(",")
    return header
