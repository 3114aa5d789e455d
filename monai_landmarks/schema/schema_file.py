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

"""Landmark schemas in JSON files, in YAML files if PyYAML is installed, and those that are part of the package.

The layout is published as a JSON Schema (draft 2020-12), see :func:`json_schema_path`. An editor can use it to complete
and check a schema. Reading a file requires no validator. Example::

    {
      "name": "eyes",
      "spatial_dims": 2,
      "groups": {"face": "#0072b2"},
      "landmarks": [
        {"name": "left_eye", "definition": "Center of the left pupil.", "group": "face"},
        {"name": "right_eye", "definition": "Center of the right pupil.", "group": "face"}
      ],
      "pairs": [["left_eye", "right_eye"]],
      "measurements": [
        {"name": "pupillary_distance", "expression": "distance(left_eye, right_eye)", "unit": "mm",
         "classes": [{"name": "narrow", "below": 58}, {"name": "usual", "at_most": 68}, {"name": "wide", "above": 68}]}
      ]
    }
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.files.yaml_values import load_yaml_or_json

from .expression import did_you_mean
from .landmark_schema import Landmark, LandmarkSchema, Measurement, MeasurementClass

__all__ = ["json_schema_path", "load_landmark_schema", "parse_landmark_schema", "shipped_schemas"]

_FOLDER = Path(__file__).parent


def json_schema_path() -> Path:
    """Return the path of the JSON Schema (draft 2020-12) of the layout."""
    return _FOLDER / "landmark_schema.schema.json"


def shipped_schemas() -> list[str]:
    """Return the names of the schemas in this package.

    Example:
        >>> "cephalometric_19" in shipped_schemas()
        True
    """
    return sorted(path.stem for path in (_FOLDER / "shipped").glob("*.json"))


def load_landmark_schema(schema: str | os.PathLike) -> LandmarkSchema:
    """Read a landmark schema.

    Args:
        schema: name of a schema in this package, or path of a ``.json``, ``.yaml`` or ``.yml`` file.

    Returns:
        The schema.

    Raises:
        ValueError: if there is no such schema, or if it is malformed. The message states the file, the place in it,
            what is wrong and what is expected.
        ImportError: for a YAML file, if PyYAML is not installed.

    Example:
        >>> schema = load_landmark_schema("cephalometric_19")
        >>> len(schema), schema.names[:2], schema.measurements[0].expression
        (19, ['sella', 'nasion'], 'SNA - SNB')
    """
    if str(schema) in shipped_schemas():
        schema = _FOLDER / "shipped" / f"{schema}.json"
    path = Path(schema)
    if not path.is_file():
        hint = did_you_mean(str(schema), shipped_schemas())
        raise ValueError(
            f"{path}: no such file, and no shipped schema of this name{hint or '.'} There are: {shipped_schemas()}"
        )
    with naming_file(path):
        try:
            return parse_landmark_schema(load_yaml_or_json(path))
        except RecursionError:
            raise ValueError("nested too deep; expected a landmark schema.") from None


def parse_landmark_schema(content: Any) -> LandmarkSchema:
    """Convert the content of a file (dictionaries, lists, text and numbers) to a landmark schema.

    Args:
        content: the parsed file.

    Returns:
        The schema.

    Raises:
        ValueError: if the content is malformed. The message states the place.
    """
    known = _Object(content, "")
    schema = LandmarkSchema(
        name=known.required("name", _text),
        spatial_dims=known.required("spatial_dims", _whole_number),
        landmarks=tuple(known.required("landmarks", _list_of(_landmark))),
        pairs=tuple(known.optional("pairs", _list_of(_pair), [])),
        chains=known.optional("chains", _mapping_of(_names), {}),
        groups=known.optional("groups", _mapping_of(_text), {}),
        measurements=tuple(known.optional("measurements", _list_of(_measurement), [])),
        description=known.optional("description", _text),
        source=known.optional("source", _text),
        symmetric=known.optional("symmetric", _true_or_false, False),
    )
    known.optional("$schema", _text)
    known.refuse_others()
    return schema


# A reader takes a value and its place in the file, and returns the converted value or raises an error with the place.


class _Object:
    """A JSON object whose keys are read one by one; keys that are left over are unknown."""

    def __init__(self, value: Any, place: str) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place or 'the file'}: {_short(value)} is not an object; expected keys with values.")
        name = value.get("name")
        # landmarks.nasion is easier to find than landmarks[1]
        self.place = f"{place[: place.rindex('[')]}.{name}" if place.endswith("]") and isinstance(name, str) else place
        self.value = value
        self.taken: list[str] = []

    def required(self, key: str, read: Callable[[Any, str], Any]) -> Any:
        if key not in self.value:
            # a misspelled key is the most likely reason, so suggest it first
            near = did_you_mean(key, [str(other) for other in self.value])
            raise ValueError(f"{self._at(key)}: is absent{near or '; expected it to be there.'}")
        return self.optional(key, read)

    def optional(self, key: str, read: Callable[[Any, str], Any], default: Any = None) -> Any:
        self.taken.append(key)
        return read(self.value[key], self._at(key)) if key in self.value else default

    def refuse_others(self) -> None:
        for key in self.value:
            if key not in self.taken:
                hint = did_you_mean(str(key), self.taken)
                raise ValueError(
                    f"{self._at(key)}: unknown key {key!r}{hint or '; expected ' + ', '.join(self.taken) + '.'}"
                )

    def _at(self, key: Any) -> str:
        return f"{self.place}.{key}" if self.place else str(key)


def _landmark(value: Any, place: str) -> Landmark:
    known = _Object(value, place)
    texts = {key: known.optional(key, _text) for key in ("abbreviation", "definition", "group", "color")}
    landmark = Landmark(known.required("name", _text), **texts, sigma_mm=known.optional("sigma_mm", _number))
    known.refuse_others()
    return landmark


def _measurement(value: Any, place: str) -> Measurement:
    known = _Object(value, place)
    measurement = Measurement(
        name=known.required("name", _text),
        expression=known.required("expression", _text),
        unit=known.required("unit", _text),
        definition=known.optional("definition", _text),
        classes=tuple(known.optional("classes", _list_of(_measurement_class), [])),
    )
    known.refuse_others()
    return measurement


def _measurement_class(value: Any, place: str) -> MeasurementClass:
    known = _Object(value, place)
    bounds = {key: known.optional(key, _number) for key in ("at_least", "at_most", "above", "below")}
    measurement_class = MeasurementClass(known.required("name", _text), **bounds)
    known.refuse_others()
    return measurement_class


def _list_of(read: Callable[[Any, str], Any]) -> Callable[[Any, str], list[Any]]:
    def read_list(value: Any, place: str) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"{place}: {_short(value)} is not a list; expected a list.")
        return [read(item, f"{place}[{i}]") for i, item in enumerate(value)]

    return read_list


def _mapping_of(read: Callable[[Any, str], Any]) -> Callable[[Any, str], dict[str, Any]]:
    def read_mapping(value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place}: {_short(value)} is not an object; expected keys with values.")
        return {_text(key, place): read(item, f"{place}.{key}") for key, item in value.items()}

    return read_mapping


def _names(value: Any, place: str) -> tuple[str, ...]:
    names = tuple(_list_of(_text)(value, place))
    if len(names) < 2:
        raise ValueError(f"{place}: {_short(value)}; expected two or more names of landmarks.")
    return names


def _pair(value: Any, place: str) -> tuple[str, ...]:
    names = _names(value, place)
    if len(names) != 2:
        raise ValueError(f"{place}: {_short(value)} is not a pair; expected two names of landmarks.")
    return names


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: {_short(value)} is not text; expected text that is not blank.")
    return value


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise ValueError(f"{place}: {_short(value)} is not a number; expected a finite number.")
    return float(value)


def _true_or_false(value: Any, place: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{place}: {_short(value)} is not true or false.")
    return value


def _whole_number(value: Any, place: str) -> int:
    number = _number(value, place)
    if number != int(number):
        raise ValueError(f"{place}: {_short(value)} is not a whole number; expected one.")
    return int(number)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
