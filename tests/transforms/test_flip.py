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
"""The random flip: the mirrored image shows each landmark where its partner's name says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blobs import blob_image, centroids, inner_points
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd

from monai_landmarks.transforms import LandmarksToIndex, RandLandmarkFlip, RandLandmarkFlipd

NAMES = ["left eye", "nose", "right eye"]
PAIRS = [("left eye", "right eye")]
AFFINE = torch.tensor([[-0.5, 0.0, 0.0, 9.0], [0.0, 0.8, 0.0, -3.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(30, 26), (20, 22, 24)], ids=["2d", "3d"])
@pytest.mark.parametrize("space", ["index", "world"])
def test_points_follow_and_partners_change_places(
    shape: tuple[int, ...], axis: int | tuple[int, ...], space: str
) -> None:
    axes = (axis,) if isinstance(axis, int) else axis
    if max(axes) >= len(shape):
        pytest.skip("a 2-D image has no third axis")
    dims = len(shape)
    index = inner_points(shape, 3)
    image = MetaTensor(blob_image(index, shape), affine=AFFINE)
    points: torch.Tensor = torch.from_numpy(index)[None]
    if space == "world":
        points = MetaTensor(points @ AFFINE[:dims, :dims].double().T + AFFINE[:dims, 3], affine=torch.eye(4))
    flipped, moved = RandLandmarkFlip(axis, PAIRS, NAMES, prob=1.0)(image, points)
    assert torch.equal(flipped.affine, image.affine)
    seen = LandmarksToIndex(torch.float64)(moved, flipped)[0].numpy()
    # mirroring two axes is a rotation: a left eye stays a left eye
    order = [2, 1, 0] if len(axes) % 2 else [0, 1, 2]
    np.testing.assert_allclose(seen, centroids(flipped)[order], atol=1e-3)


def test_pairs_by_number_and_missing_points() -> None:
    points = torch.tensor([[2.0, 1.0], [5.0, 4.0], [float("nan")] * 2])
    moved = RandLandmarkFlip(0, [(0, 2)], prob=1.0)(torch.zeros(1, 11, 5), points)[1]
    np.testing.assert_array_equal(moved.numpy(), [[np.nan, np.nan], [5, 4], [8, 1]])


@pytest.mark.parametrize("one_sided", [["nose"], [1]])
def test_what_has_no_counterpart_is_missing_in_the_mirrored_image(one_sided: list) -> None:
    image, points = torch.zeros(1, 11, 5), torch.tensor([[2.0, 1.0], [5.0, 4.0], [9.0, 0.0]])
    flip = RandLandmarkFlip(0, PAIRS, NAMES, prob=1.0, one_sided=one_sided)
    np.testing.assert_array_equal(flip(image, points)[1].numpy(), [[1, 0], [np.nan, np.nan], [8, 1]])
    assert torch.equal(points[1], torch.tensor([5.0, 4.0]))
    # a rotation has both sides
    turn = RandLandmarkFlip((0, 1), PAIRS, NAMES, prob=1.0, one_sided=one_sided)
    np.testing.assert_array_equal(turn(image, points)[1].numpy(), [[8, 3], [5, 0], [1, 4]])
    with pytest.raises(ValueError, match="one-sided and in a left-right pair"):
        RandLandmarkFlip(0, PAIRS, NAMES, one_sided=["left eye"])
    with pytest.raises(ValueError, match="'tail' is not among"):
        RandLandmarkFlip(0, PAIRS, NAMES, one_sided=["tail"])


def test_twice_is_nothing() -> None:
    image, points = torch.rand(1, 9, 8), torch.rand(3, 2) * 8
    flip = RandLandmarkFlip(1, PAIRS, NAMES, prob=1.0)
    again = flip(*flip(image, points))
    assert torch.equal(again[0], image) and torch.allclose(again[1], points, atol=1e-6)


def test_the_last_draw_is_repeated_on_request() -> None:
    image, points = torch.rand(1, 9, 8), torch.rand(3, 2) * 8
    flip = RandLandmarkFlip(0, prob=0.5).set_random_state(0)
    seen = set()
    for _ in range(10):
        first, moved = flip(image, points)
        again, moved_again = flip(image, points, randomize=False)
        flipped = torch.equal(first, image.flip(1))
        assert flipped or (first is image and moved is points)
        assert torch.equal(again, first) and torch.equal(moved_again, moved)
        seen.add(flipped)
    assert seen == {True, False}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_numpy_in_numpy_out(dtype: type) -> None:
    image = (np.arange(12).reshape(1, 4, 3)).astype(dtype)
    flipped, moved = RandLandmarkFlip(0, prob=1.0)(image, np.array([[1.0, 2.0]]))
    assert isinstance(flipped, np.ndarray) and flipped.dtype == dtype and isinstance(moved, np.ndarray)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    np.testing.assert_array_equal(moved, [[2.0, 2.0]])


def test_a_later_reorientation_keeps_names_right() -> None:
    # after MONAI's own Flip, whose affine remembers, Orientationd would turn the image back under the exchanged names
    index = inner_points((20, 22, 24), 3)
    image = MetaTensor(blob_image(index, (20, 22, 24)), affine=AFFINE)
    world = MetaTensor(torch.from_numpy(index)[None] @ AFFINE[:3, :3].double().T + AFFINE[:3, 3], affine=torch.eye(4))
    flip = RandLandmarkFlipd("image", "label", spatial_axis=0, pairs=PAIRS, names=NAMES, prob=1.0)
    result = Compose([flip, Orientationd("image", axcodes="RAS")])({"image": image, "label": world})
    seen = LandmarksToIndex(torch.float64)(result["label"], result["image"])[0].numpy()
    np.testing.assert_allclose(seen, centroids(result["image"])[[2, 1, 0]], atol=1e-3)


def test_dictionary_probability_and_determinism() -> None:
    item = {"image": torch.rand(1, 9, 8), "mask": torch.rand(1, 9, 8), "label": torch.rand(1, 3, 2)}
    flip = RandLandmarkFlipd(("image", "mask"), "label", pairs=PAIRS, names=NAMES, prob=0.5).set_random_state(0)
    done = 0
    for _ in range(100):
        result = flip(item)
        flipped = not torch.equal(result["image"], item["image"])
        done += flipped
        expected = item["mask"].flip(1) if flipped else item["mask"]
        assert torch.equal(result["mask"], expected)
    assert 30 < done < 70
    with pytest.raises(KeyError, match="label"):
        RandLandmarkFlipd("image", "label", prob=1.0)({"image": item["image"]})
    loose = RandLandmarkFlipd("image", "label", prob=1.0, allow_missing_keys=True)({"image": item["image"]})
    assert set(loose) == {"image"} and torch.equal(loose["image"], item["image"].flip(1))


def test_an_item_without_images_stays() -> None:
    item = {"label": torch.rand(1, 3, 2)}
    loose = RandLandmarkFlipd("image", "label", prob=1.0, allow_missing_keys=True)(item)
    assert set(loose) == {"label"} and torch.equal(loose["label"], item["label"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pairs": PAIRS}, "names"),
        ({"pairs": [("left ear", "right eye")], "names": NAMES}, "left ear"),
        ({"pairs": [(0, 1), (1, 2)]}, "two pairs"),
        ({"pairs": [(1, 1)]}, "different"),
        ({"pairs": [(1, 2, 3)]}, "two names or two numbers"),
    ],
)
def test_bad_pairs(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandLandmarkFlip(**arguments)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="3"):
        RandLandmarkFlip(0, PAIRS, NAMES, prob=1.0)(torch.zeros(1, 4, 4), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="spatial_axis"):
        RandLandmarkFlip(2, prob=1.0)(torch.zeros(1, 4, 4), torch.zeros(2, 2))
