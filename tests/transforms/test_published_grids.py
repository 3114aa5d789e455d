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


"""Where FARNet's released code puts landmarks off their place, reproduced from its description, and that nothing here does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blobs import blob_image, centroids
from monai.data import MetaTensor
from monai.transforms import Resized

from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.losses import GaussianTarget
from monai_landmarks.transforms import LandmarksToIndexd

SIGMA = 10.0  # the published width, in pixels of both grids


def heatmap_from_one(point: np.ndarray, shape: tuple[int, int]) -> torch.Tensor:
    """A Gaussian whose grid runs from 1 to the size, around a landmark that is counted from 0."""
    grid = np.meshgrid(*[np.arange(1, size + 1) for size in shape], indexing="ij")
    distance = sum((axis - center) ** 2 for axis, center in zip(grid, point))
    return torch.from_numpy(np.exp(-distance / (2 * SIGMA**2)))[None]


def highest_pixel(heatmap: torch.Tensor) -> np.ndarray:
    return np.array(np.unravel_index(int(heatmap[0].argmax()), heatmap.shape[1:]))


@pytest.mark.parametrize("point", [(50.0, 30.0), (20.0, 71.0)])
def test_a_grid_from_one_is_a_pixel_off(point: tuple[float, float]) -> None:
    shape = (80, 100)
    np.testing.assert_array_equal(highest_pixel(heatmap_from_one(np.array(point), shape)) - point, [-1, -1])
    truth = torch.tensor([point], dtype=torch.float64)
    for heatmap in (gaussian_heatmaps(truth, shape, SIGMA), GaussianTarget(SIGMA)(truth, shape)):
        np.testing.assert_array_equal(highest_pixel(heatmap), point)


@pytest.mark.parametrize("point", [(50.3, 30.8), (20.5, 71.1)])
def test_sub_pixel_points_come_back(point: tuple[float, float]) -> None:
    """The highest pixel loses the fraction, which is a millimeter's tenth on a coarse grid; the decoder here does not."""
    shape = (80, 100)
    heatmap = gaussian_heatmaps(torch.tensor([point], dtype=torch.float64), shape, SIGMA)
    assert np.abs(highest_pixel(heatmap) - point).max() > 0.1
    np.testing.assert_allclose(decode_heatmaps(heatmap, spatial_dims=2).points[0], point, atol=1e-3)


def test_scaled_points_leave_a_resized_image() -> None:
    """Points that are divided by the factor, while the image keeps the edges of its pixels, move by (1 - 1/s) / 2."""
    shape, factor = (120, 150), 3
    points = np.array([[40.2, 61.7], [77.0, 98.4]])
    image = blob_image(points, shape, sigma=6.0)
    small = F.interpolate(image[None], size=[size // factor for size in shape], mode="area")[0]
    np.testing.assert_allclose(points / factor - centroids(small), (1 - 1 / factor) / 2, atol=1e-3)

    affine = torch.eye(4, dtype=torch.float64)
    item = {
        "image": MetaTensor(image, affine=affine),
        "label": MetaTensor(torch.from_numpy(points)[None], affine=affine),
    }
    item = Resized("image", small.shape[1:], mode="area")(item)
    moved = LandmarksToIndexd("label", "image")(item)["label"][0]
    np.testing.assert_allclose(moved, centroids(item["image"]), atol=1e-3)


def test_coarse_grid_is_aligned() -> None:
    """The half-resolution target lies where pooling puts the full one, which is what coarse-to-fine supervision assumes."""
    points = torch.tensor([[31.3, 44.9]], dtype=torch.float64)
    fine = gaussian_heatmaps(points, (80, 100), 4.0)
    pooled = centroids(F.avg_pool2d(fine, 2))
    np.testing.assert_allclose((points + 0.5) / 2 - 0.5, pooled, atol=1e-6)
