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
"""The grid of the network: resampling of the images, size of the grid, and voxel size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from .choice import Choice
from .data_summary import DataSummary
from .machine import Machine, TrainingMemory

__all__ = [
    "Resampling",
    "choose_resampling",
    "choose_spacing",
    "choose_spatial_size",
    "covered_extent",
    "round_up",
    "voxel_limit",
]

Resampling = Literal["spacing", "fit"]


def choose_resampling(summary: DataSummary) -> Choice:
    """Choose the resampling: ``"spacing"`` (one voxel size for all images) or ``"fit"`` (each image fills the grid)."""
    if summary.spatial_dims == 3:
        return Choice("spacing", "volume files state their voxel size, so all volumes are resampled to one voxel size")
    return Choice("fit", "the pixel size of 2-D images is often not known, so each image is scaled to fill the grid")


def covered_extent(summary: DataSummary, resampling: Resampling) -> np.ndarray:
    """Return the extent in mm, (D,), that the grid must cover.

    For ``"spacing"`` it is the largest image along each axis, for ``"fit"`` the median image.
    """
    extents = summary.extents
    return np.median(extents, axis=0) if resampling == "fit" else extents.max(axis=0)


def voxel_limit(machine: Machine, memory: TrainingMemory, patience: int, why: str = "") -> tuple[int, str]:
    """Return the largest number of voxels of an image, limited by memory or training time, and the reason.

    Args:
        machine: machine for the training.
        memory: memory of a training step.
        patience: number of voxels with which a training takes a reasonable time.
        why: reason for this number. Default: the training time.
    """
    fits = memory.voxels_in(machine.memory)
    if fits < patience:
        return fits, f"the limit of {machine.memory / 2**30:.1f} GiB of memory for one image per batch"
    return patience, why or f"the limit for a reasonable training time on a {'GPU' if machine.on_gpu else 'CPU'}"


def choose_spatial_size(
    summary: DataSummary, resampling: Resampling, multiple: int, limit: tuple[int, str], spacing: float | None = None
) -> Choice:
    """Choose the size of the grid: the resolution of the images, or less if the limit requires it.

    Each side is a multiple of ``multiple``, and at least one side is twice that.

    Args:
        summary: summary of the data.
        resampling: see :func:`choose_resampling`.
        multiple: factor by which the network downsamples each axis.
        limit: see :func:`voxel_limit`.
        spacing: given voxel size in mm. The limit is then ignored.
    """
    extent = covered_extent(summary, resampling)
    step = spacing or summary.finest_spacing
    size = _size(extent, step, multiple)
    reason = f"covers {_lengths(extent)} {summary.unit}"
    if spacing is not None:
        return Choice(size, f"{reason} with the given voxel size, in multiples of {multiple}")
    native = size
    while math.prod(size) > max(limit[0], 2 * multiple**summary.spatial_dims):
        step *= 1.01
        size = _size(extent, step, multiple)
    if size == native:
        return Choice(size, f"{reason} at the resolution of the images, in multiples of {multiple}")
    return Choice(size, f"{reason} with at most {limit[0]} voxels, {limit[1]}; in multiples of {multiple}")


def choose_spacing(summary: DataSummary, resampling: Resampling, spatial_size: Sequence[int]) -> Choice:
    """Choose the voxel size of the grid in mm."""
    extent = covered_extent(summary, resampling)
    spacing = float((extent / np.array(spatial_size)).max())
    if resampling == "fit":
        return Choice(
            round_up(spacing),
            "voxel size at which a typical image fits into the grid; it differs in images of other sizes",
        )
    # voxels smaller than those of the images add no information
    return Choice(
        round_up(max(spacing, summary.finest_spacing)),
        f"smallest voxel size at which the largest image fits into the grid, but at least the {summary.finest_spacing:.3g} "
        f"{summary.unit} of the images",
    )


def _size(extent: np.ndarray, step: float, multiple: int) -> list[int]:
    # the tolerance avoids another multiple because of a rounding error
    size = [multiple * max(1, math.ceil(length / (step * multiple) - 1e-6)) for length in extent]
    # a grid of one multiple per side has a single cell at the deepest level, too few for instance normalization
    size[int(np.argmax(extent))] = max(*size, 2 * multiple)
    return size


def round_up(length: float) -> float:
    """Round up to four significant digits."""
    digit = 10.0 ** (math.floor(math.log10(length)) - 3)
    return round(math.ceil(length / digit - 1e-6) * digit, 12)


def _lengths(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
