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

"""Checks of the values that a request to the label server contains: names of images, labels, tags and models, and JSON.

MONAI Label builds paths from these values and gives some of them to the configuration of a bundle, which can run code.
All functions work without MONAI Label.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

__all__ = ["file_name", "json_object", "require_name", "require_path", "require_storable", "require_task_settings"]

_NAME_BYTES = 200  # a file system allows 255, and MONAI Label adds suffixes
_DEPTH = 32
_NOT_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_CONFIG_MARKS = ("$", "@", "%")  # with which MONAI begins an expression, a reference and a macro
_SET_BY_SERVER = {"bundle_path", "file", "session", "session_id", "tracking_uri"}
_FREE_TEXT = {"client_id"}


def require_name(name: Any, what: str) -> None:
    """Require that a value is a name and not a path.

    Args:
        name: the value.
        what: what the value names, for the message.

    Raises:
        ValueError: if the value is no text, is empty or too long, begins with a dot, or contains a slash, a backslash
            or a control character.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} must be a name, but it is {_short(name)}.")
    _require_no_path(name, what)
    if name.startswith("."):
        raise ValueError(f"{what} {_short(name)} begins with a dot; names of files that are hidden are not allowed.")


def require_path(path: str, what: str) -> None:
    """Require that all parts of a relative path are names, also after another decoding of ``%2e``.

    Raises:
        ValueError: if a part is no name.
    """
    for part in path.split("/"):
        if part:
            require_name(part, f"a part of {what}")
            require_name(unquote(part), f"a part of {what}")


def file_name(path: str) -> str:
    """Return the last part of the path of an uploaded file. Clients on Windows and Linux send their own full path.

    Raises:
        ValueError: if the last part is no name. It may begin with a dot.
    """
    name = re.split(r"[/\\]", path)[-1]
    _require_no_path(name, "the file name")
    return name


def json_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: if the text is not JSON, is not an object, or cannot be stored, see :func:`require_storable`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object, but it is {_short(value)}.")
    require_storable(value, what)
    return value


def require_storable(value: Any, what: str, depth: int = 0) -> None:
    """Require that a value can be sent as JSON again. Another would break every later answer that contains it.

    Raises:
        ValueError: if a number is infinite or NaN, a text has half of a surrogate pair, or the value is nested too
            deeply.
    """
    if depth > _DEPTH:
        raise ValueError(f"{what} is nested more than {_DEPTH} times.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} contains {value}, which is no number of JSON.")
    if isinstance(value, str) and not value.isascii() and re.search("[\ud800-\udfff]", value):
        raise ValueError(f"{what} contains text that is not valid Unicode.")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            require_storable(key, what, depth + 1)
            require_storable(entry, what, depth + 1)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            require_storable(entry, what, depth + 1)


def require_task_settings(settings: Mapping[str, Any]) -> None:
    """Require that the settings of an inference, training, scoring or strategy contain only values.

    MONAI Label copies the settings over its own request, so they could replace the image by a path, and it puts some of
    them into the configuration of the bundle, where a text that begins with ``$`` is Python code.

    Args:
        settings: JSON object that a client sends. Nested objects are checked as well.

    Raises:
        ValueError: if a key is reserved for the server, or a text is a path or an expression, reference or macro of a
            configuration.
    """
    require_storable(settings, "the settings")
    _require_inert(settings)
    for key, value in settings.items():
        if key in _SET_BY_SERVER and value:
            raise ValueError(f"the setting {_short(key)} is set by the server only; leave it out.")
        if key in _FREE_TEXT:
            continue
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, str) and entry:
                _require_no_path(entry, f"the setting {_short(key)}:")
            elif isinstance(entry, Mapping) and entry is value:
                require_task_settings(entry)


def _require_inert(value: Any) -> None:
    if isinstance(value, str) and value.startswith(_CONFIG_MARKS):
        raise ValueError(f"the setting {_short(value)} begins with {value[0]!r}, as an expression of a bundle does.")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if str(key).startswith("_"):
                raise ValueError(f"the setting {_short(key)} begins with an underscore, as a key of a bundle does.")
            if key not in _FREE_TEXT:
                _require_inert(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            _require_inert(entry)


def _require_no_path(name: str, what: str) -> None:
    if _NOT_IN_NAMES.search(name) or name in (".", ".."):
        raise ValueError(
            f"{what} {_short(name)} is not a name; it must not contain a slash, a backslash, a control character, or only dots."
        )
    if len(name.encode("utf-8")) > _NAME_BYTES:
        raise ValueError(f"{what} {_short(name)} is longer than {_NAME_BYTES} bytes.")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
