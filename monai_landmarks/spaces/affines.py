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
"""Affines of images, and what follows from them: spacing, and the plane of a 2-D image.

An affine takes index points of an image to the world (RAS, mm). It is always used as a 4x4 float64 matrix, also in 2-D.
Some MONAI readers, and 2-D transforms in lazy mode, leave a 3x3 affine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import is_meta_tensor, to_array

__all__ = [
    "RAS_TO_LPS",
    "affine_4x4",
    "affine_of",
    "affine_spacing",
    "file_affine",
    "in_xy_plane",
    "off_plane",
    "picture_affine",
    "plane_z",
    "slice_affine",
    "spacing_of",
]

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Takes RAS to LPS coordinates, and back."""
RAS_TO_LPS.setflags(write=False)

_PLANE_TOLERANCE = 1e-3  # mm, for the rounding of coordinates in files


def affine_4x4(affine: Any) -> np.ndarray:
    """Convert a 2-D (3x3) or 3-D (4x4) affine to a new 4x4 float64 matrix.

    Args:
        affine: array or tensor (3, 3) or (4, 4), or (1, 3, 3) or (1, 4, 4) from a batch of one image.

    Returns:
        Matrix (4, 4). The third axis of a 2-D affine is that of the identity.

    Raises:
        ValueError: for any other shape.

    Example:
        >>> affine_4x4(np.diag([0.5, 0.5, 1.0])).diagonal()
        array([0.5, 0.5, 1. , 1. ])
    """
    matrix = to_array(affine)
    if matrix.ndim == 3 and len(matrix) == 1:
        matrix = matrix[0]
    if matrix.shape not in ((3, 3), (4, 4)):
        raise ValueError(f"affine has shape {matrix.shape}; expected (3, 3) or (4, 4).")
    dims = len(matrix) - 1
    result = np.eye(4)
    result[:dims, :dims], result[:dims, 3] = matrix[:dims, :dims], matrix[:dims, dims]
    return result


def affine_of(data: Any) -> np.ndarray | None:
    """Return the 4x4 affine of a ``MetaTensor``, or None for data without an affine."""
    return affine_4x4(data.affine) if is_meta_tensor(data) else None


def file_affine(image: Any) -> np.ndarray | None:
    """Return the 4x4 affine of an image as its file has it, before any transform.

    Args:
        image: image of a pipeline.

    Returns:
        The affine. The identity for data without an affine. None if the image was transformed and does not store the
        affine of its file.
    """
    if not is_meta_tensor(image):
        return np.eye(4)
    from monai.utils import MetaKeys

    affine = image.meta.get(MetaKeys.ORIGINAL_AFFINE)
    if affine is None and image.applied_operations:
        return None
    return affine_4x4(image.affine if affine is None else affine)


def affine_spacing(affine: Any, spatial_dims: int) -> np.ndarray:
    """Return the distance in mm between neighboring voxels along each of the first ``spatial_dims`` axes of an image.

    Args:
        affine: (3, 3) or (4, 4).
        spatial_dims: number of axes, 2 or 3.

    Returns:
        Array (spatial_dims,).

    Example:
        >>> affine_spacing([[0, -0.5, 0, 7], [2, 0, 0, 8], [0, 0, 1, 9], [0, 0, 0, 1]], 2)
        array([2. , 0.5])
    """
    axes = affine_4x4(affine)[:3, :spatial_dims]
    # the axes of a 2-D image, too, have three components in the world
    return np.sqrt((axes * axes).sum(axis=0))


def spacing_of(image: Any, spatial_dims: int) -> np.ndarray:
    """Return the spacing of an image, see :func:`affine_spacing`; 1 along each axis for data without an affine."""
    affine = affine_of(image)
    return np.ones(spatial_dims) if affine is None else affine_spacing(affine, spatial_dims)


def in_xy_plane(affine: np.ndarray) -> bool:
    """Return whether the first two axes of a 4x4 affine lie in the x-y plane of the world, as 2-D points do.

    Example:
        >>> in_xy_plane(np.diag([-0.5, -0.5, 1.0, 1.0])), in_xy_plane(np.eye(4)[[0, 2, 1, 3]])
        (True, False)
    """
    return bool(np.abs(affine[2, :2]).max() <= 1e-3 * np.abs(affine[:2, :2]).max())


def slice_affine(affine: Any) -> np.ndarray:
    """Return the affine of a slice that lies in the x-y plane of the world, see :func:`in_xy_plane`, as a 2-D image.

    Args:
        affine: (3, 3) or (4, 4).

    Returns:
        Matrix (4, 4), without what is left of a tilt. It would move 2-D points: their z is 0 in the image, but not in
        the world.
    """
    result = affine_4x4(affine)
    result[2, :2] = result[:2, 2] = 0
    return result


def off_plane(points: np.ndarray, plane: float) -> np.ndarray:
    """Return how far world points lie off the plane of a 2-D image.

    Args:
        points: (N, 3) in mm.
        plane: z of the image in mm. The plane z = 0 is right, too: files of 3D Slicer keep 2-D points there.

    Returns:
        Array (N,) in mm; 0 for missing points, and for distances that the rounding of coordinates in files explains.

    Example:
        >>> off_plane(np.array([[1, 2, 7.0005], [1, 2, 0], [1, 2, 4]]), plane=7)
        array([0., 0., 3.])
    """
    distance = np.minimum(np.abs(points[:, 2]), np.abs(points[:, 2] - plane))
    return np.where(distance > _PLANE_TOLERANCE, distance, 0.0)


def plane_z(image: Any) -> float:
    """Return the world z of a 2-D image in mm.

    It is 0 for most images and for data without an affine. A single slice of a volume can lie elsewhere.
    """
    affine = affine_of(image)
    return 0.0 if affine is None else float(affine[2, 3])


def picture_affine(spacing: float | Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """Return the affine of an image whose file does not state its place in the world, such as a PNG file.

    ITK and 3D Slicer put pixel (x, y) of such a file at LPS (s_x x, s_y y, 0), so RAS has the opposite signs.

    Args:
        spacing: pixel size in mm, one number for x and y, or one per axis (2 or 3 axes). None: 1 mm.

    Returns:
        Matrix (4, 4), from index to RAS mm.

    Raises:
        ValueError: for more than 3 numbers.

    Example:
        >>> picture_affine((0.5, 0.25)).diagonal()
        array([-0.5 , -0.25,  1.  ,  1.  ])
    """
    steps = np.ones(4)
    given = np.atleast_1d(to_array(1.0 if spacing is None else spacing))
    if given.ndim != 1 or len(given) > 3:
        raise ValueError(f"spacing is {spacing}; expected one number, or one per axis of the image.")
    steps[: max(2, len(given))] = given
    return RAS_TO_LPS * np.diag(steps)
