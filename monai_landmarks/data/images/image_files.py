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
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_landmarks.data.files.safe_files import special_file_fault
from monai_landmarks.spaces import affine_4x4, picture_affine

from .dicom_pixel_size import pixel_scale, read_pixel_size
from .image_headers import NO_VOXEL_SIZE, states_voxel_size
from .nifti_world import read_nifti_world
from .pictures import PICTURE_SUFFIXES, is_left_to_itk, is_picture, picture_orientation, read_picture
from .viewer_spacing import viewer_spacing

if TYPE_CHECKING:
    from monai.transforms import LoadImage

__all__ = [
    "IMAGE_SUFFIXES",
    "channel_fault",
    "ensure_pixel_size",
    "file_note",
    "has_spacing",
    "image_stem",
    "image_suffix",
    "is_picture",
    "place_note",
    "read_geometry",
    "read_header",
    "read_image",
    "relative_path",
]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", *PICTURE_SUFFIXES)
_MOST_CHANNELS = 4  # RGB with alpha
_UPRIGHT = (
    "python -c \"from PIL import Image, ImageOps; ImageOps.exif_transpose(Image.open('old.png')).save('new.png')\""
)


def image_stem(path: str | os.PathLike) -> str:
    """Return the file name without the suffix of an image format.

    Example:
        >>> image_stem("images/case.1.nii.gz")
        'case.1'
    """
    name = Path(path).name
    return name[: len(name) - len(image_suffix(name))]


def has_spacing(path: str | os.PathLike) -> bool:
    """Return whether an image file states the pixel size in mm.

    PNG, JPEG, BMP and TIFF files do not. A DICOM file may lack it or state 0; see
    ``data.images.dicom_pixel_size``.
    """
    if is_picture(path):
        return False
    size = read_pixel_size(path)
    return size is None or size.spacing is not None


def ensure_pixel_size(spacing: float | Sequence[float] | None) -> list[float] | None:
    """Return x and y of the pixel size of images whose file states none.

    Args:
        spacing: one number, or x and y. None if it is not given.

    Raises:
        ValueError: for another number of values.
    """
    if spacing is None:
        return None
    steps = np.ravel(np.asarray(spacing, dtype=np.float64)).tolist()
    if len(steps) not in (1, 2):
        shown = ",".join(f"{step:g}" for step in steps)
        raise ValueError(f"the spacing {shown} has {len(steps)} values; expected one, or two for x and y.")
    return [steps[0], steps[-1]]


def channel_fault(channels: int, shape: Sequence[int]) -> str:
    """Return why the channels of an image cannot become one gray channel; empty if they can.

    Args:
        channels: number of channels.
        shape: spatial shape.
    """
    if channels > 1 and sum(size > 1 for size in shape) > 2:
        return (
            f"is a volume with {channels} channels, such as contrasts or time points; expected one. Extract it, for example"
            " in Python with nibabel.load(path).slicer[..., 0].to_filename(new_path)."
        )
    if not 1 <= channels <= _MOST_CHANNELS:
        return f"has {channels} channels; expected 1 to {_MOST_CHANNELS}: gray or RGB, with or without alpha."
    return ""


