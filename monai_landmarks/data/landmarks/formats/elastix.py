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

"""Points of elastix and transformix (``.pts``, ``.txt``).

::

    point
    2
    12.5 -3.0 40.25
    10.0 -8.5 41.0

The first word is ``point`` for world points (mm in LPS, as in ITK) or ``index`` for pixel index, which is also the
default without this word. The second is the number of points. The file has no names; the order identifies the points.

``outputpoints.txt``, which transformix writes, has one line per point, with ``; OutputPoint = [ 10.5 20.5 ]`` among
other entries. This is the transformed point in the world, and it is the one that is read.

References:
    Manual of elastix, section 4.2; ``itkTransformixInputPointFileReader``
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_landmarks.data.files.csv_rows import format_number, parse_number
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import names_or_numbers, present_points
from .foreign import foreign_file

__all__ = ["is_elastix", "read_elastix", "write_elastix"]

_OUTPUT = re.compile(r"Point\s+(\d+)\s*;.*OutputPoint\s*=\s*\[([^\]]*)\]")
_SYSTEMS = {"point": CoordinateSystem.LPS, "index": CoordinateSystem.INDEX}


def is_elastix(text: str) -> bool:
    """Return whether text begins like a point file: with ``point``, ``index``, or only the number of points."""
    first = text.lstrip().partition("\n")[0].split()
    return (
        bool(_OUTPUT.match(text.lstrip()))
        or bool(first)
        and (first[0] in _SYSTEMS or (len(first) == 1 and first[0].isdecimal()))
    )


def read_elastix(path: Path, names: Sequence[str] | None = None) -> LandmarkSet:
    """Read a point file.

    Args:
        path: the file.
        names: names of the points, in the order of the file. Default: 1, 2, ...

    Raises:
        ValueError: if the file is malformed, with the line, or the number of points differs from the stated one.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if lines and _OUTPUT.match(lines[0][1].strip()):
        body = [(number, _output_point(number, line)) for number, line in lines]
        system, count = CoordinateSystem.LPS, len(body)
    else:
        if what := foreign_file("".join(line for _, line in lines[:3])):
            raise ValueError(what)
        system, count, body = _split_header([(number, line.split()) for number, line in lines])
    dims = len(body[0][1]) if body else 3
    points = []
    for number, cells in body:
        if len(cells) != dims or dims not in (2, 3):
            expected = dims if dims in (2, 3) else "2 or 3"
            raise ValueError(f"line {number}: {len(cells)} numbers; expected {expected}, one point per line.")
        points.append([parse_number(cell, number, axis) for cell, axis in zip(cells, "xyz")])
        if 0 < np.isnan(points[-1]).sum() < dims:
            raise ValueError(f"line {number}: the point is {' '.join(cells)}; expected {dims} numbers.")
    if len(points) != count:
        raise ValueError(f"holds {len(points)} points, but states {count}; the file may be cut short.")
    return LandmarkSet(names_or_numbers(count, names), np.reshape(points, (-1, dims)), system)


def write_elastix(path: Path, landmark_set: LandmarkSet) -> None:
    """Write a point file: world points in LPS, or pixel index if all coordinates are whole numbers.

    Raises:
        ValueError: if a landmark is missing, or pixel indices have fractions, which elastix would round.
    """
    points = present_points(landmark_set, "elastix's point files")
    word = "index"
    if landmark_set.coordinate_system != CoordinateSystem.INDEX:
        word, points = "point", landmark_set.to(CoordinateSystem.LPS).points
    elif (points != np.rint(points)).any():
        raise ValueError(
            "the points are pixel index with fractions, which elastix rounds to whole pixels; use to_world(affine) first."
        )
    lines = [word, str(len(points)), *(" ".join(format_number(value) for value in point) for point in points)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _output_point(number: int, line: str) -> list[str]:
    found = _OUTPUT.match(line.strip())
    if not found:
        raise ValueError(
            f"line {number}: {line.strip()[:80]!r}; expected 'Point', its number and 'OutputPoint = [ ... ]'."
        )
    return found.group(2).split()


def _split_header(rows: list[tuple[int, list[str]]]) -> tuple[CoordinateSystem, int, list[tuple[int, list[str]]]]:
    number, words = rows[0] if rows else (1, [])
    body = rows[1:]
    if len(words) == 1 and words[0] in _SYSTEMS and body:
        number, words, body = body[0][0], words + body[0][1], body[1:]
    system = _SYSTEMS.get(words[0], CoordinateSystem.INDEX) if words else CoordinateSystem.INDEX
    counts = words[1:] if words and words[0] in _SYSTEMS else words
    if len(counts) != 1 or not counts[0].isdecimal() or len(counts[0]) > 9:
        raise ValueError(
            f"line {number}: {' '.join(words)[:80]!r}; expected 'point' or 'index', and then the number of points."
        )
    return system, int(counts[0]), body
