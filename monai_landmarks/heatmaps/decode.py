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
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F

__all__ = [
    "DecodedLandmarks",
    "DecodingMethod",
    "Neighborhoods",
    "cut_neighborhoods",
    "decode_heatmaps",
    "decode_neighborhoods",
    "find_maxima",
    "neighborhood_radius",
    "require_decoding_method",
    "work_dtype",
]

DecodingMethod = Literal["gaussian", "centroid", "argmax"]

# The fit ends when no center (voxels) and no covariance (square voxels) changes by more than this. A thousandth of a
# voxel is below the error that noise leaves.
_CONVERGED = 1e-3
# Share of the peak above which a voxel belongs to it. Half is high enough to exclude background and neighboring peaks,
# and low enough to include more than one voxel.
_HALF = 0.5
# Limits of the fitted sigma: in voxels, since a narrower Gaussian is a single voxel, whose width is undetermined; and
# in radii of the neighborhood, which a wider Gaussian fills with a constant.
_SMALLEST_SIGMA, _LARGEST_SIGMA = 0.3, 4.0
# voxels along an axis that determine a parabola
_PARABOLA = 3
# weight of a coefficient that is held, relative to the data
_HOLD = 1e4
# Limit of the fitted height: within a factor of e of the maximum. A peak can be higher than its voxels, if it is narrow
# or its center is outside the image. Without a limit, noise makes some of these fits narrow and very high.
_LOG_HEIGHT = 1.0
# Added to the diagonal of the normal equations, as a share of its largest entry. It keeps them solvable where the
# weights vanish on all but a few voxels, and is small enough not to move the result: float64 resolves 1e-16.
_DAMPING = 1e-9


class DecodedLandmarks(NamedTuple):
    """Landmarks that are decoded from heatmaps.

    Attributes:
        points: (..., N, D) index coordinates, NaN where the landmark is missing.
        scores: (..., N) maximum of each map.
        covariances: (..., N, D, D) covariance of each peak in square voxels, NaN where the landmark is missing.
    """

    points: torch.Tensor
    scores: torch.Tensor
    covariances: torch.Tensor


class Neighborhoods(NamedTuple):
    """Boxes around M maxima, which the refinements use in place of the whole maps.

    Attributes:
        offsets: (P, D) offset of each of the P voxels of a box from its center.
        values: (M, P) values of the maps, zero where the box leaves the map.
        inside: (M, P) whether the voxel lies in the map.
    """

    offsets: torch.Tensor
    values: torch.Tensor
    inside: torch.Tensor


