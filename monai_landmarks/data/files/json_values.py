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

"""JSON text and the values in it, with errors that say where."""

from __future__ import annotations

import json
import math
import reprlib
from typing import Any

__all__ = ["is_number", "load_json", "read_coordinates", "short"]


def load_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: if the text is not JSON, is nested too deeply, or gives a key of an object twice, of which Python's
            parser would silently keep the last.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: not valid JSON ({error.msg}); the file may be cut short.") from error
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply.") from error


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold: neither true nor false, infinite, NaN, nor too large."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def read_coordinates(value: Any, dims: int, where: str) -> list[float]:
    """The coordinates of a point that JSON gives as a list of ``dims`` numbers."""
    if not isinstance(value, list) or len(value) != dims or not all(is_number(part) for part in value):
        raise ValueError(f"{where} is {short(value)}; expected {dims} numbers.")
    return [float(part) for part in value]


def short(value: Any) -> str:
    """A value for a message, cut where it is long."""
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
