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

"""Landmark schemas: names and definitions of the landmarks of an anatomy, and the measurements from them."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from monai_landmarks.data import CoordinateSystem
from monai_landmarks.spaces import NdarrayTensor, array_functions, array_like, is_tensor, plain_tensor, world_points

from .expression import UNITS, Term, compile_expressions, did_you_mean, evaluate, unit_text

__all__ = ["Landmark", "LandmarkSchema", "Measurement", "MeasurementClass"]


@dataclass(frozen=True)
class Landmark:
    """One landmark.

    Args:
        name: name in files and expressions.
        abbreviation: short name, such as ``"ANS"``.
        definition: anatomical position.
        group: one of the groups of the schema, such as a bone or a ray of the hand.
        color: ``"#rrggbb"``, instead of the color of the group.
        sigma_mm: sigma of its target heatmap in mm, if the anatomy suggests one.
    """

    name: str
    abbreviation: str | None = None
    definition: str | None = None
    group: str | None = None
    color: str | None = None
    sigma_mm: float | None = None


@dataclass(frozen=True)
class MeasurementClass:
    """A named range of a measurement. A bound of None is no limit.

    Args:
        name: meaning of a value in this range, for example ``"class II"``.
        at_least: lower limit, inclusive.
        at_most: upper limit, inclusive.
        above: lower limit, exclusive.
        below: upper limit, exclusive.
    """

    name: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, values: NdarrayTensor) -> NdarrayTensor:
        """Return which of the values are in the range; NaN is not."""
        inside = ~array_functions(values).isnan(values)
        bounds = (
            (self.at_least, operator.ge),
            (self.at_most, operator.le),
            (self.above, operator.gt),
            (self.below, operator.lt),
        )
        for bound, compare in bounds:
            if bound is not None:
                inside = inside & compare(values, bound)
        return inside


@dataclass(frozen=True)
class Measurement:
    """A clinical measurement.

    Args:
        name: name, also for other expressions that refer to it.
        expression: computation from landmarks, see :mod:`monai_landmarks.schema.expression`.
        unit: ``"mm"``, ``"degree"`` or ``"ratio"``, which must be the unit of the expression.
        definition: definition and clinical meaning.
        classes: named ranges, numbered from 1. A value belongs to the first range that contains it.
    """

    name: str
    expression: str
    unit: Literal["mm", "degree", "ratio"]
    definition: str | None = None
    classes: tuple[MeasurementClass, ...] = ()


@dataclass(frozen=True)
class LandmarkSchema:
    """Landmarks with their definitions, left-right pairs, chains and groups, and the measurements from them.

    Args:
        name: name of the schema.
        spatial_dims: 2 or 3.
        landmarks: N landmarks in the order of the points.
        pairs: (left, right) names of landmarks that are exchanged if the image is mirrored.
        chains: names of landmarks in their order along an anatomical structure, by the name of the structure.
        groups: color of each group, ``"#rrggbb"``, by name.
        measurements: clinical measurements.
        description: one paragraph.
        source: publication of landmarks and measurements.
        symmetric: whether a mirrored image is one of the same kind, in which landmarks without a partner are where they
            were: they lie in the plane of symmetry. It is so for centers of vertebrae, and not for a lateral radiograph.

    Raises:
        ValueError: if a name is not unique or unknown, if a color or unit is invalid, or if an expression is malformed.
            The message states the place: ``measurements.ANB.expression: unknown landmark 'nasoin'; did you mean
            'nasion'?``

    Example:
        >>> schema = LandmarkSchema("eyes", 2, (Landmark("left"), Landmark("right")), pairs=(("left", "right"),),
        ...     measurements=(Measurement("apart", "distance(left, right)", "mm"),))
        >>> schema.measure(np.array([[0.0, 0.0], [30.0, 40.0]]))["apart"].item()
        50.0
    """

    name: str
    spatial_dims: int
    landmarks: tuple[Landmark, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    description: str | None = None
    source: str | None = None
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims: is {self.spatial_dims!r}; expected 2 or 3.")
        if not self.landmarks or not all(name.strip() for name in self.names):
            raise ValueError(
                "landmarks: there is none, or one without a name; expected at least one, each with a name."
            )
        _require_distinct("landmarks", self.names)
        _require_distinct("measurements", [m.name for m in self.measurements], taken=self.names)
        for group, color in self.groups.items():
            _require_valid_color(f"groups.{group}", color)
        for landmark in self.landmarks:
            self._require_valid_landmark(landmark, f"landmarks.{landmark.name}")
        self._require_known_names()
        for measurement in self.measurements:
            _require_valid_measurement(measurement, self.terms[measurement.name])

    @property
    def names(self) -> list[str]:
        """Names of the N landmarks, in the order of the points."""
        return [landmark.name for landmark in self.landmarks]

    @property
    def colors(self) -> list[str | None]:
        """Color of each landmark, ``"#rrggbb"``: its own or that of its group, or None."""
        return [mark.color or (self.groups[mark.group] if mark.group else None) for mark in self.landmarks]

    def __len__(self) -> int:
        return len(self.landmarks)

    @classmethod
    def from_datalist_definition(
        cls, definition: Mapping[str, Any], spatial_dims: int, name: str = "landmarks"
    ) -> LandmarkSchema:
        """Return a schema with the names and pairs from the ``landmarks`` of a datalist, as a start for a new one."""
        landmarks = tuple(Landmark(str(landmark)) for landmark in definition["names"])
        pairs = tuple((str(left), str(right)) for left, right in definition.get("pairs", []))
        return cls(name, spatial_dims, landmarks, pairs=pairs)

    def to_datalist_definition(self, coordinate_system: CoordinateSystem | str = "index") -> dict[str, Any]:
        """Return the ``landmarks`` section of a datalist: ``names``, ``pairs`` and ``coordinate_system``."""
        return {
            "names": self.names,
            "pairs": [list(pair) for pair in self.pairs],
            "coordinate_system": CoordinateSystem(coordinate_system).value,
        }

    def measure(self, points: Any, spacing: float | Sequence[float] | None = None) -> dict[str, Any]:
        """Return the values of all measurements.

        Args:
            points: (..., N, D) in mm, in the order of the names, NaN where missing; a tensor or an array. A
                ``MetaTensor`` is converted to world mm with its own affine, unless ``spacing`` is given.
            spacing: size of a pixel in mm, for index points: one number, one per axis, or a tensor (..., D) that
                broadcasts against the points. Without it, distances of index points are in pixels, and angles are wrong
                if pixels are not square.

        Returns:
            Values (...) of each measurement, by name, of the same type and on the same device as the points; NaN if one
            of its landmarks is missing.

        Raises:
            ValueError: if the shape is not (..., N, D).
        """
        known: Any
        if is_tensor(points):  # with a spacing they are index points, whose affine has the spacing, too
            known = world_points(points) if spacing is None else plain_tensor(points)
        else:
            known = np.asarray(points, dtype=np.float64)
        if known.ndim < 2 or known.shape[-2:] != (len(self), self.spatial_dims):
            raise ValueError(
                f"points have the shape {tuple(known.shape)}; {self.name} expects (..., {len(self)}, "
                f"{self.spatial_dims})."
            )
        xp = array_functions(known)
        known = array_like(known, known, xp.promote_types(known.dtype, xp.float32))
        known = xp.where(xp.isfinite(known), known, xp.nan)
        if spacing is not None:
            known = known * array_like(spacing, known)
        values = evaluate(self.terms, known)
        return {m.name: array_like(values[m.name], known) for m in self.measurements}

    def classify(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the class of each value.

        Args:
            values: all or some of the values that :meth:`measure` returns.

        Returns:
            Numbers (...) of the classes, from 1, by the name of each measurement with classes; 0 for a value that is
            NaN or in no class.
        """
        numbers: dict[str, Any] = {}
        for measurement in self.measurements:
            if measurement.classes and measurement.name in values:
                value = values[measurement.name]
                known: Any = value if is_tensor(value) else np.asarray(value)
                numbers[measurement.name] = _class_numbers(known, measurement.classes)
        return numbers

    @cached_property
    def terms(self) -> dict[str, Term]:
        """The compiled expression of each measurement, by name."""
        return compile_expressions({m.name: m.expression for m in self.measurements}, self.names)

    def _require_valid_landmark(self, landmark: Landmark, place: str) -> None:
        if landmark.group is not None and landmark.group not in self.groups:
            raise ValueError(
                f"{place}.group: unknown group {landmark.group!r}{did_you_mean(landmark.group, self.groups) or '.'}"
            )
        if landmark.color is not None:
            _require_valid_color(f"{place}.color", landmark.color)
        if landmark.sigma_mm is not None and not 0 < landmark.sigma_mm < float("inf"):
            raise ValueError(f"{place}.sigma_mm: is {landmark.sigma_mm}; expected a number of mm above 0.")

    def _require_known_names(self) -> None:
        """Raise an error if a pair or chain contains an unknown landmark, or a landmark twice."""
        in_pairs = [name for pair in self.pairs for name in pair]
        for place, names in (("pairs", in_pairs), *((f"chains.{key}", chain) for key, chain in self.chains.items())):
            for name in names:
                if name not in self.names:
                    raise ValueError(f"{place}: unknown landmark {name!r}{did_you_mean(name, self.names) or '.'}")
            _require_distinct(place, names)


