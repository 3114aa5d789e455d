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


"""World coordinates of pictures, which viewers and bundles define differently.

Pictures (PNG, JPEG, BMP, TIFF) do not store the pixel size in mm. A viewer assumes one, and a bundle has a setting for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from PIL import Image

from monai_landmarks.data import CoordinateSystem, LandmarkSet
from monai_landmarks.data.images.image_files import has_spacing, read_header
from monai_landmarks.spaces import picture_affine

__all__ = ["from_viewer", "to_viewer", "viewer_spacing"]

_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296  # tags of TIFF
_UNIT_IN_MM = {1: 25.4, 2: 10.0}  # units of JFIF: inch, centimeter


def viewer_spacing(path: str | os.PathLike) -> tuple[float, float] | None:
    """Return the pixel size in mm that 3D Slicer, which reads with ITK, assumes for a picture.

    It is derived from the print resolution.

    Args:
        path: an image file.

    Returns:
        The pixel size (x, y): 25.4 mm divided by the dots per inch if a JPEG or TIFF file states them, and 1 mm for other
        pictures. None for formats that store the voxel size, which all readers use.
    """
    if has_spacing(path):
        return None
    unit, density = None, None
    with Image.open(path) as picture:
        if picture.format == "JPEG":
            unit, density = _UNIT_IN_MM.get(picture.info.get("jfif_unit", 0)), picture.info.get("jfif_density")
        elif picture.format == "TIFF":
            tags: Any = picture.tag_v2  # type: ignore[attr-defined]
            unit = _UNIT_IN_MM.get(tags.get(_RESOLUTION_UNIT, 1) - 1)
            density = tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)
    if unit is None or not density or not all(density):
        return 1.0, 1.0
    return unit / float(density[0]), unit / float(density[1])


def to_viewer(
    landmarks: LandmarkSet, image: str | os.PathLike, spacing: float | Sequence[float] | None = None
) -> LandmarkSet:
    """Map landmarks from the world of a bundle to the world of a viewer.

    Args:
        landmarks: 3-D landmarks in RAS, as a bundle returns them.
        image: the image file. If its format stores the voxel size, both worlds are the same.
        spacing: pixel size of pictures in mm in the world of the bundle. By default 1.

    Returns:
        3-D landmarks in RAS.
    """
    seen = viewer_spacing(image)
    return landmarks if seen is None else landmarks.to_index(picture_affine(spacing)).to_world(picture_affine(seen))


def from_viewer(
    landmarks: LandmarkSet, image: str | os.PathLike, spacing: float | Sequence[float] | None = None
) -> LandmarkSet:
    """Map landmarks from the world of a viewer to the world of a bundle. This is the inverse of :func:`to_viewer`.

    Args:
        landmarks: landmarks of a label, in any coordinate system.
        image: the image file.
        spacing: pixel size of pictures in mm in the world of the bundle. By default 1.

    Returns:
        3-D landmarks in RAS.
    """
    landmarks, seen = landmarks.with_spatial_dims(3), viewer_spacing(image)
    if seen is not None:
        return landmarks.to_index(picture_affine(seen)).to_world(picture_affine(spacing))
    if landmarks.coordinate_system == CoordinateSystem.INDEX:
        return landmarks.to_world(read_header(image)[1])
    return landmarks.to(CoordinateSystem.RAS)
