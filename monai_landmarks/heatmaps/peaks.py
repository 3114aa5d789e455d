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


"""Several peaks of each map, where a landmark may be at more than one place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .decode import DecodedLandmarks, check_decoding, cut_neighborhoods, decode_neighborhoods, neighborhood_radius

__all__ = ["find_peaks", "local_maxima", "peak_reach", "suppress_peaks"]

# so many local maxima of a map, for each peak that is asked for, go into the suppression
_LOCAL_MAXIMA = 8


def peak_reach(min_distance: float, spatial_dims: int) -> int:
    """
    How far from a local maximum along each axis no voxel may exceed it, for peaks of a distance: as far as the box inside of
    the sphere goes, which leaves what the sphere leaves and little more.
    """
    return max(1, int(min_distance / math.sqrt(spatial_dims)))


def local_maxima(
    heatmap: torch.Tensor, reach: int, num_peaks: int, inside: tuple[slice, ...] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The highest voxels that no voxel within ``reach`` along the axes exceeds.

    Args:
        heatmap: (*spatial).
        reach: in voxels.
        num_peaks: that are looked for: a few times as many local maxima are given, from which to choose.
        inside: the part of the heatmap whose voxels count. Default: all.

    Returns:
        values (M,), falling, -inf where there are fewer; index coordinates (M, D).
    """
    pool = F.max_pool2d if heatmap.ndim == 2 else F.max_pool3d
    highest = heatmap[None, None]
    # the maximum over a box is that along each axis in turn
    for axis in range(heatmap.ndim):
        size = [1] * heatmap.ndim
        size[axis] = 2 * reach + 1
        highest = pool(highest, size, stride=1, padding=[n // 2 for n in size])
    inside = inside or (slice(None),) * heatmap.ndim
    part = torch.where(heatmap == highest[0, 0], heatmap, -torch.inf)[inside]
    values, index = part.flatten().topk(min(_LOCAL_MAXIMA * num_peaks, part.numel()))
    corner = index.new_tensor([axis.start or 0 for axis in inside])
    return values, torch.stack(torch.unravel_index(index, part.shape), dim=-1) + corner


def suppress_peaks(
    values: torch.Tensor, places: torch.Tensor, distance: float, num: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Take the highest, drop all within a distance of it, and so on.

    Args:
        values: (M, C), -inf for none.
        places: (M, C, D).
        distance: in voxels.
        num: how many to take.

    Returns:
        values (M, num) of what was taken, and which it is, (M, num); where there was less to take, the value is -inf.
    """
    taken = []
    rows = torch.arange(len(values), device=values.device)
    for _ in range(num):
        best = values.argmax(dim=1)
        taken.append((values[rows, best], best))
        far = (places - places[rows, best][:, None]).to(values.dtype).square().sum(dim=-1) > distance**2
        values = torch.where(far, values, -torch.inf)
    found, index = zip(*taken)
    return torch.stack(found, dim=1), torch.stack(index, dim=1)


@torch.no_grad()
def find_peaks(
    heatmaps: torch.Tensor,
    spatial_dims: int,
    num_peaks: int = 5,
    min_distance: float = 7.0,
    threshold: float = 0.0,
    min_factor: float = 0.0,
    method: str = "gaussian",
    radius: int | None = None,
    iterations: int = 6,
) -> DecodedLandmarks:
    """
    Find the highest peaks of every map to a fraction of a voxel, by non-maximum suppression.

    A peak is a voxel that no other exceeds near it. The highest peak is taken, all within ``min_distance`` of it are dropped,
    and so on. All is done with max-pooling and a few sorted candidates; beside the heatmaps it takes the memory of a few
    maps, one landmark after the other.

    Args:
        heatmaps: (..., N, *spatial), any floating-point type and device.
        spatial_dims: D, 2 or 3.
        num_peaks: K, how many to look for in each map.
        min_distance: radius of the sphere, in voxels, in which only the highest peak counts.
        threshold: a peak that is not above it does not count.
        min_factor: a peak that is below this share of the highest of its map does not count.
        method: of the refinement of each peak, see :func:`decode_heatmaps`.
        radius: how far around a peak the refinement looks, in voxels. Default 8 in 2-D and 6 in 3-D.
        iterations: at most so many of the Gaussian fit.

    Returns:
        :class:`DecodedLandmarks` with points (..., N, K, D), scores (..., N, K) and covariances (..., N, K, D, D), the highest
        peak first; all NaN from where there are no more.

    Raises:
        ValueError: for a wrong number of axes, an unknown method, fewer than one peak or a negative distance.

    Example:
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[10.25, 8.0], [20.0, 30.5]]), (32, 48), sigma=2.0)
        >>> find_peaks(maps.sum(0, keepdim=True), spatial_dims=2, num_peaks=3).points.round(decimals=2)[0].tolist()
        [[10.25, 8.0], [20.0, 30.5], [nan, nan]]
    """
    if spatial_dims not in (2, 3) or heatmaps.ndim < spatial_dims + 1 or 0 in heatmaps.shape[-spatial_dims:]:
        raise ValueError(
            f"expected heatmaps of shape (..., N, *spatial) with 2 or 3 spatial axes, got {tuple(heatmaps.shape)} "
            f"and spatial_dims={spatial_dims}."
        )
    if num_peaks < 1 or min_distance < 0:
        raise ValueError(
            f"num_peaks must be at least 1 and min_distance not negative, got {num_peaks} and {min_distance}."
        )
    check_decoding(method)
    radius = neighborhood_radius(radius, spatial_dims)
    lead, spatial = heatmaps.shape[:-spatial_dims], heatmaps.shape[-spatial_dims:]
    maps = heatmaps.reshape(-1, *spatial)
    reach = peak_reach(min_distance, spatial_dims)
    dtype = torch.promote_types(maps.dtype, torch.float32)
    local = [local_maxima(heatmap.to(dtype), reach, num_peaks) for heatmap in maps]
    if not local:
        shape = (*lead, num_peaks, spatial_dims)
        empty = maps.new_zeros(shape, dtype=dtype)
        return DecodedLandmarks(empty, empty[..., 0], empty[..., None].expand(*shape, spatial_dims))
    values, places = (torch.stack(found) for found in zip(*local))
    lowest = (min_factor * values[:, :1]).clamp(min=threshold)
    values = torch.where((values > threshold) & (values >= lowest), values, -torch.inf)
    scores, index = suppress_peaks(values, places, min_distance, num_peaks)
    center = places.gather(1, index[..., None].expand(*index.shape, spatial_dims)).flatten(0, 1)
    scores = scores.flatten()
    owner = torch.arange(len(maps), device=maps.device).repeat_interleave(num_peaks)
    window = cut_neighborhoods(maps, center, radius, owner)
    # no peak: neither point nor score
    scores = torch.where(scores.isfinite(), scores, torch.nan)
    decoded = decode_neighborhoods(window, center, scores, method, None, radius, iterations)
    return DecodedLandmarks(*(result.reshape(*lead, num_peaks, *result.shape[1:]) for result in decoded))
