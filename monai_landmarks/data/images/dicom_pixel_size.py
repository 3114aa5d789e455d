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

"""Pixel size of DICOM images.

DICOM has several attributes for it, and which of them is right depends on the image (PS3.3, 10.7.1). Readers choose one
by the kind of the image: ITK ignores, for example, the pixel spacing of a radiograph. This module is the one definition
of this package. Attributes state the distance of rows before that of columns; here, x (along a row) is first.
"""

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monai_landmarks.lazy import is_installed, lazy_import
from monai_landmarks.spaces import affine_spacing

__all__ = [
    "SOP_CLASS",
    "DicomPixelSize",
    "pixel_scale",
    "pixel_size_of",
    "read_functional_groups",
    "read_itk_spacing",
    "read_pixel_size",
    "require_readable_size",
]

itk, has_itk = lazy_import("itk"), is_installed("itk")

SOP_CLASS = "0008|0016"
_PIXEL_SPACING = "0028|0030"
_CALIBRATION = "0028|0a02"
_IMAGER_SPACING = "0018|1164"
_SCANNED_SPACING = "0018|2010"
_ASPECT_RATIO = "0028|0034"
_MAGNIFICATION = "0018|1114"
_SOURCE_TO_DETECTOR = "0018|1110"
_SOURCE_TO_PATIENT = "0018|1111"
_CALIBRATED = ("GEOMETRY", "FIDUCIAL")
_TINY = 1e-6  # mm
_SAME = 1e-4  # relative; decimal strings are rounded

# Classes that state the pixel size in functional groups. ITK reads some of them, and takes 1 mm for the others.
_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SIZES = (_PIXEL_SPACING, _IMAGER_SPACING, _SCANNED_SPACING)
_WANTED = (SOP_CLASS, *_SIZES, _CALIBRATION, _ASPECT_RATIO, _MAGNIFICATION, _SOURCE_TO_DETECTOR, _SOURCE_TO_PATIENT)
_FUNCTIONAL_GROUPS = re.compile(rb"\x00\x52[\x29\x30]\x92")  # shared, and of each frame
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_WITH_FUNCTIONAL_GROUPS = {
    _IMAGE_STORAGE + kind
    for kind in (
        "2.1 2.2 4.1 4.3 4.4 6.2 7.1 7.2 7.3 7.4 12.1.1 12.2.1 13.1.1 13.1.2 13.1.3 13.1.4 13.1.5 "
        "30 66.4 77.1.5.4 77.1.6 128.1 130"
    ).split()
}


class DicomPixelSize(NamedTuple):
    """Pixel size of a DICOM image.

    Args:
        spacing: pixel size (x, y) in mm; None if the file states none.
        note: which attribute was chosen, if there was a choice or its meaning has a limit; or why there is no size.
    """

    spacing: tuple[float, float] | None
    note: str = ""


def pixel_size_of(tags: Mapping[str, str]) -> DicomPixelSize | None:
    """Return the pixel size that the attributes of a DICOM file state.

    * ``PixelSpacing`` holds for every kind of image. A radiograph that also states a different
      ``ImagerPixelSpacing``, or a scanned film with a different ``NominalScannedPixelSpacing``, was calibrated: its
      ``PixelSpacing`` is the size in the patient.
    * A radiograph with ``ImagerPixelSpacing`` alone has the size at the detector. It is divided by the magnification,
      if that or both distances to the source are stated.
    * A scanned film with ``NominalScannedPixelSpacing`` alone has the size on the film.
    * Without a positive value, the size is not known. This holds for most ultrasound images, whose regions have
      different sizes.
    * Enhanced multi-frame images state the same attributes in functional groups; :func:`read_pixel_size` looks there.

    Args:
        tags: values by tag, for example ``{"0028|0030": "0.2\\\\0.1"}``, as in the metadata dictionary of ITK.

    Returns:
        The size. None if the image is of a kind that states it in functional groups, and has none beside them.

    References:
        DICOM PS3.3, 10.7.1.1 "Pixel Spacing" and 10.7.1.3 "Pixel Spacing Value Order and Valid Values".

    Example:
        >>> pixel_size_of({"0028|0030": "0.2\\\\0.1"}).spacing
        (0.1, 0.2)
    """
    if _text(tags, SOP_CLASS) in _WITH_FUNCTIONAL_GROUPS and not any(tag in tags for tag in _SIZES):
        return None
    stated = _pair(tags, _PIXEL_SPACING)
    receptor, name = _pair(tags, _IMAGER_SPACING), "ImagerPixelSpacing"
    if receptor is None:
        receptor, name = _pair(tags, _SCANNED_SPACING), "NominalScannedPixelSpacing"
    if stated is not None:
        return DicomPixelSize(stated, _choice(stated, receptor, name, _text(tags, _CALIBRATION).upper()))
    if receptor is None:
        texts = [tags[tag].strip() for tag in _SIZES if tag in tags]
        note = f"the DICOM file states the pixel size {texts[0]!r}" if texts else ""
        aspect = _pair(tags, _ASPECT_RATIO)
        if aspect is not None and aspect[0] != aspect[1]:
            note += (
                f"{'; ' if note else ''}its pixels are not square (aspect ratio x : y = {aspect[0]:g} : {aspect[1]:g})"
            )
        return DicomPixelSize(None, note)
    if name != "ImagerPixelSpacing":
        return DicomPixelSize(receptor, f"{name} ({_mm(receptor)}) is used, which is the size on the film.")
    factor, source = _magnification(tags)
    if factor is None:
        return DicomPixelSize(
            receptor,
            f"{name} ({_mm(receptor)}) is used, which is the size at the detector. Lengths in the patient are smaller, by a"
            " factor that the file does not state.",
        )
    size = (receptor[0] / factor, receptor[1] / factor)
    return DicomPixelSize(
        size, f"{name} ({_mm(receptor)}) is divided by {source} ({factor:.4g}); the pixel size is {_mm(size)}."
    )


