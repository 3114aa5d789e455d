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


"""Patches hold landmarks or none, in the share that was asked for, and know where they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, set_track_meta
from monai.transforms import Compose

from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.transforms import LandmarksToIndexd, RandCropByLandmarks, RandCropByLandmarksd

AFFINE = np.array([[0.0, -0.5, 0.0, 12.0], [0.8, 0.0, 0.0, -30.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = {2: (60, 50), 3: (40, 36, 30)}
POINTS = {2: [[12.3, 40.6], [50.0, 8.0], [np.nan, np.nan]], 3: [[8.2, 30.0, 5.5], [33.0, 7.0, 20.0], [90.0, 5.0, 5.0]]}


def where(dims):
    """An image whose channels are the coordinates of each voxel."""
    return torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SHAPE[dims]), indexing="ij"))


def held(patch, points):
    """Which landmarks lie in a patch of such an image."""
    low, high = patch.flatten(1).amin(1).numpy() - 0.5, patch.flatten(1).amax(1).numpy() + 0.5
    return [bool(np.all((p >= low) & (p < high))) for p in np.asarray(points)]


@pytest.mark.parametrize("dims", [2, 3])
def test_every_patch_holds_what_it_should(dims):
    crop = RandCropByLandmarks(10, num_samples=60, pos=1, neg=0).set_random_state(0)
    around = [held(patch, POINTS[dims]) for patch in crop(where(dims), np.array(POINTS[dims]))]
    assert all(any(h) for h in around) and {h.index(True) for h in around} == {0, 1}
    crop = RandCropByLandmarks(10, num_samples=60, pos=0, neg=1).set_random_state(0)
    assert not any(any(held(patch, POINTS[dims])) for patch in crop(where(dims), np.array(POINTS[dims])))


def test_share_of_both_and_place_in_the_patch():
    points = np.array([[30.3, 25.6], [50.0, 8.0]])
    crop = RandCropByLandmarks((20, 16), num_samples=2000, pos=3, neg=1).set_random_state(1)
    patches = crop(where(2), points)
    assert all(patch.shape == (2, 20, 16) for patch in patches)
    holding = [patch for patch in patches if any(held(patch, points))]
    assert len(holding) / 2000 == pytest.approx(0.75, abs=0.04)
    # the first landmark is far from the border of the image: no place in the patch is rarer than others
    first = [round(float(points[0, 1] - patch[1].min())) for patch in holding if held(patch, points)[0]]
    counts = np.bincount(first, minlength=16)
    assert counts.min() > 0.5 * counts.mean()


def test_margin():
    crop = RandCropByLandmarks(21, num_samples=200, pos=1, neg=0, margin=6).set_random_state(2)
    for patch in crop(where(2), np.array([[30.2, 25.4]])):
        low, high = patch.flatten(1).amin(1), patch.flatten(1).amax(1)
        assert (
            float((torch.tensor([30.2, 25.4]) - low).min()) > 5.5
            and float((high - torch.tensor([30.2, 25.4])).min()) > 5.5
        )


def test_small_images_and_no_landmarks():
    assert RandCropByLandmarks((100, -1))(where(2), np.array(POINTS[2]))[0].shape == (2, 60, 50)
    none = np.full((2, 2), np.nan)
    assert RandCropByLandmarks(8, num_samples=3, pos=1, neg=0)(where(2), none)[2].shape == (2, 8, 8)
    # every patch holds a landmark: any will do
    assert RandCropByLandmarks(50, pos=0)(where(2), np.array([[30.0, 25.0]]))[0].shape == (2, 50, 50)


@pytest.mark.parametrize("space", ["world", "index", "plain tensor", "plain array"])
@pytest.mark.parametrize("dims", [2, 3])
def test_points_follow(dims, space):
    index = torch.tensor(POINTS[dims][:2], dtype=torch.float64)
    image = MetaTensor(gaussian_heatmaps(index, SHAPE[dims], sigma=1.5).sum(0, keepdim=True), affine=AFFINE)
    padded = torch.nn.functional.pad(index, (0, 3 - dims))
    world = (padded @ torch.as_tensor(AFFINE[:3, :3]).T + torch.as_tensor(AFFINE[:3, 3]))[:, :dims]
    points = {
        "world": lambda: MetaTensor(world[None], affine=torch.eye(4)),
        "index": lambda: MetaTensor(index[None], affine=AFFINE),
        "plain tensor": lambda: index,
        "plain array": lambda: index.numpy(),
    }[space]()
    chain = Compose(
        [
            RandCropByLandmarksd(["image", "other"], "points", 14, num_samples=4, pos=1, neg=0, margin=5),
            *([LandmarksToIndexd("points", "image")] if space in ("world", "index") else []),
        ]
    ).set_random_state(0)
    patches = chain({"image": image, "points": points, "other": image.clone(), "name": "a"})
    assert len(patches) == 4
    for patch in patches:
        assert patch["name"] == "a" and torch.equal(patch["image"].as_tensor(), patch["other"].as_tensor())
        found = decode_heatmaps(patch["image"].as_tensor(), dims).points[0]
        moved = torch.as_tensor(np.asarray(patch["points"])).reshape(2, dims)
        assert float((moved - found).abs().amax(-1).min()) < 0.01


def test_several_sets_of_points_follow() -> None:
    index = np.array(POINTS[2][:2])
    crop = RandCropByLandmarksd("image", ("label", "pred"), 14, num_samples=3, pos=1, neg=0).set_random_state(0)
    for patch in crop({"image": where(2), "label": index, "pred": torch.from_numpy(index) + 1}):
        begin = patch["image"].flatten(1).amin(1).numpy()
        assert any(held(patch["image"], index))
        np.testing.assert_allclose(patch["label"], index - begin)
        np.testing.assert_allclose(patch["pred"], index + 1 - begin)


def test_without_tracked_metadata_the_patches_are_the_same() -> None:
    crop = RandCropByLandmarksd("image", "label", 14, num_samples=3)
    item = {"image": where(2), "label": np.array(POINTS[2])}
    tracked = crop.set_random_state(0)(item)
    try:
        set_track_meta(False)
        plain = crop.set_random_state(0)(item)
    finally:
        set_track_meta(True)
    for one, other in zip(tracked, plain):
        assert isinstance(one["image"], MetaTensor) and not isinstance(other["image"], MetaTensor)
        assert torch.equal(one["image"].as_tensor(), other["image"])
        np.testing.assert_array_equal(one["label"], other["label"])


def test_loader_makes_a_batch_of_the_patches():
    item = {"image": MetaTensor(where(2)), "points": MetaTensor(torch.tensor(POINTS[2])[None])}
    data = Dataset([item, item], RandCropByLandmarksd("image", "points", 16, num_samples=3))
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch["image"].shape == (6, 2, 16, 16) and batch["points"].shape == (6, 1, 3, 2)


def test_same_seed_same_patches():
    patches = [
        RandCropByLandmarksd("image", "points", 16, num_samples=5).set_random_state(seed)(
            {"image": where(2), "points": np.array(POINTS[2])}
        )
        for seed in (7, 7, 8)
    ]
    same = [all(torch.equal(a["image"], b["image"]) for a, b in zip(patches[0], other)) for other in patches[1:]]
    assert same == [True, False]


@pytest.mark.parametrize("arguments", [{"pos": -1}, {"pos": 0, "neg": 0}, {"num_samples": 0}, {"margin": -1}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        RandCropByLandmarks(8, **arguments)


def test_images_of_different_sizes_and_missing_points_are_refused():
    data = {"image": where(2), "other": where(2)[:, 1:], "points": np.array(POINTS[2])}
    with pytest.raises(ValueError, match="same size"):
        RandCropByLandmarksd(["image", "other"], "points", 8)(data)
    with pytest.raises(ValueError, match="points are needed"):
        RandCropByLandmarks(8)(where(2))


def test_missing_images_and_landmarks():
    points = torch.rand(3, 2)
    (item,) = RandCropByLandmarksd("image", "points", 8, allow_missing_keys=True)({"points": points})
    assert item["points"] is points
    with pytest.raises(KeyError, match="the landmarks 'points' are not in the item"):
        RandCropByLandmarksd("image", "points", 8)({"image": where(2)})
