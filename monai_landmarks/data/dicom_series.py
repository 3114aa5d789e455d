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


"""Which DICOM files of a folder are images of their own, and which are the slices of one."""

from __future__ import annotations

import os
from pathlib import Path

from monai.utils import optional_import

from .image_files import image_suffix

__all__ = ["find_dicom_images"]

itk, has_itk = optional_import("itk")

_POSITION = "0020|0032"  # Image Position (Patient)
_SERIES_DATE = "0008|0021"


def find_dicom_images(folder: str | os.PathLike) -> dict[Path, list[Path]]:
    """The DICOM images of a folder and the folders in it, each with its files.

    Files of one series with different positions in the patient are slices: they are one image, whose path is that of their
    folder, as MONAI's reader wants it. Any other file is an image, such as a radiograph. A file counts as DICOM if its name
    ends in ``.dcm``, or if it has no suffix of an image format and says so itself. Needs the package ``itk``; without it
    nothing is found.

    Raises:
        ValueError: if a folder holds slices and other DICOM files, or the slices of several series.
    """
    found: dict[Path, list[Path]] = {}
    if not has_itk or not Path(folder).is_dir():
        return found
    for place in sorted({Path(folder), *(path for path in Path(folder).rglob("*") if path.is_dir())}):
        files = [path for path in sorted(place.iterdir()) if _is_dicom(path)]
        volumes = [series for series in _series(place) if _are_slices(series)] if len(files) > 1 else []
        if not volumes:
            found |= {file: [file] for file in files}
        elif len(volumes[0]) == len(files):
            found[place] = files
        else:
            raise ValueError(
                f"{place}: besides a DICOM series of {len(volumes[0])} slices it holds {len(files) - len(volumes[0])} other"
                " DICOM files; put each series into a folder of its own, which then is one image."
            )
    return found


def _is_dicom(path: Path) -> bool:
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if image_suffix(path):
        return image_suffix(path) == ".dcm"
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _series(folder: Path) -> list[list[str]]:
    """The files of each series in a folder, told apart as MONAI's ``ITKReader`` does it."""
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction(_SERIES_DATE)
    names.SetDirectory(str(folder))
    return [list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()]


def _are_slices(files: list[str]) -> bool:
    positions = {_position(file) for file in files[:2]}
    return len(positions) == 2 and None not in positions


def _position(file: str) -> str | None:
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = reader.GetMetaDataDictionary()
    return str(tags[_POSITION]) if tags.HasKey(_POSITION) else None
