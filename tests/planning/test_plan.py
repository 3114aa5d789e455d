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

"""A plan as a whole: what is cached, and inference in windows."""

from __future__ import annotations

import math

import pytest
from summaries import GIB, MEMORY, summary

from monai_landmarks.planning import Machine, TrainingMemory, make_plan, plan
from monai_landmarks.planning.bundle import inference_config
from monai_landmarks.planning.choice import Choice
from monai_landmarks.planning.patches import choose_patches, volume_size


@pytest.mark.parametrize("device, cached", [("cpu", 30), ("cuda", 0)])
def test_cached_images_take_memory_of_the_cpu(monkeypatch, device, cached):
    """Images for training and validation are cached, in the memory of the CPU; images for testing are not."""
    counted = []
    monkeypatch.setattr(plan, "measure_training", lambda network, num_cached: counted.append(num_cached) or MEMORY)
    make_plan(summary((64, 64), images=40, counts=(22, 8, 10)), "scn", Machine(device, 8 * GIB))
    assert counted == [cached]


def test_patches_leave_memory_for_the_cached_volumes():
    """Here memory alone bounds the patches: a hundred volumes are cached, and training time does not count."""
    data, machine = summary((300, 450, 250), (0.1, 0.1, 0.1), point_extent=(8.0, 15.0, 8.0)), Machine("cpu", 1 * GIB)
    memory = TrainingMemory(weights=2e8, per_voxel=5000.0, cached_per_voxel=4 * 100)
    patches = choose_patches(data, machine, memory, 10**9, 16, Choice(1.0, ""), {})
    size, volume = patches.size.value, volume_size(data, patches.spacing.value, 16)
    assert size is not None
    assert memory.needed(math.prod(size), 1, cached_voxels=math.prod(volume)) <= machine.memory


@pytest.mark.parametrize("method", ["scn", "farnet"])
def test_windows_keep_half_precision(method):
    data = summary((96, 96, 96))
    machine = Machine("cpu", 8 * GIB)
    whole, patches = (
        inference_config(make_plan(data, method, machine, given={"width": 4, **given}))["inferer"]
        for given in ({"patch_size": None}, {"patch_size": [64, 64, 64], "spacing_mm": 1.0})
    )
    assert patches.get("_target_", "").endswith("AutocastInferer") == whole["_target_"].endswith("AutocastInferer")
    windows = patches["inferer"] if "inferer" in patches else patches
    assert windows["_target_"].endswith("SlidingWindowLandmarkInferer") and windows["roi_size"] == "@patch_size"


def test_patches_and_a_size_of_whole_images_contradict_each_other():
    given = {"width": 4, "patch_size": [64, 64, 64], "spatial_size": [64, 64, 64]}
    with pytest.raises(ValueError, match="is trained on whole images; remove patch_size"):
        make_plan(summary((96, 96, 96)), "scn", Machine("cpu", 8 * GIB), given=given)


@pytest.mark.parametrize("size", [[4, 4, 4], [8, 8, 4]])
def test_patches_that_are_too_small(size):
    """No voxel size would let few of them fill a volume."""
    with pytest.raises(ValueError, match="too small: a volume would have too many patches"):
        make_plan(summary((96, 96, 96)), "scn", Machine("cpu", 8 * GIB), given={"patch_size": size})
    with pytest.raises(ValueError, match="patch_size is 64; expected 3 positive integers"):
        make_plan(summary((96, 96, 96)), "scn", Machine("cpu", 8 * GIB), given={"patch_size": 64})
