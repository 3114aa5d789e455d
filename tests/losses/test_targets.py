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

"""Targets made from points."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses import GaussianTarget, ensure_batch_points


@pytest.mark.parametrize("dims", [2, 3])
def test_is_the_heatmap_of_the_points(dims, device):
    points = torch.rand(2, 3, dims, device=device) * 12
    target = GaussianTarget(sigma=2.0, normalize="mass", amplitude=50.0).to(device)
    expected = gaussian_heatmaps(points, (16,) * dims, 2.0, "mass", 50.0)
    assert torch.equal(target(points, (16,) * dims), expected)


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 1, 3, 2)])
@pytest.mark.parametrize("meta", [False, True])
def test_accepts_what_a_loader_gives(shape, meta):
    points = torch.rand(shape)
    rows = ensure_batch_points(MetaTensor(points) if meta else points, torch.zeros(2, 3, 8, 8))
    assert type(rows) is torch.Tensor and rows.shape == (2, 3, 2)
    assert torch.equal(rows, points.reshape(2, 3, 2))


@pytest.mark.parametrize("shape", [(2, 4, 2), (1, 3, 2), (2, 3, 3), (2, 2, 3, 2)])
def test_points_of_other_heatmaps_are_refused(shape):
    with pytest.raises(ValueError, match="do not match"):
        ensure_batch_points(torch.rand(shape), torch.zeros(2, 3, 8, 8))


def test_sigma_is_bounded_below_and_can_grow_again():
    target = GaussianTarget(sigma=[[0.1], [3.0]], learnable=True, min_sigma=0.5)
    assert target.sigma.flatten().tolist() == pytest.approx([0.5, 3.0])
    target.sigma.sum().backward()
    assert target.raw_sigma.grad.flatten().tolist() == [1.0, 1.0]
    frozen = target.requires_grad_(False).sigma
    assert frozen.flatten().tolist() == pytest.approx([0.5, 3.0])


@pytest.mark.parametrize("learnable", [False, True])
def test_sigma_travels_in_the_state(learnable):
    target = GaussianTarget(sigma=[[1.0], [2.0]], learnable=learnable)
    other = GaussianTarget(sigma=[[5.0], [5.0]], learnable=learnable)
    other.load_state_dict(target.state_dict())
    assert torch.equal(other.sigma, target.sigma)
    assert len(list(target.parameters())) == int(learnable)


@pytest.mark.parametrize("arguments", [{"sigma": 0.0}, {"sigma": [1.0, -1.0]}, {"amplitude": 0.0}])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        GaussianTarget(**arguments)
