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

from .dicom_stack import frames_fault, stack_fault
from .image_files import image_suffix

__all__ = ["DicomImage", "find_dicom_images", "is_dicom", "require_volume"]

itk, has_itk = lazy_import("itk"), is_installed("itk")

_POSITION = "0020|0032"  # Image Position (Patient)
_SERIES_DATE = "0008|0021"


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
    with other DICOM images, if the slices are turned or shifted against each other, as with a tilted gantry, or if the
    distances between slices are uneven because a slice is missing or damaged. The same holds for the frames of a
    multi-frame file. A folder that cannot be read counts as an image with a fault.
    """
    unreadable: dict[Path, str] = {}
    places: dict[Path, list[Path]] = {}
    for path in sorted(walk_folder(folder, unreadable)):
        places.setdefault(path.parent, []).append(path)
    found = [DicomImage(place, [], fault) for place, fault in unreadable.items()]
    for place, paths in places.items():
        found += _images_of(place, [path for path in paths if is_dicom(path)])
    return found


def require_volume(path: str | os.PathLike) -> None:
    """Raise an error for DICOM slices in a folder, or frames in a file, that do not form one volume. Others pass.

    Raises:
        ValueError: if the image has a fault, see :func:`find_dicom_images`, or each file of a folder is an image.
    """
    place = Path(path)
    if not place.is_dir():
        if is_dicom(place) and (fault := frames_fault(place)):
            raise ValueError(f"{place}: {fault}")
        return
    images = _images_of(place, [file for file in sorted(place.iterdir()) if is_dicom(file)])
    fault = next((image.fault for image in images if image.path == place), "")
    if not fault and len(images) > 1 and all(image.path != place for image in images):
        fault = (
            f"the folder holds {len(images)} DICOM images, which are no slices of one volume; name one of the files."
        )
    if fault:
        raise ValueError(f"{place}: {fault}")


def _images_of(place: Path, files: list[Path]) -> list[DicomImage]:
    """Return the images that the DICOM files of one folder form."""
    series = _series(place) if has_itk and len(files) > 1 and printable(place) == str(place) else []
    volumes = [slices for slices in series if _are_slices(slices)]
    found = []
    if volumes:
        held = {Path(file).name for slices in series for file in slices}
        of_series = [file for file in files if file.name in held]
        found.append(DicomImage(place, of_series, _volume_fault(len(of_series), volumes[0])))
        files = [file for file in files if file.name not in held]
    return found + [DicomImage(file, [file], frames_fault(file)) for file in files]


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its suffix, or by its content if it has no image suffix.

    A file without image suffix that cannot be opened may be DICOM, and counts as such, so that a reader says what is
    wrong.
    """
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    try:
        if not path.is_file():
            return False
        if image_suffix(path):
            return image_suffix(path) == ".dcm"
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True


def _series(folder: Path) -> list[list[str]]:
    """Return the files of each series in a folder, as MONAI's ``ITKReader`` groups them. Damaged files are left out."""
    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction(_SERIES_DATE)
    names.SetDirectory(str(folder))
    return [list(names.GetFileNames(uid)) for uid in names.GetSeriesUIDs()]


def _volume_fault(count: int, slices: Sequence[str]) -> str:
    """Return why a folder of ``count`` DICOM files, among them slices of a series, is no volume; empty if it is one."""
    if len(slices) < count:
        return (
            f"the folder holds a DICOM series of {len(slices)} slices and {count - len(slices)} other DICOM files; put each"
            " series into a folder of its own."
        )
    geometry = [_geometry(file) for file in slices]
    positions, directions = (np.array([one[part] for one in geometry]) for part in (0, 1))
    return stack_fault(positions, directions, [Path(file).name for file in slices], "series")


def _are_slices(files: list[str]) -> bool:
    positions = {_geometry(file)[0] for file in files[:2]}
    return len(positions) == 2 and bool(np.isfinite([*positions]).all())


def _geometry(file: str) -> tuple[tuple[float, ...], list[tuple[float, ...]]]:
    """Return position (mm, NaN if not stated) and directions (along row, column and normal) of a slice in the patient."""
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    tags = reader.GetMetaDataDictionary()
    position = tuple(map(float, str(tags[_POSITION]).split("\\"))) if tags.HasKey(_POSITION) else 3 * (math.nan,)
    return position, [tuple(reader.GetDirection(axis)) for axis in range(3)]
