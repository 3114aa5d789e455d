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

"""Images without landmarks, to be predicted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from .dicom_series import find_dicom_images
from .image_files import find_images, has_spacing, list_images

__all__ = ["image_folder_items"]


def image_folder_items(images: str | os.PathLike, spacing: float | list[float] | None = None) -> list[dict[str, Any]]:
    """
    Items for a MONAI dataset from a folder of images, with the folders in it, or from one image.

    A DICOM series of several slices is one image, whose path is that of its folder; a folder holds one such series.

    Args:
        images: folder or file.
        spacing: pixel size in mm (one number or one per axis) of PNG, JPEG, BMP and TIFF files, which have none that can be
            trusted. Files of other formats in the folder keep their own. Without it a pixel counts as 1 mm.

    Returns:
        one dictionary per image with ``image``, its absolute path, and ``spacing`` where given and needed.

    Raises:
        ValueError: when there is no such folder or file, or no image in it, or DICOM files that are not slices lie beside
            a series.
    """
    items: list[dict[str, Any]] = [{"image": os.path.abspath(file)} for file in _find(images)]
    for item in items:
        if spacing is not None and not has_spacing(item["image"]):
            item["spacing"] = spacing
    return items


def _find(images: str | os.PathLike) -> Sequence[str | os.PathLike]:
    if os.path.isfile(images):
        return [images]
    dicom = find_dicom_images(images)
    if not dicom:
        return find_images(images)
    files = {file for files in dicom.values() for file in files}
    return sorted({*dicom, *(file for file in list_images(images) if file not in files)})
