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

"""Pixel size that viewers assume for images whose file states none, or states it in several attributes."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress

import numpy as np
from PIL import Image, UnidentifiedImageError

from .dicom_pixel_size import read_itk_spacing, read_pixel_size
from .pictures import is_picture, tiff_tags

__all__ = ["viewer_spacing"]

_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296  # tags of TIFF
_NUMBER = rb"(\+?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_SCALE = re.compile(rb"[\x01\x02]" + _NUMBER + rb"\x00" + _NUMBER)  # chunk sCAL of PNG: unit, width and height
_JFIF_UNITS, _TIFF_UNITS = {1: 25.4, 2: 10.0}, {2: 25.4, 3: 10.0}  # inch and centimeter in mm


def viewer_spacing(path: str | os.PathLike) -> tuple[float, float] | None:
    """Return the pixel size in mm that 3D Slicer, which reads with ITK, assumes, if a bundle takes another.

    Args:
        path: an image file.

    Returns:
        The pixel size (x, y). For pictures, it is derived from the print resolution: 25.4 mm divided by the dots per
        inch if a JPEG or TIFF file states them. For a PNG file, it is the scale that ITK writes. For other pictures, it
        is 1 mm. For a DICOM image, it is that of ITK, if ITK finds another size than this package, or the file states
        none. None for all other images, for which all readers agree.
    """
    if not is_picture(path):
        size, seen = read_pixel_size(path), read_itk_spacing(path)
        if size is None or seen is None:
            return None
        same = size.spacing is not None and np.allclose(size.spacing, seen, rtol=1e-3, atol=0)
        return None if same else seen
    try:
        with Image.open(path) as picture:
            kind, info = picture.format, picture.info
    except UnidentifiedImageError:  # pixels that Pillow does not read
        kind, info = "TIFF", {}
    if kind == "PNG":
        return _png_scale(path) or (1.0, 1.0)
    size = 1.0, 1.0
    with suppress(Exception):  # damaged values, which viewers ignore
        if kind == "JPEG":
            unit, x, y = info["jfif_unit"], *info["jfif_density"]
            size = _JFIF_UNITS[unit] / x, _JFIF_UNITS[unit] / y
        elif kind == "TIFF":
            unit, x, y = (tiff_tags(path)[tag] for tag in (_RESOLUTION_UNIT, _X_RESOLUTION, _Y_RESOLUTION))
            size = _TIFF_UNITS[unit] / float(x), _TIFF_UNITS[unit] / float(y)
    return size if all(0 < step < math.inf for step in size) else (1.0, 1.0)


def _png_scale(path: str | os.PathLike) -> tuple[float, float] | None:
    """Return the scale that a PNG file states, which Pillow does not read. ITK takes it for mm, whatever its unit."""
    with open(path, "rb") as file:
        file.seek(8)  # the signature
        while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
            content = file.read(int.from_bytes(head[:4], "big"))
            file.seek(4, os.SEEK_CUR)  # the checksum
            if head[4:] == b"sCAL" and (found := _SCALE.fullmatch(content)):
                x, y = map(float, found.groups())
                return (x, y) if 0 < min(x, y) and max(x, y) < math.inf else None
    return None
