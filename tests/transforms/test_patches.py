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
"""Patches lie where their affines say, and the random ones show the landmarks that they were cut around."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blobs import blob_image, centroids, oblique
from monai.data import CacheDataset, DataLoader, MetaTensor
from monai.transforms import Compose

from monai_landmarks.spaces import patch_affines, points_to_index, points_to_world
from monai_landmarks.transforms import (
    LandmarkGroups,
    LandmarksToIndexd,
    RandLandmarkPatches,
    RandLandmarkPatchesd,
    cut_patches,
    require_room_for_patch,
)

SIZE = {2: (60, 50), 3: (30, 26, 28)}
PATCH = {2: (17, 12), 3: (9, 8, 7)}
SPACING = {2: (0.5, 2.0), 3: (0.5, 2.0, 1.0)}


def world_image(dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose channels are the world coordinates of its voxels, with an oblique anisotropic affine."""
    affine = oblique(SPACING[dims])
    index = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in SIZE[dims]], indexing="ij"), dim=-1)
    return points_to_world(index, affine).movedim(-1, 0), affine


def turned(dims: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.linalg.qr(np.random.default_rng(5).normal(size=(dims, dims)))[0] * scale)


@pytest.mark.parametrize("spacing", [0.3, 1.7])
@pytest.mark.parametrize("dims", [2, 3])
def test_patches_are_cut_in_the_world(dims: int, spacing: float) -> None:
    """Also coarser than the image: the mean of the samples of a voxel is at its middle."""
    image, affine = world_image(dims)
    center = points_to_world(torch.tensor(SIZE[dims]).double() / 2, affine)
    patch = [5, 4, 3][:dims] if spacing > 1 else PATCH[dims]
    affines = patch_affines(
        center.expand(2, dims), patch, spacing, affine, torch.stack([torch.eye(dims), turned(dims)])
    )
    cut = cut_patches(image[None], affine, affines[None], patch)[0]
    index = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in patch], indexing="ij"), dim=-1)
    for values, own in zip(cut, affines):
        torch.testing.assert_close(values.movedim(0, -1), points_to_world(index, own), atol=1e-6, rtol=0)
        middle = points_to_world((torch.tensor(patch).double() - 1) / 2, own)
        torch.testing.assert_close(middle, center)


@pytest.mark.parametrize("dims", [2, 3])
def test_points_go_into_a_patch_and_back(dims: int) -> None:
    affine = oblique(SPACING[dims])
    points = torch.rand(7, dims, dtype=torch.float64) * 100 - 20
    own = patch_affines(points[0], PATCH[dims], SPACING[dims], affine, turned(dims, 1.3))
    torch.testing.assert_close(points_to_world(points_to_index(points, own), own), points, atol=1e-9, rtol=0)
    assert points_to_index(points[0], own).tolist() == pytest.approx([(n - 1) / 2 for n in PATCH[dims]])


@pytest.mark.parametrize("dims", [2, 3])
def test_axes_of_a_patch_are_those_of_the_image(dims: int) -> None:
    affine = oblique(SPACING[dims])
    own = patch_affines(torch.zeros(dims), PATCH[dims], 0.25, affine)
    expected = affine[:dims, :dims] / torch.tensor(SPACING[dims]) * 0.25
    torch.testing.assert_close(own[:dims, :dims], expected)
    sheared = affine.clone()
    sheared[:dims, 0] += 0.3 * sheared[:dims, 1]
    axes = patch_affines(torch.zeros(dims), PATCH[dims], 1.0, sheared)[:dims, :dims]
    torch.testing.assert_close(axes.T @ axes, torch.eye(dims, dtype=torch.float64))


def test_a_patch_of_the_image_itself() -> None:
    image = torch.rand(2, 3, 12, 9)
    affine = torch.stack([torch.eye(4), torch.diag(torch.tensor([-0.1, -0.1, 1.0, 1.0]))])
    assert torch.allclose(cut_patches(image, affine, affine[:, None], (12, 9))[:, 0], image, atol=1e-5)


def test_beyond_the_image_is_its_border() -> None:
    image = torch.rand(1, 1, 8, 6)
    own = torch.eye(4).repeat(1, 1, 1, 1)
    own[..., 0, 3], own[..., 1, 3] = -4, 3
    cut = cut_patches(image, torch.eye(4), own, (8, 6))[0, 0, 0]
    expected = torch.nn.functional.pad(image, (0, 3, 4, 0), mode="replicate")[0, 0, :8, 3:]
    torch.testing.assert_close(cut, expected, atol=1e-5, rtol=0)
    assert cut_patches(image, torch.eye(4), own, (8, 6), "zeros")[0, 0, 0, :4].abs().max() < 1e-6


