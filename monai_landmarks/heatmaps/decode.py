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
"""Sub-pixel points, scores and covariances from heatmaps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

__all__ = [
    "DecodedLandmarks",
    "Neighborhoods",
    "check_decoding",
    "cut_neighborhoods",
    "decode_heatmaps",
    "decode_neighborhoods",
    "find_maxima",
    "neighborhood_radius",
    "work_dtype",
]

_METHODS = ("gaussian", "centroid", "argmax")
# the fit ends when no center (voxels) and no covariance (square voxels) has changed by more than this
_CONVERGED = 1e-3


class DecodedLandmarks(NamedTuple):
    """
    What :func:`decode_heatmaps` finds.

    Attributes:
        points: (..., N, D) index coordinates, NaN where the landmark is absent.
        scores: (..., N) maximum of each map.
        covariances: (..., N, D, D) covariance of the peak in square voxels, NaN where the landmark is absent.
    """

    points: torch.Tensor
    scores: torch.Tensor
    covariances: torch.Tensor


class Neighborhoods(NamedTuple):
    """Square neighborhoods of maxima, one in each of M maps: everything that the refinements look at."""

    offsets: torch.Tensor  # (P, D) offset of each window cell from the window's center
    values: torch.Tensor  # (M, P), zero where the window leaves the map
    inside: torch.Tensor  # (M, P) bool


def find_maxima(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index (M, D) and value (M,) of the maximum of each of M maps."""
    # one pass of amax over the last axis, then an argmax over what is left: an argmax over everything is several
    # times slower on a CPU
    rows = maps.amax(dim=-1).flatten(1)
    row = rows.argmax(dim=1)
    index = list(torch.unravel_index(row, maps.shape[1:-1]))
    line = maps[(torch.arange(len(maps), device=maps.device), *index)]
    index.append(line.argmax(dim=1))
    return torch.stack(index, dim=-1), rows.gather(1, row[:, None])[:, 0]


def work_dtype(device: torch.device) -> torch.dtype:
    """In which the refinements compute. MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def neighborhood_radius(radius: int | None, spatial_dims: int) -> int:
    """How far around a maximum the refinements look, in voxels, where nothing is said: 8 in 2-D and 6 in 3-D."""
    return radius or (8 if spatial_dims == 2 else 6)


def check_decoding(method: str) -> str:
    """Return a method of refinement if it is one, else raise ValueError."""
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}, got {method!r}.")
    return method


def cut_neighborhoods(
    maps: torch.Tensor, center: torch.Tensor, radius: int, owner: torch.Tensor | None = None
) -> Neighborhoods:
    """
    The voxels within ``radius`` of some centers, along each axis.

    Args:
        maps: (M, *spatial).
        center: (P, D) whole index coordinates in the maps.
        radius: in voxels.
        owner: (P,) in which map each center lies; None: center p in map p.
    """
    dtype = work_dtype(maps.device)
    if owner is None:
        owner = torch.arange(len(maps), device=maps.device)
    size = torch.tensor(maps.shape[1:], device=maps.device)
    axis = torch.arange(-radius, radius + 1, device=maps.device)
    offsets = torch.stack(torch.meshgrid(*[axis] * len(size), indexing="ij"), dim=-1).flatten(0, -2)
    cells = center[:, None] + offsets
    inside = ((cells >= 0) & (cells < size)).all(dim=-1)
    cells = torch.minimum(cells.clamp(min=0), size - 1)
    values = maps[(owner[:, None].expand(cells.shape[:2]), *cells.unbind(-1))].to(dtype)
    return Neighborhoods(offsets.to(dtype), torch.where(inside, values, torch.zeros_like(values)), inside)


def _moments(window: Neighborhoods, peak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Offset and covariance of the part of the window above half of the peak; its height above that half is the weight."""
    weight = (window.values - 0.5 * peak[:, None]).clamp(min=0) * window.inside
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    offset = weight @ window.offsets
    deviation = window.offsets - offset[:, None]
    return offset, (deviation * weight[..., None]).transpose(1, 2) @ deviation


def _isotropic_width(window: Neighborhoods, peak: torch.Tensor) -> torch.Tensor:
    """
    Sigma (M,) of the Gaussian whose region above half of the peak has the volume that was counted in the window.

    That region is a ball of radius ``sigma * sqrt(2 ln 2)``. Cells outside the map are taken to be above in the same
    share as those inside.
    """
    dims = window.offsets.shape[1]
    above = ((window.values > 0.5 * peak[:, None]) & window.inside).sum(dim=1).to(peak.dtype)
    volume = above * (len(window.offsets) / window.inside.sum(dim=1))
    unit_ball = math.pi if dims == 2 else 4 * math.pi / 3
    return ((volume / unit_ball) ** (1 / dims) / math.sqrt(2 * math.log(2))).clamp(min=0.4)


