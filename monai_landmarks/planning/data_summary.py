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
"""What a plan needs to know of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import optional_import

from monai_landmarks.data import load_landmark_datalist, load_landmark_definition, read_image, read_item_landmarks
from monai_landmarks.data.images.image_files import has_spacing, read_header
from monai_landmarks.spaces import affine_spacing

tqdm, has_tqdm = optional_import("tqdm", name="tqdm")

__all__ = ["DataSummary", "summarize_datalist"]

SECTIONS = ("training", "validation", "testing")
_LOOKED_AT = 4  # images whose voxels are read to tell what they show


@dataclass(frozen=True)
class DataSummary:
    """What a plan needs to know of a data set.

    Args:
        names: of the landmarks.
        sizes: of the images in voxels, (n, D). The axes of volumes are turned to right, anterior, superior; those of 2-D
            images are as they are.
        spacings: of the images, size of a voxel in mm, (n, D), likewise.
        counts: images of the sections training, validation and testing.
        point_extent: how far apart an image's landmarks are along each axis, the largest in mm, (D,).
        modality: ``"CT"``, ``"MR"`` or ``"X-ray"``, a guess.
        pairs: (left, right) names of landmarks.
        in_pixels: whether a "mm" is a pixel, because the size of a pixel was given as 1.
        image_folder: the folder that holds all images.
        picture_spacing: the pixel size that the datalist gives to pictures, where all have the same.
    """

    names: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]
    spacings: tuple[tuple[float, ...], ...]
    counts: tuple[int, int, int]
    point_extent: tuple[float, ...]
    modality: str
    pairs: tuple[tuple[str, str], ...] = ()
    in_pixels: bool = False
    image_folder: str = "."
    picture_spacing: tuple[float, ...] | None = None

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.sizes[0])

    @property
    def unit(self) -> str:
        """What a length is called: mm, or px where the size of a pixel is not known."""
        return "px" if self.in_pixels else "mm"

    @property
    def extents(self) -> np.ndarray:
        """Of the images in mm, (n, D)."""
        return np.array(self.sizes) * np.array(self.spacings)

    @property
    def finest_spacing(self) -> float:
        """The smallest side of a voxel in mm, of a typical image."""
        return float(np.median(np.array(self.spacings).min(axis=1)))


def summarize_datalist(path: str | os.PathLike) -> DataSummary:
    """Read what a plan needs to know from a datalist, its landmarks and the headers of its images.

    Args:
        path: the datalist's JSON file.

    Raises:
        ValueError: if it is no datalist, has no training or validation images, or an image cannot be read.
    """
    definition = load_landmark_definition(path)
    sections = {name: _section(path, name) for name in SECTIONS}
    for name in SECTIONS[:2]:
        if not sections[name]:
            raise ValueError(
                f"{path}: no image for {name}; a training needs images to learn from, and others to be measured on, "
                "see `monai-landmarks check --val-frac`."
            )
    items = [item for name in SECTIONS for item in sections[name]]
    bar = tqdm(items, desc="reading headers", leave=False, disable=None) if has_tqdm else items
    sizes, spacings, spans = zip(*(_read_item(item) for item in bar))
    dims = {len(size) for size in sizes}
    if len(dims) > 1:
        raise ValueError(f"{path}: some images are 2-D and others 3-D.")
    pictures = [item.get("spacing") for item in items if not has_spacing(item["image"])]
    same = len({str(spacing) for spacing in pictures}) == 1
    return DataSummary(
        names=tuple(definition["names"]),
        sizes=sizes,
        spacings=spacings,
        counts=(len(sections["training"]), len(sections["validation"]), len(sections["testing"])),
        point_extent=tuple(float(span) for span in np.nanmax([[0.0] * dims.pop(), *spans], axis=0)),
        modality=guess_modality([item["image"] for item in sections["training"]], len(sizes[0])),
        pairs=tuple((left, right) for left, right in definition["pairs"]),
        in_pixels=len(pictures) == len(items) and bool(np.all(np.array(spacings) == 1)),
        image_folder=os.path.commonpath([os.path.dirname(item["image"]) for item in items]),
        picture_spacing=tuple(pictures[0]) if same and pictures[0] else None,
    )


def guess_modality(images: Sequence[str | os.PathLike], spatial_dims: int) -> str:
    """What images show, by a rule of thumb: a 2-D image is a radiograph, a volume with values far below zero is a CT."""
    if spatial_dims == 2:
        return "X-ray"
    some = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).round().astype(int))]
    # air has -1000 HU; the magnitude of an MR image is never negative, though a normalized one may be, a little
    return "CT" if np.median([read_image(image)[0].min() for image in some]) < -200 else "MR"


def _section(path: str | os.PathLike, name: str) -> list[dict[str, Any]]:
    try:
        return load_landmark_datalist(path, name)
    except ValueError as error:
        if "no section" in str(error):
            return []
        raise


def _read_item(item: dict[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...], np.ndarray]:
    """Size and spacing of an image, and how far apart its landmarks are along each axis, NaN if that is not known."""
    shape, affine = read_header(Path(item["image"]), item.get("spacing"))
    while len(shape) > 2 and shape[-1] == 1:  # a radiograph in DICOM is a volume of one slice
        shape = shape[:-1]
    dims = len(shape)
    spacing = affine_spacing(affine, dims)
    order = np.argsort(nib.orientations.io_orientation(affine)[:, 0]) if dims == 3 else np.arange(dims)
    span = np.full(dims, np.nan)
    landmarks = read_item_landmarks(item)
    if landmarks is not None and not landmarks.missing.all():
        points = landmarks.to_world(affine).points[~landmarks.missing][:, :dims]
        span[: points.shape[1]] = np.ptp(points, axis=0)
    return tuple(int(shape[i]) for i in order), tuple(float(spacing[i]) for i in order), span
