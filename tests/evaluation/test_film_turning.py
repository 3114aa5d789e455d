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

"""Films that are turned in memory are as their turned files would be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged
from PIL import Image

from monai_landmarks.data import ImageFileReader
from monai_landmarks.evaluation.film_turning import resolving_turn, turned_image
from monai_landmarks.transforms import EnsureWorldAffined, RequireFinited

TURNS = {
    (1, False): [Image.Transpose.ROTATE_270],  # Pillow turns counterclockwise
    (2, False): [Image.Transpose.ROTATE_180],
    (3, False): [Image.Transpose.ROTATE_90],
    (0, True): [Image.Transpose.FLIP_LEFT_RIGHT],
    (1, True): [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_270],
}


def reading():
    reader = {"reader": ImageFileReader, "ensure_channel_first": True}
    return Compose([LoadImaged("image", **reader), EnsureWorldAffined("image", squeeze=True), RequireFinited("image")])


def write(path, pixels, transposes=()):
    picture = Image.fromarray(pixels)
    for transpose in transposes:
        picture = picture.transpose(transpose)
    picture.save(path)
    return {"image": str(path), "spacing": 0.5}


@pytest.mark.parametrize("quarters, mirrored", TURNS)
def test_turned_in_memory_and_in_the_file(quarters, mirrored, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
    upright = reading()(write(tmp_path / "a.png", pixels))["image"]
    expected = reading()(write(tmp_path / "b.png", pixels, TURNS[quarters, mirrored]))["image"]
    found = turned_image(upright, quarters, mirrored)
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    torch.testing.assert_close(found.affine, expected.affine, check_dtype=False)


def test_pixel_sizes_follow_the_axes():
    image = MetaTensor(torch.rand(1, 4, 6), affine=torch.diag(torch.tensor([-0.5, -2.0, 1.0, 1.0])))
    affine = turned_image(image, 1).affine
    assert affine.diagonal().tolist() == [-2.0, -0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    "quarters, mirrored, words",
    [
        (3, False, "turned by 90 degrees clockwise"),
        (2, False, "turned by 180 degrees"),
        (1, False, "turned by 90 degrees counterclockwise"),
        (0, True, "mirrored left to right"),
    ],
)
def test_what_helps_is_said(quarters, mirrored, words, tmp_path):
    """A model that finds only a film whose bright corner is at the top left usual, and brighter to the right than down."""
    pixels = np.zeros((40, 60), dtype=np.uint8)
    pixels[:5, :20] = 200
    item = write(tmp_path / "a.png", pixels, TURNS[quarters, mirrored])

    def doubt(data):
        image = data["image"]
        return not (image[0, 0, 0] == 200 and image[0, 19, 0] == 200 and image[0, 0, 19] == 0)

    assert resolving_turn(item, reading(), doubt) == words
    assert resolving_turn(item, reading(), lambda data: True) == ""