def _quadratic_basis(offsets: torch.Tensor) -> torch.Tensor:
    """1, x_i, x_i x_j (i <= j) at each offset, (P, K)."""
    dims = offsets.shape[1]
    rows, cols = torch.triu_indices(dims, dims, device=offsets.device)
    return torch.cat([torch.ones_like(offsets[:, :1]), offsets, offsets[:, rows] * offsets[:, cols]], dim=1)


def _fit_gaussian(
    window: Neighborhoods, peak: torch.Tensor, radius: int, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""
    Least-squares fit of a Gaussian, offset (M, D) and covariance (M, D, D).

    The model is :math:`f = \exp(q(x))` with a quadratic polynomial q. One Gauss-Newton step on
    :math:`\sum (h - f)^2` is a linear least-squares problem for q with weights :math:`f^2` and the response
    :math:`q + (h - f) / f`: the iterated weighted fit to the log heatmap (Guo, IEEE Signal Processing Magazine 2011),
    but without a logarithm of the data, which noise may have made negative. Far from the peak the weight vanishes, so
    background and neighboring peaks count little.
    """
    dims = window.offsets.shape[1]
    # coordinates of about unit size keep the normal equations well conditioned
    basis = _quadratic_basis(window.offsets / radius)
    products = (basis[:, :, None] * basis[:, None, :]).flatten(1)
    num_terms = basis.shape[1]
    rows, cols = torch.triu_indices(dims, dims, device=basis.device)
    # of the symmetric matrix, a term x_i x_j with i < j holds both halves
    halves = torch.where(rows == cols, 0.5, 1.0).to(basis)
    inside = window.inside.to(basis)

    offset, _ = _moments(window, peak)
    covariance = torch.diag_embed((_isotropic_width(window, peak) ** 2)[:, None].expand(-1, dims))
    log_peak = peak.log()
    log_amplitude = log_peak
    best = (offset, covariance)
    best_residual = torch.full_like(peak, math.inf)
    low, high = 0.3**2, (4.0 * radius) ** 2
    moved = math.inf
    for step in range(iterations + 1):
        precision = torch.linalg.inv(covariance)
        slope = (precision @ offset[:, :, None])[:, :, 0]
        constant = log_amplitude - 0.5 * (slope * offset).sum(dim=1)
        q = torch.cat([constant[:, None], radius * slope, -(radius**2) * halves * precision[:, rows, cols]], dim=1)
        log_model = q @ basis.T
        model = log_model.exp() * inside
        error = window.values - model
        residual = error.square().sum(dim=1)
        better = residual < best_residual
        best_residual = torch.where(better, residual, best_residual)
        best = (torch.where(better[:, None], offset, best[0]), torch.where(better[:, None, None], covariance, best[1]))
        if step == iterations or moved < _CONVERGED:
            break
        # weight * response, written so that a vanishing model divides nothing
        weight = model.square()
        response = weight * log_model + model * error
        normal = (weight @ products).reshape(-1, num_terms, num_terms)
        damping = 1e-9 * normal.diagonal(dim1=1, dim2=2).amax(dim=1)
        normal = normal + torch.diag_embed(damping[:, None].expand(-1, num_terms))
        q = torch.nan_to_num(torch.linalg.solve(normal, response @ basis))
        # read center, covariance and amplitude off the polynomial
        curvature = torch.zeros_like(covariance)
        curvature[:, rows, cols] = -q[:, 1 + dims :] / radius**2
        eigenvalues, vectors = torch.linalg.eigh(curvature + curvature.transpose(1, 2))
        eigenvalues = eigenvalues.clamp(min=1 / high, max=1 / low)
        last, covariance = covariance, (vectors / eigenvalues[:, None, :]) @ vectors.transpose(1, 2)
        slope = q[:, 1 : 1 + dims] / radius
        previous, offset = offset, (covariance @ slope[:, :, None])[:, :, 0]
        log_amplitude = q[:, 0] + 0.5 * (slope * offset).sum(dim=1)
        log_amplitude = torch.minimum(torch.maximum(log_amplitude, log_peak - 1), log_peak + 1)
        offset = offset.clamp(min=-radius / 2, max=radius / 2)
        moved = float(torch.maximum((offset - previous).abs().max(), (covariance - last).abs().max()))
    return best


def decode_neighborhoods(
    window: Neighborhoods,
    center: torch.Tensor,
    scores: torch.Tensor,
    method: str = "gaussian",
    threshold: float | None = 0.0,
    radius: int = 6,
    iterations: int = 6,
) -> DecodedLandmarks:
    """
    Refine maxima to a fraction of a voxel.

    Args:
        window: what lies around M maxima, from :func:`cut_neighborhoods`.
        center: (M, D) index coordinates of the maxima.
        scores: (M,) values there.
        method: as for :func:`decode_heatmaps`, as all other arguments.
        threshold: a maximum that is not above it is NaN.
        radius: of the neighborhoods.
        iterations: at most so many of the Gaussian fit.

    Returns:
        :class:`DecodedLandmarks` of M points, float64 where the scores are, else float32.
    """
    work = window.values.dtype
    result_dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    peak = scores.to(work)
    present = peak.isfinite() if threshold is None else peak.isfinite() & (peak > threshold)
    # the refinements need a positive peak; a map without one keeps its maximum
    refinable = peak.isfinite() & (peak > 0)
    window = window._replace(values=torch.where(refinable[:, None], torch.nan_to_num(window.values), 1.0))
    usable_peak = torch.where(refinable, peak, torch.ones_like(peak))

    if method == "gaussian":
        offset, covariance = _fit_gaussian(window, usable_peak, radius, iterations)
    else:
        offset, covariance = _moments(window, usable_peak)
    if method == "argmax":
        offset = torch.zeros_like(offset)
    points = center.to(work) + torch.where(refinable[:, None], offset, torch.zeros_like(offset))
    points = torch.where(present[:, None], points, math.nan)
    covariance = torch.where((present & refinable)[:, None, None], covariance, math.nan)
    return DecodedLandmarks(points.to(result_dtype), scores, covariance.to(result_dtype))


@torch.no_grad()
def decode_heatmaps(
    heatmaps: torch.Tensor,
    spatial_dims: int,
    method: str = "gaussian",
    threshold: float | None = 0.0,
    radius: int | None = None,
    iterations: int = 6,
) -> DecodedLandmarks:
    """
    Find the peak of every map to a fraction of a voxel.

    Args:
        heatmaps: (..., N, *spatial), any floating-point type and device.
        spatial_dims: D, 2 or 3: how many of the last axes are spatial.
        method: ``"gaussian"``, a least-squares fit of a Gaussian to the neighborhood of the maximum, which holds under
            noise and at the border; ``"centroid"``, the center of mass of what lies above half of the maximum near it;
            ``"argmax"``, the maximum itself, in whole voxels.
        threshold: a landmark whose maximum is not above it is absent: NaN point and covariance. None decodes always.
        radius: how far around the maximum the refinement looks, in voxels. Default 8 in 2-D and 6 in 3-D, right for
            peaks with a sigma of about 0.7 to 5 voxels.
        iterations: at most so many of the Gaussian fit; two are enough for Gaussian peaks without noise.

    Returns:
        :class:`DecodedLandmarks`. The covariance is that of the fitted Gaussian (``"gaussian"``) or of the mass above
        half of the maximum (``"centroid"``, ``"argmax"``). A map that holds a NaN decodes to NaN.

    Raises:
        ValueError: for a wrong number of axes or an unknown method.

    Example:
        >>> from monai_landmarks.heatmaps import gaussian_heatmaps
        >>> maps = gaussian_heatmaps(torch.tensor([[10.25, 20.5], [float("nan")] * 2]), (32, 48), sigma=2.0)
        >>> decode_heatmaps(maps, spatial_dims=2).points.round(decimals=3)
        tensor([[10.2500, 20.5000],
                [    nan,     nan]])
    """
    if spatial_dims not in (2, 3) or heatmaps.ndim < spatial_dims + 1:
        raise ValueError(
            f"expected heatmaps of shape (..., N, *spatial) with 2 or 3 spatial axes, got {tuple(heatmaps.shape)} "
            f"and spatial_dims={spatial_dims}."
        )
    check_decoding(method)
    lead, spatial = heatmaps.shape[:-spatial_dims], heatmaps.shape[-spatial_dims:]
    maps = heatmaps.reshape(-1, *spatial)
    if not maps.is_floating_point():
        maps = maps.float()
    radius = neighborhood_radius(radius, spatial_dims)
    if maps.numel() == 0:
        if 0 in spatial:
            raise ValueError(f"heatmaps of shape {tuple(heatmaps.shape)} have an empty spatial axis.")
        shape = (*lead, spatial_dims)
        empty = maps.new_zeros(shape, dtype=torch.promote_types(maps.dtype, torch.float32))
        return DecodedLandmarks(empty, maps.new_zeros(lead), empty[..., None].expand(*shape, spatial_dims))

    center, scores = find_maxima(maps)
    window = cut_neighborhoods(maps, center, radius)
    decoded = decode_neighborhoods(window, center, scores, method, threshold, radius, iterations)
    return DecodedLandmarks(*(result.reshape(*lead, *result.shape[1:]) for result in decoded))
