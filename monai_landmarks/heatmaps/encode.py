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
"""Exact Gaussian heatmaps from sub-pixel points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from numpy.typing import ArrayLike

__all__ = ["Normalization", "expand_sigma", "gaussian_factors", "gaussian_heatmaps", "outer_product"]

Normalization = Literal["peak", "mass"]


def expand_sigma(sigma: ArrayLike | torch.Tensor, num_landmarks: int, spatial_dims: int) -> torch.Tensor:
    """Expand any accepted form of sigma to a table with one value per landmark and axis.

    Args:
        sigma: a scalar; one value per landmark, shape ``(N,)`` or ``(N, 1)``; one value per axis, shape ``(D,)`` or
            ``(1, D)``; or one per landmark and axis, shape ``(N, D)``. It may be a number, sequence, array or tensor. A
            tensor keeps its gradient.
        num_landmarks: N.
        spatial_dims: D, 2 or 3.

    Returns:
        Tensor of shape (N, D).

    Raises:
        ValueError: if the shape is none of these, or if a flat list has N = D entries and could mean either.

    Example:
        >>> expand_sigma([1.0, 2.0, 3.0], num_landmarks=3, spatial_dims=2).tolist()
        [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    """
    table = torch.as_tensor(sigma)
    if not table.is_floating_point():
        table = table.to(torch.get_default_dtype())
    shape = tuple(table.shape)
    if len(shape) == 1 and shape[0] > 1:
        if num_landmarks == spatial_dims == shape[0]:
            raise ValueError(
                f"sigma of shape {shape} could be one value per landmark or one per axis, since there are {shape[0]} of "
                "each. Pass shape (N, 1) for values per landmark or (1, D) for values per axis."
            )
        table = table[:, None] if shape[0] == num_landmarks else table[None, :]
    elif len(shape) == 1:
        table = table[None, :]
    elif len(shape) == 0:
        table = table[None, None]
    if table.ndim != 2 or table.shape[0] not in (1, num_landmarks) or table.shape[1] not in (1, spatial_dims):
        raise ValueError(
            f"sigma of shape {shape} does not fit {num_landmarks} landmarks in {spatial_dims}-D: expected a scalar, "
            f"({num_landmarks},) or ({num_landmarks}, 1) per landmark, (1, {spatial_dims}) per axis, "
            f"or ({num_landmarks}, {spatial_dims})."
        )
    return table.expand(num_landmarks, spatial_dims)


def _axis_profiles(points: torch.Tensor, sigma: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Return the 1-D Gaussian of each point on the grid of one axis, (..., N, size)."""
    grid = torch.arange(size, dtype=points.dtype, device=points.device)
    return torch.exp(-0.5 * ((grid - points[..., axis, None]) / sigma[..., axis, None]) ** 2)


def gaussian_factors(
    points: torch.Tensor,
    spatial_shape: Sequence[int],
    sigma: ArrayLike | torch.Tensor = 3.0,
    normalize: Normalization = "peak",
    amplitude: float = 1.0,
    dtype: torch.dtype = torch.float32,
    check_sigma: bool = True,
) -> list[torch.Tensor]:
    """Return the factors of :func:`gaussian_heatmaps`, one per axis.

    A Gaussian in D dimensions is a product of D Gaussians in one dimension. With the factors, :func:`outer_product`
    computes any part of the heatmaps without storing the whole.

    Args:
        points: see :func:`gaussian_heatmaps`, also for the other arguments.
        spatial_shape: D sizes.
        sigma: standard deviation in voxels. May carry a gradient.
        normalize: ``"peak"`` or ``"mass"``.
        amplitude: factor of the heatmaps. The first factor includes it.
        dtype: floating-point type of the result. The factors are computed in float64.
        check_sigma: require a positive sigma. False: it is known to be positive, and a GPU is not asked.

    Returns:
        D tensors (..., N, size of the axis).

    Raises:
        ValueError: see :func:`gaussian_heatmaps`.
    """
    spatial_dims = points.shape[-1] if points.ndim > 1 else 0
    if spatial_dims not in (2, 3):
        raise ValueError(f"points must have shape (..., N, 2) or (..., N, 3), got {tuple(points.shape)}.")
    if len(spatial_shape) != spatial_dims:
        raise ValueError(f"spatial_shape {tuple(spatial_shape)} must have {spatial_dims} axes, as the points have.")
    if normalize not in get_args(Normalization):
        raise ValueError(f"normalize must be one of {get_args(Normalization)}, got {normalize!r}.")
    # MPS has no float64
    work = torch.float32 if points.device.type == "mps" else torch.float64
    sigma = expand_sigma(sigma, points.shape[-2], spatial_dims)
    if check_sigma and not bool((sigma > 0).all()):
        raise ValueError(f"sigma must be positive, got a smallest value of {float(sigma.detach().min())}.")
    sigma = sigma.to(device=points.device, dtype=work)

    missing = points.isnan().any(dim=-1, keepdim=True)
    centers = torch.where(missing, torch.zeros_like(points), points).to(work)
    # A product of factors that are smaller would be a denormal number, which a CPU multiplies a hundred times more
    # slowly. float16 keeps the limit of float32: its own would cut visible parts of the Gaussian, and hardware
    # handles its denormals.
    smallest = torch.finfo(torch.float32 if dtype == torch.float16 else dtype).tiny ** (1 / spatial_dims)
    factors = []
    for axis, size in enumerate(spatial_shape):
        factor = _axis_profiles(centers, sigma, axis, int(size))
        factors.append(torch.where(factor < smallest, torch.zeros_like(factor), factor))
    scale = torch.full_like(sigma[..., 0], amplitude)
    if normalize == "mass":
        scale = scale / ((2 * math.pi) ** (spatial_dims / 2) * sigma.prod(dim=-1))
    factors[0] = factors[0] * torch.where(missing, torch.zeros_like(scale[..., None]), scale[..., None])

    return [factor.to(dtype) for factor in factors]


def outer_product(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply one factor per axis to maps.

    Args:
        factors: D = 2 or 3 tensors (..., N, size of the axis), from :func:`gaussian_factors` or parts of them.

    Returns:
        Maps (..., N, *sizes). Parts of the factors give the same values as the whole, to the last bit.

    Example:
        >>> factors = gaussian_factors(torch.tensor([[10.25, 20.5]]), (32, 48), sigma=2.0)
        >>> rows = outer_product([factors[0][:, 8:12], factors[1]])
        >>> torch.equal(rows, gaussian_heatmaps(torch.tensor([[10.25, 20.5]]), (32, 48), sigma=2.0)[:, 8:12])
        True
    """
    # the small product first, so that the full output is written only once
    *outer, last = factors
    if len(outer) == 2:
        last = outer[1][..., :, None] * last[..., None, :]
        return outer[0][..., :, None, None] * last[..., None, :, :]
    return outer[0][..., :, None] * last[..., None, :]


def gaussian_heatmaps(
    points: torch.Tensor,
    spatial_shape: Sequence[int],
    sigma: ArrayLike | torch.Tensor = 3.0,
    normalize: Normalization = "peak",
    amplitude: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    r"""Draw Gaussian heatmaps with exact, unrounded centers.

    .. math::
        h_n(x) = a \prod_d \exp\left(-\frac{(x_d - p_{nd})^2}{2 \sigma_{nd}^2}\right) \cdot c_n

    with :math:`c_n = 1` for ``normalize="peak"`` and :math:`c_n = \prod_d (\sqrt{2\pi}\,\sigma_{nd})^{-1}` for
    ``"mass"``. The latter is the form of SCN (Payer et al., Medical Image Analysis 2019), whose :math:`\gamma` is
    ``amplitude``. A Gaussian is a product of one factor per axis, so that the cost is that of writing the output once.
    A factor below ``finfo(dtype).tiny ** (1 / D)`` (2e-13 of the peak in 3-D) counts as zero, so that no product is a
    denormal number, which CPUs multiply a hundred times more slowly.

    Args:
        points: (..., N, D) index coordinates, D = 2 or 3. Coordinate d runs along spatial axis d, and integers are
            voxel centers. The map of a point with a NaN coordinate is zero.
        spatial_shape: D sizes.
        sigma: standard deviation in voxels, in any form that :func:`expand_sigma` takes. May carry a gradient.
        normalize: ``"peak"``: the maximum of the continuous Gaussian is ``amplitude``. ``"mass"``: its integral is.
        amplitude: see ``normalize``.
        dtype: floating-point type of the result. The factors are computed in float64.

    Returns:
        Tensor of shape (..., N, *spatial_shape) on the device of ``points``.

    Raises:
        ValueError: for points that are not (..., N, 2 or 3), a shape of another dimension, a sigma that is not
            positive, or an unknown ``normalize``.

    Example:
        >>> maps = gaussian_heatmaps(torch.tensor([[10.25, 20.5]]), (32, 48), sigma=2.0)
        >>> maps.shape, tuple(int(i) for i in torch.unravel_index(maps.argmax(), maps.shape))[1:]
        (torch.Size([1, 32, 48]), (10, 20))
    """
    return outer_product(gaussian_factors(points, spatial_shape, sigma, normalize, amplitude, dtype))
