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

"""Distances and angles between points, for batches, in 2-D and 3-D.

All values are positive unless a direction ``toward`` is given, which defines the positive side. This direction is
defined by landmarks, too. A signed value therefore does not depend on the orientation of the patient in the image, on
the order of the image axes, or on whether the image is mirrored.

The result is NaN if a coordinate is NaN, or if a direction is required and its two points are equal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Line", "angle", "angle_between", "distance", "line", "midpoint", "point_line_distance"]


class Line(NamedTuple):
    """A line through ``start`` along ``direction``, both (..., D)."""

    start: torch.Tensor
    direction: torch.Tensor


def line(start: torch.Tensor, end: torch.Tensor) -> Line:
    """Return the line from one point to another, with this direction."""
    return Line(start, end - start)


def midpoint(*points: torch.Tensor) -> torch.Tensor:
    """Return the mean of two or more points (..., D)."""
    return torch.stack(torch.broadcast_tensors(*points)).mean(dim=0)


def distance(a: torch.Tensor, b: torch.Tensor, toward: Line | None = None) -> torch.Tensor:
    """Return the distance of two points (..., D), in their unit.

    With ``toward`` it is negative if the vector from a to b points against this direction.

    Example:
        >>> a, b, c = torch.zeros(2), torch.tensor([3.0, 4.0]), torch.tensor([-1.0, 0.0])
        >>> distance(a, b), distance(a, b, line(a, c))
        (tensor(5.), tensor(-5.))
    """
    return _signed(torch.linalg.vector_norm(b - a, dim=-1), b - a, toward)


def angle_between(first: Line, second: Line, toward: Line | None = None) -> torch.Tensor:
    """Return the angle between the directions of two lines, in degrees from 0 to 180.

    With ``toward`` it is negative if the rotation from the first to the second direction points against ``toward``.
    The formula is accurate for angles near 0 and near 180 degrees (W. Kahan, *How Futile are Mindless Assessments of
    Roundoff*, section 12).

    Example:
        >>> east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        >>> origin = torch.zeros(2)
        >>> angle_between(line(origin, east), line(origin, east + north), line(north, origin))
        tensor(-45.)
    """
    u, v = _unit(first.direction), _unit(second.direction)
    difference, total = torch.linalg.vector_norm(u - v, dim=-1), torch.linalg.vector_norm(u + v, dim=-1)
    return _signed(torch.rad2deg(2 * torch.atan2(difference, total)), _across(v, u), toward)


def angle(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return the angle at b between the directions to a and to c, in degrees from 0 to 180."""
    return angle_between(line(b, a), line(b, c))


def point_line_distance(point: torch.Tensor, base: Line, toward: Line | None = None) -> torch.Tensor:
    """Return the distance of a point from a line of infinite length.

    With ``toward`` it is negative if the vector from the line to the point points against this direction.

    Example:
        >>> origin, east, north = torch.zeros(3), torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
        >>> point_line_distance(torch.tensor([7.0, -2.0, 0.0]), line(origin, east), line(origin, north))
        tensor(-2.)
    """
    offset = _across(point - base.start, _unit(base.direction))
    return _signed(torch.linalg.vector_norm(offset, dim=-1), offset, toward)


def _unit(vector: torch.Tensor) -> torch.Tensor:
    """Return the vector scaled to length 1, or NaN if its length is 0."""
    return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)


def _across(vector: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return the component of a vector that is perpendicular to a unit vector."""
    return vector - (vector * unit).sum(dim=-1, keepdim=True) * unit


def _signed(magnitude: torch.Tensor, way: torch.Tensor, toward: Line | None) -> torch.Tensor:
    """Return the magnitude, negative if ``way`` points against ``toward``; positive if they are perpendicular."""
    if toward is None:
        return magnitude
    side = (way * _unit(toward.direction)).sum(dim=-1)
    return torch.where(side < 0, -magnitude, magnitude).masked_fill(side.isnan(), torch.nan)
