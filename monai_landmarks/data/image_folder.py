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
from typing import Any

from .image_files import find_images, has_spacing

__all__ = ["image_folder_items"]


def image_folder_items(images: str | os.PathLike, spacing: float | list[float] | None = None) -> list[dict[str, Any]]:
    """
    Items for a MONAI dataset from a folder of images, with the folders in it, or from one image.

    Args:
        images: folder or file.
        spacing: pixel size in mm (one number or one per axis) of PNG, JPEG, BMP and TIFF files, which have none that can be
            trusted. Files of other formats in the folder keep their own. Without it a pixel counts as 1 mm.

    Returns:
        one dictionary per image with ``image``, its absolute path, and ``spacing`` where given and needed.

    Raises:
        ValueError: when there is no such folder or file, or no image in it.
    """
    files = [images] if os.path.isfile(images) else find_images(images)
    items: list[dict[str, Any]] = [{"image": os.path.abspath(file)} for file in files]
    for item in items:
        if spacing is not None and not has_spacing(item["image"]):
            item["spacing"] = spacing
    return items