def read_image(
    path: str | os.PathLike, spacing: float | Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image as :class:`~monai_landmarks.data.ImageFileReader` does, and its affine.

    Args:
        path: image file.
        spacing: (x, y) pixel size in mm of a file that states none, see ``has_spacing``; 1 by default. Other files
            ignore it.

    Returns:
        the image (C, *spatial), and the 4x4 affine from pixel index to RAS world in mm. For pictures without spacing,
        pixel (x, y) is at LPS (spacing x * x, spacing y * y, 0), as in ITK and 3D Slicer. For NIfTI, see
        ``data.images.nifti_world``.
    """
    _require_file(path)
    if is_picture(path) and not is_left_to_itk(path):
        return read_picture(path), picture_affine(spacing)  # without MONAI, which takes seconds to import
    image = _loader()(os.fspath(path))
    if is_picture(path):
        return np.asarray(image), picture_affine(spacing)
    if _is_nifti(path):
        return np.asarray(image), read_nifti_world(path).affine.copy()
    affine, size = affine_4x4(image.affine), read_pixel_size(path)
    if size is not None:
        affine = affine @ pixel_scale(affine, size.spacing or (1.0 if spacing is None else spacing))
    return np.asarray(image), affine


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
        _require_file(path)
        if _is_nifti(path):
            import nibabel as nib

            image: Any = nib.load(path)
            if len(image.shape) == 3:
                return tuple(image.shape), read_nifti_world(path).affine.copy()
        return read_geometry(path, spacing)
    except Exception as error:  # readers raise exceptions of any type
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"the image {os.fspath(path)} cannot be read ({reason}).") from error


def file_note(path: str | os.PathLike) -> str:
    """Return how a readable image file was understood, if there was a choice, such as between two pixel sizes."""
    if _is_nifti(path):
        return read_nifti_world(path).size_note
    if is_picture(path):
        orientation = picture_orientation(path)
        if orientation == 1:
            return ""
        return (
            f"The picture is shown turned (EXIF orientation {orientation}), and so it is read: points in pixels must be those of"
            " the picture as viewers show it. Viewers built on ITK, such as 3D Slicer, do not turn it. To have one picture in"
            f" all programs: {_UPRIGHT}"
        )
    if not states_voxel_size(path):
        return NO_VOXEL_SIZE
    size = read_pixel_size(path)
    return "" if size is None else size.note


def place_note(path: str | os.PathLike, spacing: float | Sequence[float] | None = None, written: bool = False) -> str:
    """Return where other readers see points in mm at another place of a readable image file; often empty.

    Args:
        path: image file.
        spacing: pixel size in mm, one number or (x, y), with which points are read or written if the file states none.
            If it is None, nothing is said about such a file.
        written: whether points are only written.
    """
    if _is_nifti(path):
        return read_nifti_world(path).place_note
    size = None if is_picture(path) else read_pixel_size(path)
    stated = None if size is None else size.spacing
    used = stated or ensure_pixel_size(spacing)
    if used is None:
        return ""
    seen = viewer_spacing(path)
    if seen is None or np.allclose(seen, used, rtol=1e-3, atol=0):
        return ""
    texts = [f"{x:.6g} x {y:.6g} mm" for x, y in (used, seen)]
    set_size = "To see points in mm at the right place there, set the spacing in 3D Slicer's Volumes module."
    if stated:
        return (
            f"The pixel size is {texts[0]}, but viewers built on ITK, such as 3D Slicer, show this kind of DICOM image with"
            f" {texts[1]}. {set_size}"
        )
    if is_picture(path) and picture_orientation(path) != 1:
        return ""  # such viewers also turn the points; file_note says what to do
    differs = (
        f"The pixel size in use is {texts[0]}, but viewers built on ITK, such as 3D Slicer, show this"
        f" {image_suffix(path) or 'DICOM'} file with {texts[1]}."
    )
    if written:
        return f"{differs} {set_size}"
    return (
        f"{differs} Points in mm that were drawn there with that pixel size"
        " must be converted to pixels first: monai-landmarks convert POINTS NEW_FOLDER --to csv --images IMAGES"
        f" --coordinate-system index --spacing {seen[0]:.6g},{seen[1]:.6g}. Points that predict or convert wrote with the"
        " pixel size in use are right; to see them at the right place there, set the spacing in 3D Slicer's Volumes module."
    )


def relative_path(path: str | os.PathLike, folder: str | os.PathLike | None) -> str:
    """Return the path relative to a folder, with forward slashes; the absolute path if the folder is None."""
    return os.path.abspath(path) if folder is None else Path(os.path.relpath(path, folder)).as_posix()


def _is_nifti(path: str | os.PathLike) -> bool:
    return Path(path).name.lower().endswith((".nii.gz", ".nii"))


def _require_file(path: str | os.PathLike) -> None:
    """Raise ValueError for a pipe, socket or device."""
    if fault := special_file_fault(path):
        raise ValueError(fault)


@cache
def _loader() -> LoadImage:
    # cached, because each LoadImage sets up all of MONAI's readers
    from monai.transforms import LoadImage

    from .picture_reader import ImageFileReader

    return LoadImage(reader=ImageFileReader(), image_only=True, ensure_channel_first=True)


def image_suffix(path: str | os.PathLike) -> str:
    """Return the suffix of the image format in lower case; empty if the name ends in none."""
    name = Path(path).name.lower()
    return next((suffix for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), "")
