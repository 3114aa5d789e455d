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
"""Shapes of points that are taken, with and without MONAI's leading axis.

MONAI's ``ApplyTransformToPoints`` needs the points of an image as (1, N, D), so its data loader gives a batch of them
as (B, 1, N, D). These functions take off that axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import NdarrayTensor, to_array

__all__ = ["points_as_rows", "points_of_batch", "points_of_image"]


def points_of_image(points: NdarrayTensor, what: str = "points", spatial_dims: int | None = None) -> NdarrayTensor:
    """Return the points of one image as (N, D).

    Args:
        points: (N, D) or (1, N, D), D = 2 or 3.
        what: name of the points for the error message.
        spatial_dims: number of spatial axes of the image, which D must be equal to. None: 2 or 3.

    Returns:
        (N, D) of the same type and dtype, on the same device, not copied. A ``MetaTensor`` keeps its affine.

    Raises:
        ValueError: for any other shape.
    """
    return _without_axis(points, 0, what, spatial_dims)


def points_of_batch(points: NdarrayTensor, what: str = "points", spatial_dims: int | None = None) -> NdarrayTensor:
    """Return the points of a batch of images as (B, N, D).

    Args:
        points: (B, N, D) or (B, 1, N, D), D = 2 or 3.
        what: name of the points for the error message.
        spatial_dims: number of spatial axes of the images, which D must be equal to. None: 2 or 3.

    Returns:
        (B, N, D) of the same type and dtype, on the same device, not copied. A ``MetaTensor`` keeps its affines.

    Raises:
        ValueError: for any other shape.
    """
    return _without_axis(points, 1, what, spatial_dims)


def points_as_rows(points: Any, what: str = "points", spatial_dims: int | None = None) -> np.ndarray:
    """Convert the points of one image to a new float64 array (N, D).

    Args:
        points: (N, D) or (1, N, D), array, tensor on any device or nested sequences.
        what: see :func:`points_of_image`.
        spatial_dims: see :func:`points_of_image`.

    Returns:
        Array (N, D).

    Raises:
        ValueError: see :func:`points_of_image`.
    """
    return points_of_image(np.array(to_array(points)), what, spatial_dims)


def _without_axis(points: NdarrayTensor, axis: int, what: str, spatial_dims: int | None) -> NdarrayTensor:
    """Take off MONAI's axis of length 1 at ``axis`` where it is there."""
    result: Any = points
    if points.ndim == axis + 3 and points.shape[axis] == 1:
        result = points.squeeze(axis)
    if result.ndim != axis + 2 or result.shape[-1] not in (2, 3):
        batch = "B, " * axis
        raise ValueError(
            f"{what} must have shape ({batch}N, D) or ({batch}1, N, D) with D = 2 or 3, got {tuple(points.shape)}."
        )
    if spatial_dims is not None and result.shape[-1] != spatial_dims:
        raise ValueError(f"{what} have {result.shape[-1]} coordinates, but the image has {spatial_dims} spatial axes.")
    return result