def _require_distinct(place: str, names: Sequence[str], taken: Sequence[str] = ()) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{place}: {twice[0]!r} is there more than once; expected it once.")
    both = [name for name in names if name in taken]
    if both:
        raise ValueError(f"{place}: {both[0]!r} is the name of a landmark; expected another name.")


def _require_valid_color(place: str, color: str) -> None:
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        raise ValueError(f"{place}: {color!r} is not a color; expected '#rrggbb' with hexadecimal digits.")


def _require_valid_measurement(measurement: Measurement, term: Term) -> None:
    place = f"measurements.{measurement.name}"
    if measurement.unit not in UNITS:
        raise ValueError(f"{place}.unit: unknown unit {measurement.unit!r}; expected one of {', '.join(UNITS)}.")
    if term.unit is not None and term.unit != UNITS[measurement.unit]:
        raise ValueError(f"{place}.unit: is {measurement.unit!r}, but the expression gives {unit_text(term.unit)!r}.")
    _require_distinct(f"{place}.classes", [c.name for c in measurement.classes])


def _class_numbers(values: NdarrayTensor, classes: Sequence[MeasurementClass]) -> NdarrayTensor:
    xp = array_functions(values)
    numbers = xp.zeros_like(values, dtype=xp.int64)
    for number, measurement_class in enumerate(classes, 1):
        numbers = xp.where((numbers == 0) & measurement_class.holds(values), number, numbers)
    return numbers