def find_maxima(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the maximum of each map.

    Args:
        maps: (M, *spatial).

    Returns:
        Index (M, D) and value (M,) of the maxima.
    """
    # amax reads the maps once. argmax, several times slower on a CPU, searches only the maxima of the slices along the
    # first axis, and the slice of the maximum.
    slices = maps.amax(dim=tuple(range(2, maps.ndim)))
    first = slices.argmax(dim=1)
    part = maps[torch.arange(len(maps), device=maps.device), first]
    rest = torch.unravel_index(part.flatten(1).argmax(dim=1), part.shape[1:])
    return torch.stack([first, *rest], dim=-1), slices.gather(1, first[:, None])[:, 0]


def work_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which the refinements compute: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def neighborhood_radius(radius: int | None, spatial_dims: int) -> int:
    """Return the radius of neighborhoods in voxels; for None the default, 8 in 2-D and 6 in 3-D.

    Raises:
        ValueError: if the radius is less than 1.
    """
    if radius is None:
        return 8 if spatial_dims == 2 else 6
    if radius < 1:
        raise ValueError(f"radius must be at least 1 voxel, got {radius}.")
    return radius


def require_decoding_method(method: str) -> None:
    """Raise ``ValueError`` for a method that is not one of :func:`decode_heatmaps`."""
    if method not in get_args(DecodingMethod):
        raise ValueError(f"method must be one of {get_args(DecodingMethod)}, got {method!r}.")


def cut_neighborhoods(
    maps: torch.Tensor, center: torch.Tensor, radius: int, owner: torch.Tensor | None = None
) -> Neighborhoods:
    """Cut a box out of a map around each center.

    Args:
        maps: (M, *spatial).
        center: (C, D) index coordinates of voxels.
        radius: voxels on each side of the center, along each axis.
        owner: (C,) number of the map in which each center lies. None: center c lies in map c.

    Returns:
        :class:`Neighborhoods` of the C centers.
    """
    dtype = work_dtype(maps.device)
    dims = maps.ndim - 1
    if owner is None:
        owner = torch.arange(len(maps), device=maps.device)
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    index = [owner.view(-1, *[1] * dims)]
    inside = torch.ones_like(index[0], dtype=torch.bool)
    for axis, size in enumerate(maps.shape[1:], start=1):
        shape = [1] * dims
        shape[axis - 1] = len(steps)
        cells = (center[:, axis - 1, None] + steps).view(-1, *shape)
        inside = inside & (cells >= 0) & (cells < size)
        index.append(cells.clamp(0, size - 1))
    inside = inside.flatten(1)
    values = maps[tuple(index)].flatten(1).to(dtype).masked_fill_(~inside, 0)
    return Neighborhoods(_box(radius, dims, maps.device), values, inside)


@lru_cache(maxsize=16)
def _box(radius: int, dims: int, device: torch.device) -> torch.Tensor:
    """Return the offset (P, D) of each voxel of a box from its center."""
    axis = torch.arange(-radius, radius + 1, device=device, dtype=work_dtype(device))
    return torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij"), dim=-1).flatten(0, -2)


@lru_cache(maxsize=16)
def _lines(radius: int, dims: int, device: torch.device) -> torch.Tensor:
    """Return which voxels of a box, (P, D) of 0 and 1, lie on the line through its center along each axis."""
    off_center = _box(radius, dims, device) != 0
    return (off_center.sum(dim=1, keepdim=True) == off_center).to(work_dtype(device))


def _mass(window: Neighborhoods, peak: torch.Tensor) -> torch.Tensor:
    """Return the part of the values (M, P) that is above half of the peak, as shares that sum to 1."""
    # outside of the map the values are 0, which is below
    weight = (window.values - _HALF * peak[:, None]).clamp_(min=0)
    return weight / weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)


def _moments(window: Neighborhoods, peak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the center (M, D) and the covariance (M, D, D) of the mass above half of the peak."""
    weight = _mass(window, peak)
    offset = weight @ window.offsets
    deviation = window.offsets - offset[:, None]
    return offset, (deviation * weight[..., None]).transpose(1, 2) @ deviation


def _isotropic_width(window: Neighborhoods, peak: torch.Tensor) -> torch.Tensor:
    """Return the sigma (M,) of the isotropic Gaussian that has as many voxels above half of the peak as the window.

    This region of a Gaussian is a ball of radius ``sigma * sqrt(2 ln 2)``. Where the window leaves the map, the share
    of voxels above half is taken from the part inside.
    """
    dims = window.offsets.shape[1]
    above = (window.values > _HALF * peak[:, None]).to(peak)
    volume = above.sum(dim=1) * (len(window.offsets) / window.inside.to(peak).sum(dim=1))
    unit_ball = math.pi if dims == 2 else 4 * math.pi / 3
    return (volume / unit_ball) ** (1 / dims) / math.sqrt(2 * math.log(2))


class _Polynomials(NamedTuple):
    """Quadratic polynomials on a box, in coordinates from -1 to 1.

    Attributes:
        basis: (K, P) monomials 1, x_i and x_i x_j (i <= j) at each voxel.
        products: (L, P) all different products of two of these monomials.
        pairs: (K * K) number of the product of each two monomials.
        terms: (D * D, K - 1 - D) from a symmetric matrix A to the coefficients of the x_i x_j in -x^T A x / 2.
        matrix: (K - 1 - D, D * D) the inverse of ``terms``.
    """

    basis: torch.Tensor
    products: torch.Tensor
    pairs: torch.Tensor
    terms: torch.Tensor
    matrix: torch.Tensor


@lru_cache(maxsize=16)
def _polynomials(radius: int, dims: int, device: torch.device) -> _Polynomials:
    # on the CPU, since the number of different products depends on values
    unit = torch.eye(dims, dtype=torch.long)
    rows, cols = torch.triu_indices(dims, dims)
    powers = torch.cat([torch.zeros_like(unit[:1]), unit, unit[rows] + unit[cols]])
    products, pairs = torch.unique((powers[:, None] + powers).flatten(0, 1), dim=0, return_inverse=True)
    x = _box(radius, dims, torch.device("cpu")) / radius
    basis, values = (x.pow(exponents[:, None]).prod(dim=2) for exponents in (powers, products))
    term = torch.arange(len(rows))
    matrix = torch.zeros(len(rows), dims, dims, dtype=x.dtype)
    matrix[term, rows, cols] -= 1
    matrix[term, cols, rows] -= 1
    terms = torch.zeros(dims, dims, len(rows), dtype=x.dtype)
    terms[rows, cols, term] = torch.where(rows == cols, -0.5, -1.0).to(x)
    dtype = work_dtype(device)
    return _Polynomials(
        basis.to(device, dtype),
        values.to(device, dtype),
        pairs.flatten().to(device),
        terms.flatten(0, 1).to(device, dtype),
        matrix.flatten(1).to(device, dtype),
    )


def _fit_gaussian(
    window: Neighborhoods, peak: torch.Tensor, radius: int, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Fit a Gaussian by least squares, and return its center (M, D) and covariance (M, D, D).

    The model is :math:`f = \exp(q(x))` with a quadratic polynomial :math:`q`. One Gauss-Newton step on
    :math:`\sum (h - f)^2` is a linear least-squares problem for :math:`q`, with weights :math:`f^2` and response
    :math:`q + (h - f) / f`. This is the iterated weighted fit to the logarithm of the heatmap (Guo, IEEE Signal
    Processing Magazine 2011), without a logarithm of the data, which noise can make negative. Far from the peak the
    weights vanish, so that background and neighboring peaks count little.

    The steps are not shortened, so that one of them may be worse than the one before: the best one is returned.
    Fewer than three voxels along an axis determine no parabola: its curvature is then the mean of the other axes.
    """
    dims = window.offsets.shape[1]
    basis, products, pairs, terms, matrix = _polynomials(radius, dims, peak.device)
    inside = window.inside.to(basis)
    # the fit works in units of the radius: coordinates of about unit size keep the normal equations well conditioned
    offset = (_mass(window, peak) @ window.offsets) / radius
    variance = (_isotropic_width(window, peak) / radius).square()
    eye = torch.eye(dims, dtype=peak.dtype, device=peak.device)
    covariance, precision = variance[:, None, None] * eye, eye / variance[:, None, None]
    log_peak = peak.log()
    log_amplitude = log_peak
    lowest, highest = log_peak - _LOG_HEIGHT, log_peak + _LOG_HEIGHT
    low, high = (_SMALLEST_SIGMA / radius) ** 2, _LARGEST_SIGMA**2
    thin = inside @ _lines(radius, dims, peak.device) < _PARABOLA
    held = _held_terms(thin) if bool(thin.any()) else None
    found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    moved = math.inf
    while True:
        slope = (precision @ offset[:, :, None])[:, :, 0]
        constant = log_amplitude - 0.5 * (slope * offset).sum(dim=1)
        log_model = torch.cat([constant[:, None], slope, precision.flatten(1) @ terms], dim=1) @ basis
        model = log_model.exp().mul_(inside)
        error = window.values - model
        found.append((torch.linalg.vecdot(error, error), offset, covariance))
        if iterations <= 0 or moved < _CONVERGED:
            break
        iterations -= 1
        # weights times response, without the division by a model that may vanish
        weight = model * model
        response = error.addcmul_(model, log_model).mul_(model)
        normal = (products @ weight.T).T.index_select(1, pairs).unflatten(1, (len(basis), -1))
        diagonal = normal.diagonal(dim1=1, dim2=2)
        largest = diagonal.amax(dim=1, keepdim=True)
        diagonal += _DAMPING * largest
        right = (basis @ response.T).T
        if held is not None:
            weights = _HOLD * largest * held
            diagonal += weights
            curvature = _mean_curvature(precision, thin, 1 / variance).flatten(1) @ terms
            right = right + weights * F.pad(curvature, (1 + dims, 0))
        q = torch.nan_to_num(torch.linalg.solve_ex(normal, right)[0])
        # center, covariance and height from the coefficients of the polynomial
        eigenvalues, vectors = torch.linalg.eigh((q[:, 1 + dims :] @ matrix).unflatten(1, (dims, dims)))
        eigenvalues = eigenvalues.clamp(min=1 / high, max=1 / low)[:, None, :]
        transposed = vectors.transpose(1, 2)
        last, covariance, precision = (
            covariance,
            (vectors / eigenvalues) @ transposed,
            (vectors * eigenvalues) @ transposed,
        )
        slope = q[:, 1 : 1 + dims]
        previous, offset = offset, (covariance @ slope[:, :, None])[:, :, 0]
        log_amplitude = q[:, 0] + 0.5 * (slope * offset).sum(dim=1)
        log_amplitude = torch.clamp(log_amplitude, lowest, highest)
        # a center far from the maximum would lie on another peak
        offset = offset.clamp(min=-0.5, max=0.5)
        change = (radius * (offset - previous).abs().amax(), radius**2 * (covariance - last).abs().amax())
        moved = float(torch.maximum(*change))
    residuals, offsets, covariances = (torch.stack(values) for values in zip(*found))
    best = torch.nan_to_num(residuals, nan=math.inf).argmin(dim=0), torch.arange(len(peak), device=peak.device)
    return radius * offsets[best], radius**2 * covariances[best]


def _held_terms(thin: torch.Tensor) -> torch.Tensor:
    """Return which coefficients (M, K) of the polynomial belong to the curvature along thin axes (M, D)."""
    dims = thin.shape[1]
    rows, cols = torch.triu_indices(dims, dims, device=thin.device)
    return F.pad((thin[:, rows] | thin[:, cols]).float(), (1 + dims, 0))


def _mean_curvature(precision: torch.Tensor, thin: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return the isotropic precision (M, D, D) that is the mean of the axes that are not thin, or ``start`` without any."""
    known = (~thin).to(precision)
    mean = (precision.diagonal(dim1=1, dim2=2) * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
    return torch.diag_embed(torch.where(thin.all(dim=1), start, mean)[:, None].expand(known.shape))


def decode_neighborhoods(
    window: Neighborhoods,
    center: torch.Tensor,
    scores: torch.Tensor,
    method: DecodingMethod = "gaussian",
    threshold: float | None = 0.0,
    radius: int = 6,
    iterations: int = 6,
) -> DecodedLandmarks:
    """Refine maxima to a fraction of a voxel.

    Args:
        window: neighborhoods of M maxima, from :func:`cut_neighborhoods`.
        center: (M, D) index coordinates of the maxima.
        scores: (M,) values of the maxima.
        method: see :func:`decode_heatmaps`.
        threshold: a maximum that is not above it is a missing landmark. None: none is missing.
        radius: of the neighborhoods, in voxels.
        iterations: largest number of iterations of the Gaussian fit.

    Returns:
        :class:`DecodedLandmarks` of M points; float64 for scores of float64, else float32.
    """
    work = window.values.dtype
    result_dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    peak = scores.to(work)
    present = peak.isfinite() if threshold is None else peak.isfinite() & (peak > threshold)
    # the refinements need a positive peak; without one the maximum itself is the point
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
    method: DecodingMethod = "gaussian",
    threshold: float | None = 0.0,
    radius: int | None = None,
    iterations: int = 6,
) -> DecodedLandmarks:
    """Find the peak of every map to a fraction of a voxel.

    Args:
        heatmaps: (..., N, *spatial), any floating-point type and device.
        spatial_dims: D, the number of spatial axes, 2 or 3. They are the last ones.
        method: ``"gaussian"``: a least-squares fit of a Gaussian to the neighborhood of the maximum, accurate under
            noise and at the border of the image. ``"centroid"``: the center of mass of the part of the neighborhood
            above half of the maximum. ``"argmax"``: the voxel of the maximum.
        threshold: a landmark whose maximum is not above it is missing: its point and covariance are NaN. None: no
            landmark is missing.
        radius: of the neighborhood in voxels. Default: 8 in 2-D and 6 in 3-D, for peaks with a sigma of about 0.7 to 5
            voxels.
        iterations: largest number of iterations of the Gaussian fit. Two are enough for Gaussian peaks without noise.

    Returns:
        :class:`DecodedLandmarks`. Covariances are those of the fitted Gaussian (``"gaussian"``), or of the mass above
        half of the maximum (``"centroid"``, ``"argmax"``). A map with a NaN decodes to NaN.

    Raises:
        ValueError: for a wrong number of axes, an unknown method or a radius below 1.

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
    require_decoding_method(method)
    lead, spatial = heatmaps.shape[:-spatial_dims], heatmaps.shape[-spatial_dims:]
    if 0 in spatial:
        raise ValueError(f"heatmaps of shape {tuple(heatmaps.shape)} have an empty spatial axis.")
    maps = heatmaps.reshape(-1, *spatial)
    if not maps.is_floating_point():
        maps = maps.float()
    radius = neighborhood_radius(radius, spatial_dims)
    if maps.numel() == 0:
        shape = (*lead, spatial_dims)
        empty = maps.new_zeros(shape, dtype=torch.promote_types(maps.dtype, torch.float32))
        return DecodedLandmarks(empty, maps.new_zeros(lead), empty[..., None].expand(*shape, spatial_dims))

    center, scores = find_maxima(maps)
    window = cut_neighborhoods(maps, center, radius)
    decoded = decode_neighborhoods(window, center, scores, method, threshold, radius, iterations)
    return DecodedLandmarks(*(result.reshape(*lead, *result.shape[1:]) for result in decoded))
