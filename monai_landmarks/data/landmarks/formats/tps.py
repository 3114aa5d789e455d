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


"""Points of tpsDig and other programs of geometric morphometrics (``.tps``), of one image or of many.

::

    LM=2
    104.00000 52.00000
    88.50000 61.25000
    IMAGE=specimen_1.jpg
    ID=0
    SCALE=0.025

The points have no names; their order identifies them. x counts from the left, and y from the bottom of the image, as
the image is shown: the height of the image is needed. ``-1 -1`` is a missing landmark. ``LM3=`` begins 3-D points.
Curves and outlines are ignored, and so is ``SCALE`` (mm per pixel), because points are pixel index.

References:
    F. J. Rohlf, tpsDig, https://www.sbmorphometrics.org
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from monai_landmarks.data.files.csv_rows import is_missing, parse_number
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import CONVERT_FIRST, assumed_system, names_or_numbers

__all__ = ["read_tps"]

_MISSING = -1.0
_MOST_POINTS = 1_000_000


@dataclass
class _Specimen:
    line: int
    dims: int
    count: int
    points: list[list[float]] = field(default_factory=list)
    image: str = ""
    id: str = ""


def read_tps(
    path: Path,
    names: Sequence[str] | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
    find_image: Callable[[str], Path | None] | None = None,
    assumptions: list[str] | None = None,
) -> dict[str, LandmarkSet]:
    """Read the points of all images: pixel index in 2-D.

    Args:
        path: the file.
        names: names of the points, in the order of the file. Default: 1, 2, ...
        coordinate_system: coordinate system of 3-D points. Default: RAS.
        find_image: returns the image file with a name. Images next to the file are found without it.
        assumptions: gets a sentence if the coordinate system of 3-D points is not given.

    Returns:
        the landmark set of each image, by its ``IMAGE`` or, without it, its ``ID``.

    Raises:
        ValueError: if the file is malformed, with the line; if an image that gives the height is not found; or if the
            images have different numbers of points.
    """
    sets: dict[str, LandmarkSet] = {}
    labels: tuple[str, ...] | None = None
    for number, specimen in enumerate(_read_specimens(path)):
        key = specimen.image or specimen.id or str(number)
        if len(specimen.points) != specimen.count:
            raise ValueError(
                f"line {specimen.line}: {specimen.count} points are stated, but {len(specimen.points)} follow."
            )
        if key in sets:
            raise ValueError(f"line {specimen.line}: image {key!r} occurs twice; expected distinct images.")
        labels = labels or names_or_numbers(specimen.count, names)
        if specimen.count != len(labels):
            raise ValueError(
                f"line {specimen.line}: {specimen.count} points, but {len(labels)} in the first image; their order is all that"
                " identifies them."
            )
        points = np.reshape(specimen.points, (-1, specimen.dims))
        points[(points == _MISSING).all(axis=1)] = np.nan
        system = CoordinateSystem(coordinate_system or "RAS") if specimen.dims == 3 else CoordinateSystem.INDEX
        if specimen.dims == 2:
            points[:, 1] = _height(path, specimen, find_image) - 1 - points[:, 1]
        sets[key] = LandmarkSet(labels, points, system, image=key)
    is_3d = any(landmarks.spatial_dims == 3 for landmarks in sets.values())
    if is_3d and coordinate_system is None and assumptions is not None:
        assumptions.append(assumed_system("RAS"))
    if not sets:
        raise ValueError("no line 'LM=' or 'LM3='; expected a file of tpsDig.")
    return sets


def _height(path: Path, specimen: _Specimen, find_image: Callable[[str], Path | None] | None) -> int:
    named = specimen.image or specimen.id
    image = find_image(named) if find_image and named else None
    beside = path.parent / PurePosixPath(named.replace("\\", "/")).name
    if image is None and specimen.image and beside.is_file():
        image = beside
    if image is None:
        raise ValueError(
            f"line {specimen.line}: y counts from the bottom of the image {named!r}, whose height is needed, but the image is"
            f" not found; put it next to the file, or {CONVERT_FIRST}."
        )
    return read_header(image)[0][1]


def _read_specimens(path: Path) -> list[_Specimen]:
    specimens: list[_Specimen] = []
    is_curve = False
    for number, line in enumerate(read_lines(path), 1):
        text = line.strip()
        key, equals, value = (part.strip() for part in text.partition("="))
        start = re.fullmatch(r"LM(3?)=\s*(\d{1,9})", text, flags=re.IGNORECASE)
        if start:
            specimens.append(_Specimen(number, 3 if start.group(1) else 2, int(start.group(2))))
            is_curve = specimens[-1].count > _MOST_POINTS
        elif equals and specimens:
            is_curve = is_curve or key.upper() in ("POINTS", "POINTS3")
            if key.upper() in ("IMAGE", "ID"):
                setattr(specimens[-1], key.lower(), value)
        elif equals:
            raise ValueError(f"line {number}: {text[:80]!r}; expected 'LM=' or 'LM3=' and the number of points.")
        elif text and not is_curve:
            if not specimens:
                raise ValueError(f"line {number}: {text[:80]!r}; expected 'LM=' or 'LM3=' and the number of points.")
            specimens[-1].points.append(_read_point(text.split(), number, specimens[-1].dims))
    return specimens


def _read_point(cells: list[str], line: int, dims: int) -> list[float]:
    point = [parse_number(cell, line, axis) for cell, axis in zip(cells, "xyz")]
    if len(cells) != dims or 0 < sum(map(is_missing, cells)) < dims:
        raise ValueError(f"line {line}: the point is {' '.join(cells)[:80]!r}; expected {dims} numbers.")
    return point
