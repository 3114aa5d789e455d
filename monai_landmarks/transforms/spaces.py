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
"""Which space points are in, and the way to an image's index space and back.

MONAI's rule decides: a points MetaTensor's ``affine`` takes its coordinates to the world (RAS mm), so ``eye(4)`` means world
points and the image's affine means index points. Tensors and arrays without an affine are index points of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.utils import convert_to_dst_type

__all__ = ["affine_of", "affine_4x4", "points_as_index", "points_as_rows", "spacing_of"]


def affine_4x4(affine: NdarrayOrTensor) -> np.ndarray:
    """A 2-D (3x3) or 3-D (4x4) affine as a 4x4 float64 matrix, the missing axis left as it is.

    >>> affine_4x4(np.diag([0.5, 0.5, 1.0])).diagonal()
    array([0.5, 0.5, 1. , 1. ])
    """
    matrix = affine.detach().cpu().numpy() if isinstance(affine, torch.Tensor) else np.asarray(affine)
    return np.asarray(to_affine_nd(3, matrix.astype(np.float64)))


def affine_of(data: Any) -> np.ndarray | None:
    """The 4x4 affine of a MetaTensor; None for data without one."""
    return affine_4x4(data.affine) if isinstance(data, MetaTensor) else None


def spacing_of(image: Any, spatial_dims: int) -> np.ndarray:
    """Distance of voxel centers along each of an image's axes in mm; 1 for data without an affine."""
    affine = affine_of(image)
    return np.ones(spatial_dims) if affine is None else np.linalg.norm(affine[:3, :spatial_dims], axis=0)


def points_as_rows(points: Any, spatial_dims: int | None = None) -> np.ndarray:
    """Points of shape (N, D) or (1, N, D), of any array type, as a new float64 array (N, D).

    Raises:
        ValueError: for any other shape, or when D is not ``spatial_dims``.
    """
    if isinstance(points, torch.Tensor):
        points = points.detach().cpu().numpy()
    rows = np.array(points, dtype=np.float64)
    if rows.ndim == 3 and len(rows) == 1:
        rows = rows[0]
    if rows.ndim != 2 or rows.shape[1] not in (2, 3):
        raise ValueError(f"Points must be of shape (N, D) or (1, N, D) with D = 2 or 3, got {np.shape(points)}.")
    if spatial_dims is not None and rows.shape[1] != spatial_dims:
        raise ValueError(f"The points have {rows.shape[1]} coordinates but the image has {spatial_dims} spatial axes.")
    return rows


def points_as_index(
    points: NdarrayOrTensor, image: NdarrayOrTensor
) -> tuple[np.ndarray, Callable[[np.ndarray], NdarrayOrTensor]]:
    """Points in the index space of an image, and the way back.

    Args:
        points: (N, D) or (1, N, D), array or tensor on any device; its space is told by its affine, see above.
        image: channel-first image, (C, n_1, ..., n_D).

    Returns:
        index coordinates (N, D), float64, and a function that takes such coordinates back to the points' own space, type,
        shape, device and dtype (whole numbers become float32).

    Raises:
        ValueError: when points and image differ in the number of axes.
    """
    dims = image.ndim - 1
    rows = points_as_rows(points, dims)
    points_affine, image_affine = affine_of(points), affine_of(image)
    same = points_affine is None or np.array_equal(points_affine, np.eye(4) if image_affine is None else image_affine)
    # equal affines are left out rather than cancelled, so that index points come back without a rounding error
    to_world = np.eye(dims + 1) if same else np.asarray(to_affine_nd(dims, points_affine))
    from_index = np.eye(dims + 1) if same or image_affine is None else np.asarray(to_affine_nd(dims, image_affine))

    def apply(affine: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
        return coordinates if same else coordinates @ affine[:dims, :dims].T + affine[:dims, dims]

    def give_back(coordinates: np.ndarray) -> NdarrayOrTensor:
        moved = apply(np.linalg.solve(to_world, from_index), coordinates).reshape(points.shape)
        floating = points.dtype.is_floating_point if isinstance(points, torch.Tensor) else points.dtype.kind == "f"
        dtype: Any = points.dtype if floating else torch.float32 if isinstance(points, torch.Tensor) else np.float32
        return convert_to_dst_type(moved, points, dtype=dtype)[0]

    return apply(np.linalg.solve(from_index, to_world), rows), give_back
