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
"""World points follow every affine-type transform of MONAI, eager and lazy, in 2-D and 3-D, and come back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from blobs import blob_image, centroids, inner_points
from monai import transforms as mt
from monai.data import MetaTensor

from monai_landmarks.spaces import affine_4x4
from monai_landmarks.transforms import (
    EnsureWorldAffined,
    LandmarksToIndex,
    LandmarksToIndexd,
    LandmarksToWorld,
    LandmarksToWorldd,
)

SHAPE = (48, 40, 44)
KEY = "image"


def item(dims: int) -> dict[str, Any]:
    """An image with blobs at known points, in an anisotropic world with mirrored axes, and the points in that world."""
    shape = SHAPE[:dims]
    affine = np.diag([-0.9, -1.1, 1.3, 1.0])
    affine[:dims, 3] = (20.0, -31.0, 12.0)[:dims]
    points = inner_points(shape, 3, seed=dims)
    world = points @ affine[:dims, :dims].T + affine[:dims, 3]
    return {
        KEY: MetaTensor(blob_image(points, shape, sigma=2.0).float(), affine=torch.from_numpy(affine)),
        "label": MetaTensor(torch.from_numpy(world)[None], affine=torch.eye(4)),
    }


def size(dims: int, *values: int) -> tuple[int, ...]:
    return values[:dims]


MOVES: dict[str, Any] = {
    "flip": lambda n: mt.Flipd(KEY, 0),
    "flip all": lambda n: mt.Flipd(KEY),
    "rot90": lambda n: mt.Rotate90d(KEY, 1, (0, 1)),
    "rotate": lambda n: mt.Rotated(KEY, 0.3 if n == 2 else (0.3, -0.2, 0.1), keep_size=False),
    "rotate keep": lambda n: mt.Rotated(KEY, 0.3 if n == 2 else (0.3, -0.2, 0.1)),
    "affine": lambda n: mt.Affined(
        KEY, rotate_params=[0.2] * (1 if n == 2 else 3), translate_params=[2.5, -1.5, 1][:n]
    ),
    "random affine": lambda n: mt.RandAffined(KEY, prob=1.0, rotate_range=0.3, shear_range=0.1, scale_range=0.1),
    "zoom": lambda n: mt.Zoomd(KEY, 1.3, mode="bilinear" if n == 2 else "trilinear"),
    "zoom out": lambda n: mt.Zoomd(KEY, 0.8, mode="bilinear" if n == 2 else "trilinear", keep_size=False),
    "resize": lambda n: mt.Resized(KEY, size(n, 60, 36, 50), mode="bilinear" if n == 2 else "trilinear"),
    "spacing": lambda n: mt.Spacingd(KEY, [0.7, 0.8, 0.9][:n], mode="bilinear"),
    "orientation": lambda n: mt.Orientationd(KEY, axcodes="RAS" if n == 3 else "RA"),
    "center crop": lambda n: mt.CenterSpatialCropd(KEY, size(n, 36, 33, 31)),
    "crop": lambda n: mt.SpatialCropd(KEY, roi_start=size(n, 3, 5, 2), roi_end=size(n, 45, 39, 40)),
    "random crop": lambda n: mt.RandSpatialCropd(KEY, size(n, 40, 35, 38), random_size=False),
    "pad": lambda n: mt.SpatialPadd(KEY, size(n, 64, 51, 47)),
    "border pad": lambda n: mt.BorderPadd(KEY, 4),
    "divisible pad": lambda n: mt.DivisiblePadd(KEY, 32),
    "crop or pad": lambda n: mt.ResizeWithPadOrCropd(KEY, size(n, 55, 34, 44)),
}


def compare(result: dict[str, Any], tolerance: float) -> None:
    points = result["label"][0].numpy()
    assert result["label"].dtype == torch.float32 and points.shape == (3, result[KEY].ndim - 1)
    assert np.abs(points - centroids(result[KEY])).max() < tolerance
    np.testing.assert_allclose(affine_4x4(result["label"].affine), affine_4x4(result[KEY].affine), atol=1e-9)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", MOVES)
def test_world_points_follow(name: str, dims: int, lazy: bool) -> None:
    chain = mt.Compose([MOVES[name](dims), LandmarksToIndexd("label")], lazy=lazy).set_random_state(4)
    compare(chain(item(dims)), 0.03)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("ours", [True, False], ids=["LandmarksToIndexd", "TransformPointsWorldToImaged"])
def test_world_points_follow_a_whole_chain(dims: int, lazy: bool, ours: bool) -> None:
    # MONAI's own point transform works as well, where EnsureWorldAffined comes before it
    last = [LandmarksToIndexd("label")] if ours else [
        EnsureWorldAffined("image"),
        mt.TransformPointsWorldToImaged("label", refer_keys=KEY, dtype=torch.float32),
    ]  # fmt: skip
    names = ["orientation", "spacing", "random affine", "flip", "crop or pad"]
    chain = mt.Compose([*(MOVES[name](dims) for name in names), *last], lazy=lazy).set_random_state(4)
    compare(chain(item(dims)), 0.04)


def test_trap_monai_fails_on_the_affine_of_lazy_2d() -> None:
    # the reason for EnsureWorldAffined; should this fail with a new MONAI, the trap is gone
    chain = mt.Compose([MOVES["flip"](2), mt.TransformPointsWorldToImaged("label", refer_keys=KEY)], lazy=True)
    plain = item(2)
    assert mt.Compose([MOVES["flip"](2)], lazy=True)(plain)[KEY].affine.shape == (3, 3)
    plain["label"] = plain["label"].as_tensor()
    with pytest.raises(RuntimeError):
        chain(plain)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("lead", [True, False])
def test_there_and_back(dims: int, lead: bool, device: torch.device) -> None:
    data = item(dims)
    image, world = data[KEY], data["label"].to(device)
    world = world if lead else world[0]
    index = LandmarksToIndex(torch.float64)(world, image)
    assert index.shape == world.shape and index.device == world.device
    torch.testing.assert_close(LandmarksToIndex(torch.float64)(index, image).as_tensor(), index.as_tensor())  # stays
    back = LandmarksToWorld()(index, image)
    torch.testing.assert_close(back.as_tensor(), world.as_tensor(), rtol=0, atol=1e-9)
    assert torch.equal(back.affine, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(LandmarksToWorld()(back, image).as_tensor(), back.as_tensor())  # stays
    # points without an affine are index points of the image
    plain = LandmarksToWorld()(index.as_tensor().cpu().numpy(), image)
    torch.testing.assert_close(plain.as_tensor(), back.as_tensor().cpu())


@pytest.mark.parametrize("dims", [2, 3])
def test_inverse(dims: int) -> None:
    data = item(dims)
    chain = mt.Compose([MOVES["zoom"](dims), LandmarksToIndexd("label", dtype=torch.float64)])
    back = chain.inverse(chain(data))
    torch.testing.assert_close(back["label"].as_tensor(), data["label"].as_tensor(), rtol=0, atol=1e-6)
    index = chain(data)
    again = mt.Compose([LandmarksToWorldd("label")])(index)
    torch.testing.assert_close(again["label"].as_tensor(), data["label"].as_tensor(), rtol=0, atol=1e-6)


def test_missing_points_and_errors() -> None:
    data = item(2)
    data["label"][0, 1] = math.nan
    index = LandmarksToIndexd("label")(data)["label"][0]
    assert torch.isnan(index).any(1).tolist() == [False, True, False]
    with pytest.raises(KeyError, match="image"):
        LandmarksToIndexd("label")({"label": data["label"]})
    with pytest.raises(ValueError, match="no affine"):
        LandmarksToIndexd("label")({"label": data["label"], KEY: torch.zeros(1, 4, 4)})


def test_a_plane_that_is_turned_in_space() -> None:
    """2-D points have no z, so only the two axes of the plane count, on the way there and back."""
    turned = np.eye(4)
    turned[:3, :3] = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]]) * 0.5
    turned[:3, 3] = 10, 20, 700
    image = MetaTensor(torch.zeros(1, 60, 40), affine=torch.from_numpy(turned))
    index = torch.tensor([[33.0, 7.0]], dtype=torch.float64)
    world = LandmarksToWorld()(index, image)
    np.testing.assert_allclose(world, index.numpy() @ turned[:2, :2].T + turned[:2, 3])
    np.testing.assert_allclose(LandmarksToIndex(torch.float64)(world, image), index, atol=1e-9)
