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

"""Decoding of Gaussians whose center and covariance are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from monai_landmarks.heatmaps import cut_neighborhoods, decode_heatmaps, find_maxima, gaussian_heatmaps


def random_points(count, size, dims, margin, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, dims, generator=generator, dtype=torch.float64) * (size - 1 - 2 * margin) + margin


def near_border(count, size, dims, seed=0):
    """Points between 0.6 and 3.4 voxels from a random face."""
    generator = torch.Generator().manual_seed(seed)
    points = random_points(count, size, dims, 20, seed)
    axis = torch.randint(dims, (count,), generator=generator)
    depth = 0.6 + 2.8 * torch.rand(count, generator=generator, dtype=torch.float64)
    far = torch.rand(count, generator=generator) < 0.5
    points[torch.arange(count), axis] = torch.where(far, size - 1 - depth, depth)
    return points


# the marks: number, size, then the mean error allowed clean, at 1 % noise, at 5 % noise, near the border
MARKS = [(2, 200, 256, 0.002, 0.012, 0.06, 0.01), (3, 60, 64, 0.002, 0.008, 0.04, 0.01)]


@pytest.mark.parametrize("dims,count,size,clean,noise1,noise5,border", MARKS)
def test_error_of_the_default_decoder(dims, count, size, clean, noise1, noise5, border, device):
    torch.manual_seed(0)
    points = random_points(count, size, dims, margin=10)
    maps = gaussian_heatmaps(points.to(device), (size,) * dims, sigma=3.0)

    def error(heatmaps, truth):
        return float((decode_heatmaps(heatmaps, dims).points.cpu() - truth).norm(dim=-1).mean())

    assert error(maps, points) <= clean
    assert error(maps + 0.01 * torch.randn_like(maps), points) <= noise1
    assert error(maps + 0.05 * torch.randn_like(maps), points) <= noise5
    edge = near_border(count, size, dims)
    assert error(gaussian_heatmaps(edge.to(device), (size,) * dims, sigma=3.0), edge) <= border


@pytest.mark.parametrize("dims,size", [(2, 96), (3, 48)])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 5.0, 8.0])
def test_holds_for_other_widths(dims, size, sigma):
    points = random_points(20, size, dims, margin=15)
    found = decode_heatmaps(gaussian_heatmaps(points, (size,) * dims, sigma), dims).points
    assert (found - points).abs().max() < 1e-3


@pytest.mark.parametrize("dims,size", [(2, 96), (3, 40)])
def test_covariance_and_score(dims, size):
    sigma = torch.tensor([2.0, 3.0, 1.5][:dims])
    points = random_points(10, size, dims, margin=12)
    decoded = decode_heatmaps(gaussian_heatmaps(points, (size,) * dims, sigma[None], amplitude=7.0), dims)
    assert torch.allclose(decoded.covariances, torch.diag(sigma**2).expand(10, dims, dims), atol=1e-2)
    # the nearest voxel is at most half a voxel away on each axis
    assert (decoded.scores <= 7).all() and (decoded.scores > 7 * torch.exp(-(0.125 / sigma**2).sum())).all()


def test_rotated_covariance():
    angle = torch.tensor(0.5)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    covariance = rotation @ torch.diag(torch.tensor([9.0, 2.25])) @ rotation.T
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"), -1)
    offset = grid - torch.tensor([30.3, 33.6])
    heatmap = torch.exp(-0.5 * torch.einsum("xyi,ij,xyj->xy", offset, torch.linalg.inv(covariance), offset))
    decoded = decode_heatmaps(heatmap[None], 2)
    assert torch.allclose(decoded.covariances[0], covariance, atol=1e-2)
    assert torch.allclose(decoded.points[0], torch.tensor([30.3, 33.6]), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [2, 3])
def test_dtypes(dims, dtype, device):
    points = random_points(5, 32, dims, margin=8)
    maps = gaussian_heatmaps(points.to(device), (32,) * dims, sigma=2.0, dtype=torch.float32).to(dtype)
    decoded = decode_heatmaps(maps, dims)
    assert decoded.points.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # a bfloat16 has three decimal digits at best
    assert (decoded.points.cpu() - points).abs().max() < (0.02 if dtype == torch.bfloat16 else 2e-3)


def test_maps_of_whole_numbers():
    maps = (100 * gaussian_heatmaps(torch.tensor([[10.3, 20.6]]), (32, 40), sigma=3.0)).to(torch.uint8)
    expected = decode_heatmaps(maps.float(), 2)
    for found, wanted in zip(decode_heatmaps(maps, 2), expected):
        assert torch.equal(found, wanted)
    assert (expected.points - torch.tensor([[10.3, 20.6]])).abs().max() < 0.05


@pytest.mark.parametrize("method,limit", [("gaussian", 1e-3), ("centroid", 0.05), ("argmax", 0.5)])
@pytest.mark.parametrize("dims", [2, 3])
def test_methods(dims, method, limit):
    points = random_points(40, 40, dims, margin=14)
    found = decode_heatmaps(gaussian_heatmaps(points, (40,) * dims, sigma=3.0), dims, method).points
    # argmax is a whole voxel, so at most half a voxel off on each axis, and it is that far off for random points
    assert (found - points).abs().max() <= limit + 1e-6
    if method == "argmax":
        assert (found == found.round()).all()


@pytest.mark.parametrize("method", ["gaussian", "centroid", "argmax"])
@pytest.mark.parametrize("dims", [2, 3])
def test_missing_stays_missing(dims, method):
    points = random_points(4, 32, dims, margin=8)
    points[2] = float("nan")
    decoded = decode_heatmaps(gaussian_heatmaps(points, (32,) * dims, sigma=2.0), dims, method)
    absent = decoded.points.isnan().any(dim=-1)
    assert absent.tolist() == [False, False, True, False]
    assert decoded.scores[2] == 0 and decoded.covariances[2].isnan().all()


def test_threshold():
    maps = gaussian_heatmaps(torch.tensor([[16.0, 16.0], [8.0, 8.0]]), (32, 32), sigma=2.0)
    maps[1] *= 0.2
    assert decode_heatmaps(maps, 2, threshold=0.5).points.isnan().any(dim=-1).tolist() == [False, True]
    assert not decode_heatmaps(maps - 2, 2, threshold=None).points.isnan().any()


def test_nan_in_a_map_is_not_hidden():
    maps = gaussian_heatmaps(torch.tensor([[16.0, 16.0], [8.0, 8.0]]), (32, 32), sigma=2.0)
    maps[0, 3, 3] = float("nan")
    points = decode_heatmaps(maps, 2).points
    assert points[0].isnan().all() and torch.allclose(points[1], torch.tensor([8.0, 8.0]), atol=1e-3)


def test_another_peak_and_background_do_not_draw_the_point_away():
    truth = torch.tensor([[40.3, 50.8]])
    second = gaussian_heatmaps(torch.tensor([[55.0, 50.0]]), (96, 96), sigma=3.0, amplitude=0.8)
    maps = gaussian_heatmaps(truth, (96, 96), sigma=3.0) + second
    assert (decode_heatmaps(maps, 2).points - truth).abs().max() < 0.05


@pytest.mark.parametrize("dims", [2, 3])
def test_batch_axes_and_memory_layout(dims):
    points = random_points(12, 32, dims, margin=8)
    maps = gaussian_heatmaps(points, (32,) * dims, sigma=2.0).reshape(3, 4, *(32,) * dims)
    decoded = decode_heatmaps(maps, dims)
    assert decoded.points.shape == (3, 4, dims) and decoded.covariances.shape == (3, 4, dims, dims)
    last = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert torch.allclose(decode_heatmaps(maps.to(memory_format=last), dims).points, decoded.points)
    assert torch.allclose(decoded.points.reshape(12, dims), points.float(), atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 8, 9), (2, 3, 40), (1, 5, 4, 6)])
def test_maps_smaller_than_the_window(shape):
    dims = len(shape) - 1
    points = torch.tensor([[1.4, 2.3, 2.0][:dims]]).expand(shape[0], dims)
    found = decode_heatmaps(gaussian_heatmaps(points, shape[1:], sigma=1.0), dims).points
    assert (found - points).abs().max() < 1e-3


@pytest.mark.parametrize("point", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_two_voxels_determine_no_parabola(point, noise):
    """The curvature along their axis is that of the others, so the point of an isotropic peak is exact."""
    for place, size in (((10.3, 15.2, point), (24, 30, 2)), ((point, 20.3), (2, 40))):
        maps = gaussian_heatmaps(torch.tensor([place]), size, sigma=2.0)
        maps += noise * torch.randn(maps.shape, generator=torch.Generator().manual_seed(0))
        found = decode_heatmaps(maps, len(size))
        error = (found.points[0] - torch.tensor(place)).abs()
        assert error.max() < (0.25 if noise else 1e-3)
        variances = found.covariances[0].diagonal()
        torch.testing.assert_close(variances, torch.full_like(variances, 4.0), rtol=0.2 if noise else 1e-3, atol=0)


@pytest.mark.parametrize(
    "arguments",
    [{"spatial_dims": 4}, {"spatial_dims": 3}, {"method": "soft"}, {"radius": 0}, {"heatmaps": torch.zeros(1, 0, 8)}],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="shape|method|radius must be at least 1"):
        decode_heatmaps(**{"heatmaps": torch.zeros(1, 8, 8), "spatial_dims": 2, **arguments})


@pytest.mark.parametrize("shape", [(0, 8, 9), (2, 0, 8, 9), (0, 3, 8, 9)])
def test_no_maps_give_no_points(shape):
    decoded = decode_heatmaps(torch.zeros(shape), spatial_dims=2)
    assert decoded.points.shape == (*shape[:-2], 2)
    assert decoded.scores.shape == shape[:-2] and decoded.covariances.shape == (*shape[:-2], 2, 2)


def test_noise_at_a_peak_beyond_the_border() -> None:
    """The center is 3 voxels outside. Noise makes some fits narrow and very high, with a center much nearer than it is."""
    center, noise = torch.tensor([[-3.0, 17.3]]), torch.Generator().manual_seed(3)
    peak = gaussian_heatmaps(center, (40, 36), sigma=2.0)
    maps = peak / peak.max() + 0.02 * torch.randn(200, 40, 36, generator=noise)
    error = (decode_heatmaps(maps, spatial_dims=2).points - center).norm(dim=-1)
    assert error.mean() < 1


@pytest.mark.parametrize("center", [(20.0, 18.0), (0.0, 18.0), (0.0, 0.0)])
def test_the_fit_starts_with_the_width_of_the_peak(center: tuple[float, float]) -> None:
    """Also where half or three quarters of the peak are outside the image."""
    maps = gaussian_heatmaps(torch.tensor([center]), (40, 36), sigma=4.0)
    start = decode_heatmaps(maps, spatial_dims=2, iterations=0).covariances[0]
    assert start.diagonal().sqrt().tolist() == pytest.approx([4.0, 4.0], rel=0.15)


@pytest.mark.parametrize("shape", [(1, 7), (6, 5), (4, 5, 3)])
def test_maxima_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    """Many equal values: the first one counts. NaN counts as the highest. Also for other orders of the axes in memory."""
    values = np.random.RandomState(0).randint(0, 4, (20, *shape)).astype(np.float32)
    values[3].flat[-2] = values[4].flat[2] = np.nan
    expected = [np.unravel_index(one.argmax(), shape) for one in values]
    for maps in (torch.from_numpy(values), torch.from_numpy(values.T.copy().T)):
        index, found = find_maxima(maps)
        assert index.tolist() == [[int(i) for i in one] for one in expected]
        np.testing.assert_array_equal(found, [one[place] for one, place in zip(values, expected)])


@pytest.mark.parametrize("dims", [2, 3])
def test_neighborhoods_are_cuts_of_the_map_with_zeros_around_it(dims: int) -> None:
    maps = torch.rand(2, *(7, 4, 5)[:dims])
    centers = torch.tensor([[0, 3, 2], [6, 0, 4], [3, 2, 0]])[:, :dims]
    window = cut_neighborhoods(maps, centers, 2, torch.tensor([1, 0, 1]))
    padded = torch.nn.functional.pad(maps, [2] * 2 * dims)
    for values, center, owner in zip(window.values, centers.tolist(), (1, 0, 1)):
        part = padded[(owner, *[slice(c, c + 5) for c in center])]
        assert torch.equal(values, part.flatten().to(values))
        assert torch.equal(
            window.inside[0].reshape(part.shape).sum(), (padded[(1, *[slice(c, c + 5) for c in centers[0]])] > 0).sum()
        )


@pytest.mark.parametrize("dims, radius", [(2, 5), (3, 4)])
def test_the_fit_is_the_least_squares_fit_of_scipy(dims: int, radius: int) -> None:
    """Peaks with different widths and directions, noise of 3 %, and one peak at the border."""
    generator = torch.Generator().manual_seed(0)
    size = 24
    points = random_points(4, size, dims, margin=8)
    points[0, 0] = 0.7
    axes = torch.stack(torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * dims, indexing="ij"), dim=-1)
    root = torch.eye(dims) * 0.5 + 0.1 * torch.randn(4, dims, dims, generator=generator)
    maps = torch.exp(
        -0.5
        * torch.einsum("n...d,nde->n...e", axes - points.view(4, *[1] * dims, dims), root.double()).square().sum(-1)
    )
    maps = maps + 0.03 * torch.randn(maps.shape, generator=generator)
    decoded = decode_heatmaps(maps, dims, radius=radius, iterations=30)
    rows, cols = np.tril_indices(dims)
    for heatmap, point, covariance in zip(maps.numpy(), decoded.points, decoded.covariances.numpy()):
        center = np.array(np.unravel_index(heatmap.argmax(), heatmap.shape))
        box = tuple(slice(max(c - radius, 0), c + radius + 1) for c in center)
        where, values = axes[box].reshape(-1, dims).numpy(), heatmap[box].ravel()

        def difference(p: np.ndarray, where: np.ndarray = where, values: np.ndarray = values) -> np.ndarray:
            lower = np.zeros((dims, dims))
            lower[rows, cols] = p[1 + dims :]
            return p[0] * np.exp(-0.5 * ((where - p[1 : 1 + dims]) @ lower) ** 2 @ np.ones(dims)) - values

        fit = least_squares(difference, [1.0, *center, *(0.5 * np.eye(dims))[rows, cols]], xtol=1e-12, ftol=1e-12)
        lower = np.zeros((dims, dims))
        lower[rows, cols] = fit.x[1 + dims :]
        np.testing.assert_allclose(point, fit.x[1 : 1 + dims], atol=1e-3)
        np.testing.assert_allclose(covariance, np.linalg.inv(lower @ lower.T), atol=1e-2)
