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

"""Landmark files, read and written by the format that belongs to their suffix.

To add a format, write two functions and register them::

    register_format(".pts", reader=read_pts, writer=write_pts)

The reader takes a path and gives a :class:`LandmarkSet`; a ``ValueError`` of it need not name the file. The writer
takes a path and a landmark set; it may write as it likes, because what it writes becomes the file only once it is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .formats.csv_format import read_csv, read_landmark_table, write_csv, write_landmark_table
from .formats.slicer_fcsv import read_fcsv, write_fcsv
from .formats.slicer_markups import read_markups, write_markups
from .landmark_set import LandmarkSet
from .safe_files import atomic_write, naming_file

__all__ = [
    "landmark_suffix",
    "read_landmark_table",
    "read_landmarks",
    "register_format",
    "write_landmark_table",
    "write_landmarks",
]

Reader = Callable[[Path], LandmarkSet]
Writer = Callable[[Path, LandmarkSet], None]


class _Format(NamedTuple):
    reader: Reader | None
    writer: Writer | None


_FORMATS: dict[str, _Format] = {}


def register_format(suffix: str, reader: Reader | None = None, writer: Writer | None = None) -> None:
    """Read and write files which end in ``suffix`` with these functions, in place of any registered before.

    Args:
        suffix: such as ``".csv"`` or ``".mrk.json"``, in any case; of several that fit a file, the longest wins.
        reader: ``reader(path) -> LandmarkSet``, or None if the format cannot be read.
        writer: ``writer(path, landmark_set)``, or None if the format cannot be written.
    """
    if not suffix.startswith(".") or len(suffix) < 2:
        raise ValueError(f"suffix is {suffix!r}; expected one that begins with a dot, such as '.csv'.")
    _FORMATS[suffix.lower()] = _Format(reader, writer)


def landmark_suffix(path: str | os.PathLike) -> str | None:
    """The longest registered suffix that a file name ends in, in lower case; None if no format fits."""
    name = Path(path).name.lower()
    return max((suffix for suffix in _FORMATS if name.endswith(suffix)), key=len, default=None)


def read_landmarks(path: str | os.PathLike) -> LandmarkSet:
    """Read the landmark set of one image.

    Args:
        path: a file in a registered format: ``.csv``, ``.mrk.json``, ``.fcsv``.

    Returns:
        the landmarks in the coordinate system of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown or the file is malformed, with file, row and what was expected.
    """
    reader = _find_format(path).reader
    if reader is None:
        raise ValueError(f"{os.fspath(path)}: this format can be written, but not read.")
    with naming_file(path):
        return reader(Path(path))


def write_landmarks(path: str | os.PathLike, landmark_set: LandmarkSet) -> None:
    """Write the landmark set of one image.

    The file keeps the coordinate system of the set. It is written whole or not at all; its folder is created if it is
    not there.

    Args:
        path: a file name with a registered suffix: ``.csv``, ``.mrk.json``, ``.fcsv``.
        landmark_set: what to write.

    Raises:
        ValueError: if the format is unknown or cannot hold the landmarks.
    """
    writer = _find_format(path).writer
    if writer is None:
        raise ValueError(f"{os.fspath(path)}: this format can be read, but not written.")
    with naming_file(path), atomic_write(path) as temporary:
        writer(temporary, landmark_set)


def _find_format(path: str | os.PathLike) -> _Format:
    suffix = landmark_suffix(path)
    if suffix is None:
        raise ValueError(f"{os.fspath(path)}: no landmark format has this suffix; known are {sorted(_FORMATS)}.")
    return _FORMATS[suffix]


register_format(".csv", read_csv, write_csv)
register_format(".mrk.json", read_markups, write_markups)
register_format(".fcsv", read_fcsv, write_fcsv)
