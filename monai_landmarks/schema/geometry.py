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

"""Distances and angles between points, for batches, in 2-D and 3-D. Points are arrays, or tensors on any device.

All values are positive unless a direction ``toward`` is given, which defines the positive side. This direction is
defined by landmarks, too. A signed value therefore does not depend on the orientation of the patient in the image, on
the order of the image axes, or on whether the image is mirrored.

The result is NaN if a coordinate is NaN, or if a direction is required and its two points are equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from monai_landmarks.spaces import NdarrayTensor, array_functions, vector_lengths

__all__ = ["Line", "angle", "angle_between", "distance", "line", "midpoint", "point_line_distance"]


class Line(NamedTuple):
    """A line through ``start`` along ``direction``, both (..., D)."""

    start: Any
    direction: Any


def line(start: NdarrayTensor, end: NdarrayTensor) -> Line:
    """Return the line from one point to another, with this direction."""
    return Line(start, end - start)


def midpoint(*points: NdarrayTensor) -> NdarrayTensor:
    """Return the mean of two or more points (..., D)."""
    total: Any = sum(points[1:], points[0])
    return total / len(points)


def distance(a: NdarrayTensor, b: NdarrayTensor, toward: Line | None = None) -> NdarrayTensor:
    """Return the distance of two points (..., D), in their unit.

    With ``toward`` it is negative if the vector from a to b points against this direction.

    Example:
        >>> a, b, c = np.zeros(2), np.array([3.0, 4.0]), np.array([-1.0, 0.0])
        >>> float(distance(a, b)), float(distance(a, b, line(a, c)))
        (5.0, -5.0)
    """
    return _signed(vector_lengths(b - a), b - a, toward)


def angle_between(first: Line, second: Line, toward: Line | None = None) -> Any:
    """Return the angle between the directions of two lines, in degrees from 0 to 180.

    With ``toward`` it is negative if the rotation from the first to the second direction points against ``toward``.
    The formula is accurate for angles near 0 and near 180 degrees (W. Kahan, *How Futile are Mindless Assessments of
    Roundoff*, section 12).

    Example:
        >>> east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        >>> origin = np.zeros(2)
        >>> float(angle_between(line(origin, east), line(origin, east + north), line(north, origin)))
        -45.0
    """
    u, v = _unit(first.direction), _unit(second.direction)
    xp = array_functions(u)
    angles = xp.rad2deg(2 * xp.arctan2(vector_lengths(u - v), vector_lengths(u + v)))
    return _signed(angles, _across(v, u), toward)


def angle(a: NdarrayTensor, b: NdarrayTensor, c: NdarrayTensor) -> NdarrayTensor:
    """Return the angle at b between the directions to a and to c, in degrees from 0 to 180."""
    return angle_between(line(b, a), line(b, c))


def point_line_distance(point: NdarrayTensor, base: Line, toward: Line | None = None) -> NdarrayTensor:
    """Return the distance of a point from a line of infinite length.

    With ``toward`` it is negative if the vector from the line to the point points against this direction.

    Example:
        >>> origin, east, north = np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
        >>> float(point_line_distance(np.array([7.0, -2.0, 0.0]), line(origin, east), line(origin, north)))
        -2.0
    """
    offset = _across(point - base.start, _unit(base.direction))
    return _signed(vector_lengths(offset), offset, toward)


def _unit(vector: Any) -> Any:
    """Return the vector scaled to length 1, or NaN if its length is 0."""
    with np.errstate(invalid="ignore"):
        return vector / vector_lengths(vector)[..., None]


def _across(vector: NdarrayTensor, unit: NdarrayTensor) -> NdarrayTensor:
    """Return the component of a vector that is perpendicular to a unit vector."""
    return vector - (vector * unit).sum(-1)[..., None] * unit


def _signed(magnitude: NdarrayTensor, way: NdarrayTensor, toward: Line | None) -> NdarrayTensor:
    """Return the magnitude, negative if ``way`` points against ``toward``; positive if they are perpendicular."""
    if toward is None:
        return magnitude
    xp, side = array_functions(way), (way * _unit(toward.direction)).sum(-1)
    return xp.where(xp.isnan(side), xp.nan, xp.where(side < 0, -magnitude, magnitude))
