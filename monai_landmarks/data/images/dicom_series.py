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


"""DICOM files of a folder, grouped into images."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_landmarks.data.files.folder_walk import walk_folder
from monai_landmarks.data.files.safe_files import printable
from monai_landmarks.lazy import is_installed, lazy_import

from .image_files import image_suffix

__all__ = ["DicomImage", "find_dicom_images", "is_dicom"]

itk, has_itk = lazy_import("itk"), is_installed("itk")

_POSITION = "0020|0032"  # Image Position (Patient)
_SERIES_DATE = "0008|0021"
_UNEVEN = 0.1  # tolerance, relative to the median distance between slices, because positions are rounded


class DicomImage(NamedTuple):
    """A DICOM image.

    Args:
        path: the file, or the folder of the slices.
        files: all files of the image.
        fault: why the image cannot be read; empty if it can.
    """

    path: Path
    files: list[Path]
    fault: str = ""


def find_dicom_images(folder: str | os.PathLike) -> list[DicomImage]:
    """Find the DICOM images in a folder and its subfolders.

    Files of one series with different positions in the patient are slices of one image. The path of that image is the
    folder of the slices, as MONAI's reader expects it. Every other file is an image of its own, for example a
    radiograph or a damaged file. A file counts as DICOM if its name ends in ``.dcm``, or if it has no image suffix and
    its content is DICOM. Grouping requires the package ``itk``; without it, each file is an image.

    An image has a fault if a reader would make a wrong volume of it: if its folder holds slices of a series together
    with other DICOM images, or if the distances between slices are uneven because a slice is missing or damaged.
    """
    found: list[DicomImage] = []
    folder = Path(folder)
    for place in sorted({folder, *(path for path in walk_folder(folder) if path.is_dir())}):
        files = [path for path in sorted(place.iterdir()) if is_dicom(path)]
        series = _series(place) if has_itk and len(files) > 1 and printable(place) == str(place) else []
        volumes = [slices for slices in series if _are_slices(slices)]
        if volumes:
            held = {Path(file).name for slices in series for file in slices}
            found.append(_volume(place, [file for file in files if file.name in held], volumes[0]))
            files = [file for file in files if file.name not in held]
        found += [DicomImage(file, [file]) for file in files]
    return found


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its suffix, or by its content if it has no image suffix."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if image_suffix(path):
        return image_suffix(path) == ".dcm"
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _series(folder: Path) -> list[list[str]]:
    """Return the files of each series in a folder, as MONAI's ``ITKReader`` groups them. Damaged files are left out."""
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction(_SERIES_DATE)
    names.SetDirectory(str(folder))
    return [list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()]


def _volume(place: Path, files: list[Path], slices: Sequence[str]) -> DicomImage:
    """Return the image of a folder that holds slices of a series."""
    if len(slices) < len(files):
        return DicomImage(
            place,
            files,
            f"the folder holds a DICOM series of {len(slices)} slices and {len(files) - len(slices)} other DICOM files; put each"
            " series into a folder of its own.",
        )
    gaps = np.linalg.norm(np.diff([_position(file) for file in slices], axis=0), axis=1)
    widest = int(np.argmax(np.abs(gaps - np.median(gaps))))
    if abs(gaps[widest] - np.median(gaps)) <= _UNEVEN * np.median(gaps):
        return DicomImage(place, files)
    pair = " and ".join(Path(file).name for file in slices[widest : widest + 2])
    return DicomImage(
        place,
        files,
        f"{pair} are {gaps[widest]:g} mm apart, but the median distance in this DICOM series is {np.median(gaps):g} mm: is a slice"
        " missing or damaged?",
    )


def _are_slices(files: list[str]) -> bool:
    positions = {_position(file) for file in files[:2]}
    return len(positions) == 2 and bool(np.isfinite([*positions]).all())


def _position(file: str) -> tuple[float, ...]:
    """Return the position of a slice in the patient in mm; NaN if the file does not state it."""
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = reader.GetMetaDataDictionary()
    return tuple(map(float, str(tags[_POSITION]).split("\\"))) if tags.HasKey(_POSITION) else 3 * (math.nan,)
