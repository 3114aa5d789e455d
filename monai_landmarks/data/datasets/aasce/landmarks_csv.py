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


"""Official landmarks of the AASCE 2019 spine radiographs (``landmarks.csv``).

``labels/<part>/landmarks.csv`` has one row per image: the x of 68 corners of vertebrae, then their y, as fractions of
the width and height of the image. ``labels/<part>/filenames.csv`` names the images; ``data/<part>/`` holds them.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np

from monai_landmarks.data.files.csv_rows import TableRows, is_number, parse_number
from monai_landmarks.data.files.safe_files import naming_file, read_text
from monai_landmarks.data.images.pictures import picture_size
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

__all__ = [
    "AASCE_LANDMARKS",
    "AASCE_PAIRS",
    "AASCE_VERTEBRAE",
    "image_size",
    "is_aasce",
    "read_aasce",
    "read_filenames",
    "read_numbers",
    "read_points",
    "top_to_bottom",
]

AASCE_VERTEBRAE = (*(f"T{i}" for i in range(1, 13)), *(f"L{i}" for i in range(1, 6)))
AASCE_LANDMARKS: tuple[str, ...] = tuple(
    f"{name}_{corner}" for name in AASCE_VERTEBRAE for corner in ("TL", "TR", "BL", "BR")
)
AASCE_PAIRS: tuple[tuple[str, str], ...] = tuple(
    (f"{name}_{end}L", f"{name}_{end}R") for name in AASCE_VERTEBRAE for end in "TB"
)

_COLUMNS = 2 * len(AASCE_LANDMARKS)


def is_aasce(text: str) -> bool:
    """Return whether text begins with a row of 136 numbers that are fractions of an image."""
    cells = text.lstrip().partition("\n")[0].split(",")
    return len(cells) == _COLUMNS and all(is_number(cell) and -1 < float(cell) < 2 for cell in cells)


def read_aasce(path: Path) -> dict[str, LandmarkSet]:
    """Read an official ``landmarks.csv``.

    ``filenames.csv`` and the images must be at their places in the official layout.

    Points are pixel index of the images. Vertebrae whose last one is the topmost are reordered, and upper corners below
    lower ones are exchanged, as in :func:`monai_landmarks.data.aasce_datalist`. That function also leaves out images
    whose landmarks cannot be correct.

    Raises:
        ValueError: if a file is missing or malformed, or an image has two rows.
    """
    files = read_filenames(path.with_name("filenames.csv"))
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise ValueError(f"image {twice[0]!r} is in filenames.csv more than once; expected distinct images.")
    points = read_points(path, [path.parents[2] / "data" / path.parent.name / file for file in files])
    return {
        file: LandmarkSet(AASCE_LANDMARKS, top_to_bottom(one)[0], CoordinateSystem.INDEX, AASCE_PAIRS, image=file)
        for file, one in zip(files, points)
    }


def read_points(path: Path, images: list[Path]) -> list[np.ndarray]:
    """Read the points (68, 2) of each image as pixel index, in the order of the file."""
    # fractions count from the image's corner, half a pixel before the center of the first pixel
    rows = read_numbers(path, _COLUMNS, len(images))
    return [np.array(row).reshape(2, -1).T * image_size(image) - 0.5 for row, image in zip(rows, images)]


def read_filenames(path: Path) -> list[str]:
    """Read the names of the images in ``filenames.csv``. A comma is part of a name."""
    return [",".join(cells) for _, cells in _rows(path)]


def read_numbers(path: Path, columns: int, rows: int) -> list[list[float]]:
    """Read a table of numbers, with or without header.

    Args:
        path: CSV file.
        columns: expected number of columns.
        rows: expected number of rows.

    Raises:
        ValueError: if the table has another shape or a cell is not a number.
    """
    table = _rows(path)
    if table and re.fullmatch(r"[A-Za-z_ ]+", table[0][1][0]):
        table = table[1:]  # some copies have a header, such as "MT,PT,TL"
    with naming_file(path):
        if len(table) != rows:
            raise ValueError(f"{len(table)} rows; expected {rows}, one per image of filenames.csv.")
        for line, cells in table:
            if len(cells) != columns or "" in cells:
                raise ValueError(f"line {line}: {len([c for c in cells if c])} numbers; expected {columns}.")
        return [[parse_number(cell, line, str(i + 1)) for i, cell in enumerate(cells)] for line, cells in table]


def image_size(path: Path) -> np.ndarray:
    """Return width and height in pixels of the picture as viewers show it, from the header of the file."""
    try:
        return np.array(picture_size(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such image, but the tables list it.") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the image cannot be read ({error}).") from error


def top_to_bottom(points: np.ndarray) -> tuple[np.ndarray, bool]:
    """Order vertebrae from top to bottom, and upper corners before lower ones.

    Args:
        points: (68, 2), four corners per vertebra.

    Returns:
        the ordered points, and whether the last vertebra was the topmost.
    """
    vertebrae = points.reshape(-1, 4, 2).copy()
    rotated = bool(vertebrae[-1, :, 1].mean() < vertebrae[0, :, 1].mean())
    if rotated:
        vertebrae = np.roll(vertebrae, 1, axis=0)
    for side in ([0, 2], [1, 3]):
        ends = vertebrae[:, side]
        swapped = ends[:, 0, 1] > ends[:, 1, 1]
        ends[swapped] = ends[swapped][:, ::-1]
        vertebrae[:, side] = ends
    return vertebrae.reshape(-1, 2), rotated


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    with naming_file(path):
        return list(TableRows(read_text(path).splitlines(), delimiter=",", comments=False))
