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
"""Training on whole volumes or on patches, and the size of the patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .choice import Choice
from .data_summary import DataSummary
from .grid import covered_extent, round_up
from .machine import Machine, TrainingMemory
from .spatial_factor import KERNEL, SMALLEST_FACTOR

__all__ = [
    "NO_PATCHES",
    "OVERLAP",
    "Patches",
    "choose_overlap",
    "choose_patches",
    "choose_patches_per_image",
    "smallest_patch",
    "volume_size",
]

OVERLAP = 0.5
_COARSE = 2.0  # a grid up to twice as coarse as the images loses little, so whole volumes are used
_GAIN = 1.25  # patches are used only if their voxels are smaller by at least this factor
_VOLUME = {"cpu": 8, "cuda": 32}  # largest volume in patches, because inference evaluates all of them


@dataclass(frozen=True)
class Patches:
    """The choice between patches and whole volumes.

    Args:
        size: size of a patch in voxels. Its value is None for whole volumes.
        spacing: voxel size in mm. None for whole volumes.
    """

    size: Choice
    spacing: Choice | None = None


# the method's heatmaps are logits, whose heights in different windows are not comparable
NO_PATCHES = Patches(Choice(None, "whole volumes, because heatmaps of this method are not comparable between patches"))


def smallest_patch(summary: DataSummary, spacing: float, multiple: int) -> list[int]:
    """Return the smallest patch with enough context for the spatial configuration of SCN.

    It contains the kernel on the finest of the coarse grids, so that a response does not depend only on padding. It
    also has room for all landmarks of an image, because similar structures such as neighboring vertebrae are
    distinguished by the positions of the others.

    Args:
        summary: summary of the data.
        spacing: voxel size in mm.
        multiple: factor by which the network downsamples each axis.
    """
    dims = summary.spatial_dims
    kernel = KERNEL[dims] * SMALLEST_FACTOR[dims]
    return [multiple * math.ceil(max(kernel, n / spacing) / multiple - 1e-6) for n in summary.point_extent]


def choose_patches(
    summary: DataSummary,
    machine: Machine,
    memory: TrainingMemory,
    patience: int,
    multiple: int,
    whole: Choice,
    given: Mapping[str, Any],
) -> Patches:
    """Choose patches if whole volumes would need much coarser voxels.

    Args:
        summary: summary of the data, which are volumes.
        machine: machine for the training.
        memory: memory of a training step.
        patience: number of voxels of an image or patch with which a training takes a reasonable time.
        multiple: factor by which the network downsamples each axis.
        whole: voxel size in mm at which whole volumes fit.
        given: given settings, of which ``patch_size``, ``spacing_mm`` and ``spatial_size`` are used.
    """
    unit, fine = summary.unit, _COARSE * summary.finest_spacing
    size, spacing = given.get("patch_size"), given.get("spacing_mm")
    if "patch_size" in given and size is None:
        return Patches(Choice(None, "given"))
    if size is None and "spatial_size" in given:
        return Patches(Choice(None, "whole volumes, because spatial_size is given"))
    if size is None and whole.value <= (spacing or fine) * (1 + 1e-6):
        return Patches(Choice(None, f"whole volumes fit, with voxels of {whole.value:g} {unit}"))
    if size is not None and math.prod(size) * _VOLUME[machine.device] < multiple ** len(size):
        raise ValueError(
            f"patch_size is {size}, which is too small: a volume would have too many patches. Give at least"
            f" {[multiple] * len(size)}."
        )
    step = spacing or (fine if size is None else min(fine, whole.value))
    while size is not None or spacing is not None or step * _GAIN <= whole.value:
        volume = volume_size(summary, step, multiple)
        found = size or _largest(summary, step, multiple, volume, _limit(machine, memory, patience, volume))
        few = found is not None and math.prod(volume) <= _VOLUME[machine.device] * math.prod(found)
        if few or spacing is not None:
            break
        step *= 1.02
    else:
        return Patches(
            Choice(None, f"whole volumes with voxels of {whole.value:g} {unit}, which patches would hardly improve")
        )
    found = found or smallest_patch(summary, step, multiple)
    step = round_up(step)
    reason = (
        "given" if spacing is not None else f"twice the voxel size of the images, {summary.finest_spacing:.3g} {unit}"
    )
    if spacing is None and step > round_up(fine):
        reason = (
            f"smaller voxels would need more than {_VOLUME[machine.device]} patches per volume, or patches with too little"
            " context"
        )
    shape = " x ".join(map(str, volume))
    why = (
        f"whole volumes would need voxels of {whole.value:g} {unit}, patches allow {step:g} {unit}; the largest part of {shape}"
        f" voxels within memory and a reasonable training time on a {'GPU' if machine.on_gpu else 'CPU'}, with room for all"
        " landmarks"
    )
    return Patches(Choice(found, why), Choice(step, reason))


def choose_patches_per_image(
    memory: TrainingMemory, machine: Machine, patch: Sequence[int], volume: Sequence[int], largest: int
) -> Choice:
    """Choose the number of patches per image; all patches of an image are in one training step."""
    sizes = math.prod(patch), math.prod(volume)
    needs = {n: memory.needed(sizes[0], n, sizes[1]) for n in range(largest, 0, -1)}
    count = next((n for n, need in needs.items() if need <= machine.memory), 1)
    needed, available = (f"{size / 2**30:.2g} GiB" for size in (needs[count], machine.memory))
    return Choice(
        count,
        f"a training step needs about {needed} of the available {available}; most patches contain a landmark, some none",
    )


def choose_overlap() -> Choice:
    """Choose the overlap of the sliding windows in inference."""
    return Choice(OVERLAP, "a landmark at the border of one window is well inside another one")


def _limit(machine: Machine, memory: TrainingMemory, patience: int, volume: Sequence[int]) -> int:
    """Return the largest number of voxels of a patch, given the memory that cached volumes need."""
    left = machine.memory - memory.needed(0, cached_voxels=math.prod(volume))
    return min(patience, int(max(0.0, left) / memory.per_voxel))


def volume_size(summary: DataSummary, step: float, multiple: int) -> list[int]:
    """Return the size in voxels of a grid that covers the largest image, in multiples of ``multiple``."""
    extent = covered_extent(summary, "spacing")
    return [multiple * max(1, math.ceil(length / step / multiple - 1e-6)) for length in extent]


def _largest(summary: DataSummary, step: float, multiple: int, volume: Sequence[int], limit: int) -> list[int] | None:
    """Return the largest patch with the proportions of the volume, or None if the smallest patch exceeds the limit."""
    least = smallest_patch(summary, step, multiple)
    patch = np.minimum(least, volume)
    patch[int(np.argmax(volume))] = max(patch[int(np.argmax(volume))], 2 * multiple)
    if math.prod(patch.tolist()) > limit:
        return None
    while True:
        share = np.where(patch < volume, patch / volume, np.inf)
        axis = int(np.argmin(share))
        grown = patch.copy()
        grown[axis] += multiple
        if np.isinf(share[axis]) or math.prod(grown.tolist()) > limit:
            return [int(n) for n in patch]
        patch = grown
