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
"""Summary of a dataset, from which a plan is made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from monai.utils import optional_import

from monai_landmarks.data import load_landmark_datalist, load_landmark_definition, read_image, read_item_landmarks
from monai_landmarks.data.datalists.datalist_faults import index_points
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import naming_file, read_text
from monai_landmarks.data.images.image_files import has_spacing, read_header
from monai_landmarks.spaces import affine_spacing

from .intensity import Modality

tqdm, has_tqdm = optional_import("tqdm", name="tqdm")

__all__ = ["DataSummary", "summarize_datalist"]

SECTIONS = ("training", "validation", "testing")
_READ_IMAGES = 4  # number of images whose voxels are read to guess the modality


@dataclass(frozen=True)
class DataSummary:
    """Summary of a dataset.

    Args:
        names: names of the landmarks.
        sizes: sizes of the images in voxels, (n, D). The axes of volumes are reordered to RAS (right, anterior,
            superior). The axes of 2-D images are not changed.
        spacings: voxel sizes of the images in mm, (n, D), with the axes in the same order.
        counts: number of images in the sections training, validation and testing.
        point_extent: extent of the landmarks of an image along each axis in mm, (D,), the maximum over all images.
        modality: ``"CT"``, ``"MR"`` or ``"X-ray"``, guessed from the images.
        pairs: left-right pairs of landmark names.
        in_pixels: whether lengths are in pixels, because the pixel size was given as 1.
        image_folder: folder that contains all images.
        picture_spacing: pixel size in the datalist, if all pictures have the same.
        training_points: landmarks of the training images in world coordinates (RAS mm), (n, N, D), NaN where missing.
        training_voxels: the same landmarks in voxels of the images, along the axes of ``sizes``.
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
    training_points: np.ndarray | None = field(default=None, compare=False, repr=False)
    training_voxels: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def spatial_dims(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return len(self.sizes[0])

    @property
    def unit(self) -> Literal["mm", "px"]:
        """Unit of lengths, ``"mm"``, or ``"px"`` if the pixel size is not known."""
        return "px" if self.in_pixels else "mm"

    @property
    def extents(self) -> np.ndarray:
        """Sizes of the images in mm, (n, D)."""
        return np.array(self.sizes) * np.array(self.spacings)

    @property
    def finest_spacing(self) -> float:
        """Smallest side of a voxel in mm, the median over the images."""
        return float(np.median(np.array(self.spacings).min(axis=1)))


def summarize_datalist(path: str | os.PathLike) -> DataSummary:
    """Summarize a datalist from its landmarks, the headers of its images, and the voxels of a few images.

    Args:
        path: JSON file of the datalist.

    Raises:
        ValueError: if the file is not a datalist, has no training or no validation images, has images of different
            dimensions, or names an image that cannot be read or whose landmarks have another dimension.
    """
    definition = load_landmark_definition(path)
    with naming_file(path):
        there = load_json(read_text(path))
    sections = {name: load_landmark_datalist(path, name) if name in there else [] for name in SECTIONS}
    for name in SECTIONS[:2]:
        if not sections[name]:
            raise ValueError(
                f"{path}: no image for {name}; a training needs images to learn from, and others to be measured on, "
                "see `monai-landmarks check --val-frac`."
            )
    items = [item for name in SECTIONS for item in sections[name]]
    bar = tqdm(items, desc="reading headers", leave=False, disable=None) if has_tqdm else items
    names = tuple(definition["names"])
    sizes, spacings, points, voxels = zip(*(_read_item(item, names) for item in bar))
    dims = {len(size) for size in sizes}
    if len(dims) > 1:
        raise ValueError(f"{path}: some images are 2-D and others 3-D.")
    pictures = [item.get("spacing") for item in items if not has_spacing(item["image"])]
    same = len({str(spacing) for spacing in pictures}) == 1
    return DataSummary(
        names=names,
        sizes=sizes,
        spacings=spacings,
        counts=(len(sections["training"]), len(sections["validation"]), len(sections["testing"])),
        point_extent=tuple(
            float(span) for span in np.nanmax(np.array([[0.0] * dims.pop(), *map(_span, points)]), axis=0)
        ),
        modality=guess_modality([item["image"] for item in sections["training"]], len(sizes[0])),
        pairs=tuple((left, right) for left, right in definition["pairs"]),
        in_pixels=len(pictures) == len(items) and bool(np.all(np.array(spacings) == 1)),
        image_folder=os.path.commonpath([os.path.dirname(item["image"]) for item in items]),
        picture_spacing=_pair(pictures[0]) if same and pictures[0] else None,
        training_points=np.stack(points[: len(sections["training"])]),
        training_voxels=np.stack(voxels[: len(sections["training"])]),
    )


def _pair(spacing: float | Sequence[float]) -> tuple[float, ...]:
    return (spacing, spacing) if isinstance(spacing, (int, float)) else tuple(spacing)


def guess_modality(images: Sequence[str | os.PathLike], spatial_dims: int) -> Modality:
    """Guess the modality: 2-D images are radiographs, volumes with values far below zero are CT, others are MR."""
    if spatial_dims == 2:
        return "X-ray"
    some = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, _READ_IMAGES).round().astype(int))]
    # air has -1000 HU; magnitude images of MR are not negative, and normalized images only slightly
    return "CT" if np.median([read_image(image)[0].min() for image in some]) < -200 else "MR"


def _read_item(
    item: dict[str, Any], names: Sequence[str]
) -> tuple[tuple[int, ...], tuple[float, ...], np.ndarray, np.ndarray]:
    """Return size and spacing of an image, and its landmarks (N, D), NaN where missing: in the world, and in voxels."""
    shape, affine = read_header(Path(item["image"]), item.get("spacing"))
    dims = 2 if len(shape) == 3 and shape[2] == 1 else len(shape)  # a DICOM radiograph is a volume of one slice
    spacing = affine_spacing(affine, dims)
    axes = nib.orientations.io_orientation(affine) if dims == 3 else np.array([[0, 1], [1, 1]])
    order = np.argsort(axes[:, 0])
    points = np.full((len(names), dims), np.nan)
    voxels = points
    landmarks = read_item_landmarks(item)
    if landmarks is not None and not landmarks.missing.all():
        with naming_file(item["image"]):
            index = index_points(landmarks.reorder(names), shape, affine)
        points = index.to_world(affine).points
        voxels = np.where(axes[:, 1] < 0, np.array(shape[:dims]) - 1 - index.points, index.points)[:, order]
    return tuple(int(shape[i]) for i in order), tuple(float(spacing[i]) for i in order), points, voxels


def _span(points: np.ndarray) -> np.ndarray:
    """Return the extent of landmarks (N, D) along each axis, NaN without landmarks."""
    known = points[~np.isnan(points).any(axis=1)]
    return np.ptp(known, axis=0) if len(known) else np.full(points.shape[1], np.nan)
