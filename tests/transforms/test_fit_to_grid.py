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
"""An image on a grid of fixed size: nothing is cut off, and points in the world stay on their blobs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blobs import blob_image, centroids, inner_points, oblique
from monai.data import MetaTensor

from monai_landmarks.transforms import FitToGrid, FitToGridd

CASES = [
    ((60, 90), (1.0, 1.0), (48, 64), None),  # larger than the grid
    ((60, 90), (1.0, 0.5), (96, 64), None),  # smaller, pixels that are not square
    ((60, 90), (1.0, 1.0), (48, 48), 0.8),  # more than fits at this spacing
    ((30, 40, 20), (1.0, 1.0, 3.0), (32, 48, 48), 1.5),
    ((30, 40, 20), (1.0, 1.0, 3.0), (24, 24, 24), None),
]


@pytest.mark.parametrize("shape, spacing, size, wanted", CASES)
def test_points_stay_on_their_blobs(shape, spacing, size, wanted):
    points, affine = inner_points(shape, 3), oblique(spacing)
    image = MetaTensor(blob_image(points, shape, sigma=np.array(2.5) / spacing), affine=affine)
    fitted = FitToGrid(size, wanted, padding_mode="constant")(image)
    assert fitted.shape == (3, *size) and fitted.applied_operations == []
    dims = len(shape)
    steps = fitted.affine[:dims, :dims].norm(dim=0)
    # cubes, but for the rounding to whole voxels
    smallest = max(np.array(shape) * spacing / size)
    expected = smallest if wanted is None else max(wanted, smallest)
    np.testing.assert_allclose(steps, expected, rtol=0.5 / min(size) + 0.01)
    old, new = affine.numpy(), fitted.affine.numpy()
    world = points @ old[:dims, :dims].T + old[:dims, 3]
    index = np.linalg.solve(new[:dims, :dims], (world - new[:dims, 3]).T).T
    np.testing.assert_allclose(centroids(fitted), index, atol=0.05)
    # the corners of the image are on the grid
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), -1).reshape(-1, dims)
    placed = np.linalg.solve(new[:dims, :dims], (corners @ old[:dims, :dims].T + old[:dims, 3] - new[:dims, 3]).T).T
    assert (placed > -0.5 - 1e-6).all() and (placed < np.array(size) - 0.5 + 1e-6).all()


def test_the_border_is_repeated_beside_the_image():
    image = MetaTensor(torch.arange(8.0)[None, :, None].expand(1, 8, 4).clone())
    fitted = FitToGridd("image", (8, 8))({"image": image})["image"]
    assert torch.equal(fitted[0].as_tensor(), torch.arange(8.0)[:, None].expand(8, 8))


def test_fine_texture_is_smoothed_before_it_is_skipped():
    """Every third line of pixels is bright. Only every fourth is sampled, so that without smoothing they make new stripes."""
    image = MetaTensor((torch.arange(66) % 3 == 0).double()[None, :, None].expand(1, 66, 66).clone())
    middle = FitToGrid((16, 16))(image)[0, 2:-2].as_tensor()
    assert middle.std() < 0.02 and abs(middle.mean() - 1 / 3) < 0.02


def test_wrong_grids_are_refused():
    with pytest.raises(ValueError, match="2 axes"):
        FitToGrid((8, 8, 8))(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="spatial_size"):
        FitToGrid((8, 0))
    with pytest.raises(ValueError, match="spacing"):
        FitToGrid((8, 8), spacing=-1.0)
    assert FitToGridd("image", (8, 8), allow_missing_keys=True)({}) == {}
