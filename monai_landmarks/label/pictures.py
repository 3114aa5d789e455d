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


"""World coordinates of images whose file does not state them, which viewers and bundles define differently.

Pictures (PNG, JPEG, BMP, TIFF) have no reliable pixel size in mm. A viewer assumes one, and a bundle has a setting for
it. Viewers built on ITK also read the pixel size of a DICOM radiograph from another attribute than this package.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from monai_landmarks.data import CoordinateSystem, LandmarkSet
from monai_landmarks.data.images.dicom_pixel_size import read_itk_spacing, read_pixel_size
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.images.pictures import is_picture, picture_orientation, picture_size, shown_to_stored
from monai_landmarks.spaces import picture_affine

__all__ = ["from_viewer", "to_viewer", "viewer_affine", "viewer_spacing"]

_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296  # tags of TIFF
_NUMBER = rb"(\+?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_SCALE = re.compile(rb"[\x01\x02]" + _NUMBER + rb"\x00" + _NUMBER)  # chunk sCAL of PNG: unit, width and height
_UNIT_IN_MM = {1: 25.4, 2: 10.0}  # units of JFIF: inch, centimeter


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
    unit, density = None, None
    with Image.open(path) as picture:
        if picture.format == "PNG":
            return _png_scale(path) or (1.0, 1.0)
        if picture.format == "JPEG":
            unit, density = _UNIT_IN_MM.get(picture.info.get("jfif_unit", 0)), picture.info.get("jfif_density")
        elif picture.format == "TIFF":
            tags: Any = picture.tag_v2  # type: ignore[attr-defined]
            unit = _UNIT_IN_MM.get(tags.get(_RESOLUTION_UNIT, 1) - 1)
            density = tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)
    if unit is None or not density or not all(density):
        return 1.0, 1.0
    return unit / float(density[0]), unit / float(density[1])


def viewer_affine(path: str | os.PathLike) -> np.ndarray | None:
    """Return the affine from pixel index to RAS mm of 3D Slicer, if a bundle takes another.

    3D Slicer does not turn pictures that state an EXIF orientation, but this package does.

    Args:
        path: an image file.

    Returns:
        Matrix (4, 4); None if all readers agree, see :func:`viewer_spacing`.
    """
    seen = viewer_spacing(path)
    if seen is None:
        return None
    affine = picture_affine(seen)
    orientation = picture_orientation(path) if is_picture(path) else 1
    is_tiff = os.fspath(path).lower().endswith((".tif", ".tiff"))
    if orientation == 1 or (is_tiff and orientation < 5):
        return affine
    size = picture_size(path)
    stored = shown_to_stored(orientation, size)
    if is_tiff:  # ITK mirrors a TIFF as it states, but does not exchange its axes
        width, height = (size[1], size[0])
        stored = shown_to_stored(orientation - 4, (width, height)) @ stored
    return affine @ stored


def to_viewer(
    landmarks: LandmarkSet, image: str | os.PathLike, spacing: float | Sequence[float] | None = None
) -> LandmarkSet:
    """Map landmarks from the world of a bundle to the world of a viewer.

    Args:
        landmarks: 3-D landmarks in RAS, as a bundle returns them.
        image: the image file. If its format stores the voxel size, both worlds are the same.
        spacing: pixel size in mm of images whose file states none, in the world of the bundle. By default 1.

    Returns:
        3-D landmarks in RAS.
    """
    seen = viewer_affine(image)
    if seen is None:
        return landmarks
    return landmarks.to_index(_bundle_affine(image, spacing)).to_world(seen)


def from_viewer(
    landmarks: LandmarkSet, image: str | os.PathLike, spacing: float | Sequence[float] | None = None
) -> LandmarkSet:
    """Map landmarks from the world of a viewer to the world of a bundle. This is the inverse of :func:`to_viewer`.

    Args:
        landmarks: landmarks of a label, in any coordinate system.
        image: the image file.
        spacing: pixel size in mm of images whose file states none, in the world of the bundle. By default 1.

    Returns:
        3-D landmarks in RAS.
    """
    landmarks, seen = landmarks.with_spatial_dims(3), viewer_affine(image)
    if seen is not None:
        return landmarks.to_index(seen).to_world(_bundle_affine(image, spacing))
    if landmarks.coordinate_system == CoordinateSystem.INDEX:
        return landmarks.to_world(read_header(image)[1])
    return landmarks.to(CoordinateSystem.RAS)


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


def _bundle_affine(image: str | os.PathLike, spacing: float | Sequence[float] | None) -> np.ndarray:
    if is_picture(image):
        return picture_affine(spacing)
    return read_header(image, [spacing] * 2 if isinstance(spacing, (int, float)) else spacing)[1]
