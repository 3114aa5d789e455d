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

"""Gaussian heatmaps against the formula, written out densely."""

from __future__ import annotations

import math

import pytest
import torch

from monai_landmarks.heatmaps import expand_sigma, gaussian_heatmaps

SHAPES = [(40, 56), (20, 28, 24)]


def dense(points, shape, sigma, normalize="peak", amplitude=1.0):
    """The definition: one exponential of the full squared distance at every voxel, in float64."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(s, dtype=torch.float64) for s in shape], indexing="ij"), dim=-1)
    maps = []
    for point, width in zip(points.double(), sigma.double()):
        maps.append(amplitude * torch.exp(-0.5 * (((grid - point) / width) ** 2).sum(dim=-1)))
        if normalize == "mass":
            maps[-1] /= (2 * math.pi) ** (len(shape) / 2) * width.prod()
    return torch.stack(maps)


@pytest.mark.parametrize("normalize", ["peak", "mass"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition(shape, dtype, normalize, device):
    torch.manual_seed(0)
    points = torch.rand(6, len(shape), device=device) * torch.tensor(shape, device=device)
    sigma = 1 + 2 * torch.rand(6, len(shape))
    maps = gaussian_heatmaps(points, shape, sigma, normalize, amplitude=5.0, dtype=dtype)
    assert maps.dtype == dtype and maps.device.type == torch.device(device).type
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-11, torch.float16: 5e-3}[dtype]
    expected = dense(points.cpu(), shape, sigma, normalize, amplitude=5.0)
    assert (maps.cpu().double() - expected).abs().max() < tolerance * 5


@pytest.mark.parametrize("shape", SHAPES)
def test_center_is_not_rounded(shape):
    # the center of mass of a well-contained Gaussian is its center
    center = torch.tensor([[s / 2 + 0.37 - 0.2 * d for d, s in enumerate(shape)]])
    maps = gaussian_heatmaps(center, shape, sigma=1.5, dtype=torch.float64)[0]
    for axis, size in enumerate(shape):
        profile = maps.sum(dim=[a for a in range(len(shape)) if a != axis])
        found = (profile * torch.arange(size)).sum() / profile.sum()
        assert abs(found - center[0, axis]) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
def test_mass_is_the_amplitude(shape):
    center = torch.tensor([[s / 2 for s in shape]])
    maps = gaussian_heatmaps(center, shape, sigma=2.0, normalize="mass", amplitude=100.0)
    assert maps.sum() == pytest.approx(100.0, rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_missing_points_give_zero_maps_and_leave_the_others(shape):
    points = torch.full((3, len(shape)), 10.0)
    points[1, -1] = float("nan")
    maps = gaussian_heatmaps(points, shape, sigma=2.0)
    assert maps[1].abs().max() == 0
    assert maps[0].max() == maps[2].max() == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_batches_are_independent(shape):
    torch.manual_seed(1)
    points = torch.rand(2, 3, 4, len(shape)) * 15
    maps = gaussian_heatmaps(points, shape, sigma=2.0)
    assert maps.shape == (2, 3, 4, *shape)
    assert torch.equal(maps[1, 2], gaussian_heatmaps(points[1, 2], shape, sigma=2.0))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_denormal_numbers(shape):
    maps = gaussian_heatmaps(torch.full((1, len(shape)), 3.0), shape, sigma=1.0)
    nonzero = maps[maps != 0]
    assert nonzero.min() >= torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("normalize", ["peak", "mass"])
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_of_sigma_and_points(dims, normalize):
    torch.manual_seed(0)
    points = (torch.rand(3, dims, dtype=torch.float64) * 4 + 2).requires_grad_()
    sigma = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64, requires_grad=True)

    def maps(p, s):
        return gaussian_heatmaps(p, (8,) * dims, s[:, None], normalize, 3.0, dtype=torch.float64)

    assert torch.autograd.gradcheck(maps, (points, sigma))


@pytest.mark.parametrize(
    "sigma,expected",
    [
        (2.0, [[2.0, 2.0]] * 3),
        (2, [[2.0, 2.0]] * 3),
        ([2.0], [[2.0, 2.0]] * 3),
        ([1.0, 2.0, 3.0], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]),
        ([[1.0], [2.0], [3.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]),
        ((4.0, 5.0), [[4.0, 5.0]] * 3),
        ([[4.0, 5.0]], [[4.0, 5.0]] * 3),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
    ],
)
def test_forms_of_sigma(sigma, expected):
    assert expand_sigma(sigma, num_landmarks=3, spatial_dims=2).tolist() == expected


def test_sigma_that_could_mean_two_things_is_refused():
    with pytest.raises(ValueError, match="per landmark or one per axis"):
        expand_sigma([1.0, 2.0], num_landmarks=2, spatial_dims=2)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"points": torch.zeros(3, 4)}, "shape"),
        ({"spatial_shape": (4, 4, 4)}, "spatial_shape"),
        ({"sigma": -1.0}, "positive"),
        ({"sigma": [1.0, 2.0, 3.0, 4.0]}, "does not fit"),
        ({"normalize": "max"}, "normalize"),
    ],
)
def test_bad_arguments(arguments, message):
    good = {"points": torch.zeros(3, 2), "spatial_shape": (4, 4), "sigma": 1.0}
    with pytest.raises(ValueError, match=message):
        gaussian_heatmaps(**{**good, **arguments})
