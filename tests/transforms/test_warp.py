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
"""The random warp: content and points move together, whatever the space, spacing, type and part of the warp."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from blobs import blob_image, centroids, inner_points
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, RandAffined, Randomizable
from scipy.ndimage import map_coordinates

from monai_landmarks.transforms import LandmarksToIndexd, RandLandmarkFlipd, RandLandmarkWarp, RandLandmarkWarpd

SHAPES = [(96, 80), (40, 36, 44)]
ALL: dict[str, Any] = {
    "translate_range": 4,
    "rotate_range": 0.25,
    "scale_range": 0.15,
    "axis_scale_range": 0.1,
    "shear_range": 0.1,
    "elastic_range": 3,
}
PARTS = [{key: value} for key, value in ALL.items()] + [ALL]


def oblique(shape: tuple[int, ...], spacing: tuple[float, ...] = (0.5, 0.8, 1.2)) -> np.ndarray:
    """An affine with anisotropic spacing, a mirrored axis, an offset, and in 3-D a rotation."""
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = (-12.0, 30.0, 7.0)
    if len(shape) == 3:
        c, s = math.cos(0.4), math.sin(0.4)
        affine[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ affine[:3, :3]
    else:
        affine[2, 2:] = (1.0, 0.0)
    return affine


def to_world(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    dims = points.shape[1]
    return points @ affine[:dims, :dims].T + affine[:dims, 3]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: "+".join(part))
@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_index_points_follow_the_content(part: dict, shape: tuple[int, ...]) -> None:
    points = inner_points(shape, 4)
    warp = RandLandmarkWarp(**part, unit="voxel", prob=1.0).set_random_state(7)
    image, moved = warp(blob_image(points, shape), torch.from_numpy(points))
    assert warp.warp is not None and np.linalg.norm(moved.numpy() - points, axis=1).max() > 0.05  # it did something
    assert np.abs(centroids(image) - moved.numpy()).max() < 0.05


@pytest.mark.parametrize("unit", ["mm", "voxel"])
@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_world_points_follow_the_content(shape: tuple[int, ...], unit: str) -> None:
    affine = oblique(shape)
    points = inner_points(shape, 4, seed=1)
    image = MetaTensor(blob_image(points, shape), affine=torch.from_numpy(affine))
    world = MetaTensor(torch.from_numpy(to_world(points, affine))[None], affine=torch.eye(4))
    warp = RandLandmarkWarp(**ALL, unit=unit, prob=1.0).set_random_state(3)
    warped, moved = warp(image, world)
    assert torch.equal(warped.affine, image.affine) and torch.equal(moved.affine, world.affine)
    assert moved.dtype == torch.float64 and moved.shape == world.shape
    assert np.abs(to_world(centroids(warped), affine) - moved[0].numpy()).max() < 0.05 * affine.diagonal().max()
    # the same points in the index of the image end at the same place
    index = MetaTensor(torch.from_numpy(points)[None], affine=image.affine)
    again = warp(image, index, randomize=False)[1]
    np.testing.assert_allclose(to_world(again[0].numpy(), affine), moved[0].numpy(), atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_points_are_the_inverse_of_the_sampling_map(shape: tuple[int, ...]) -> None:
    # measured on the image alone: where coordinates are the gray values, the warped image says what came from where
    ramps = torch.from_numpy(np.stack(np.meshgrid(*[np.arange(float(n)) for n in shape], indexing="ij")))
    points = inner_points(shape, 20, seed=2)
    warp = RandLandmarkWarp(**ALL, unit="voxel", prob=1.0).set_random_state(5)
    came_from, moved = warp(ramps, points)
    seen = np.stack([map_coordinates(channel.numpy(), moved.T, order=3) for channel in came_from], 1)
    assert np.abs(seen - points).max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode, order", [("bilinear", 1), ("nearest", 0)])
@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_image_is_resampled_once(shape: tuple[int, ...], mode: str, order: int, dtype: torch.dtype) -> None:
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    warp = RandLandmarkWarp(**ALL, unit="voxel", prob=1.0, mode=mode).set_random_state(11)
    warped, points = warp(image.to(dtype))
    assert points is None and warped.dtype == dtype and warp.warp is not None
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).reshape(len(shape), -1)
    where = warp.warp(voxels.T.astype(float)).T
    inside = ((where > 0) & (where < np.asarray(shape)[:, None] - 1)).all(0)
    if mode == "nearest":
        inside &= (np.abs(where - np.round(where)) < 0.4999).all(0)  # ties may go either way
    for channel, result in zip(image.numpy(), warped.double().numpy()):
        expected = map_coordinates(channel, where, order=order)
        np.testing.assert_allclose(result.ravel()[inside], expected[inside], atol=2e-5)


def test_closed_forms() -> None:
    image, point = torch.zeros(1, 41, 31), torch.tensor([[30.0, 15.0]])  # 10 to the right of the center (20, 15)
    cases: list[tuple[dict, list[float]]] = [
        ({"translate_range": [(3, 3), (-2, -2)]}, [33.0, 13.0]),
        ({"rotate_range": (math.pi / 2, math.pi / 2)}, [20.0, 25.0]),  # the first axis towards the second
        ({"scale_range": (0.2, 0.2)}, [32.0, 15.0]),
        ({"axis_scale_range": [(0.5, 0.5), (0, 0)]}, [35.0, 15.0]),
        ({"shear_range": [(0, 0), (0.3, 0.3)]}, [30.0, 18.0]),
        ({"elastic_range": [(-2, -2), (1, 1)]}, [32.0, 14.0]),  # a constant field samples at x + e: content moves by -e
        # scaled to 11, turned to the second axis, then moved
        (
            {"scale_range": (0.1, 0.1), "rotate_range": (math.pi / 2,) * 2, "translate_range": [(1, 1), (2, 2)]},
            [21.0, 28.0],
        ),
    ]
    for ranges, expected in cases:
        moved = RandLandmarkWarp(**ranges, unit="voxel", prob=1.0)(image, point)[1]
        np.testing.assert_allclose(moved.numpy(), [expected], atol=1e-5, err_msg=str(ranges))


@pytest.mark.parametrize("dims", [2, 3])
def test_scaling_then_shear_then_rotation(dims: int) -> None:
    """
    By hand, from the image center: (10, 4) is scaled to (15, 4), sheared to (15 + 4 / 2, 4) = (17, 4), turned by a
    right angle to (-4, 17), and moved by (1, 2). Any other order ends elsewhere. A third coordinate stays.
    """
    quarter, half = (math.pi / 2,) * 2, (0.5, 0.5)
    ranges: dict[str, Any] = {
        "rotate_range": [quarter] if dims == 2 else [(0, 0), (0, 0), quarter],
        "shear_range": [half, (0, 0)] if dims == 2 else [half, *[(0, 0)] * 5],
        "axis_scale_range": [half, *[(0, 0)] * (dims - 1)],
        "translate_range": [(1, 1), (2, 2), (0, 0)][:dims],
    }
    image = torch.zeros(1, *(41, 51, 21)[:dims])
    point = torch.tensor([[20.0 + 10, 25 + 4, 13][:dims]])
    moved = RandLandmarkWarp(**ranges, prob=1.0)(image, point)[1]
    np.testing.assert_allclose(moved.numpy(), [[20 - 4 + 1, 25 + 17 + 2, 13][:dims]], atol=1e-4)


def test_unit_and_rotation_respect_spacing() -> None:
    image = MetaTensor(torch.zeros(1, 41, 31), affine=torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0])))
    point = torch.tensor([[30.0, 15.0]])  # 5 mm from the center
    millimeters = RandLandmarkWarp(translate_range=[(3, 3), (4, 4)], unit="mm", prob=1.0)(image, point)[1]
    np.testing.assert_allclose(millimeters.numpy(), [[36.0, 17.0]], atol=1e-5)
    voxels = RandLandmarkWarp(translate_range=[(3, 3), (4, 4)], unit="voxel", prob=1.0)(image, point)[1]
    np.testing.assert_allclose(voxels.numpy(), [[33.0, 19.0]], atol=1e-5)
    turned = RandLandmarkWarp(rotate_range=(math.pi / 2,) * 2, prob=1.0)(image, point)[1]
    np.testing.assert_allclose(turned.numpy(), [[20.0, 17.5]], atol=1e-5)  # 5 mm are 2.5 pixels of 2 mm


@pytest.mark.parametrize("unit, expected", [("voxel", [2.0, 3.0]), ("mm", [4.0, 1.5])])
def test_elastic_displacements_respect_spacing(unit: Literal["voxel", "mm"], expected: list[float]) -> None:
    """A field that is the same everywhere is a translation."""
    image = MetaTensor(torch.zeros(1, 41, 31), affine=torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0])))
    point = torch.tensor([[20.0, 15.0]])
    moved = RandLandmarkWarp(elastic_range=[(2, 2), (3, 3)], unit=unit, prob=1.0)(image, point)[1]
    np.testing.assert_allclose((moved - point).abs().numpy(), [expected], atol=1e-5)


@pytest.mark.parametrize("points_type", ["numpy", "torch", "meta"])
@pytest.mark.parametrize("image_type", ["numpy", "torch", "meta"])
@pytest.mark.parametrize("lead", [(), (1,)])
def test_types_in_are_types_out(image_type: str, points_type: str, lead: tuple[int, ...], device: torch.device) -> None:
    def make(kind: str, data: torch.Tensor) -> Any:
        if kind == "numpy":
            return data.numpy()
        return data.to(device) if kind == "torch" else MetaTensor(data.to(device), meta={"name": "a"})

    image = make(image_type, torch.rand(2, 20, 24))
    points = make(points_type, torch.tensor([[3.0, 4.0], [math.nan, math.nan], [10.0, 12.0]]).reshape(*lead, 3, 2))
    warped, moved = RandLandmarkWarp(**ALL, prob=1.0).set_random_state(0)(image, points)
    assert type(warped) is type(image) and type(moved) is type(points)
    assert warped.dtype == image.dtype and moved.dtype == points.dtype and moved.shape == points.shape
    assert np.isnan(np.asarray(moved.cpu() if device.type == "cuda" and points_type != "numpy" else moved)).sum() == 2
    if image_type == "meta":
        assert warped.meta["name"] == "a" and warped.device == image.device


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float16, torch.bfloat16])
def test_image_dtypes(dtype: torch.dtype) -> None:
    image = (torch.rand(1, 33, 29) * 100).to(dtype)
    warp = RandLandmarkWarp(**ALL, prob=1.0).set_random_state(0)
    warped = warp(image)[0]
    expected = warp(image.float(), randomize=False)[0]
    assert warped.dtype == (dtype if dtype.is_floating_point else torch.float32)
    torch.testing.assert_close(warped.float(), expected, rtol=1e-2, atol=1e-3)
    off = RandLandmarkWarp(**ALL, prob=0.0)(image)[0]
    assert off.dtype == warped.dtype  # a batch of warped and other images has one type
    moved = warp(image, torch.tensor([[3, 4]]), randomize=False)[1]
    assert moved.dtype == torch.float32


def test_determinism_and_probability() -> None:
    image, points = torch.rand(1, 32, 32), torch.rand(5, 2) * 32
    first = RandLandmarkWarp(**ALL, prob=0.5).set_random_state(42)
    second = RandLandmarkWarp(**ALL, prob=0.5).set_random_state(42)
    assert isinstance(first, Randomizable)
    applied = 0
    for _ in range(200):
        a, b = first(image, points), second(image, points)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
        applied += not torch.equal(a[1], points)
    assert 70 < applied < 130
    again = first(image, points, randomize=False)
    assert torch.equal(again[0], a[0]) and torch.equal(again[1], a[1])


def test_draws_are_uniform_in_their_range() -> None:
    image, point = torch.zeros(1, 65, 65), torch.tensor([[32.0, 32.0]])
    warp = RandLandmarkWarp(translate_range=[(2, 5), 3], unit="voxel", prob=1.0).set_random_state(0)
    moves = torch.cat(
        [warp.warp_points(point, image) - point for _ in range(500) if warp.randomize(image) is None]
    ).numpy()
    assert moves[:, 0].min() >= 2 and moves[:, 0].max() <= 5 and abs(moves[:, 0].mean() - 3.5) < 0.15
    assert moves[:, 1].min() >= -3 and moves[:, 1].max() <= 3 and abs(moves[:, 1].std() - 3 / math.sqrt(3)) < 0.15


def test_points_outside() -> None:
    image = torch.zeros(1, 20, 20)
    points = torch.tensor([[5.0, 5.0], [15.0, 15.0], [25.0, 5.0]])
    ranges: dict[str, Any] = {"translate_range": [(8, 8), (0, 0)], "unit": "voxel"}
    kept = RandLandmarkWarp(**ranges, prob=1.0)(image, points)[1]
    np.testing.assert_allclose(kept.numpy(), points.numpy() + [8, 0], atol=1e-5)
    dropped = RandLandmarkWarp(**ranges, prob=1.0, outside="missing")(image, points)[1]
    assert torch.isnan(dropped).any(1).tolist() == [False, True, True]
    unmoved = RandLandmarkWarp(**ranges, prob=0.0, outside="missing")(image, points)[1]
    assert torch.isnan(unmoved).any(1).tolist() == [False, False, True]  # the rule does not depend on the coin


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("move", [0, 3])
def test_the_field_of_view_ends_half_a_voxel_beyond_the_outer_voxel_centers(dims: int, move: int) -> None:
    size = (20, 14, 9)[:dims]
    image, center = torch.zeros(1, *size), torch.tensor([5.0, 5.0, 5.0])[:dims]
    warp = RandLandmarkWarp(translate_range=[(move, move)] * dims, prob=1.0, outside="missing")
    for axis, length in enumerate(size):
        places = torch.tensor([-0.6, -0.4, length - 0.6, length - 0.4])
        points = center.repeat(4, 1)
        points[:, axis] = places
        missing = torch.isnan(warp(image, points - move)[1]).any(1).tolist()
        assert missing == [True, False, False, True], f"axis {axis}"


@pytest.mark.parametrize("padding_mode, value", [("zeros", 0.0), ("border", 1.0), ("reflection", 1.0)])
def test_padding(padding_mode: str, value: float) -> None:
    warp = RandLandmarkWarp(translate_range=[(8, 8), (0, 0)], unit="voxel", prob=1.0, padding_mode=padding_mode)
    assert warp(torch.ones(1, 20, 20))[0][0, 3, 10] == value


def test_dictionary_images_share_one_warp() -> None:
    shape = (64, 64)
    points = inner_points(shape, 3)
    blobs = blob_image(points, shape).float()
    item = {"image": blobs, "mask": (blobs > 0.02).float(), "label": torch.from_numpy(points)[None], "other": 3}
    warp = RandLandmarkWarpd(("image", "mask"), "label", **ALL, unit="voxel", prob=1.0, mode=("bilinear", "nearest"))
    result = Compose([warp]).set_random_state(1)(item)
    assert set(result["mask"].unique().tolist()) <= {0.0, 1.0}
    for key, tolerance in (("image", 0.05), ("mask", 0.5)):
        assert np.abs(centroids(result[key]) - result["label"][0].numpy()).max() < tolerance
    assert result["other"] == 3 and torch.equal(item["image"], blobs)  # the item given is not changed
    again = Compose([warp]).set_random_state(1)(item)
    assert torch.equal(again["image"], result["image"]) and torch.equal(again["label"], result["label"])


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_between_monai_transforms(shape: tuple[int, ...], lazy: bool) -> None:
    # pending moves are applied before the warp, and in 2-D they leave a 3x3 affine
    affine = oblique(shape)
    points = inner_points(shape, 4, seed=3)
    item = {
        "image": MetaTensor(blob_image(points, shape, 1.5), affine=torch.from_numpy(affine)),
        "label": MetaTensor(torch.from_numpy(to_world(points, affine))[None], affine=torch.eye(4)),
    }
    chain = [
        RandAffined("image", prob=1.0, rotate_range=0.2, padding_mode="zeros"),
        RandLandmarkWarpd("image", "label", **{**ALL, "elastic_range": 1}, unit="mm", prob=1.0),
        RandLandmarkFlipd("image", "label", spatial_axis=1, prob=1.0),
        Flipd("image", 0),
        LandmarksToIndexd("label"),
    ]
    result = Compose(chain, lazy=lazy).set_random_state(2)(item)
    assert np.abs(centroids(result["image"]) - result["label"][0].numpy()).max() < 0.06


def test_dictionary_probability_and_missing_keys() -> None:
    item = {"image": torch.rand(1, 16, 16), "label": torch.rand(1, 2, 2) * 16}
    result = RandLandmarkWarpd("image", "label", **ALL, prob=0.0)(item)
    assert torch.equal(result["image"], item["image"]) and torch.equal(result["label"], item["label"])
    with pytest.raises(KeyError, match="label"):
        RandLandmarkWarpd("image", "label", **ALL, prob=1.0)({"image": item["image"]})
    only_image = RandLandmarkWarpd("image", "label", **ALL, prob=1.0, allow_missing_keys=True)({"image": item["image"]})
    assert set(only_image) == {"image"}
    assert (
        RandLandmarkWarpd("image", "label", **ALL, prob=1.0, allow_missing_keys=True)({"label": item["label"]})["label"]
        is item["label"]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rotate_range": (0.1, 0.2, 0.3)}, "rotate_range"),
        ({"translate_range": (1, 2, 3)}, "translate_range"),
        ({"translate_range": [(3, 1), 0]}, "lower limit"),
        ({"scale_range": (-1.5, -1.2)}, "Scaling"),
    ],
)
def test_bad_ranges(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandLandmarkWarp(**arguments, prob=1.0)(torch.zeros(1, 16, 16))


def test_bad_shapes() -> None:
    warp = RandLandmarkWarp(**ALL, prob=1.0)
    with pytest.raises(ValueError, match="2 coordinates"):
        warp(torch.zeros(1, 8, 8, 8), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="channel-first"):
        warp(torch.zeros(8, 8))
    with pytest.raises(ValueError, match="same size"):
        RandLandmarkWarpd(("image", "mask"), "label", prob=1.0)(
            {"image": torch.zeros(1, 8, 8), "mask": torch.zeros(1, 9, 8), "label": torch.zeros(1, 1, 2)}
        )
