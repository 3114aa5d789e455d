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

"""Faulty rows of a landmark file, and the row of each landmark."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from monai_landmarks.data.files.csv_rows import read_rows
from monai_landmarks.data.files.safe_files import read_lines

from .landmark_io import read_landmark_sets
from .landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["LandmarkRows", "read_past_faults"]

_MOST_FAULTS = 50


def read_past_faults(
    path: str | os.PathLike, coordinate_system: CoordinateSystem | str | None = None
) -> tuple[dict[str | None, LandmarkSet], list[str]]:
    """Read a landmark file, and continue after a faulty row of a CSV.

    Args:
        path: a file of one image or of many images, in any registered format.
        coordinate_system: coordinate system of a file that does not state its own.

    Returns:
        the landmark set of each image, as in
        :func:`~monai_landmarks.data.landmarks.landmark_io.read_landmark_sets`, without the faulty rows of a CSV; and
        one sentence per fault, with file and row. If a fault does not belong to one row, no landmarks are returned.
    """
    path = Path(path)
    try:
        return read_landmark_sets(path, coordinate_system=coordinate_system), []
    except (OSError, ValueError) as error:
        faults = [_sentence(error)]
    if not path.name.lower().endswith(".csv") or not _faulty_line(faults[0], path):
        return {}, faults
    lines = read_lines(path)
    header = next(i for i, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#"))
    with TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        while len(faults) < _MOST_FAULTS:
            # the reader stops at the first fault: repeat without that row until there is none
            faulty = _faulty_line(faults[-1], path)
            if not header < faulty <= len(lines) or not lines[faulty - 1].strip():
                return {}, faults
            lines[faulty - 1] = "\n"
            copy.write_text("".join(lines), encoding="utf-8")
            try:
                sets = read_landmark_sets(copy, coordinate_system=coordinate_system)
                return sets, sorted(faults, key=lambda fault: _faulty_line(fault, path))
            except ValueError as error:
                faults.append(_sentence(error).replace(str(copy), str(path), 1))
    return {}, [*faults, f"{path}: there may be more faults; these are the first {_MOST_FAULTS}."]


class LandmarkRows:
    """Place of images and landmarks in a landmark file, for error messages.

    Args:
        path: landmark file. Line numbers are only available for a CSV.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._lines: dict[tuple[str | None, str | None], int] | None = None

    def where(self, image: str | None, landmark: str | None = None) -> str:
        """Return the file with the line, or with the name of the image if there is no line.

        Example:
            >>> LandmarkRows("points.mrk.json").where(None, "nasion"), LandmarkRows("points.json").where("1.png")
            ('points.mrk.json', "points.json: image '1.png'")
        """
        if self._lines is None:
            self._lines = _lines_of(self.path)
        line = self._lines.get((image, landmark)) or self._lines.get((image, None))
        if line:
            return f"{self.path}: line {line}"
        return str(self.path) if image is None else f"{self.path}: image {image!r}"


def _lines_of(path: Path) -> dict[tuple[str | None, str | None], int]:
    found: dict[tuple[str | None, str | None], int] = {}
    if not path.name.lower().endswith(".csv"):
        return found
    try:
        rows = read_rows(path)
    except ValueError:
        return found
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    of_image = header.index("image") if "image" in header else None if "landmark" in header else 0
    of_landmark = header.index("landmark") if "landmark" in header else None
    for line, cells in rows:
        image, landmark = (cells[i] if i is not None and i < len(cells) else None for i in (of_image, of_landmark))
        if image is not None:
            found.setdefault((image, None), line)
        found.setdefault((image, landmark), line)
    return found


def _faulty_line(fault: str, path: Path) -> int:
    match = re.match(r"line (\d+): ", fault.removeprefix(f"{path}: "))
    return int(match.group(1)) if match else 0


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split("\n"))
