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

"""Chains found by an inferer, against choosing from its heatmaps."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.inferers import ChainLandmarkInferer
from monai_landmarks.transforms import HeatmapToChainLandmarks


class Maps(torch.nn.Module):
    """Returns the same maps for every image, and mirrored ones for an image whose first pixel is 0."""

    def __init__(self, maps, mirrored):
        super().__init__()
        self.maps, self.mirrored = maps, mirrored

    def forward(self, x):
        return torch.stack([self.mirrored if image.flatten()[0] == 0 else self.maps for image in x])


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_jump_is_mended(dims, softmax):
    shape, points = (48, 20, 16)[:dims], torch.full((4, dims), 8.0)
    points[:, 0] = torch.tensor([6.0, 17.0, 28.5, 40.0])
    maps = gaussian_heatmaps(points, shape, sigma=1.5)
    jumped = maps.clone()
    jumped[2] = 0.5 * maps[2] + 0.8 * maps[3]
    # the softmax of a logarithm is the map, divided by its sum
    shown = (jumped + 1e-6).log() if softmax else jumped
    step = torch.zeros(3, dims)
    step[:, 0] = 11.0
    chain = HeatmapToChainLandmarks([range(4)], choose_by="evidence", offsets=[step], min_distance=4.0)
    inputs = torch.ones(2, 1, *shape)
    found = ChainLandmarkInferer(chain, softmax=softmax)(inputs, Maps(shown, shown))
    torch.testing.assert_close(found["points"], points.expand(2, -1, -1), atol=0.1, rtol=0)
    assert found["scores"].shape == (2, 4) and found["covariances"].shape == (2, 4, dims, dims)


def test_maps_of_another_size_are_refused():
    chain = HeatmapToChainLandmarks([range(2)], direction=(1.0, 0.0))
    with pytest.raises(ValueError, match="returned heatmaps of size"):
        ChainLandmarkInferer(chain)(torch.ones(1, 2, 24, 24), torch.nn.AvgPool2d(2))


def test_mirrored_maps_are_averaged():
    points = torch.tensor([[8.0, 6.0], [10.0, 17.0]])
    maps, nothing = gaussian_heatmaps(points, (24, 24), sigma=1.5), torch.zeros(2, 24, 24)
    chain = HeatmapToChainLandmarks([range(2)], choose_by="evidence", offsets=[[[0.0, 11.0]]], min_distance=4.0)
    inputs = torch.ones(1, 1, 24, 24)
    inputs[..., -1, 0] = 0  # so that the mirrored image begins with 0
    # the image itself shows nothing; its mirror image shows the landmarks in exchanged rows
    found = ChainLandmarkInferer(chain, mirror=[1, 0])(inputs, Maps(nothing, maps.flip(1)[[1, 0]]))
    torch.testing.assert_close(found["points"][0], points, atol=0.05, rtol=0)
    torch.testing.assert_close(found["scores"][0], torch.full((2,), 0.5), atol=0.01, rtol=0)
