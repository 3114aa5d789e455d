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

"""Image files: names, suffixes, pixels and position in the world."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.transforms import LoadImage

from monai_landmarks.spaces import affine_4x4, picture_affine

__all__ = [
    "IMAGE_SUFFIXES",
    "has_spacing",
    "image_stem",
    "image_suffix",
    "read_geometry",
    "read_header",
    "read_image",
    "relative_path",
]

# read with PIL; these formats store no pixel size in mm, or none that can be trusted
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", *_PICTURE_SUFFIXES)


def image_stem(path: str | os.PathLike) -> str:
    """Return the file name without the suffix of an image format.

    Example:
        >>> image_stem("images/case.1.nii.gz")
        'case.1'
    """
    name = Path(path).name
    return name[: len(name) - len(image_suffix(name))]


def has_spacing(path: str | os.PathLike) -> bool:
    """Return whether the file format stores the pixel size in mm. PNG, JPEG, BMP and TIFF do not."""
    return not Path(path).name.lower().endswith(_PICTURE_SUFFIXES)


def read_image(path: str | os.PathLike, spacing: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read an image with MONAI's ``LoadImage``, and its affine.

    Args:
        path: image file.
        spacing: (x, y) pixel size in mm of a PNG, JPEG, BMP or TIFF file; 1 by default. Other formats ignore it.

    Returns:
        the image (C, *spatial), and the 4x4 affine from pixel index to RAS world in mm. For formats without spacing,
        pixel (x, y) is at LPS (spacing x * x, spacing y * y, 0), as in ITK and 3D Slicer.
    """
    image = _loader()(os.fspath(path))
    if not has_spacing(path):
        return np.asarray(image), picture_affine(spacing)
    return np.asarray(image), affine_4x4(image.affine)


def read_geometry(
    path: str | os.PathLike, spacing: Sequence[float] | None = None
) -> tuple[tuple[int, ...], np.ndarray]:
    """Read spatial shape and affine of an image; see :func:`read_image`."""
    image, affine = read_image(path, spacing)
    return image.shape[1:], affine


def read_header(path: str | os.PathLike, spacing: Sequence[float] | None = None) -> tuple[tuple[int, ...], np.ndarray]:
    """Read spatial shape and affine of an image. The voxels of a NIfTI volume are not read.

    Raises:
        ValueError: if the image cannot be read.
    """
    try:
        if Path(path).name.lower().endswith((".nii.gz", ".nii")):
            image: Any = nib.load(path)
            if len(image.shape) == 3:
                return tuple(image.shape), np.asarray(image.affine, dtype=np.float64)
        return read_geometry(path, spacing)
    except Exception as error:  # readers raise exceptions of any type
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"the image {os.fspath(path)} cannot be read ({reason}).") from error


def relative_path(path: str | os.PathLike, folder: str | os.PathLike | None) -> str:
    """Return the path relative to a folder, with forward slashes; the absolute path if the folder is None."""
    return os.path.abspath(path) if folder is None else Path(os.path.relpath(path, folder)).as_posix()


@cache
def _loader() -> LoadImage:
    # cached, because each LoadImage sets up all of MONAI's readers
    return LoadImage(image_only=True, ensure_channel_first=True)


def image_suffix(path: str | os.PathLike) -> str:
    """Return the suffix of the image format in lower case; empty if the name ends in none."""
    name = Path(path).name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), "")
