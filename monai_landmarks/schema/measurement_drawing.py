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

"""Lines and angles that show where a measurement is made, for viewers such as 3D Slicer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from . import geometry
from .expression import Scope, Term
from .landmark_schema import LandmarkSchema

__all__ = ["MeasurementDrawing", "measurement_drawings"]


@dataclass(frozen=True)
class MeasurementDrawing:
    """A line or an angle of one image.

    Args:
        measurement: name of the measurement.
        kind: ``"line"`` with two points, or ``"angle"`` with three, the middle one of which is the vertex.
        points: array (2 or 3, D), in the unit of the landmarks.
    """

    measurement: str
    kind: Literal["line", "angle"]
    points: np.ndarray


def measurement_drawings(schema: LandmarkSchema, points: np.ndarray) -> list[MeasurementDrawing]:
    """Return the lines and angles of all measurements of an image.

    A distance is the line between its points. The distance of a point from a line is the perpendicular. An angle at a
    landmark is an angle. The angle between two lines is both lines. Parts of an expression are drawn one by one;
    another measurement in it is drawn with its own name only.

    Args:
        schema: schema with the measurements.
        points: array (N, D), NaN where missing. Drawings with a missing point are left out.

    Returns:
        The drawings, in the order of the measurements.
    """
    scope = Scope(np.asarray(points, dtype=np.float64), {})
    terms = schema.terms
    result = []
    for measurement in schema.measurements:
        for kind, places in _parts(terms[measurement.name], scope):
            shown = np.stack(places)
            if np.isfinite(shown).all():
                result.append(MeasurementDrawing(measurement.name, kind, shown))
    return result


def _parts(term: Term, scope: Scope) -> list[tuple[Literal["line", "angle"], list[np.ndarray]]]:
    arguments = [part for part in term.arguments if isinstance(part, Term)]
    if term.function is geometry.distance:
        return [("line", [part(scope) for part in arguments[:2]])]
    if term.function is geometry.angle:
        return [("angle", [part(scope) for part in arguments])]
    if term.function is geometry.angle_between:
        lines = [part(scope) for part in arguments[:2]]
        return [("line", [one.start, one.start + one.direction]) for one in lines]
    if term.function is geometry.point_line_distance:
        point, base = (part(scope) for part in arguments[:2])
        along = ((point - base.start) * base.direction).sum() / (base.direction**2).sum()
        return [("line", [point, base.start + along * base.direction])]
    return [found for part in arguments for found in _parts(part, scope)]
