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

"""The contact sheet of a dataset: images with their landmarks on one page."""

from __future__ import annotations

import os

import numpy as np

from monai_landmarks.data import CheckedImage, DataCheck, atomic_write, read_image
from monai_landmarks.visualize import draw_contact_sheet, landmark_view

__all__ = ["write_contact_sheet"]


def write_contact_sheet(check: DataCheck, path: str | os.PathLike, count: int = 24) -> list[str]:
    """Draw images of a dataset with their landmarks, and write the picture.

    Args:
        check: from :func:`monai_landmarks.data.check_data`.
        path: picture file, for example a PNG. It is written whole or not at all.
        count: largest number of images to draw. Images with faults or warnings are chosen first, and their titles are
            red. The others are taken at regular steps from the rest of the dataset.

    Returns:
        Names of the images drawn. Without any, no file is written.
    """
    drawable = [image for image in check.images if image.points is not None]
    chosen = _choose(drawable, count)
    views = []
    for image in chosen:
        assert image.points is not None
        pixels, affine = read_image(image.case.image, image.spacing and image.spacing[:2])
        while pixels.ndim > image.points.spatial_dims + 1:  # a DICOM radiograph is read as a volume of one slice
            pixels = pixels[..., 0]
        points = image.points.reorder(check.names).points
        title = image.case.name if len(image.case.name) <= 40 else f"...{image.case.name[-37:]}"
        views.append(landmark_view(pixels, points, title=title, max_size=360, affine=affine))
    if views:
        with atomic_write(path) as temporary:
            draw_contact_sheet(views, check.names, [bool(image.faults or image.warnings) for image in chosen]).savefig(
                temporary
            )
    return [image.case.name for image in chosen]


def _choose(images: list[CheckedImage], count: int) -> list[CheckedImage]:
    """Choose images to draw: those with faults or warnings, then others at regular steps; in the order of the dataset."""
    if len(images) <= count:
        return images
    faulty = [i for i, image in enumerate(images) if image.faults or image.warnings][:count]
    others = [i for i, image in enumerate(images) if not (image.faults or image.warnings)]
    even = np.linspace(0, len(others) - 1, count - len(faulty)).round().astype(int) if others else []
    return [images[i] for i in sorted({*faulty, *(others[i] for i in even)})]
