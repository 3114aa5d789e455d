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

"""Landmarks of data that are those of a schema under another spelling or by their abbreviation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monai_landmarks.data.files.name_lists import some_names
from monai_landmarks.data.landmarks.landmark_set import landmark_name

from .landmark_schema import LandmarkSchema

__all__ = ["LandmarkMatch", "match_landmarks"]


@dataclass(frozen=True)
class LandmarkMatch:
    """Which landmark of a schema is which landmark of some data.

    Args:
        columns: for each landmark of the schema, the index of the landmark of the data; None if the data lack it.
        unknown: names of the data that are not in the schema.
        absent: names of the schema that are not in the data.
        abbreviated: names of the data that fit only an abbreviation, each with the name in the schema.
    """

    columns: tuple[int | None, ...]
    unknown: tuple[str, ...]
    absent: tuple[str, ...]
    abbreviated: tuple[tuple[str, str], ...]

    def names(self, given: Sequence[str]) -> list[str | None]:
        """Return the name in the data of each landmark of the schema; None if the data lack it."""
        return [None if column is None else given[column] for column in self.columns]

    def note(self, schema: LandmarkSchema) -> str:
        """Return a sentence about abbreviations and names that fit nothing; empty if there are none."""
        texts = []
        if self.abbreviated:
            pairs = ", ".join(f"{given} as {known}" for given, known in self.abbreviated)
            texts.append(f"abbreviations of the schema {schema.name} are read: {pairs}")
        if self.unknown:
            texts.append(f"the schema {schema.name} does not have the landmarks {some_names(self.unknown)}")
        if self.absent:
            texts.append(f"{some_names(self.absent)} of the schema {schema.name} are not among the landmarks")
        return f"{'; '.join(texts)}." if texts else ""


def match_landmarks(schema: LandmarkSchema, names: Sequence[str]) -> LandmarkMatch:
    """Match names with the landmarks of a schema, by name or abbreviation.

    A name is first compared as it is, then without regard to case, spaces, hyphens and underscores; then with the
    abbreviations, in the same two steps. Abbreviations of one letter must be written as in the schema, because ``a``
    and ``b`` may be mere labels. A step matches a name only if it fits one landmark that no other name fits.

    Args:
        schema: the schema.
        names: distinct names of landmarks.

    Returns:
        The match.

    Example:
        >>> from monai_landmarks.schema import load_landmark_schema
        >>> match = match_landmarks(load_landmark_schema("cephalometric_19"), ["S", "N", "Subspinale A", "bregma"])
        >>> match.columns[:5], match.unknown
        ((0, 1, None, None, 2), ('bregma',))
    """
    given = [landmark_name(name) for name in names]
    short = [landmark.abbreviation or "" for landmark in schema.landmarks]
    longer = [text if len(text) > 1 else "" for text in short]
    columns: list[int | None] = [None] * len(schema)
    free = set(range(len(given)))
    abbreviated = []
    steps = ((schema.names, str), (schema.names, _plain), (short, str), (longer, _plain))
    for number, (known, simplify) in enumerate(steps):
        for index, column in _unique_pairs(known, given, simplify, columns, free):
            columns[index] = column
            free.discard(column)
            if number >= 2:
                abbreviated.append((names[column], schema.names[index]))
    absent = tuple(name for name, column in zip(schema.names, columns) if column is None)
    unknown = tuple(names[column] for column in sorted(free))
    return LandmarkMatch(tuple(columns), unknown, absent, tuple(abbreviated))


def _unique_pairs(
    known: Sequence[str],
    given: Sequence[str],
    simplify: Callable[[str], str],
    columns: Sequence[int | None],
    free: set[int],
) -> list[tuple[int, int]]:
    """Return the pairs of a landmark without column and a free column whose simplified names are equal and unique."""
    by_name: dict[str, list[int]] = {}
    for index, name in enumerate(known):
        if columns[index] is None and name:
            by_name.setdefault(simplify(name), []).append(index)
    fitting: dict[str, list[int]] = {}
    for column in sorted(free):
        fitting.setdefault(simplify(given[column]), []).append(column)
    pairs = [(by_name[name], found) for name, found in fitting.items() if name in by_name]
    return [(indices[0], found[0]) for indices, found in pairs if len(indices) == len(found) == 1]


def _plain(name: str) -> str:
    return "".join(name.casefold().replace("_", " ").replace("-", " ").split())
