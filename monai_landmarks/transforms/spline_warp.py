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

r"""A spatial warp as one cubic B-spline: the sampling grid for the image and its exact inverse for points.

A warp moves the content of an image. Physical coordinates are :math:`u = s (x - c)`, with the index :math:`x`, the
spacing :math:`s` and the image center :math:`c = (n - 1) / 2`. The content moves by :math:`F u + t` and is then
deformed by an elastic field. The image is resampled with the backward map, which gives, for every position of the
output, the position in the input:

.. math::
    m(u) = A (u - t) + e(u), \quad A = F^{-1}, \quad e(u) = \sum_k e_k B_3(\tau(u) - k)

with the tensor product :math:`B_3` of cubic B-splines on a coarse control grid. A point at :math:`p` in the input is at
the solution :math:`u` of :math:`m(u) = p` in the output.

Source: the augmentation of Payer et al., Medical Image Analysis 54 (2019), which composes the same parts in the same
order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

__all__ = ["SplineWarp"]

_DEGREE = 3
# Samples of the gradient of the elastic field, per axis and interval of the control grid. Between them, the gradient of
# a cubic spline can be a little larger, up to this factor. So the largest limit stays below 1.
_SAMPLES_PER_SPAN = 4
_BETWEEN_SAMPLES = 1.1
_LARGEST_GRADIENT = 0.9
# Values of the grid that are computed at once in float64.
_PIECE = 2**16


def _cubic(r: np.ndarray) -> np.ndarray:
    """Return the centered cubic B-spline at ``r``."""
    r = np.abs(r)
    outer, inner = np.maximum(2 - r, 0), np.maximum(1 - r, 0)
    return (outer * outer * outer - 4 * inner * inner * inner) / 6


def _cubic_slope(r: np.ndarray) -> np.ndarray:
    """Return the derivative of the centered cubic B-spline at ``r``."""
    a = np.abs(r)
    return np.sign(r) * np.where(a < 1, -2 * a + 1.5 * a**2, -(np.clip(2 - a, 0, None) ** 2) / 2)


def _abscissae(control: int) -> np.ndarray:
    """Return the control points in units of their distance. The image extends from 0 to ``control - 3``."""
    return np.arange(control, dtype=np.float64) - 1


@lru_cache(maxsize=64)
def _grid_basis(size: int, control: int, device: torch.device) -> torch.Tensor:
    """Return the value of every B-spline (column) at every voxel center (row) along one axis."""
    tau = (np.arange(size) + 0.5) * ((control - _DEGREE) / size)
    return torch.from_numpy(_cubic(tau[:, None] - _abscissae(control))).to(device)


@lru_cache(maxsize=16)
def _sample_basis(control: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values and slopes of the B-splines at the samples of the gradient, see ``_SAMPLES_PER_SPAN``."""
    tau = np.linspace(0, control - _DEGREE, (control - _DEGREE) * _SAMPLES_PER_SPAN + 1)
    offsets = tau[:, None] - _abscissae(control)
    return _cubic(offsets), _cubic_slope(offsets)


