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
"""Index space and world: closed forms, round trips, and covariances against samples, for arrays and tensors alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import ApplyTransformToPoints

from monai_landmarks.spaces import (
    covariances_to_index,
    covariances_to_world,
    has_affine,
    points_as_index,
    points_to_index,
    points_to_world,
    to_array,
    world_points,
)

# shear, rotation, a mirrored axis and no axis along another's: no entry that a wrong formula would not use
OBLIQUE = np.array([[0.1, -2.0, 0.3, 5.0], [0.7, 0.2, -0.4, -7.0], [-0.2, 0.5, 3.0, 11.0], [0, 0, 0, 1]])
FLAT = np.array([[0.1, -2.0, 5.0], [0.7, 0.2, -7.0], [0, 0, 1]])  # its first two axes
AFFINES = {"2-D, 3x3": (2, FLAT), "2-D, 4x4": (2, OBLIQUE), "3-D": (3, OBLIQUE)}

KINDS: dict[str, Callable[[Any], Any]] = {
    "array": lambda values: np.array(values, dtype=np.float64),
    "tensor": lambda values: torch.tensor(np.array(values), dtype=torch.float64),
    "MetaTensor": lambda values: MetaTensor(torch.tensor(np.array(values)), affine=3 * torch.eye(4)),
}


def points_in(dims: int, *lead: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-50, 200, (*lead, dims))


@pytest.mark.parametrize("kind", KINDS)
def test_points_by_hand(kind: str) -> None:
    make = KINDS[kind]
    for world in (points_to_world(make([[10, 100]]), FLAT), points_to_world(make([[10, 100]]), OBLIQUE)):
        assert type(world) is type(KINDS["array"](0) if kind == "array" else torch.ones(1))
        np.testing.assert_allclose(world, [[1 - 200 + 5, 7 + 20 - 7]])
    np.testing.assert_allclose(points_to_world(make([10, 100, 1]), OBLIQUE), [-193.7, 19.6, 2 * -1 + 50 + 3 + 11])
    np.testing.assert_allclose(points_to_index(make([[-194, 20]]), FLAT), [[10, 100]])
    np.testing.assert_allclose(points_to_index(make([[-193.7, 19.6, 62]]), OBLIQUE), [[10, 100, 1]])


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("lead", [(), (7,), (1, 7), (3, 7), (3, 1, 7), (2, 7, 4)])
def test_points_there_and_back(name: str, lead: tuple[int, ...], device: torch.device) -> None:
    dims, affine = AFFINES[name]
    points = points_in(dims, *lead)
    world = points_to_world(points, affine)
    assert world.shape == points.shape and world.dtype == np.float64
    np.testing.assert_allclose(points_to_index(world, affine), points, atol=1e-10)
    tensor = torch.from_numpy(points).to(device)
    same = points_to_world(tensor, torch.from_numpy(affine))  # an affine lies on the CPU
    assert same.device == tensor.device and same.dtype == torch.float64
    np.testing.assert_allclose(to_array(same), world, rtol=1e-12)
    np.testing.assert_allclose(to_array(points_to_index(same, affine)), points, atol=1e-10)


def test_monai_says_the_same() -> None:
    points = torch.from_numpy(points_in(3, 1, 7))
    for invert, ours in ((False, points_to_world), (True, points_to_index)):
        theirs = ApplyTransformToPoints(dtype=torch.float64, invert_affine=invert)(points, torch.from_numpy(OBLIQUE))
        np.testing.assert_allclose(ours(points, OBLIQUE), theirs.as_tensor(), rtol=1e-10, atol=1e-10)


def test_missing_points_stay_missing_alone() -> None:
    points = points_in(3, 4)
    points[1] = np.nan
    for function in (points_to_world, points_to_index):
        assert np.isnan(function(points, OBLIQUE)).any(axis=1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_other_dtypes_become_float64(dtype: torch.dtype) -> None:
    points = torch.tensor([[10, 100]], dtype=dtype)
    assert points_to_world(points, FLAT.astype(np.float32)).dtype == torch.float64
    assert points_to_index(points.numpy(), FLAT).dtype == np.float64
    assert points_to_world(points.numpy(), np.eye(3, dtype=int)).dtype == np.float64
    assert covariances_to_world(torch.eye(2, dtype=dtype), FLAT).dtype == torch.float64


def test_gradients_pass() -> None:
    points = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    points_to_world(points, OBLIQUE).sum().backward()
    np.testing.assert_allclose(points.grad, np.broadcast_to(OBLIQUE[:3, :3].sum(axis=0), (4, 3)))


@pytest.mark.parametrize("middle", [(), (1,), (5, 4)])
def test_one_affine_per_image_of_a_batch(middle: tuple[int, ...], device: torch.device) -> None:
    affines = np.stack([OBLIQUE, np.diag([2.0, 3.0, 4.0, 1.0]), np.linalg.inv(OBLIQUE)])
    points = torch.from_numpy(points_in(3, 3, *middle, 7)).to(device)
    matrices = torch.from_numpy(affines)
    spread = torch.rand(3, *middle, 7, 3, 3, dtype=torch.float64, device=device)
    for function, values in (
        (points_to_world, points),
        (points_to_index, points),
        (covariances_to_world, spread),
        (covariances_to_index, spread),
    ):
        together = function(values, matrices)
        assert together.shape == values.shape
        for i, affine in enumerate(affines):
            torch.testing.assert_close(together[i], function(values[i], affine))


@pytest.mark.parametrize("name", AFFINES)
def test_covariances_are_those_of_moved_samples(name: str) -> None:
    dims, affine = AFFINES[name]
    samples = np.random.default_rng(0).normal(size=(1000, dims)) @ np.random.default_rng(1).normal(size=(dims, dims))
    own = np.cov(samples.T)
    np.testing.assert_allclose(covariances_to_world(own, affine), np.cov(points_to_world(samples, affine).T))
    np.testing.assert_allclose(covariances_to_index(own, affine), np.cov(points_to_index(samples, affine).T))


@pytest.mark.parametrize("kind", KINDS)
def test_covariances_by_hand(kind: str) -> None:
    # index axes exchanged, 2 mm and 0.5 mm long: the spread of axis 0 becomes that of world axis 1
    affine = np.array([[0, 0.5, 7], [2, 0, 9], [0, 0, 1.0]])
    own = KINDS[kind]([[[4.0, 1.0], [1.0, 9.0]]])
    world = covariances_to_world(own, affine)
    np.testing.assert_allclose(world, [[[9 / 4, 1], [1, 16]]])
    np.testing.assert_allclose(covariances_to_index(world, affine), own)


def test_covariances_that_are_unknown_stay_unknown() -> None:
    spread = np.stack([np.eye(2), np.full((2, 2), np.nan)])
    for function in (covariances_to_world, covariances_to_index):
        assert np.isnan(function(spread, FLAT)).any(axis=(1, 2)).tolist() == [False, True]


@pytest.mark.parametrize("function", [points_to_world, points_to_index, covariances_to_world, covariances_to_index])
def test_wrong_affines_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"affine has shape \(3, 3\); expected \(4, 4\) for 3-D points"):
        function(np.zeros((3, 3)), FLAT)
    with pytest.raises(ValueError, match=r"affine has shape \(4,\); expected \(3, 3\) or \(4, 4\) for 2-D points"):
        function(torch.zeros(2, 2), torch.zeros(4))


def test_has_affine() -> None:
    assert has_affine(MetaTensor(torch.zeros(1, 2, 2), affine=torch.from_numpy(OBLIQUE)))
    assert not has_affine(MetaTensor(torch.zeros(1, 2, 2), affine=torch.eye(4)))
    assert not has_affine(MetaTensor(torch.zeros(1, 2, 2), affine=torch.eye(3)))
    assert not has_affine(torch.zeros(1, 2, 2)) and not has_affine(np.zeros((2, 2))) and not has_affine(None)
    items = [{"p": MetaTensor(torch.zeros(1, 2, 2), affine=a * torch.eye(4))} for a in (1, 1, 1, 2)]
    batches = [batch["p"] for batch in DataLoader(Dataset(items), batch_size=2)]
    assert [has_affine(batch) for batch in batches] == [False, True]


def test_world_points(device: torch.device) -> None:
    plain = torch.tensor([[[10.0, 100.0]]], device=device)
    image = MetaTensor(torch.zeros(1, 4, 4), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])))
    own = world_points(MetaTensor(plain, affine=torch.from_numpy(OBLIQUE)))
    assert type(own) is torch.Tensor and own.device == plain.device
    np.testing.assert_allclose(to_array(own), [[[-194, 20]]])
    # its own affine comes before the image's, also if it says that the points are in the world already
    assert torch.equal(world_points(MetaTensor(plain, affine=torch.from_numpy(OBLIQUE)), image), own)
    in_world = world_points(MetaTensor(plain, affine=torch.eye(4)), image)
    assert type(in_world) is torch.Tensor and torch.equal(in_world, plain)
    # without an affine they are index points of the image, or are returned as they are
    assert world_points(plain, image).tolist() == [[[20, 300]]]
    assert world_points(plain.cpu().numpy(), image).tolist() == [[[20, 300]]]
    assert world_points(plain) is plain and torch.equal(world_points(plain, torch.zeros(1, 4, 4)), plain)


def test_world_points_of_a_batch() -> None:
    items = [{"p": MetaTensor(torch.ones(1, 2, 2), affine=a * torch.eye(4))} for a in (2, 5)]
    batch = next(iter(DataLoader(Dataset(items), batch_size=2)))["p"]
    assert world_points(batch)[:, 0, 0].tolist() == [[2, 2], [5, 5]]
    assert world_points(batch.squeeze(1))[:, 0].tolist() == [[2, 2], [5, 5]]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("lead", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_as_index_and_back(dims: int, lead: bool, dtype: torch.dtype, device: torch.device) -> None:
    image_affine = torch.from_numpy(OBLIQUE if dims == 3 else FLAT)
    image = MetaTensor(torch.zeros(1, *(8,) * dims), affine=image_affine)
    index = points_in(dims, 5)
    world = torch.from_numpy(points_to_world(index, OBLIQUE))
    other = np.diag([2.0, -3.0, 4.0, 1.0])  # points of another image
    for values, affine in ((world, torch.eye(4)), (points_to_index(world, other), other), (index, image_affine)):
        tensor = torch.as_tensor(values).to(device, dtype)
        points = MetaTensor(tensor[None] if lead else tensor, affine=torch.as_tensor(affine))
        found, give_back = points_as_index(points, image)
        assert type(found) is np.ndarray and found.dtype == np.float64
        np.testing.assert_allclose(found, index, atol=1e-10 if dtype == torch.float64 else 1e-3)
        back = give_back(found + 1)
        assert isinstance(back, MetaTensor) and back.shape == points.shape
        assert back.dtype == dtype and back.device == points.device
        moved = points_to_index(points_to_world(found + 1, OBLIQUE), to_array(affine))
        np.testing.assert_allclose(to_array(back).reshape(-1, dims), moved, rtol=1e-5, atol=1e-9)


def test_index_points_come_back_without_rounding() -> None:
    image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.from_numpy(OBLIQUE))
    index = points_in(2, 100)
    for points in (MetaTensor(torch.from_numpy(index), affine=image.affine), torch.from_numpy(index), index):
        found, give_back = points_as_index(points, image)
        assert np.array_equal(found, index) and np.array_equal(give_back(found), index)
    world = MetaTensor(torch.from_numpy(index), affine=torch.eye(4))
    assert np.array_equal(points_as_index(world, torch.zeros(1, 8, 8))[0], index)  # an image without an affine


def test_integer_points_become_float32() -> None:
    image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.from_numpy(FLAT))
    for points in (torch.tensor([[1, 2]]), np.array([[1, 2]])):
        found, give_back = points_as_index(points, image)
        back = give_back(found + 0.5)
        assert type(back) is type(points) and back.tolist() == [[1.5, 2.5]]
        assert str(back.dtype).removeprefix("torch.") == "float32"


def test_points_of_another_dimension_are_refused() -> None:
    with pytest.raises(ValueError, match="points have 3 coordinates, but the image has 2 spatial axes"):
        points_as_index(torch.zeros(1, 5, 3), torch.zeros(1, 8, 8))


def test_a_missing_point_is_missing_in_index_space() -> None:
    image = MetaTensor(torch.zeros(1, 8, 8), affine=torch.from_numpy(FLAT))
    points = MetaTensor(torch.tensor([[1.0, 2.0], [math.nan] * 2]), affine=torch.eye(4))
    assert np.isnan(points_as_index(points, image)[0]).all(axis=1).tolist() == [False, True]
