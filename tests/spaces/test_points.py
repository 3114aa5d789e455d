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
"""Shapes of points: with and without MONAI's leading axis, for one image and for a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor

from monai_landmarks.spaces import points_as_rows, points_of_batch, points_of_image


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_points_of_one_image(device: torch.device, dims: int, dtype: torch.dtype, count: int) -> None:
    points = torch.arange(count * dims, device=device).reshape(count, dims).to(dtype)
    for given in (points, points[None]):
        found = points_of_image(given, spatial_dims=dims)
        assert found.dtype == dtype and found.device == points.device and torch.equal(found, points)
        assert found.data_ptr() == given.data_ptr()
        rows = points_as_rows(given, spatial_dims=dims)
        assert type(rows) is np.ndarray and rows.dtype == np.float64 and np.array_equal(rows, points.cpu())
    assert np.array_equal(points_of_image(points.cpu().numpy()[None]), points.cpu())


def test_points_of_a_batch(device: torch.device) -> None:
    for shape in ((1, 1, 2), (3, 1, 2), (2, 5, 3), (1, 4, 2)):
        points = torch.rand(shape, device=device)
        assert torch.equal(points_of_batch(points), points)
        assert torch.equal(points_of_batch(points[:, None], spatial_dims=shape[-1]), points)
        assert np.array_equal(points_of_batch(points[:, None].cpu().numpy()), points.cpu())


def test_a_batch_keeps_its_affines() -> None:
    affines = [torch.eye(4) * factor for factor in (1, 2)]
    items = [{"label": MetaTensor(torch.rand(1, 3, 2), affine=affine)} for affine in affines]
    batch = next(iter(DataLoader(Dataset(items), batch_size=2)))["label"]
    points = points_of_batch(batch)
    assert points.shape == (2, 3, 2)
    assert points[1].affine[0, 0] == 2 and points[0].affine[0, 0] == 1
    assert points_of_image(items[1]["label"]).affine[0, 0] == 2


def test_rows_are_a_copy() -> None:
    points = np.zeros((2, 2))
    points_as_rows(points)[:] = 1
    tensor = torch.zeros(1, 2, 2, dtype=torch.float64)
    points_as_rows(tensor)[:] = 1
    assert not points.any() and not tensor.any()
    assert points_as_rows([(1, 2), (3, 4)]).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("shape", [(2,), (2, 3, 2), (1, 1, 3, 2), (3, 4), (3, 1), (1, 3, 4)])
def test_other_shapes_of_one_image_are_refused(shape: tuple[int, ...]) -> None:
    for function in (points_of_image, points_as_rows):
        with pytest.raises(ValueError, match=r"^truth must have shape \(N, D\) or \(1, N, D\) .* got \("):
            function(torch.zeros(shape), "truth")


@pytest.mark.parametrize("shape", [(3, 2), (2, 2, 3, 2), (2, 1, 1, 3, 2), (2, 3, 4), (2, 1, 3, 4)])
def test_other_shapes_of_a_batch_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^points must have shape \(B, N, D\) or \(B, 1, N, D\) .* got \("):
        points_of_batch(torch.zeros(shape))


def test_points_of_another_dimension_are_refused() -> None:
    for function, shape in ((points_of_image, (1, 5, 3)), (points_as_rows, (5, 3)), (points_of_batch, (2, 5, 3))):
        with pytest.raises(ValueError, match="points have 3 coordinates, but the image has 2 spatial axes"):
            function(torch.zeros(shape), spatial_dims=2)
