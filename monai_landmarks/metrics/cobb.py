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

"""Cobb angles of a spine from the corners of its vertebrae, and their errors, as functions of arrays or tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_landmarks.spaces import NdarrayTensor, array_functions, array_like, is_tensor, plain_tensor

__all__ = ["angle_smape", "cobb_angles"]


def cobb_angles(points: NdarrayTensor, height: float | NdarrayTensor | None = None) -> NdarrayTensor:
    """Return the three Cobb angles of a spine in a frontal radiograph, as the AASCE 2019 challenge defines them.

    The tilt of a vertebra is that of the line from the middle of its left side to the middle of its right side.

    1. The first angle is the largest angle between any two vertebrae, the upper end *i* and the lower end *j* of the
       main curve.
    2. The second angle is the largest angle between *i* and a vertebra above *i*, called *k*.
    3. The third angle is the largest angle between *j* and a vertebra below *j*. If the main curve is in the lower half
       of the image, it is instead the largest angle between *k* and a vertebra above *k*.

    These rules are for an S-shaped spine: the middles of its end plates lie on both sides of the line from the first to
    the last of them. Otherwise, the second angle is that between *i* and the first vertebra, and the third angle is
    that between *j* and the last vertebra.

    This is the rule of the program that comes with the data of the challenge. It reproduces the angles in the tables.
    The rule is not continuous: if a shift by a fraction of a pixel makes a spine S-shaped, the second and third angle
    may change strongly.

    Args:
        points: (..., 4 V, 2), four corners of each of V vertebrae from top to bottom: top left, top right, bottom left,
            bottom right in the image, with x to the right. The affine of a ``MetaTensor`` is not used.
        height: number of rows of the image, one number or one per spine (...). The points must then be index points,
            with y downward. None: the middle of the points is used instead of the middle of the image. Pixels, mm, and
            points rotated by 180 degrees, such as world points (RAS) of a picture, then have the same angles.

    Returns:
        Angles (..., 3) in degrees, between 0 and 180, of the type of the points. NaN for a spine with a missing corner.

    Raises:
        ValueError: if the shape is wrong.

    Example:
        >>> x = np.tile([0.0, 10.0, 0.0, 10.0], (5, 1))
        >>> y = 20 * np.arange(5.0)[:, None] + np.array([0.0, 0.0, 5.0, 5.0])
        >>> y[1, 1::2] += 10  # the right side of the second vertebra hangs by 45 degrees
        >>> y[3, 1::2] -= 10
        >>> cobb_angles(np.stack([x, y], axis=-1).reshape(20, 2)).round()
        array([90., 45., 45.])
    """
    if is_tensor(points):
        points = plain_tensor(points)  # type: ignore[assignment]
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] % 4 or points.shape[-2] < 8:
        raise ValueError(
            f"points must have shape (..., 4 V, 2), four corners of each of V vertebrae, got {tuple(points.shape)}."
        )
    xp = array_functions(points)
    found = xp.isfinite(points)
    # a spine with a missing corner is computed with any numbers, and marked in the end
    corners = xp.where(found, array_like(points, points, xp.float64), 0.0).reshape(*points.shape[:-2], -1, 4, 2)
    tilt = _angles_between(corners[..., 1::2, :].mean(-2) - corners[..., 0::2, :].mean(-2))
    count = tilt.shape[-1]
    top, bottom = corners[..., :2, :].mean(-2), corners[..., 2:, :].mean(-2)

    pairs = xp.triu(tilt).reshape(*tilt.shape[:-2], -1)
    place = pairs.argmax(-1)
    upper, lower = place // count, place % count
    number = array_like(range(count), place)
    to_upper = xp.where(number <= upper[..., None], _row(tilt, upper), -1)
    above_at = to_upper.argmax(-1)
    below = xp.amax(xp.where(number >= lower[..., None], _row(tilt, lower), -1), -1)
    above_that = xp.amax(xp.where(number <= above_at[..., None], _row(tilt, above_at), -1), -1)

    y = bottom[..., 1]
    middle = (_take(y, upper) + _take(y, lower)) / 2
    in_upper_half = _is_above(middle, corners[..., 1], height)
    bent_twice = _on_both_sides(xp.stack([top, bottom], -2).reshape(*top.shape[:-2], -1, 2))
    second = xp.where(bent_twice, _take(to_upper, above_at), _take(tilt[..., 0, :], upper))
    third = xp.where(in_upper_half, below, above_that)
    third = xp.where(bent_twice, third, _take(tilt[..., -1, :], lower))
    angles = xp.rad2deg(xp.stack([_take(pairs, place), second, third], -1))
    angles = xp.where(found.all(-1).all(-1)[..., None], angles, xp.nan)
    return array_like(angles, angles, xp.promote_types(points.dtype, xp.float32))


def angle_smape(pred: NdarrayTensor, target: NdarrayTensor) -> NdarrayTensor:
    """Return the symmetric mean absolute percentage error of the angles of each image.

    For one image, it is the sum of the absolute differences of the angles divided by the sum of all predicted and true
    angles. The score of the AASCE 2019 challenge is its mean over the images (Wang et al., Med. Image Anal. 2021).

    Args:
        pred: (..., K) predicted angles.
        target: true angles of the same shape.

    Returns:
        (...) in percent. NaN if an angle is NaN.

    Example:
        >>> float(angle_smape(np.array([30.0, 10.0, 0.0]), np.array([40.0, 10.0, 10.0])))
        20.0
    """
    return 100 * abs(pred - target).sum(-1) / (pred + target).sum(-1)


def _angles_between(vectors: NdarrayTensor) -> NdarrayTensor:
    """Return the angles in radians between any two of V vectors (..., V, 2), as (..., V, V)."""
    dot = vectors @ vectors.swapaxes(-1, -2)
    x, y = vectors[..., 0], vectors[..., 1]
    cross = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]
    return array_functions(vectors).arctan2(abs(cross), dot)  # unlike the arc cosine, accurate for small angles


def _take(values: Any, at: Any) -> Any:
    """Return the values (..., K) at indices (...)."""
    return _take_along(values, at[..., None], -1)[..., 0]


def _row(matrix: Any, at: Any) -> Any:
    """Return the rows of matrices (..., V, V) at indices (...)."""
    return _take_along(matrix, at[..., None, None], -2)[..., 0, :]


def _take_along(values: Any, at: Any, axis: int) -> Any:
    return values.take_along_dim(at, axis) if is_tensor(values) else np.take_along_axis(values, at, axis)


def _is_above(y: NdarrayTensor, rows: NdarrayTensor, height: float | NdarrayTensor | None) -> NdarrayTensor:
    """Return whether y (...) is in the upper half of the image or, without a height, of the corners' ``rows``."""
    if height is not None:
        return y < (array_like(height, y) - 1) / 2  # whole numbers are pixel centers
    xp = array_functions(y)
    rows = rows.reshape(*rows.shape[:-2], -1)
    downward = xp.sign(rows[..., -1] - rows[..., 0])
    return downward * y < downward * (xp.amax(rows, -1) + xp.amin(rows, -1)) / 2


def _on_both_sides(line: Any) -> Any:
    """Return whether points (..., M, 2) lie on both sides of the straight line from the first to the last."""
    chord, offset = line[..., :1, :] - line[..., -1:, :], line - line[..., -1:, :]
    side = offset[..., 1] * chord[..., 0] - offset[..., 0] * chord[..., 1]
    side = side[..., 1:-2]  # as the program of the challenge, without the last but one
    return (side > 0).any(-1) & (side < 0).any(-1)