class SplineWarp:
    r"""A smooth, invertible warp of an image grid.

    Args:
        spatial_shape: size of the image, D numbers.
        spacing: distance of voxel centers in mm, one per axis. Rotation, shear and the elastic field are computed in
            mm.
        matrix: F, (D, D), which moves the content about the image center, in mm along the axes of the image.
        translation: t, D numbers in mm, by which the content moves afterwards.
        control: control points :math:`e_k` of the elastic field in mm, shape (K_1, ..., K_D, D), at least 4 per axis.
            The K - 3 intervals between the inner control points cover the image from edge to edge. None: no elastic
            part.
        max_gradient: largest gradient of the elastic field relative to the affine part (Frobenius norm of
            :math:`F \nabla e`), from 0 to 0.9. A larger field is scaled down as a whole. See the note.

    Note:
        With :math:`|F \nabla e| \le q < 1`, the map :math:`u \to F (p - e(u)) + t` is a contraction. So the warp cannot
        fold (:math:`\det \nabla m \ge (1 - q)^D \det A > 0`), and every point has exactly one inverse. Iterating the
        map finds it, and each step reduces the error by the factor q (Banach). Beyond the image, the elastic field
        keeps its value at the edge. The projection to the nearest point of a box does not increase distances, so all of
        this holds in all of space.

    Raises:
        ValueError: if ``matrix`` does not preserve the orientation, ``control`` has a wrong shape, or ``max_gradient``
            is out of range.

    Example:
        >>> import numpy as np, torch
        >>> warp = SplineWarp((32, 24), (1.0, 1.0), np.eye(2), np.array([3.0, -2.0]))
        >>> warp.inverse(np.array([[10.0, 10.0]])).round(6)
        array([[13.,  8.]])
    """

    def __init__(
        self,
        spatial_shape: tuple[int, ...],
        spacing: tuple[float, ...] | np.ndarray,
        matrix: np.ndarray,
        translation: np.ndarray,
        control: np.ndarray | None = None,
        max_gradient: float = 0.8,
    ) -> None:
        self.spatial_shape = tuple(int(n) for n in spatial_shape)
        dims = len(self.spatial_shape)
        self.spacing = np.asarray(spacing, dtype=np.float64)
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.translation = np.asarray(translation, dtype=np.float64)
        if np.linalg.det(self.matrix) <= 0:
            raise ValueError(
                f"The affine part of a warp must preserve the orientation, got the matrix {self.matrix.tolist()}."
            )
        if not 0 <= max_gradient <= _LARGEST_GRADIENT:
            raise ValueError(f"max_gradient must be from 0 to {_LARGEST_GRADIENT}, got {max_gradient}.")
        if control is None:
            control = np.zeros((_DEGREE + 1,) * dims + (dims,))
        if control.ndim != dims + 1 or control.shape[-1] != dims or min(control.shape[:-1]) <= _DEGREE:
            raise ValueError(
                f"control must have {dims} axes of at least 4 points and a last axis of {dims}, got shape "
                f"{control.shape}."
            )
        self._center = (np.asarray(self.spatial_shape) - 1) / 2
        self._backward = np.linalg.inv(self.matrix)
        self._spans = np.asarray(control.shape[:-1]) - _DEGREE
        self.control = control
        gradient = self.elastic_gradient()
        if gradient > max_gradient:
            self.control = control * (max_gradient / gradient)
        self._contraction = _BETWEEN_SAMPLES * min(gradient, max_gradient)

    def elastic_gradient(self) -> float:
        r"""Return the largest Frobenius norm of :math:`F \nabla e` in the image. Below 1 the warp does not fold."""
        if not self.control.any():
            return 0.0
        field = self.control @ self.matrix.T
        scale = self._spans / (np.asarray(self.spatial_shape) * self.spacing)  # d tau / d u
        square: np.ndarray | float = 0.0
        for axis in range(len(scale)):
            slope = field
            for other, size in enumerate(field.shape[:-1]):
                basis = _sample_basis(size)[1 if other == axis else 0]
                before, after = slope.shape[:other], slope.shape[other + 1 :]
                slope = (basis @ slope.reshape(-1, size, math.prod(after))).reshape(*before, len(basis), *after)
            square = square + ((slope * scale[axis]) ** 2).sum(-1)
        return float(np.sqrt(np.max(square)))

    def elastic(self, u: np.ndarray) -> np.ndarray:
        """Return the elastic displacement e in mm at physical coordinates ``u``, both (N, D)."""
        tau = (u / self.spacing + self._center + 0.5) * (self._spans / np.asarray(self.spatial_shape))
        tau = np.minimum(np.maximum(tau, 0), self._spans)
        sizes = self.control.shape[:-1]
        basis = _cubic(tau[:, :, None] - _abscissae(max(sizes)))
        # the first axis is one product for all points, the others are small products per point
        field = basis[:, 0, : sizes[0]] @ self.control.reshape(sizes[0], -1)
        for axis, size in enumerate(sizes[1:], start=1):
            rest = math.prod(sizes[axis + 1 :], start=len(sizes))
            field = (basis[:, axis, None, :size] @ field.reshape(len(u), size, rest))[:, 0]
        return field

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return the indices in the input image that are shown at index ``points`` of the output, both (N, D)."""
        u = (points - self._center) * self.spacing
        return ((u - self.translation) @ self._backward.T + self.elastic(u)) / self.spacing + self._center

    def inverse(self, points: np.ndarray, tolerance: float = 1e-6, max_iterations: int = 1000) -> np.ndarray:
        """Return the positions of points of the input image in the output.

        Args:
            points: index coordinates in the input image, (N, D) float64. NaN rows stay NaN.
            tolerance: largest error in voxels.
            max_iterations: largest number of iterations.

        Returns:
            Index coordinates in the output image, (N, D) float64. They may lie outside the image.
        """
        target = (points - self._center) * self.spacing
        u = target @ self.matrix.T + self.translation
        if self.control.any():
            q = self._contraction
            for _ in range(max_iterations):
                last, u = u, (target - self.elastic(u)) @ self.matrix.T + self.translation
                step = math.sqrt(np.fmax.reduce(np.square(u - last).sum(1), initial=0.0))
                # the error in mm is at most q / (1 - q) times the last step (Banach)
                if q * step < (1 - q) * tolerance * self.spacing.min():
                    break
        return u / self.spacing + self._center

    def grid(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Return the backward map at all voxels, for ``torch.nn.functional.grid_sample`` with ``align_corners=False``.

        B-splines reproduce affine maps. So the affine part at the control points is added to the elastic field, one
        spline stands for the whole warp, and the dense grid is a product of D small matrices, one per axis.

        Args:
            device: of the grid.
            dtype: of the grid. It is computed in float64 and rounded at the end.

        Returns:
            Tensor (1, n_1, ..., n_D, D). Coordinates are in reverse order, and the edges of the image are at -1
            and 1.
        """
        shape = np.asarray(self.spatial_shape)
        axes = [_abscissae(size) for size in self.control.shape[:-1]]
        positions = np.stack(np.meshgrid(*axes, indexing="ij"), -1) * (shape / self._spans) - 0.5  # index
        u = (positions - self._center) * self.spacing
        mapped = ((u - self.translation) @ self._backward.T + self.control) / self.spacing + self._center
        normalized = (2 * mapped + 1) / shape - 1
        device = torch.device(device)
        # float64: TF32 products of a GPU are off by a tenth of a pixel. The last axis goes first, so that each product
        # writes its result in the final memory order. The first axis, the only large product, goes last.
        field = torch.from_numpy(normalized[..., ::-1].copy()).to(device)
        for axis in reversed(range(1, len(shape))):
            size = field.shape[axis]
            basis = _grid_basis(int(shape[axis]), size, device)
            field = (basis @ field.reshape(*field.shape[:axis], size, -1)).reshape(
                *field.shape[:axis], len(basis), *field.shape[axis + 1 :]
            )
        basis, flat = _grid_basis(int(shape[0]), len(field), device), field.flatten(1)
        grid = flat.new_empty(len(basis), flat.shape[1], dtype=dtype)
        # a few rows at a time, which are rounded while they are in the cache
        rows = min(len(basis), max(1, _PIECE // flat.shape[1]))
        piece = flat.new_empty(rows, flat.shape[1])
        for first in range(0, len(basis), rows):
            some = basis[first : first + rows]
            grid[first : first + rows] = torch.mm(some, flat, out=piece[: len(some)])
        return grid.view(1, *self.spatial_shape, len(shape))
