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

"""Headers of NRRD and MetaImage files."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["NO_VOXEL_SIZE", "NRRD_SUFFIXES", "states_voxel_size", "voxel_files"]

NO_VOXEL_SIZE = (
    "The header states no voxel size; 1 mm is taken, as in ITK, so lengths in mm are wrong if that is not the size."
)

NRRD_SUFFIXES = (".nrrd", ".nhdr")
_META_SUFFIXES = (".mha", ".mhd")
_DETACHED_SUFFIXES = (".mhd", ".nhdr")
_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", flags=re.IGNORECASE | re.MULTILINE)
_LONGEST_HEADER = 1 << 16  # bytes
_NRRD_SIZES = ("spacings:", "space directions:")
_META_SIZES = ("elementspacing", "elementsize")


def states_voxel_size(path: str | os.PathLike) -> bool:
    """Return whether the header of an image states the voxel size. ITK takes 1 mm for one that does not.

    Args:
        path: image file. True for other formats than NRRD and MetaImage.
    """
    name = Path(path).name.lower()
    is_nrrd = name.endswith(NRRD_SUFFIXES)
    if not is_nrrd and not name.endswith(_META_SUFFIXES):
        return True
    with open(path, "rb") as file:
        text = file.read(_LONGEST_HEADER).decode("latin-1").lower()
    if is_nrrd:
        values = [line.partition(":")[2] for line in _header(text, "\n\n") if line.startswith(_NRRD_SIZES)]
        return any(digit in value for value in values for digit in "123456789")  # spacings may be NaN
    return any(line.startswith(_META_SIZES) for line in _header(text, "elementdatafile"))


def voxel_files(path: str | os.PathLike) -> list[Path] | None:
    """Return the file that holds the voxels of a header file (``.mhd``, ``.nhdr``), in a list.

    The list is empty for any other image, which holds its own voxels. None: the header names several files, or one that
    does not exist.
    """
    if not os.fspath(path).lower().endswith(_DETACHED_SUFFIXES):
        return []
    with open(path, "rb") as file:
        named = _DATA_FILE.search(file.read(_LONGEST_HEADER))
    if named is None or named[1].upper() == b"LOCAL":
        return []
    voxels = Path(path).parent / os.fsdecode(named[1])
    return [voxels] if voxels.is_file() else None


def _header(text: str, end: str) -> list[str]:
    return text.replace("\r\n", "\n").partition(end)[0].split("\n")
