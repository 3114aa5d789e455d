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

"""Pictures (PNG, JPEG, BMP, TIFF) as every viewer shows them.

Cameras and scanners store a picture as the sensor saw it, and state how to turn it for display: the orientation of
EXIF, 2 to 8. Others store numbers of colors (palettes) or amounts of ink (CMYK) instead of brightness. MONAI's
``PILReader`` returns what is stored; annotations are drawn on what is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

__all__ = [
    "as_shown",
    "is_left_to_itk",
    "is_picture",
    "open_picture",
    "picture_orientation",
    "picture_size",
    "read_picture",
    "shown_to_stored",
    "tiff_tags",
]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_ORIENTATION = 274  # tag of TIFF and EXIF
_BIG_TIFF = 43  # version in the header
_PHOTOMETRIC = 262  # tag of TIFF: 0 means that white is zero
_BRIGHTNESS = ("1", "L", "LA", "I", "F", "RGB", "RGBA")  # and I;16 in its byte orders
_PALETTES = ("P", "PA")


def is_picture(path: str | os.PathLike) -> bool:
    """Return whether the file is a PNG, JPEG, BMP or TIFF, by its suffix."""
    return Path(path).name.lower().endswith(PICTURE_SUFFIXES)


def open_picture(path: str | os.PathLike) -> Image.Image:
    """Read a picture as it is shown, see :func:`as_shown`."""
    # not by its path: Pillow 13 garbles a turned TIFF that it maps to memory
    with open(path, "rb") as file, Image.open(file) as picture:
        return as_shown(picture)


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read the pixels of a picture as it is shown.

    Returns:
        Array (C, X, Y), float32.
    """
    pixels = np.asarray(open_picture(path), dtype=np.float32)  # (rows, columns) or (rows, columns, channels)
    return np.ascontiguousarray(np.atleast_3d(pixels).T)


def as_shown(picture: Image.Image) -> Image.Image:
    """Return a picture as it is shown: turned, with brightness or RGB as values.

    Raises:
        ValueError: if its color space cannot be converted.
    """
    # Pillow inverts 8 bits itself, but not 16; the picture that is returned has no tags any more
    white_is_zero = picture.mode.startswith("I;16") and getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    picture.load()
    kind = picture.format
    try:
        shown = ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF data, which viewers ignore; the pixels have been read
        shown = picture.copy()
    if shown.mode in _PALETTES:
        shown = shown.convert("RGB")
        red, green, blue = shown.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            shown = red
    elif shown.mode not in _BRIGHTNESS and not shown.mode.startswith("I;16"):
        shown = shown.convert("RGB")
    if white_is_zero:
        shown = Image.fromarray(np.iinfo(np.uint16).max - np.asarray(shown, dtype=np.uint16))
    shown.format = kind
    return shown


def picture_orientation(path: str | os.PathLike) -> int:
    """Return the EXIF orientation of a picture, 1 to 8; 1 if it states none or an unknown one."""
    try:
        with Image.open(path) as picture:
            if picture.format == "TIFF":  # Pillow turns the pixels while it loads them, and removes the tag
                orientation = picture.tag_v2.get(_ORIENTATION, 1)  # type: ignore[attr-defined]
            else:
                orientation = picture.getexif().get(_ORIENTATION, 1)
    except OSError:
        orientation = _tiff_orientation(path)
    except Exception:  # damaged EXIF data, which viewers ignore
        orientation = 1
    return orientation if orientation in range(2, 9) else 1


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return width and height of a picture as it is shown, from its header."""
    with Image.open(path) as picture:
        size = picture.size
        pixels = getattr(picture, "tag_v2", {})
    if pixels:  # Pillow may have exchanged the size of a TIFF
        size = pixels.get(256, size[0]), pixels.get(257, size[1])
    return (size[1], size[0]) if picture_orientation(path) >= 5 else (size[0], size[1])


def shown_to_stored(orientation: int, size: tuple[int, int]) -> np.ndarray:
    """Return the matrix (4, 4) from pixel index of a picture as it is shown to pixel index as it is stored.

    Args:
        orientation: EXIF orientation, 1 to 8.
        size: width and height as shown.
    """
    width, height = size
    # rows of stored x and y: coefficients of shown x and y, and offset
    x, y, right, bottom = (1, 0, 0), (0, 1, 0), (-1, 0, width - 1), (0, -1, height - 1)
    stored = {
        1: (x, y),
        2: (right, y),
        3: (right, bottom),
        4: (x, bottom),
        5: (y, x),
        6: (y, right),
        7: (bottom, right),
        8: (bottom, x),
    }[orientation]
    result = np.eye(4)
    for row, (along_x, along_y, offset) in enumerate(stored):
        result[row, [0, 1, 3]] = along_x, along_y, offset
    return result


def is_left_to_itk(path: str | os.PathLike) -> bool:
    """Return whether a TIFF has several pages, or pixels that Pillow does not read. Such a file must be upright.

    Raises:
        ValueError: if it is shown turned.
    """
    if not os.fspath(path).lower().endswith((".tif", ".tiff")):
        return False
    try:
        with Image.open(path) as picture:
            several = getattr(picture, "n_frames", 1) > 1
    except (OSError, SyntaxError):
        several = True
    if several and _tiff_orientation(path) != 1:
        raise ValueError(
            f"{path}: the picture is shown turned (orientation {_tiff_orientation(path)}), and has several pages or pixels that"
            " Pillow does not read; save it upright."
        )
    return several


def tiff_tags(path: str | os.PathLike) -> Mapping[int, Any]:
    """Return the tags of the first page of a TIFF, also if Pillow does not read its pixels; empty for other files."""
    try:
        with open(path, "rb") as file:
            header = file.read(8)
            if _BIG_TIFF in header[2:4]:
                header += file.read(8)
            tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)
            return tags
    except Exception:  # no TIFF
        return {}


def _tiff_orientation(path: str | os.PathLike) -> int:
    try:
        return int(tiff_tags(path).get(_ORIENTATION, 1))
    except Exception:  # a damaged value
        return 1
