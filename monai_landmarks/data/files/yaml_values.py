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
"""Values from YAML files, read safely, with PyYAML if it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai_landmarks.lazy import lazy_import

from .json_values import load_json
from .safe_files import read_text

yaml = lazy_import("yaml")

__all__ = ["load_yaml_or_json"]

_MOST_VALUES = 100_000
_SUFFIXES = (".yaml", ".yml")


def load_yaml_or_json(path: Path) -> Any:
    """Read a ``.yaml`` or ``.yml`` file as YAML, and any other file as JSON.

    Only plain values are read: no Python objects, and no aliases that expand without end.

    Raises:
        ValueError: if the file is malformed.
        ImportError: for a YAML file, if PyYAML is not installed.
    """
    text = read_text(path)
    if path.suffix.lower() not in _SUFFIXES:
        return load_json(text)
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None and _expanded_size(node, {}) > _MOST_VALUES:
                raise ValueError(f"its aliases expand to more than {_MOST_VALUES} values. Write the values themselves.")
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
    ) as error:  # PyYAML itself raises these for malformed values, such as a lone tag !!bool
        raise ValueError(f"not YAML that can be read ({error}).") from error


def _expanded_size(node: Any, known: dict[int, int]) -> int:
    """Return the number of values of a YAML node if all aliases were written out. One that contains itself is endless."""
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES + 1  # while its parts are counted
        parts = node.value if isinstance(node.value, list) else []
        # the parts of a mapping are pairs
        nodes = [part for entry in parts for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_expanded_size(part, known) for part in nodes)
    return known[id(node)]
