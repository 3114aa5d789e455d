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
"""Points and covariances from index space to the world and back.

MONAI's rule decides the space of points: the ``affine`` of a points ``MetaTensor`` takes its coordinates to the world
(RAS mm). ``eye(4)`` means world points, and the affine of the image means index points. Tensors and arrays without an
affine are index points of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .affines import affine_of
from .arrays import NdarrayTensor, array_functions, array_like, is_meta_tensor, is_tensor, plain_tensor, to_array
from .points import points_as_rows

if TYPE_CHECKING:
    import torch
    from monai.config import NdarrayOrTensor

__all__ = [
    "covariances_to_index",
    "covariances_to_world",
    "has_affine",
    "points_as_index",
    "points_to_index",
    "points_to_world",
    "world_points",
]


def points_to_world(points: NdarrayTensor, affine: Any) -> NdarrayTensor:
    r"""Apply an affine to points: :math:`A x + t`.

    Args:
        points: index points (..., D), array, or tensor on any device.
        affine: from index to world, (D+1, D+1) or (4, 4). Of a 4x4 affine, 2-D points use the first two axes, which is
            MONAI's own rule. For tensors also (B, n, n), one affine per image of a batch of points (B, ..., D).

    Returns:
        World points of the same shape, float64, on the device of ``points``; a plain tensor for a tensor.

    Raises:
        ValueError: for an affine of any other shape.

    Example:
        >>> points_to_world(np.array([[1.0, 2.0]]), np.diag([0.5, 2.0, 1.0, 1.0]))
        array([[0.5, 4. ]])
    """
    known, linear, offset = _in_double(points, affine)
    return known @ linear.swapaxes(-1, -2) + offset


def points_to_index(points: NdarrayTensor, affine: Any) -> NdarrayTensor:
    r"""Apply the inverse of an affine to points: :math:`A^{-1} (x - t)`.

    Args:
        points: world points (..., D).
        affine: from index to world, see :func:`points_to_world`.

    Returns:
        Index points, as :func:`points_to_world` returns world points.

    Raises:
        ValueError: see :func:`points_to_world`.
    """
    known, linear, offset = _in_double(points, affine)
    inverse = _inverse(linear).swapaxes(-1, -2)
    return known @ inverse - offset @ inverse


def covariances_to_world(covariances: NdarrayTensor, affine: Any) -> NdarrayTensor:
    r"""Apply an affine to the covariances of index points: :math:`A \Sigma A^T`.

    Args:
        covariances: (..., D, D) in voxels^2, array, or tensor on any device.
        affine: from index to world, see :func:`points_to_world`.

    Returns:
        Covariances in mm^2, of the same shape, float64, on the device of ``covariances``.

    Raises:
        ValueError: see :func:`points_to_world`.

    Example:
        >>> covariances_to_world(np.eye(2), np.diag([0.5, 2.0, 1.0])).diagonal()
        array([0.25, 4.  ])
    """
    known, linear, _ = _in_double(covariances, affine)
    return linear @ known @ linear.swapaxes(-1, -2)


def covariances_to_index(covariances: NdarrayTensor, affine: Any) -> NdarrayTensor:
    r"""Apply the inverse of an affine to the covariances of world points: :math:`A^{-1} \Sigma A^{-T}`.

    Args:
        covariances: (..., D, D) in mm^2.
        affine: from index to world, see :func:`points_to_world`.

    Returns:
        Covariances in voxels^2, as :func:`covariances_to_world` returns those in mm^2.

    Raises:
        ValueError: see :func:`points_to_world`.
    """
    known, linear, _ = _in_double(covariances, affine)
    inverse = _inverse(linear)
    return inverse @ known @ inverse.swapaxes(-1, -2)


def has_affine(points: Any) -> bool:
    """Return whether points store their way to the world: a ``MetaTensor`` with an affine that is not the identity."""
    return is_meta_tensor(points) and not _is_identity(points.affine)


def world_points(points: Any, image: Any = None) -> torch.Tensor:
    """Return points in the world, by MONAI's rule.

    Args:
        points: (..., N, D). A ``MetaTensor`` goes through its own affine, or through one affine per image of a batch.
        image: the image of the points. Its affine is used for points that are no ``MetaTensor``. Without it, they are
            returned as they are.

    Returns:
        A plain tensor of the same shape on the same device; float64 where an affine was applied.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> points = MetaTensor([[[1.0, 2.0]]], affine=torch.diag(torch.tensor([0.5, 2.0, 1.0, 1.0])))
        >>> world_points(points)
        tensor([[[0.5000, 4.0000]]], dtype=torch.float64)
    """
    import torch

    source = points if is_meta_tensor(points) else image
    plain = plain_tensor(torch.as_tensor(points))
    return points_to_world(plain, source.affine) if has_affine(source) else plain


def points_as_index(
    points: NdarrayOrTensor, image: NdarrayOrTensor
) -> tuple[np.ndarray, Callable[[np.ndarray], NdarrayOrTensor]]:
    """Return points in the index space of an image, and a function for the way back.

    Args:
        points: (N, D) or (1, N, D), array or tensor on any device. Its affine decides its space, see above.
        image: channel-first image, (C, n_1, ..., n_D).

    Returns:
        Index points (N, D), float64, and a function that takes such points back to the space, type, shape, device and
        dtype of ``points`` (integers become float32).

    Raises:
        ValueError: if points and image differ in the number of axes.
    """
    rows = points_as_rows(points, spatial_dims=image.ndim - 1)
    points_affine, image_affine = affine_of(points), affine_of(image)
    image_affine = np.eye(4) if image_affine is None else image_affine
    # equal affines are left out and not canceled, so that index points come back without a rounding error
    same = points_affine is None or np.array_equal(points_affine, image_affine)

    def give_back(index: np.ndarray) -> NdarrayOrTensor:
        stored: Any = points
        own = index if same else points_to_index(points_to_world(index, image_affine), points_affine)
        own = own.reshape(stored.shape)
        if not is_tensor(stored):
            return own.astype(stored.dtype if stored.dtype.kind == "f" else np.float32)
        import torch
        from monai.utils import convert_to_dst_type

        dtype = stored.dtype if stored.is_floating_point() else torch.float32
        return convert_to_dst_type(own, stored, dtype=dtype)[0]

    return rows if same else points_to_index(points_to_world(rows, points_affine), image_affine), give_back


def _in_double(values: Any, affine: Any) -> tuple[Any, Any, Any]:
    """Return values, matrix A and offset t as float64 of one type, with A and t in shapes that broadcast."""
    dims = values.shape[-1]
    known: Any = plain_tensor(values).double() if is_tensor(values) else to_array(values)
    matrix: Any = array_like(affine, known) if is_tensor(values) else to_array(affine)
    if tuple(matrix.shape[-2:]) not in ((dims + 1, dims + 1), (4, 4)):
        expected = "(3, 3) or (4, 4)" if dims == 2 else "(4, 4)"
        raise ValueError(f"affine has shape {tuple(matrix.shape)}; expected {expected} for {dims}-D points.")
    linear, offset = matrix[..., :dims, :dims], matrix[..., :dims, -1]
    if matrix.ndim > 2:
        lead = (*matrix.shape[:-2], *(1,) * (known.ndim - matrix.ndim))
        linear, offset = linear.reshape(*lead, dims, dims), offset.reshape(*lead, 1, dims)
    return known, linear, offset


def _inverse(linear: Any) -> Any:
    return array_functions(linear).linalg.inv(linear)


def _is_identity(affine: torch.Tensor) -> bool:
    import torch

    return torch.equal(affine, torch.eye(affine.shape[-1], dtype=affine.dtype, device=affine.device).expand_as(affine))
