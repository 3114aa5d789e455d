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

"""Annotations of the ISBI 2015 cephalogram challenge (``.txt``): 19 lines ``x,y``, then classes of the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_landmarks.data.files.csv_rows import format_number, is_number, parse_number
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.landmarks.formats.common import present_points, require_index, require_names
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["ISBI2015_LANDMARKS", "is_isbi2015", "read_isbi2015", "write_isbi2015"]

ISBI2015_LANDMARKS = (
    "sella",
    "nasion",
    "orbitale",
    "porion",
    "subspinale_A",
    "supramentale_B",
    "pogonion",
    "menton",
    "gnathion",
    "gonion",
    "incision_inferius",
    "incision_superius",
    "upper_lip",
    "lower_lip",
    "subnasale",
    "soft_tissue_pogonion",
    "posterior_nasal_spine",
    "anterior_nasal_spine",
    "articulare",
)


def is_isbi2015(text: str) -> bool:
    """Return whether the first line of the text is ``x,y``."""
    cells = text.lstrip().partition("\n")[0].split(",")
    return len(cells) == 2 and all(is_number(cell) for cell in cells)


def read_isbi2015(path: Path) -> LandmarkSet:
    """Read the 19 points of an annotation file, as pixel index of the official image.

    Raises:
        ValueError: if there are fewer than 19 lines, or one of them is not ``x,y``.
    """
    count = len(ISBI2015_LANDMARKS)
    lines = read_lines(path)[:count]
    if len(lines) < count:
        raise ValueError(f"{len(lines)} lines; expected {count} lines 'x,y'.")
    points = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"line {number}: {line.strip()[:80]!r}; expected 'x,y'.")
        points.append([parse_number(cell, number, axis) for cell, axis in zip(cells, "xy")])
    return LandmarkSet(ISBI2015_LANDMARKS, np.array(points), CoordinateSystem.INDEX)


def write_isbi2015(path: Path, landmark_set: LandmarkSet) -> None:
    """Write the 19 points as lines ``x,y``, without the classes of the patient.

    Raises:
        ValueError: if the landmarks are not those of the challenge, one is missing, or the points are not pixel index.
    """
    require_index(landmark_set, "annotations of the challenge")
    require_names(landmark_set, ISBI2015_LANDMARKS, "landmarks of the ISBI 2015 challenge")
    ordered = landmark_set.with_spatial_dims(2).reorder(ISBI2015_LANDMARKS)
    points = present_points(ordered, "annotations of the challenge")
    path.write_text("".join(f"{format_number(x)},{format_number(y)}\n" for x, y in points), encoding="utf-8")
