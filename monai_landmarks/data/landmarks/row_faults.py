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
from collections.abc import Callable
from pathlib import Path

from monai_landmarks.data.files.csv_rows import TableRows, cell_text
from monai_landmarks.data.files.safe_files import open_text

from .landmark_io import read_landmark_sets
from .landmark_set import CoordinateSystem, LandmarkSet, landmark_name

__all__ = ["LandmarkRows", "read_past_faults"]

_MOST_FAULTS = 50


def read_past_faults(
    path: str | os.PathLike,
    coordinate_system: CoordinateSystem | str | None = None,
    find_image: Callable[[str], Path | None] | None = None,
    assumptions: list[str] | None = None,
) -> tuple[dict[str | None, LandmarkSet], list[str]]:
    """Read a landmark file, and continue after a faulty row of a CSV.

    Args:
        path: a file of one image or of many images, in any registered format.
        coordinate_system: coordinate system of a file that does not state its own.
        find_image: returns the image file with a name, for tables whose points depend on the size of their images.
        assumptions: see :func:`~monai_landmarks.data.landmarks.landmark_io.read_landmark_sets`.

    Returns:
        the landmark set of each image, as in
        :func:`~monai_landmarks.data.landmarks.landmark_io.read_landmark_sets`, without the faulty rows of a CSV; and
        one sentence per fault, with file and row. If a fault does not belong to one row, no landmarks are returned.
    """
    faults: list[str] = []
    try:
        sets = read_landmark_sets(
            path, coordinate_system=coordinate_system, row_faults=faults, find_image=find_image, assumptions=assumptions
        )
    except (OSError, ValueError) as error:
        return {}, [*_listed(path, faults), _sentence(error)]
    if len(faults) > _MOST_FAULTS:
        return {}, _listed(path, faults)
    return sets, _listed(path, faults)


def _listed(path: str | os.PathLike, faults: list[str]) -> list[str]:
    """Return the faults of rows with the name of the file, in the order of the lines."""
    ordered = sorted(faults, key=lambda fault: int(fault[5 : fault.index(":")]))
    listed = [_sentence(ValueError(f"{os.fspath(path)}: {fault}")) for fault in ordered[:_MOST_FAULTS]]
    if len(ordered) > _MOST_FAULTS:
        listed.append(f"{os.fspath(path)}: there are {len(ordered)} faulty rows; these are the first {_MOST_FAULTS}.")
    return listed


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

    def notes(self) -> list[str]:
        """Return one sentence per landmark of a CSV whose name is written in more than one Unicode form."""
        forms: dict[str, set[str]] = {}
        for form in self._forms():
            forms.setdefault(landmark_name(form), set()).add(form)
        return [
            f"{self.path}: the name {name!r} is written in {len(found)} Unicode forms, which count as one landmark."
            for name, found in forms.items()
            if len(found) > 1
        ]

    def _forms(self) -> set[str]:
        """Return the names of landmarks as they are written in a CSV, where they are not plain ASCII."""
        if not self.path.name.lower().endswith(".csv"):
            return set()
        with open_text(self.path) as file:
            try:
                if all(part.isascii() for part in iter(lambda: file.read(1 << 20), "")):
                    return set()
                file.seek(0)
                rows = iter(TableRows(file, ("image", "landmark")))
                header = [cell.lower() for cell in next(rows, (0, []))[1]]
                if "landmark" not in header:
                    return set()
                place = header.index("landmark")
                return {cells[place] for _, cells in rows if len(cells) == len(header) and not cells[place].isascii()}
            except ValueError:  # the reader of landmarks reports it
                return set()


def _lines_of(path: Path) -> dict[tuple[str | None, str | None], int]:
    found: dict[tuple[str | None, str | None], int] = {}
    if not path.name.lower().endswith(".csv"):
        return found
    with open_text(path) as file:
        try:
            rows = iter(TableRows(file, ("image", "landmark")))
            header = [cell.lower() for cell in next(rows, (0, []))[1]]
            of_image = header.index("image") if "image" in header else None if "landmark" in header else 0
            of_landmark = header.index("landmark") if "landmark" in header else None
            for line, cells in rows:
                image, name = (cells[i] if i is not None and i < len(cells) else None for i in (of_image, of_landmark))
                image = None if image is None else cell_text(image)
                name = None if name is None else landmark_name(cell_text(name))
                if image is not None:
                    found.setdefault((image, None), line)
                found.setdefault((image, name), line)
        except ValueError:  # the reader of landmarks reports it
            pass
    return found


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split("\n"))
