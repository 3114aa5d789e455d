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

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from monai.utils import optional_import

from .image_files import image_suffix

__all__ = ["DicomImage", "find_dicom_images", "is_dicom"]

itk, has_itk = optional_import("itk")

_POSITION = "0020|0032"  # Image Position (Patient)
_SERIES_DATE = "0008|0021"
_UNEVEN = 0.1  # of the usual distance between slices, by which one may differ: positions are rounded


class DicomImage(NamedTuple):
    """An image in DICOM: its path, its files, and what keeps it from being read; that is empty if nothing does."""

    path: Path
    files: list[Path]
    fault: str = ""


def find_dicom_images(folder: str | os.PathLike) -> list[DicomImage]:
    """The DICOM images of a folder and the folders in it.

    Files of one series with different positions in the patient are slices: they are one image, whose path is that of their
    folder, as MONAI's reader wants it. Any other file is an image, such as a radiograph, or a file that is damaged. A file
    counts as DICOM if its name ends in ``.dcm``, or if it has no suffix of an image format and says so itself. Needs the
    package ``itk``; without it each file is an image.

    A folder with slices of a series and other images in DICOM, or with uneven distances between the slices, as when one is
    missing or damaged, is an image with a fault, because a reader would make a wrong volume of it.
    """
    found: list[DicomImage] = []
    folder = Path(folder)
    for place in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        files = [path for path in sorted(place.iterdir()) if is_dicom(path)]
        series = _series(place) if has_itk and len(files) > 1 else []
        volumes = [slices for slices in series if _are_slices(slices)]
        if volumes:
            held = {Path(file).name for slices in series for file in slices}
            found.append(_volume(place, [file for file in files if file.name in held], volumes[0]))
            files = [file for file in files if file.name not in held]
        found += [DicomImage(file, [file]) for file in files]
    return found


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix, or by its beginning if it has no suffix of an image format."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if image_suffix(path):
        return image_suffix(path) == ".dcm"
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _series(folder: Path) -> list[list[str]]:
    """The files of each series in a folder, told apart as MONAI's ``ITKReader`` does it; damaged ones are in none."""
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction(_SERIES_DATE)
    names.SetDirectory(str(folder))
    return [list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()]


def _volume(place: Path, files: list[Path], slices: Sequence[str]) -> DicomImage:
    """The image of a folder in which there are slices of a series."""
    if len(slices) < len(files):
        return DicomImage(
            place,
            files,
            f"besides a DICOM series of {len(slices)} slices it holds {len(files) - len(slices)} other DICOM files; put each"
            " series into a folder of its own, which then is one image.",
        )
    gaps = np.linalg.norm(np.diff([_position(file) for file in slices], axis=0), axis=1)
    widest = int(np.argmax(np.abs(gaps - np.median(gaps))))
    if abs(gaps[widest] - np.median(gaps)) <= _UNEVEN * np.median(gaps):
        return DicomImage(place, files)
    pair = " and ".join(Path(file).name for file in slices[widest : widest + 2])
    return DicomImage(
        place,
        files,
        f"{pair} are {gaps[widest]:g} mm apart, where {np.median(gaps):g} mm are usual in this DICOM series: is a slice"
        " missing, or damaged?",
    )


def _are_slices(files: list[str]) -> bool:
    positions = {_position(file) for file in files[:2]}
    return len(positions) == 2 and bool(np.isfinite([*positions]).all())


def _position(file: str) -> tuple[float, ...]:
    """Of a slice in the patient, in mm; NaN if the file does not say."""
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = reader.GetMetaDataDictionary()
    return tuple(map(float, str(tags[_POSITION]).split("\\"))) if tags.HasKey(_POSITION) else 3 * (math.nan,)
