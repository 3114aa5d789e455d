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

"""Images of a folder, and items for a MONAI dataset."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai_landmarks.data.files.folder_walk import walk_folder
from monai_landmarks.data.files.safe_files import path_fault, printable

from .dicom_series import find_dicom_images
from .image_files import IMAGE_SUFFIXES, has_spacing, image_suffix

__all__ = ["find_images", "image_folder_items", "image_name", "list_images"]


def image_folder_items(images: str | os.PathLike, spacing: float | list[float] | None = None) -> list[dict[str, Any]]:
    """List one image, or the images of a folder and its subfolders, as items for a MONAI dataset.

    A DICOM series of several slices is one image. Its path is the folder of the slices, which holds only this series.

    Args:
        images: folder or file.
        spacing: pixel size in mm (one number, or one per axis) of files that state none that can be trusted: PNG, JPEG,
            BMP, TIFF, and some DICOM files. Other files keep their own. Default: 1 mm.

    Returns:
        one dictionary per image with ``image``, its absolute path, and ``spacing`` if it is given and needed. A folder
        of DICOM files that form no volume, and a file whose name or kind cannot be used, also has ``unreadable``, the
        reason;
        :class:`~monai_landmarks.data.ReadableDataLoader` leaves it out.

    Raises:
        ValueError: if the folder or file does not exist, or the folder holds no image.
    """
    found = find_images([images] if os.path.isfile(images) else images)
    items: list[dict[str, Any]] = []
    for path, fault in found.items():
        items.append({"image": os.path.abspath(path)})
        if fault:
            items[-1] = {"image": printable(os.path.abspath(path)), "unreadable": fault}
        elif spacing is not None and not has_spacing(path):
            items[-1]["spacing"] = spacing
    return items


def find_images(images: str | os.PathLike | Iterable[str | os.PathLike]) -> dict[Path, str]:
    """Find the images of a folder and its subfolders, sorted.

    Args:
        images: a folder; or image files, which are returned as they are.

    Returns:
        for each image the reason why it cannot be read; empty if there is none.

    Raises:
        ValueError: if the folder does not exist or holds no image.
    """
    if not isinstance(images, (str, os.PathLike)):
        return {Path(image): "" for image in images}
    folder = Path(images)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; expected a folder of images.")
    found = list_images(folder)
    if not found:
        raise ValueError(f"{folder}: no image in it; expected {', '.join(IMAGE_SUFFIXES)}.")
    return found


def list_images(folder: str | os.PathLike) -> dict[Path, str]:
    """Find the images of a folder like :func:`find_images`, but accept a folder without images.

    A file whose name or kind cannot be used has a reason, see
    :func:`~monai_landmarks.data.files.safe_files.path_fault`.

    Images are files with the suffix of an image format, DICOM files without suffix, and folders of DICOM slices; see
    :func:`~monai_landmarks.data.images.dicom_series.find_dicom_images`.
    """
    found = {image.path: path_fault(image.path, folder) or image.fault for image in find_dicom_images(folder)}
    for file in walk_folder(folder, {}):  # unreadable folders are among the images above
        if not image_suffix(file) or file.name.startswith(".") or os.path.isdir(file):
            continue
        if image_suffix(file) != ".dcm" or not os.path.isfile(file):
            found[file] = path_fault(file, folder)
    return dict(sorted(found.items()))


def image_name(image: Path, folder: Path | None) -> str:
    """Return the name of an image: its path relative to the folder, or the path itself if the folder is None."""
    if folder is None:
        return str(image)
    return folder.name if image == folder else image.relative_to(folder).as_posix()