def test_a_coarse_patch_is_smoothed() -> None:
    """A pattern of single voxels has no place in a patch of larger ones."""
    image = (torch.arange(64) % 2).float().expand(1, 1, 64, 64)
    own = patch_affines(torch.tensor([31.3, 30.9]), (8, 8), 4.0, torch.eye(4))
    assert (cut_patches(image, torch.eye(4), own[None, None], (8, 8)) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("dims", [2, 3])
def test_images_of_a_batch_have_no_influence_on_each_other(dims: int) -> None:
    """One image has voxels five times as large as the other, so their patches average other numbers of samples."""
    image = torch.rand(2, 1, *SIZE[dims])
    affines = torch.stack([torch.diag(torch.tensor([*3 * [step], 1.0], dtype=torch.float64)) for step in (0.2, 1.0)])
    centers = points_to_world(torch.tensor([[list(SIZE[dims])]] * 2).double() / 2, affines)
    patches = patch_affines(centers, PATCH[dims], 1.0, affines[:, None])
    together = cut_patches(image, affines, patches, PATCH[dims])
    alone = [cut_patches(image[i : i + 1], affines[i], patches[i : i + 1], PATCH[dims]) for i in range(2)]
    assert torch.equal(together, torch.cat(alone))


def item(dims: int, points: np.ndarray, affine: torch.Tensor) -> dict:
    """One channel per landmark, with a blob at it, and the landmarks in the world."""
    world = points_to_world(torch.from_numpy(points), affine)
    blobs = blob_image(np.nan_to_num(points), SIZE[dims], 1.2 / np.asarray(SPACING[dims]))
    return {
        "image": MetaTensor(blobs, affine=affine, meta={"filename_or_obj": "x"}),
        "label": MetaTensor(world[None], affine=torch.eye(4)),
    }


def patches_of(dims: int, points: np.ndarray, **options) -> list[dict]:
    """Large patches at 1 mm, with the landmarks in their index."""
    settings = {
        "spatial_size": [64] * dims if dims == 2 else [48] * dims,
        "spacing": 1.0,
        "num_samples": 4,
        "padding_mode": "zeros",
        **options,
    }
    cut = RandLandmarkPatchesd("image", "label", **settings).set_random_state(3)
    return Compose([cut, LandmarksToIndexd("label")])(item(dims, points, oblique(SPACING[dims])))


@pytest.mark.parametrize("dims", [2, 3])
def test_landmarks_stay_on_what_they_mark(dims: int) -> None:
    points = np.asarray(SIZE[dims]) * np.random.default_rng(0).uniform(0.45, 0.55, (5, dims))
    ranges = {"rotate_range": 0.5, "scale_range": 0.2, "axis_scale_range": 0.1, "displacement": 2.0}
    patches = patches_of(dims, points, **ranges)
    assert len(patches) == 4
    for patch in patches:
        shown = patch["label"][0].numpy()
        assert np.isfinite(shown).all()
        assert np.abs(centroids(patch["image"]) - shown).max() < 0.1


def test_displacements_have_the_given_spread() -> None:
    options = {"num_samples": 4000, "spatial_size": [8, 8], "spacing": 0.1}
    cut = RandLandmarkPatches(**options, displacement=1.5, far_displacement=9.0, far_prob=0.25)
    cut.set_random_state(0)
    cut.randomize(([0], 1))
    far = np.abs(cut.shifts).max(axis=1) > 6  # four standard deviations
    assert far.mean() == pytest.approx(0.25 * (1 - (6 / 9) ** 2), abs=0.02)
    assert np.abs(cut.shifts).max() < 9.0
    cut.far_prob = 0.0
    cut.randomize(([0], 1))
    assert cut.shifts.std(axis=0) == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("dims", [2, 3])
def test_landmarks_outside_are_missing(dims: int) -> None:
    points = np.array([[10.0] * dims, [20.0] * dims, [np.nan] * dims])
    for patch in patches_of(dims, points, spatial_size=[4] * dims, num_samples=2):
        assert np.isfinite(patch["label"].numpy()).all(axis=-1).sum() == 1


def test_others_are_kept_at_random() -> None:
    points = np.array([[30.0, 25.0], [31.0, 25.0], [32.0, 25.0]])
    patches = patches_of(2, points, num_samples=300, others=0.25)
    found = torch.stack([patch["label"][0] for patch in patches]).isfinite().all(dim=-1).double().mean(dim=0)
    # each is its own third of the time, and kept in a quarter of the rest
    assert found.tolist() == pytest.approx([1 / 3 + 2 / 3 / 4] * 3, abs=0.08)


def test_groups_that_share_their_channels() -> None:
    points = np.array([[20.0, 20.0], [22.0, 24.0], [40.0, 30.0], [np.nan, np.nan]])
    groups = LandmarkGroups(4, [[0, 1], [2, 3]], shared=True)
    patches = patches_of(2, points, groups=groups)
    assert [tuple(patch["label"].shape) for patch in patches] == [(1, 2, 2)] * 4
    for patch in patches:
        place = centroids(patch["image"])
        shown = patch["label"][0].numpy()
        rows = [0, 1] if np.isfinite(shown).all() else [2]
        assert shown[: len(rows)] == pytest.approx(place[rows], abs=0.1)


def test_an_image_without_landmarks() -> None:
    for patch in patches_of(2, np.full((3, 2), np.nan)):
        assert patch["image"].isfinite().all() and patch["label"].isnan().all()


def test_batches_from_a_cache_and_the_same_draws_again() -> None:
    points = np.asarray(SIZE[2]) * np.random.default_rng(0).uniform(0.4, 0.6, (5, 2))
    cut = RandLandmarkPatchesd("image", "label", spatial_size=(16, 16), spacing=1.0, num_samples=3, displacement=2.0)
    chain = Compose([cut, LandmarksToIndexd("label")])
    dataset = CacheDataset([item(2, points, oblique(SPACING[2]))] * 2, chain, progress=False)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["image"].shape == (6, 5, 16, 16) and batch["label"].shape == (6, 1, 5, 2)
    first, second = (chain.set_random_state(5)(item(2, points, oblique(SPACING[2]))) for _ in range(2))
    for one, other in zip(first, second):
        assert torch.equal(one["image"], other["image"])


def test_arrays_and_the_same_patches_again() -> None:
    """Index points without an affine; the last draw cuts another image at the same places."""
    points = np.array([[30.0, 25.0], [35.0, 20.0]])
    blobs = blob_image(points, SIZE[2], 1.5)
    cut = RandLandmarkPatches((32, 32), 1.0, displacement=2.0).set_random_state(0)
    for array, tensor in zip(cut(blobs.numpy(), points), cut(blobs, torch.from_numpy(points)[None], randomize=False)):
        assert torch.equal(array[0], tensor[0]) and torch.equal(array[1], tensor[1])
        assert (
            np.abs(centroids(tensor[0]) - points_to_index(tensor[1].as_tensor()[0], tensor[0].affine).numpy()).max()
            < 0.1
        )


def test_groups_are_checked() -> None:
    for wrong in ([[0, 1]], [[0, 1], [1, 2]], [[0, 1, 2], []]):
        with pytest.raises(ValueError, match="one group"):
            LandmarkGroups(3, wrong)
    with pytest.raises(ValueError, match="same size"):
        LandmarkGroups(3, [[0, 1], [2]], shared=True)
    cut = RandLandmarkPatchesd("image", "label", spatial_size=(8, 8), spacing=1.0, groups=LandmarkGroups(4))
    with pytest.raises(ValueError, match="are 3 landmarks"):
        cut(item(2, np.full((3, 2), 20.0), torch.eye(4)))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_far_too_small_pixel_size_is_refused(dims: int) -> None:
    """Each voxel of a patch would be the mean of more voxels than the memory holds."""
    cut = RandLandmarkPatchesd("image", "label", spatial_size=(8,) * dims, spacing=2.0)
    affine = torch.diag(torch.tensor([*[1e-4] * dims, *[1.0] * (4 - dims)], dtype=torch.float64))
    with pytest.raises(ValueError, match=f"covers {' x '.join(['16'] * dims)} mm: its pixel size is wrong"):
        cut(item(dims, np.full((3, dims), 20e-4), affine))


@pytest.mark.parametrize("spacing", [0.7, 0.9, 0.144, 0.264])
def test_an_image_of_the_size_of_a_patch_is_large_enough(spacing: float) -> None:
    """Whatever the rounding of its voxel size in a file."""
    affine = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0]))  # float32
    require_room_for_patch(affine.double(), (32,) * 3, (32,) * 3, spacing)
    with pytest.raises(ValueError, match="less than a patch"):
        require_room_for_patch(affine.double(), (31,) * 3, (32,) * 3, spacing)
