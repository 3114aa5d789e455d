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

from __future__ import annotations

import numpy as np
import pytest
import torch
from blobs import blob_image, centroids, inner_points, oblique
from monai.data import MetaTensor

from monai_landmarks.transforms import ResampleToSpacing, ResampleToSpacingd

CASES = [
    ((60, 90), (1.0, 0.5), 1.5),
    ((60, 90), (1.0, 0.5), (0.7, 0.7)),
    ((30, 40, 20), (1.0, 1.0, 3.0), 1.5),
    ((30, 40, 20), (1.0, 1.0, 3.0), (2.0, 1.0, 3.0)),
]


@pytest.mark.parametrize("shape, spacing, wanted", CASES)
def test_points_stay_on_their_blobs(shape, spacing, wanted):
    points, affine = inner_points(shape, 3), oblique(spacing)
    image = MetaTensor(blob_image(points, shape, sigma=np.array(2.5) / spacing), affine=affine)
    resampled = ResampleToSpacingd("image", wanted)({"image": image})["image"]
    dims = len(shape)
    steps = resampled.affine[:dims, :dims].norm(dim=0)
    # a whole number of voxels fills the same extent, and one voxel more or less would be no nearer
    np.testing.assert_allclose(steps * torch.tensor(resampled.shape[1:]), np.array(shape) * spacing, rtol=1e-9)
    counts = np.array(shape) * spacing / np.broadcast_to(wanted, dims)
    assert (abs(np.array(resampled.shape[1:]) - counts) <= 0.5).all()
    old, new = affine.numpy(), resampled.affine.numpy()
    world = points @ old[:dims, :dims].T + old[:dims, 3]
    index = np.linalg.solve(new[:dims, :dims], (world - new[:dims, 3]).T).T
    np.testing.assert_allclose(centroids(resampled), index, atol=0.05)
    assert resampled.applied_operations == []


def test_the_same_spacing_changes_nothing():
    image = MetaTensor(torch.rand(1, 8, 9, 10), affine=torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0])))
    for spacing in (None, 0.5):
        kept = ResampleToSpacing(spacing)(image)
        assert torch.equal(kept.as_tensor(), image.as_tensor()) and torch.equal(kept.affine, image.affine)


def test_fine_texture_is_smoothed_before_it_is_skipped():
    """Every third line of pixels is bright. Only every fourth is sampled, so that without smoothing they make new stripes."""
    image = MetaTensor((torch.arange(64) % 3 == 0).double()[None, :, None].expand(1, 64, 64).clone())
    middle = ResampleToSpacing(4.0)(image)[0, 2:-2].as_tensor()
    assert middle.std() < 0.02 and abs(middle.mean() - 1 / 3) < 0.02


def test_wrong_spacings_are_refused():
    with pytest.raises(ValueError, match="positive"):
        ResampleToSpacing((1.0, 0.0))
    with pytest.raises(ValueError, match="3 values, but the image has 2 axes"):
        ResampleToSpacing((1.0, 1.0, 1.0))(torch.zeros(1, 4, 4))
