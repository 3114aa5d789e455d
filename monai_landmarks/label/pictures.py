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

import os
from collections.abc import Sequence

import numpy as np

from monai_landmarks.data import CoordinateSystem, LandmarkSet
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.images.pictures import is_picture, picture_orientation, picture_size, shown_to_stored
from monai_landmarks.data.images.viewer_spacing import viewer_spacing
from monai_landmarks.spaces import picture_affine

__all__ = ["from_viewer", "to_viewer", "viewer_affine", "viewer_spacing"]


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


def _bundle_affine(image: str | os.PathLike, spacing: float | Sequence[float] | None) -> np.ndarray:
    if is_picture(image):
        return picture_affine(spacing)
    return read_header(image, [spacing] * 2 if isinstance(spacing, (int, float)) else spacing)[1]
