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
"""Whether a network learns from whole volumes or from patches of them, and how large these are."""

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
    "choose_patches_per_image",
    "plan_patches",
    "smallest_patch",
    "volume_size",
]

OVERLAP = 0.5
_COARSE = 2.0  # times the voxel of the images: a whole volume on a grid that is no coarser loses little
_GAIN = 1.25  # by which voxels shall at least be finer in patches
_VOLUME = {"cpu": 8, "cuda": 32}  # patches to a volume: inference looks at all of them, and half again in between


@dataclass(frozen=True)
class Patches:
    """What is known before anything else is chosen.

    Args:
        size: of a patch in voxels, None to train on whole volumes; with the reason.
        spacing: size of a voxel in mm, with the reason; of patches only.
    """

    size: Choice
    spacing: Choice | None = None


# the heatmaps of one window are logits, whose height says nothing beside those of another
NO_PATCHES = Patches(Choice(None, "whole volumes: heatmaps of several patches could not be compared"))


def smallest_patch(summary: DataSummary, spacing: float, multiple: int) -> list[int]:
    """The least that a patch must hold for the spatial configuration to have something to see.

    Its kernel on the finest of its coarse grids, so that a response is not all border; and all landmarks of an image, since
    what looks alike, such as neighboring vertebrae, is told apart by where the others are.
    """
    dims = summary.spatial_dims
    kernel = KERNEL[dims] * SMALLEST_FACTOR[dims]
    return [multiple * math.ceil(max(kernel, n / spacing) / multiple - 1e-6) for n in summary.point_extent]


def plan_patches(
    summary: DataSummary,
    machine: Machine,
    memory: TrainingMemory,
    patience: int,
    multiple: int,
    whole: Choice,
    given: Mapping[str, Any],
) -> Patches:
    """Patches where a whole volume would need voxels so coarse that finer ones in patches are worth it.

    Args:
        summary: of the data, volumes.
        machine: that will train.
        memory: that a training step needs.
        patience: voxels of an image, or patch, that train in reasonable time.
        multiple: what the network divides each axis by.
        whole: size of a voxel in mm, with which volumes fit whole.
        given: settings that are given: ``patch_size``, ``spacing_mm`` and ``spatial_size`` are looked at.
    """
    unit, fine = summary.unit, _COARSE * summary.finest_spacing
    size, spacing = given.get("patch_size"), given.get("spacing_mm")
    if "patch_size" in given and size is None:
        return Patches(Choice(None, "given"))
    if size is None and "spatial_size" in given:
        return Patches(Choice(None, "whole volumes, because their grid is given"))
    if size is None and whole.value <= (spacing or fine) * (1 + 1e-6):
        return Patches(Choice(None, f"volumes fit whole, with voxels of {whole.value:g} {unit}"))
    step = spacing or (fine if size is None else min(fine, whole.value))
    while size is not None or spacing is not None or step * _GAIN <= whole.value:
        volume = volume_size(summary, step, multiple)
        found = size or _largest(summary, step, multiple, volume, _limit(machine, memory, patience, volume))
        few = found is not None and math.prod(volume) <= _VOLUME[machine.device] * math.prod(found)
        if few or spacing is not None:
            break
        step *= 1.02
    else:
        return Patches(Choice(None, f"voxels of {whole.value:g} {unit} would hardly be finer in patches"))
    found = found or smallest_patch(summary, step, multiple)
    step = round_up(step)
    reason = "given" if spacing is not None else f"twice the {summary.finest_spacing:.3g} {unit} of the images"
    if spacing is None and step > round_up(fine):
        reason = f"finer ones would take more than {_VOLUME[machine.device]} patches a volume, or patches that see too little"
    shape = " x ".join(map(str, volume))
    why = (
        f"whole volumes would take voxels of {whole.value:g} {unit}, patches take {step:g}; as large a part of {shape} voxels as"
        f" memory and a {'GPU' if machine.on_gpu else 'CPU'}'s time allow, with room for all landmarks"
    )
    return Patches(Choice(found, why), Choice(step, reason))


def choose_patches_per_image(
    memory: TrainingMemory, machine: Machine, patch: Sequence[int], volume: Sequence[int], largest: int
) -> Choice:
    """Patches of each image of a batch; together they are what a step learns from."""
    sizes = math.prod(patch), math.prod(volume)
    needs = {n: memory.needed(sizes[0], n, sizes[1]) for n in range(largest, 0, -1)}
    count = next((n for n, need in needs.items() if need <= machine.memory), 1)
    needed, at_hand = (f"{size / 2**30:.2g} GiB" for size in (needs[count], machine.memory))
    return Choice(count, f"a step needs about {needed} of {at_hand}; most of them hold a landmark, some none")


def choose_overlap() -> Choice:
    """Share of a window that the next one overlaps, in inference."""
    return Choice(OVERLAP, "a landmark at the border of one patch is well inside of another")


def _limit(machine: Machine, memory: TrainingMemory, patience: int, volume: Sequence[int]) -> int:
    """Voxels of a patch, beside the volumes that are kept."""
    left = machine.memory - memory.needed(0, cached_voxels=math.prod(volume))
    return min(patience, int(max(0.0, left) / memory.per_voxel))


def volume_size(summary: DataSummary, step: float, multiple: int) -> list[int]:
    """The largest image in voxels, in multiples as patches have them."""
    extent = covered_extent(summary, "spacing")
    return [multiple * max(1, math.ceil(length / step / multiple - 1e-6)) for length in extent]


def _largest(summary: DataSummary, step: float, multiple: int, volume: Sequence[int], limit: int) -> list[int] | None:
    """The largest patch in the proportions of the volume, None if not even the smallest is below the limit."""
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