def read_pixel_size(path: str | os.PathLike) -> DicomPixelSize | None:
    """Read the pixel size of a DICOM file, or of the slices in a folder; see :func:`pixel_size_of`.

    Returns:
        The size. None if the path is no DICOM image, or a damaged one.
    """
    file = _dicom_file(Path(path))
    if file is None:
        return None
    if not has_itk:
        return DicomPixelSize(None, "the package itk is not installed, which reads the pixel size of DICOM files")
    state = file.stat()
    return _read(str(file), state.st_mtime_ns, state.st_size)[0]


def read_itk_spacing(path: str | os.PathLike) -> tuple[float, float] | None:
    """Read the pixel size (x, y) that ITK, and so 3D Slicer, assumes for a DICOM image; None for other images."""
    file = _dicom_file(Path(path))
    if file is None or not has_itk:
        return None
    state = file.stat()
    return _read(str(file), state.st_mtime_ns, state.st_size)[1]


def require_readable_size(path: str | os.PathLike) -> None:
    """Raise an error if a DICOM file states a pixel size with which ITK cannot read the image, or mirrors it.

    Raises:
        ValueError: for a pixel size of 0, a negative one or one that is no number, in an image of a kind for which ITK
            uses that attribute. It ignores the pixel spacing of radiographs.
    """
    seen = read_itk_spacing(path)
    if seen is not None and not all(math.isfinite(step) and step > _TINY for step in seen):
        raise ValueError(
            f"{os.fspath(path)}: ITK cannot read this DICOM image, because the pixel size it states is not positive;"
            " correct or remove that size, for example PixelSpacing or ImagerPixelSpacing."
        )


def pixel_scale(affine: np.ndarray, spacing: float | Sequence[float]) -> np.ndarray:
    """Return the matrix (4, 4) for which ``affine @ matrix`` has another pixel size along x and y.

    Args:
        affine: (4, 4), from index to world.
        spacing: pixel size in mm, one number, or one per axis.
    """
    size = np.broadcast_to(np.ravel(np.asarray(spacing, dtype=np.float64))[:2], 2)
    lengths = affine_spacing(affine, 2)
    # an unchanged size leaves every bit of the affine as it was
    scale = np.where(np.isclose(lengths, size, rtol=1e-6, atol=0), 1.0, size / lengths)
    return np.diag([*scale, 1.0, 1.0])


@lru_cache(maxsize=4096)
def _read_header(file: str, _mtime: int, _size: int) -> tuple[dict[str, str], tuple[float, float]] | None:
    """Return the wanted attributes and the pixel size that ITK takes; None for a damaged file."""
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # the reader of the pixels names the file
        return None
    tags = reader.GetMetaDataDictionary()
    stated = {tag: str(tags[tag]) for tag in _WANTED if tags.HasKey(tag)}
    return stated, (reader.GetSpacing(0), reader.GetSpacing(1))


