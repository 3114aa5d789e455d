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


"""Several peaks per heatmap: candidates for a landmark that may be at more than one place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .decode import (
    DecodedLandmarks,
    DecodingMethod,
    cut_neighborhoods,
    decode_neighborhoods,
    neighborhood_radius,
    require_decoding_method,
)

__all__ = ["find_peaks", "local_maxima", "peak_reach", "suppress_peaks"]

# Local maxima per peak that go into the suppression. A sphere of the suppression can hold several local maxima, since
# the box in which one of them is the highest is smaller, and the flat top of a saturated peak has one per block.
_LOCAL_MAXIMA = 27


def peak_reach(min_distance: float, spatial_dims: int) -> int:
    """Return the reach of local maxima for peaks that are ``min_distance`` apart.

    It is half the edge of the largest box in a sphere of that radius. No peak is lost: a voxel that is the highest in
    the sphere is the highest in the box. The few other local maxima are removed by :func:`suppress_peaks`.

    Args:
        min_distance: radius of the sphere in voxels.
        spatial_dims: D, 2 or 3.

    Returns:
        The reach for :func:`local_maxima`, at least one voxel.
    """
    return max(1, int(min_distance / math.sqrt(spatial_dims)))


def local_maxima(
    heatmap: torch.Tensor, reach: int, num_peaks: int, inside: tuple[slice, ...] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the highest local maxima of a heatmap.

    A local maximum is a voxel that no other voxel exceeds in the box of ``2 * reach + 1`` voxels per axis around it. Of
    equal ones, as on a saturated peak, one per block of ``reach + 1`` voxels per axis counts.

    Args:
        heatmap: (*spatial).
        reach: in voxels.
        num_peaks: number of peaks that are wanted in the end. The function returns several times as many local maxima,
            for :func:`suppress_peaks` to choose from.
        inside: part of the heatmap in which local maxima count. Default: the whole heatmap.

    Returns:
        Values (M,) in descending order, -inf where there are fewer than M local maxima, and index coordinates (M, D).
    """
    pool = F.max_pool2d if heatmap.ndim == 2 else F.max_pool3d
    highest = heatmap[None, None]
    # the maximum over a box is separable, and cheaper as one pass per axis
    for axis in range(heatmap.ndim):
        size = [1] * heatmap.ndim
        size[axis] = 2 * reach + 1
        highest = pool(highest, size, stride=1, padding=[n // 2 for n in size])
    inside = inside or (slice(None),) * heatmap.ndim
    part = torch.where(heatmap == highest[0, 0], heatmap, -torch.inf)[inside]
    # two local maxima in a block are equal, and the suppression would remove one of them
    blocks, places = pool(part[None, None], reach + 1, ceil_mode=True, return_indices=True)
    values, order = blocks.flatten().topk(min(_LOCAL_MAXIMA * num_peaks, blocks.numel()))
    index = places.flatten()[order]
    corner = index.new_tensor([axis.start or 0 for axis in inside])
    return values, torch.stack(torch.unravel_index(index, part.shape), dim=-1) + corner


def suppress_peaks(
    values: torch.Tensor, places: torch.Tensor, distance: float, num: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Suppress every candidate that has a higher one nearby.

    The highest candidate is taken, all others within ``distance`` of it are removed, and this is repeated.

    Args:
        values: (M, C) values of C candidates in each of M maps, -inf for no candidate.
        places: (M, C, D) index coordinates.
        distance: in voxels.
        num: number of candidates to take.

    Returns:
        Values (M, num) and numbers (M, num) of the candidates taken. The value is -inf where no candidate was left.
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
    method: DecodingMethod = "gaussian",
    radius: int | None = None,
    iterations: int = 6,
) -> DecodedLandmarks:
    """Find the highest peaks of every map to a fraction of a voxel, by non-maximum suppression.

    A peak is a local maximum. The highest peak is taken, all others within ``min_distance`` of it are removed, and this
    is repeated. Maps are worked on one after the other, so that the memory needed beside the heatmaps is that of a few
    maps.

    Args:
        heatmaps: (..., N, *spatial), any floating-point type and device.
        spatial_dims: D, 2 or 3.
        num_peaks: K, number of peaks per map.
        min_distance: radius of the sphere in which only the highest peak counts, in voxels.
        threshold: a peak that is not above it does not count.
        min_factor: a peak below this share of the highest peak of its map does not count.
        method: refinement of each peak, see :func:`decode_heatmaps`.
        radius: of the neighborhood that the refinement uses, in voxels. Default: 8 in 2-D and 6 in 3-D.
        iterations: largest number of iterations of the Gaussian fit.

    Returns:
        :class:`DecodedLandmarks` with points (..., N, K, D), scores (..., N, K) and covariances (..., N, K, D, D), the
        highest peak first, all NaN where a map has fewer than K peaks.

    Raises:
        ValueError: for a wrong number of axes, an unknown method, fewer than one peak, a negative distance or a
            radius below 1.

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
    require_decoding_method(method)
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
    highest = values[:, :1]
    share = torch.where(highest > 0, min_factor * highest, -torch.inf)  # there is no share of a negative peak
    values = torch.where((values > threshold) & (values >= share), values, -torch.inf)
    scores, index = suppress_peaks(values, places, min_distance, num_peaks)
    center = places.gather(1, index[..., None].expand(*index.shape, spatial_dims)).flatten(0, 1)
    scores = scores.flatten()
    owner = torch.arange(len(maps), device=maps.device).repeat_interleave(num_peaks)
    window = cut_neighborhoods(maps, center, radius, owner)
    # where there is no peak, point and score are NaN
    scores = torch.where(scores.isfinite(), scores, torch.nan)
    decoded = decode_neighborhoods(window, center, scores, method, None, radius, iterations)
    return DecodedLandmarks(*(result.reshape(*lead, num_peaks, *result.shape[1:]) for result in decoded))
