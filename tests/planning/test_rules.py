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
"""The rules by table, and by what must hold whatever the data is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from summaries import GIB, MEMORY, summary

from monai_landmarks.losses import SCNLoss
from monai_landmarks.networks.nets import SCN
from monai_landmarks.planning import METHODS, Choice, Choices, Machine, TrainingMemory
from monai_landmarks.planning.augmentation import choose_elastic, choose_flip, choose_translate, flip_config
from monai_landmarks.planning.batch import choose_batch_size, choose_max_epochs, choose_val_interval
from monai_landmarks.planning.close_look import choose_close_look
from monai_landmarks.planning.grid import (
    choose_resampling,
    choose_spacing,
    choose_spatial_size,
    covered_extent,
    voxel_limit,
)
from monai_landmarks.planning.intensity import choose_intensity, normalization_config
from monai_landmarks.planning.methods import sigma_weight
from monai_landmarks.planning.patches import choose_patches, choose_patches_per_image, volume_size
from monai_landmarks.planning.sigma import choose_sigma, defines_sigma, sigma_in_voxels
from monai_landmarks.planning.spatial_factor import KERNEL, SMALLEST_FACTOR, choose_spatial_factor
from monai_landmarks.schema import Landmark, LandmarkSchema, load_landmark_schema
from monai_landmarks.transforms import FitToGrid

CPU, GPU = Machine("cpu", 8 * GIB), Machine("cuda", 40 * GIB)
SCN_METHOD = METHODS["scn"]
DATA = [
    summary((1935, 2400), (0.1, 0.1)),
    summary((256, 256)),
    summary((40, 30)),
    summary((3000, 900), (0.2, 0.14)),
    summary((512, 512, 60), (0.7, 0.7, 3.0)),
    summary((39, 112, 112), (2.0, 2.0, 2.0)),
    summary((20, 400, 300), (5.0, 1.0, 1.0)),
    summary((2, 2), sizes=((400, 700), (1400, 3700), (500, 900)), spacings=((1.0, 1.0),) * 3, counts=(2, 1, 0)),
    summary((2, 2, 2), sizes=((40, 50, 60), (80, 50, 40)), spacings=((2.0, 2.0, 2.0),) * 2, counts=(1, 1, 0)),
]


def grid(data, machine=CPU, multiple=16, memory=MEMORY):
    """How images get to the grid, its size and its spacing."""
    resampling = choose_resampling(data).value
    size = choose_spatial_size(
        data, resampling, multiple, voxel_limit(machine, memory, SCN_METHOD.voxels[machine.device, data.spatial_dims])
    ).value
    return resampling, size, choose_spacing(data, resampling, size).value


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("machine", [CPU, GPU, Machine("cpu", 1 * GIB)])
@pytest.mark.parametrize("multiple", [16, 32])
def test_the_grid_covers_fits_and_is_divisible(data, machine, multiple):
    resampling, size, spacing = grid(data, machine, multiple)
    assert all(side % multiple == 0 for side in size)
    assert (np.array(size) * spacing >= covered_extent(data, resampling) * (1 - 1e-9)).all()
    limit, _ = voxel_limit(machine, MEMORY, SCN_METHOD.voxels[machine.device, data.spatial_dims])
    assert math.prod(size) <= max(limit, 2 * multiple**data.spatial_dims) and max(size) >= 2 * multiple
    assert MEMORY.needed(math.prod(size)) <= machine.memory
    if resampling == "spacing":  # of every image, all of it
        assert (np.array(size) * spacing >= data.extents * (1 - 1e-9)).all() and spacing >= data.finest_spacing
    # not a multiple more than is needed along any axis
    needed = np.array(size) - multiple < covered_extent(data, resampling) / data.finest_spacing
    assert (needed | (np.array(size) == 2 * multiple)).all()


@pytest.mark.parametrize("data", DATA)
def test_lengths_scale_with_the_spacing(data):
    """The same voxels with another unit of length."""
    scaled = replace(data, spacings=tuple(tuple(3 * step for step in spacing) for spacing in data.spacings))
    (first, size, spacing), (second, other_size, other_spacing) = grid(data), grid(scaled)
    assert (first, size) == (second, other_size) and other_spacing == pytest.approx(3 * spacing, rel=1e-3)
    sigma, other = (choose_sigma(data.names, size, step, smallest=2.0).value for step in (spacing, other_spacing))
    assert other == pytest.approx(3 * sigma, rel=2e-3)
    assert sigma_in_voxels(other, other_spacing) == pytest.approx(sigma_in_voxels(sigma, spacing), rel=1e-3)


@pytest.mark.parametrize("data", DATA)
def test_more_memory_is_never_worse(data):
    sides = [math.prod(grid(data, Machine("cuda", memory * GIB))[1]) for memory in (0.5, 1, 2, 8, 64)]
    assert sides == sorted(sides)


@pytest.mark.parametrize(
    "data, machine, expected",
    [
        (summary((1935, 2400), (0.1, 0.1)), CPU, ("fit", [256, 320])),  # the sizes of the shipped bundles
        (summary((1935, 2400), (0.1, 0.1)), GPU, ("fit", [512, 640])),
        (summary((256, 256)), GPU, ("fit", [256, 256])),  # not finer than the images
        (summary((40, 30)), CPU, ("fit", [64, 32])),
        (summary((20, 30)), CPU, ("fit", [32, 64])),
        (summary((96, 96, 64), (1.0, 1.0, 1.0)), GPU, ("spacing", [96, 96, 64])),
        (summary((512, 512, 40), (0.5, 0.5, 4.0)), GPU, ("spacing", [144, 144, 96])),
    ],
)
def test_known_grids(data, machine, expected):
    assert grid(data, machine, 16 if data.spatial_dims == 3 else 32)[:2] == expected


VOLUMES = [
    summary((15, 512, 512), (4.4, 0.7, 0.7), point_extent=(5.0, 60.0, 150.0)),
    summary((512, 512, 300), (0.8, 0.8, 1.5), point_extent=(120.0, 100.0, 300.0)),
    summary((300, 450, 250), (0.1, 0.1, 0.1), point_extent=(8.0, 15.0, 8.0)),
    summary((256, 256, 176), (1.0, 1.0, 1.0), point_extent=(80.0, 100.0, 60.0)),
    summary((40, 50, 30), (2.0, 2.0, 3.0)),
]


def patches(data, machine=CPU, multiple=16, **given):
    patience, (_, _, whole) = SCN_METHOD.voxels[machine.device, 3], grid(data, machine, multiple)
    return choose_patches(data, machine, MEMORY, patience, multiple, Choice(whole, ""), given), whole


def test_volumes_that_are_kept_in_memory_leave_less_for_patches():
    data = summary((256, 256, 176), (1.0, 1.0, 1.0), point_extent=(80.0, 100.0, 60.0))
    kept = TrainingMemory(weights=2e8, per_voxel=5000.0, cached_per_voxel=1600.0)
    volume = math.prod(volume_size(data, 1.0, 16))
    machine = Machine("cuda", kept.weights + 1600 * volume + 5000 * 2e6)
    plan = choose_patches(data, machine, kept, 10**9, 16, Choice(3.0, ""), {"spacing_mm": 1.0})
    voxels = math.prod(plan.size.value)
    assert 1e6 < voxels and kept.needed(voxels, cached_voxels=volume) <= machine.memory


@pytest.mark.parametrize("data", VOLUMES)
@pytest.mark.parametrize("machine", [CPU, GPU, Machine("cpu", 2 * GIB)])
@pytest.mark.parametrize("multiple", [16, 32])
def test_patches_are_used_where_they_are_worth_it(data, machine, multiple):
    plan, whole = patches(data, machine, multiple)
    if plan.size.value is None:
        return
    size, spacing = plan.size.value, plan.spacing.value
    assert all(side % multiple == 0 for side in size) and max(size) > multiple
    assert MEMORY.needed(math.prod(size)) <= machine.memory
    assert 2 * data.finest_spacing * (1 - 1e-9) <= spacing <= whole / 1.25 * 1.001
    # all landmarks of an image have room in it, and the kernel of the spatial configuration fits in, unless the volume is smaller
    volume = np.array(volume_size(data, spacing, multiple))
    assert (volume * spacing >= data.extents * (1 - 1e-9)).all()
    least = np.maximum(KERNEL[3] * SMALLEST_FACTOR[3], np.array(data.point_extent) / spacing)
    assert (np.array(size) >= np.minimum(least, volume) * (1 - 1e-6)).all()
    assert (np.array(size) <= np.maximum(volume, 2 * multiple)).all()
    assert volume.prod() <= {"cpu": 8, "cuda": 32}[machine.device] * math.prod(size)


def test_volumes_that_fit_stay_whole():
    sizes = [patches(data)[0].size.value for data in VOLUMES]
    assert [size is None for size in sizes] == [False, False, False, False, True]
    assert patches(VOLUMES[3], Machine("cuda", 64 * GIB))[0].size.value is None  # 144 x 144 x 96 voxels of 1.8 mm


def test_patches_that_are_given():
    data = VOLUMES[3]
    assert patches(data, patch_size=None)[0].size.value is None
    assert patches(data, spatial_size=[64, 64, 48])[0].size.value is None
    plan, whole = patches(data, spacing_mm=1.5)
    assert plan.spacing.value == 1.5 and math.prod(plan.size.value) <= SCN_METHOD.voxels["cpu", 3]
    assert patches(data, spacing_mm=1.1 * whole)[0].size.value is None
    plan, _ = patches(VOLUMES[4], patch_size=[32, 32, 32])  # which would fit whole
    assert plan.size.value == [32, 32, 32] and plan.spacing.value <= grid(VOLUMES[4])[2]


@pytest.mark.parametrize("memory, expected", [(64, 3), (1.2, 1)])
def test_patches_per_image(memory, expected):
    machine = Machine("cpu", memory * GIB)
    assert choose_patches_per_image(MEMORY, machine, [64, 64, 48], [128, 128, 96], 3).value == expected


def test_a_given_spacing_sets_the_size():
    data = summary((100, 100, 50), (1.0, 1.0, 2.0))
    choice = choose_spatial_size(data, "spacing", 16, (10, "nothing"), spacing=4.0)
    assert choice.value == [32, 32, 32] and "given" in choice.reason


def test_images_of_the_summary_fit_on_the_grid():
    """What the rules promise is what the transform does: voxels of the spacing, in every image of the data."""
    data = DATA[-1]
    _, size, spacing = grid(data)
    for shape in data.sizes:
        fitted = FitToGrid(size, spacing)(
            torch.zeros(1, *(int(2 * n) for n in shape))
        )  # 1 mm voxels of the same extent
        assert tuple(fitted.shape[1:]) == tuple(size)


@pytest.mark.parametrize("longest", [16, 32, 64, 100, 164, 192, 320, 328, 336, 640, 656, 672, 1500])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_coarse_grid_is_seen(longest, dims):
    """From the middle cell, four convolutions of the kernel see to both ends; half the factor would not do, or is not offered."""
    factor, kernel = choose_spatial_factor([longest] + [16] * (dims - 1)).value, {2: 11, 3: 7}[dims]

    def reach(cells):  # by convolving: which cells have an influence on the middle one
        seen = np.zeros(cells + 2 * kernel * 4)
        seen[len(seen) // 2] = 1
        for _ in range(4):
            seen = np.convolve(seen, np.ones(kernel), mode="same") > 0
        return seen.sum() >= cells

    assert reach(math.ceil(longest / factor))
    assert factor == {2: 8, 3: 4}[dims] or not reach(math.ceil(longest / (factor // 2)))


def test_the_kernels_are_those_of_the_network():
    from monai_landmarks.planning.spatial_factor import KERNEL

    for dims, kernel in KERNEL.items():
        with torch.device("meta"):
            network = SCN(dims, 1, 3, features=4)
        assert network.spatial_configuration[0][0].kernel_size == (kernel,) * dims


@pytest.mark.parametrize(
    "images, dims, memory, expected", [(40, 2, 8, 4), (40, 3, 8, 2), (11, 2, 8, 3), (40, 2, 1.2, 2), (40, 2, 0.1, 1)]
)
def test_batch_size(images, dims, memory, expected):
    data = summary((256, 320) if dims == 2 else (32, 48, 48), images=images)
    machine = Machine("cpu", memory * GIB)
    choice = choose_batch_size(data, machine, MEMORY, data.sizes[0], {2: 4, 3: 2}[dims])
    assert choice.value == expected
    fits = MEMORY.needed(math.prod(data.sizes[0]), choice.value) <= machine.memory
    assert fits or (choice.value == 1 and "though" in choice.reason)


def test_epochs():
    few, many = (choose_max_epochs(summary(images=n), 4, 1400).value for n in (20, 400))
    assert (few, many) == (math.ceil(1400 / 3), math.ceil(1400 / 98))
    assert choose_max_epochs(summary(images=21), 4, 1400).value == 350  # of 13 images the fourth batch holds one
    assert [choose_val_interval(n).value for n in (1, 12, 36, 700)] == [1, 1, 3, 58]


def test_sigma_of_a_schema():
    schema = LandmarkSchema("s", 2, (Landmark("b", sigma_mm=4.0), Landmark("a"), Landmark("c", sigma_mm=1.5)))
    choice = choose_sigma(("a", "b", "c"), (256, 320), 0.5, 2.0, schema)
    assert choice.value == [1.28, 4.0, 1.5] and "schema" in choice.reason
    assert sigma_in_voxels(choice.value, 0.5) == [2.56, 8.0, 3.0]
    assert choose_sigma(("b",), (256, 320), 0.5, 2.0, schema).value == 4.0
    assert choose_sigma(("a",), (64, 64), 0.5, 2.0, schema).value == 1.0  # two voxels
    unknown = choose_sigma(("b",), (256, 320), 0.5, 2.0, schema, unit="px")
    assert unknown.value == choose_sigma(("b",), (256, 320), 0.5, 2.0).value != 4.0
    assert "those of the schema are in mm, but the pixel size is not known" in unknown.reason
    assert defines_sigma(schema) and not defines_sigma(schema, "px")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("sigma", [1.5, 2.5, 4.0])
def test_scn_learns_sigma_below_its_ceiling(dims, sigma):
    loss = SCNLoss(3, dims, sigma=sigma, sigma_weight=sigma_weight(dims, sigma))
    assert loss.sigma_ceiling() == pytest.approx(sigma, rel=1e-4)


def test_intensity():
    assert choose_intensity("CT").value == [-1000, 1000]
    assert choose_intensity("MR").value == choose_intensity("X-ray").value == "standardize"
    assert normalization_config([0, 255])["a_max"] == 255
    for wrong in ("window", [1, 0], [1, 2, 3]):
        with pytest.raises(ValueError, match="expected 'standardize' or a window"):
            normalization_config(wrong)


def test_augmentation():
    assert choose_translate([100, 200, 50], 2.0).value == [5.0, 10.0, 2.5]
    assert choose_translate([100, 200], 2.0).reason == "up to 5 % of the grid in either direction, 10 x 20 mm"
    assert choose_elastic([100, 200], 0.5).value == 4.0


def test_images_are_mirrored_where_that_is_declared():
    assert choose_flip([]).value == 0.0 and flip_config(0.0, [], ["a"]) == []
    assert choose_flip([], symmetric=True).value == choose_flip([("a", "b")]).value == 0.5
    spine = load_landmark_schema("lumbar_5")
    assert choose_flip([], schema=spine, names=["l2", "L1"]).value == 0.5
    assert choose_flip([], schema=spine, names=["L1", "rib"]).value == 0.0
    assert choose_flip([], schema=load_landmark_schema("cephalometric_19"), names=["sella"]).value == 0.0
    paired = replace(load_landmark_schema("spine_20"), symmetric=True)
    left, middle = paired.pairs[0][0], "L1_body_center"
    assert choose_flip([], schema=paired, names=[middle]).value == 0.5
    assert choose_flip([], schema=paired, names=[middle, left]).value == 0.0  # its partner is not in the data
    [config] = flip_config(0.5, [("c", "a")], ["a", "b", "c"])
    assert config["pairs"] == [[2, 0]] and config["prob"] == 0.5


def test_choices():
    choices = Choices({"a": 1, "c": 2})
    assert choices.choose("a", lambda: Choice(5, "x")) == 1 and choices["a"].reason == "given"
    assert choices.choose("b", lambda: Choice(6, "y")) == 6
    with pytest.raises(ValueError, match="unknown setting 'c'; expected one of a, b"):
        choices.require_known_settings()


def test_methods_have_a_bundle():
    from monai_landmarks import bundle_path
    from monai_landmarks.apps.init import OFFERED
    from monai_landmarks.study.definition import _METHODS as IN_STUDIES

    assert tuple(METHODS) == OFFERED == IN_STUDIES
    for method in METHODS.values():
        assert bundle_path(method.bundle).is_dir()


def chosen(data, **values):
    """The choices of the close look, after those of the grid."""
    values.setdefault("flip", 0.0)
    choices = Choices(values)
    for name, value in values.items():
        if not name.startswith("close_"):
            choices.choose(name, lambda value=value: Choice(value, ""))
    choose_close_look(choices, data)
    return {name: choice.value for name, choice in choices.items() if name not in values}


def test_patches_of_the_close_look():
    """Nearly as in the shipped bundles: radiographs at 1.25 mm, and skulls at 0.4 mm in patches."""
    grid = {"spacing_mm": 1.25, "spatial_size": [160, 192]}
    expected = {"displacement": 2.5, "far_displacement": 12.5, "close_spacing": 0.5, "close_size": [80, 80]}
    expected |= {"close_mirrored": False, "close_sigma": 1.0, "coarse_weight": 0.3, "close_patches_per_image": 7}
    assert chosen(summary((645, 800), (0.3, 0.3)), **grid) == expected
    grid = {"spacing_mm": 0.4, "patch_size": [48, 80, 48], "patches_per_image": 1}
    expected = {"displacement": 0.4, "far_displacement": 1.6, "close_spacing": 0.2, "close_size": [32] * 3}
    expected |= {"close_mirrored": False, "close_sigma": 1.0, "coarse_weight": 0.0, "close_patches_per_image": 8}
    assert chosen(summary((80, 140, 80), (0.2,) * 3), **grid) == expected


def test_mirror_images_are_looked_at_if_the_training_has_them():
    grid = {"spacing_mm": 1.0, "spatial_size": [64, 64]}
    plain, paired = summary(), summary(pairs=(("a", "b"),))
    assert chosen(paired, **grid, flip=0.5)["close_mirrored"] is True
    assert chosen(paired, **grid, flip=0.0)["close_mirrored"] is False
    assert chosen(plain, **grid, flip=0.5)["close_mirrored"] is False
    with pytest.raises(ValueError, match="the training does not mirror images"):
        chosen(plain, **grid, flip=0.0, close_mirrored=True)
    with pytest.raises(ValueError, match="expected true or false"):
        chosen(paired, **grid, flip=0.5, close_mirrored="no")


@pytest.mark.parametrize("native", [0.05, 0.4, 2.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_patch_has_room_for_the_displacements(dims, native):
    """And its voxels are never smaller than those of the images."""
    data = summary((200,) * dims, (native,) * dims)
    values = chosen(data, spacing_mm=1.0, spatial_size=[64] * dims)
    assert values["close_spacing"] >= native
    assert min(values["close_size"]) * values["close_spacing"] >= 2 * values["far_displacement"]
