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
"""The grid that the network works on: how images get there, its size and the size of a voxel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .choice import Choice
from .data_summary import DataSummary
from .machine import Machine, TrainingMemory

__all__ = ["choose_resampling", "choose_spacing", "choose_spatial_size", "covered_extent", "round_up", "voxel_limit"]


def choose_resampling(summary: DataSummary) -> Choice:
    """Whether a voxel has the same size in all images, ``"spacing"``, or all images fill the grid, ``"fit"``."""
    if summary.spatial_dims == 3:
        return Choice("spacing", "volumes know the size of their voxels, and anatomy has the same size in all of them")
    return Choice("fit", "the size of a pixel of 2-D images is often not known, so each image fills the grid")


def covered_extent(summary: DataSummary, resampling: str) -> np.ndarray:
    """The extent in mm, (D,), that the grid is made for: the largest image along each axis, or where all fill it a typical
    one."""
    extents = summary.extents
    return np.median(extents, axis=0) if resampling == "fit" else extents.max(axis=0)


def voxel_limit(machine: Machine, memory: TrainingMemory, patience: int) -> tuple[int, str]:
    """The largest number of voxels, which memory or patience sets, and the reason in words."""
    fits = memory.voxels_in(machine.memory)
    if fits < patience:
        return fits, f"what one image a batch may have in {machine.memory / 2**30:.1f} GiB"
    return patience, f"what a {'GPU' if machine.on_gpu else 'CPU'} trains in reasonable time"


def choose_spatial_size(
    summary: DataSummary, resampling: str, multiple: int, limit: tuple[int, str], spacing: float | None = None
) -> Choice:
    """Size of the grid: as fine as the images are, or as the limit allows; divisible by what the network needs, and along one
    axis at least twice that.

    Args:
        summary: of the data.
        resampling: see :func:`choose_resampling`.
        multiple: what the network divides each axis by.
        limit: see :func:`voxel_limit`.
        spacing: size of a voxel in mm, where it is given; the limit is then not looked at.
    """
    extent = covered_extent(summary, resampling)
    step = spacing or summary.finest_spacing
    size = _size(extent, step, multiple)
    reason = f"covers {_lengths(extent)} {summary.unit}"
    if spacing is not None:
        return Choice(size, f"{reason} with the voxel that is given, in multiples of {multiple}")
    native = size
    while math.prod(size) > max(limit[0], 2 * multiple**summary.spatial_dims):
        step *= 1.01
        size = _size(extent, step, multiple)
    if size == native:
        return Choice(size, f"{reason} as finely as the images do, in multiples of {multiple}")
    return Choice(size, f"{reason}, not above {limit[0]} voxels, {limit[1]}; in multiples of {multiple}")


def choose_spacing(summary: DataSummary, resampling: str, spatial_size: Sequence[int]) -> Choice:
    """Size of a voxel of the grid in mm."""
    extent = covered_extent(summary, resampling)
    spacing = float((extent / np.array(spatial_size)).max())
    if resampling == "fit":
        return Choice(round_up(spacing), "with which a typical image fits into the grid; larger or smaller in others")
    # nothing is gained by voxels that are smaller than those of the images
    return Choice(
        round_up(max(spacing, summary.finest_spacing)),
        f"the smallest with which the largest image fits whole into the grid, not below the {summary.finest_spacing:.3g} "
        f"{summary.unit} of the images",
    )


def _size(extent: np.ndarray, step: float, multiple: int) -> list[int]:
    # a grid that is too short by a rounding error does not get a further multiple
    size = [multiple * max(1, math.ceil(length / (step * multiple) - 1e-6)) for length in extent]
    # normalization over an image needs more than the one cell that such a grid has at the network's deepest level
    size[int(np.argmax(extent))] = max(*size, 2 * multiple)
    return size


def round_up(length: float) -> float:
    """To four digits, never below."""
    digit = 10.0 ** (math.floor(math.log10(length)) - 3)
    return round(math.ceil(length / digit - 1e-6) * digit, 12)


def _lengths(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
