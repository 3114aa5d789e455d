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


"""Several peaks of one map: all that were put there are found, and nothing else."""

from __future__ import annotations

import itertools

import pytest
import torch

from monai_landmarks.heatmaps import decode_heatmaps, find_peaks, gaussian_heatmaps

SIZE = {2: (60, 50), 3: (40, 36, 44)}
PLACES = {2: [[10.3, 12.6], [30.0, 8.2], [47.9, 40.4]], 3: [[10.3, 12.6, 30.1], [28.0, 8.2, 11.0], [31.9, 27.4, 33.8]]}
HEIGHTS = [0.5, 1.0, 0.8]


def mixed(dims, device, dtype=torch.float32):
    """One map with three peaks, and one that is empty."""
    points = torch.tensor(PLACES[dims], device=device)
    maps = gaussian_heatmaps(points, SIZE[dims], sigma=1.8)
    map_ = (maps * torch.tensor(HEIGHTS, device=device).view(3, *[1] * dims)).sum(0)
    return torch.stack([map_, torch.zeros_like(map_)]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("dims", [2, 3])
def test_finds_what_is_there_highest_first(dims, dtype, device):
    found = find_peaks(mixed(dims, device, dtype), dims, num_peaks=4, threshold=0.1)
    expected = torch.tensor(PLACES[dims], device=device)[[1, 2, 0]]
    assert found.points.shape == (2, 4, dims) and found.covariances.shape == (2, 4, dims, dims)
    assert float((found.points[0, :3] - expected).abs().max()) < (0.05 if dtype == torch.float16 else 0.01)
    assert torch.all(found.scores[0, :3].diff() < 0)
    sigma = found.covariances[0, :3].diagonal(dim1=-2, dim2=-1).sqrt()
    assert torch.allclose(sigma, torch.full_like(sigma, 1.8), atol=0.05)
    for result in found:
        assert result[0, 3:].isnan().all() and result[1].isnan().all()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_first_peak_is_the_decoded_one(dims, device):
    torch.manual_seed(0)
    maps = torch.rand(2, 3, *SIZE[dims], device=device)
    found, decoded = find_peaks(maps, dims, num_peaks=2), decode_heatmaps(maps, dims)
    for several, one in zip(found, decoded):
        assert torch.equal(several.select(2, 0), one)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.5, 5.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_suppression_is_that_of_a_loop_over_all_voxels(dims, distance, device):
    """A plain program: sort all voxels, take each that is not within the distance of one that was taken."""
    torch.manual_seed(1)
    heatmap = torch.rand((9,) * dims, device=device)
    order = sorted(itertools.product(range(9), repeat=dims), key=lambda place: -float(heatmap[place]))
    kept: list[tuple[int, ...]] = []
    for place in order:
        if all(sum((a - b) ** 2 for a, b in zip(place, other)) > max(distance, dims**0.5) ** 2 for other in kept):
            kept.append(place)
    # what is on the slope of a higher voxel is a peak for the loop only
    slope = {place for place in kept if any(heatmap[n] > heatmap[place] for n in neighbors(place, distance, dims))}
    expected = [place for place in kept if place not in slope][:4]
    found = find_peaks(heatmap[None], dims, num_peaks=4, min_distance=distance, method="argmax")
    assert [tuple(int(x) for x in p) for p in found.points[0] if not p.isnan().any()] == expected


def neighbors(place, distance, dims):
    reach = max(1, int(distance / dims**0.5))
    box = itertools.product(*[range(max(0, x - reach), min(9, x + reach + 1)) for x in place])
    return [other for other in box if other != place]


def test_thresholds(device):
    maps = mixed(2, device)[:1]
    assert int((~find_peaks(maps, 2, threshold=0.6).scores.isnan()).sum()) == 2
    assert int((~find_peaks(maps, 2, min_factor=0.6).scores.isnan()).sum()) == 2
    assert find_peaks(maps, 2, threshold=1.0).points.isnan().all()


def test_peaks_below_zero(device):
    """As in a network that returns logits."""
    maps = torch.full((40, 40), -5.0, device=device)
    maps[10, 10], maps[30, 30], maps[10, 30] = -1.0, -2.0, -3.0
    for factor in (0.0, 0.5):
        scores = find_peaks(maps[None], 2, 4, 5.0, threshold=-2.5, min_factor=factor).scores[0]
        assert scores[:2].tolist() == [-1, -2] and scores[2:].isnan().all()


def test_plateaus_and_nan(device):
    flat = torch.ones(1, 20, 20, device=device)
    found = find_peaks(flat, 2, num_peaks=3, min_distance=6.0, method="argmax").points[0]
    assert float(torch.pdist(found[~found.isnan().any(-1)]).min()) > 6
    assert find_peaks(flat * float("nan"), 2).points.isnan().all()
    assert find_peaks(flat[:0], 2).points.shape == (0, 5, 2)


@pytest.mark.parametrize(
    "arguments", [{"num_peaks": 0}, {"min_distance": -1.0}, {"method": "mean"}, {"radius": 0}, {"spatial_dims": 3}]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        find_peaks(torch.zeros(1, 8, 8), **{"spatial_dims": 2, **arguments})


@pytest.mark.parametrize("dims", [2, 3])
def test_a_saturated_peak_does_not_hide_another_one(dims, device):
    """All voxels of its flat top are equal, and they are more than the candidates that are kept."""
    points = torch.tensor([[12.0] * dims, [34.0] * dims], device=device)
    wide, narrow = gaussian_heatmaps(points, (48,) * dims, sigma=4.0)
    maps = torch.maximum(torch.sigmoid(60 * (wide - 0.4)), 0.95 * narrow)[None]
    assert int((maps == 1).sum()) > 2 * 16
    found = find_peaks(maps, dims, num_peaks=2, min_distance=12.0)
    torch.testing.assert_close(found.scores[0].cpu(), torch.tensor([1.0, 0.95]))
    torch.testing.assert_close(found.points[0], points, atol=0.3, rtol=0)