@lru_cache(maxsize=4096)
def _read(file: str, mtime: int, size: int) -> tuple[DicomPixelSize | None, tuple[float, float] | None]:
    header = _read_header(file, mtime, size)
    if header is None:
        return None, None
    stated, seen = dict(header[0]), header[1]
    if _text(stated, SOP_CLASS) not in _WITH_FUNCTIONAL_GROUPS:
        return pixel_size_of(stated), seen
    nested = {tag: list(dict.fromkeys(texts)) for tag, texts in _functional_groups(file, _WANTED).items()}
    if any(len(nested[tag]) > 1 for tag in _SIZES):
        return DicomPixelSize(None, "the frames of the DICOM file state several pixel sizes"), seen
    stated.pop(SOP_CLASS)
    return pixel_size_of(stated | {tag: texts[0] for tag, texts in nested.items() if len(texts) == 1}), seen


def read_functional_groups(path: str | os.PathLike, tags: Sequence[str]) -> dict[str, list[str]]:
    """Return all values of attributes in the functional groups of a multi-frame DICOM file, in their order.

    Returns:
        The values by tag. Empty if the path is no DICOM file of a kind that has such groups, or a damaged one.
    """
    file = _dicom_file(Path(path))
    if file is None or not has_itk:
        return {}
    state = file.stat()
    header = _read_header(str(file), state.st_mtime_ns, state.st_size)
    if header is None or _text(header[0], SOP_CLASS) not in _WITH_FUNCTIONAL_GROUPS:
        return {}
    return _functional_groups(str(file), tags)


def _functional_groups(file: str, tags: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of each attribute in the functional groups; ITK does not pass sequences on.

    The file is searched for the attributes, between the start of the groups and that of the pixels.
    """
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = _FUNCTIONAL_GROUPS.search(content)
        if start is None:
            return {tag: [] for tag in tags}
        end = content.find(_PIXEL_DATA, start.end())
        groups = content[start.end() : end if end >= 0 else len(content)]
    return {tag: _values(groups, tag) for tag in tags}


def _values(groups: bytes, tag: str) -> list[str]:
    code = struct.pack("<HH", *(int(part, 16) for part in tag.split("|")))
    # little endian, with or without the kind of the value before its length
    pattern = re.compile(re.escape(code) + rb"(?:[A-Z]{2}(..)|(..)\x00\x00)", re.DOTALL)
    found = []
    for match in pattern.finditer(groups):
        length = int.from_bytes(match[1] or match[2], "little")
        found.append(groups[match.end() : match.end() + length].decode("ascii", errors="replace").strip(" \0"))
    return found


def _dicom_file(path: Path) -> Path | None:
    """Return a DICOM file, or the first of a folder."""
    if path.is_dir():
        files = (_dicom_file(file) for file in sorted(path.iterdir()) if file.is_file())
        return next((file for file in files if file is not None), None)
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return None
    if path.name.lower().endswith(".dcm"):
        return path
    with open(path, "rb") as file:
        return path if file.read(132)[128:] == b"DICM" else None


def _choice(stated: tuple[float, float], receptor: tuple[float, float] | None, name: str, calibration: str) -> str:
    if receptor is None or calibration in _CALIBRATED:
        return ""
    if np.allclose(stated, receptor, rtol=_SAME, atol=0):
        place = "at the detector" if name == "ImagerPixelSpacing" else "on the film"
        return f"PixelSpacing ({_mm(stated)}) equals {name}, so it is the size {place}, without calibration."
    return (
        f"PixelSpacing ({_mm(stated)}) is used, which differs from {name} ({_mm(receptor)}) and therefore counts as"
        " calibrated; the file does not state the type of calibration."
    )


def _magnification(tags: Mapping[str, str]) -> tuple[float | None, str]:
    factor = _number(_text(tags, _MAGNIFICATION))
    if factor is not None and factor >= 1:
        return factor, "EstimatedRadiographicMagnificationFactor"
    detector, patient = _number(_text(tags, _SOURCE_TO_DETECTOR)), _number(_text(tags, _SOURCE_TO_PATIENT))
    if detector is None or patient is None or detector < patient:
        return None, ""
    return detector / patient, "DistanceSourceToDetector / DistanceSourceToPatient"


def _text(tags: Mapping[str, str], tag: str) -> str:
    return str(tags.get(tag, "")).strip(" \0")


def _pair(tags: Mapping[str, str], tag: str) -> tuple[float, float] | None:
    """Return an attribute of two positive numbers as (x, y)."""
    values = [_number(value) for value in _text(tags, tag).split("\\")]
    if len(values) != 2 or values[0] is None or values[1] is None:
        return None
    return values[1], values[0]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _mm(size: tuple[float, float]) -> str:
    return f"{size[0]:.6g} x {size[1]:.6g} mm"
