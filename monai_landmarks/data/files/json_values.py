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

"""Values of JSON, with errors that state the place."""

from __future__ import annotations

import json
import math
import reprlib
from typing import Any

__all__ = ["is_number", "load_json", "read_coordinates", "read_position", "short"]


def load_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if the text is not JSON, is nested too deeply, or has a key twice in one object. Python's own parser
            would silently keep the last of the two.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: not valid JSON ({error.msg}); the file may be cut short.") from error
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
        raise ValueError("a number has too many digits to be read.") from error
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply.") from error


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a finite number that a float can hold. ``true`` and ``false`` are not numbers."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def read_coordinates(value: Any, dims: int, where: str) -> list[float]:
    """Return a JSON list of ``dims`` numbers as coordinates.

    Args:
        value: the JSON value.
        dims: number of coordinates.
        where: place in the file, for errors.

    Raises:
        ValueError: if the value is anything else.
    """
    if not isinstance(value, list) or len(value) != dims or not all(is_number(part) for part in value):
        raise ValueError(f"{where} is {short(value)}; expected {dims} numbers.")
    return [float(part) for part in value]


def read_position(value: Any, dims: int, where: str) -> list[float]:
    """Return a JSON list of ``dims`` numbers as coordinates; nothing, null or NaN instead of all numbers gives NaN.

    Args:
        value: the JSON value.
        dims: number of coordinates.
        where: place in the file, for errors.

    Raises:
        ValueError: if the value is anything else, for example if only some of its numbers are null.
    """
    if (
        value is None
        or value in ("", [])
        or (isinstance(value, list) and len(value) == dims and all(map(_is_no_number, value)))
    ):
        return [math.nan] * dims
    return read_coordinates(value, dims, where)


def _is_no_number(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def short(value: Any) -> str:
    """Format a value for a message; a long one is cut."""
    return _REPR.repr(value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {short(twice)} is given twice in one object; expected distinct keys.")
    return result


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
