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
"""The coarse network of a close look that has configuration files of its own, as the network of its bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .references import references

__all__ = ["coarse_config_names", "has_own_coarse_network", "with_coarse_network"]

_TRAIN = "$@bundle_root + '/configs/train.json'"
_CONFIG = re.compile(r"\$@bundle_root \+ '/configs/(\w+)\.json'")
_ALL_LANDMARKS = "$len(@names)"


def has_own_coarse_network(close_look: Mapping[str, Any]) -> bool:
    """Return whether the coarse network of a close look has configuration files of its own, beside ``train.json``."""
    return close_look.get("coarse_config") != [_TRAIN]


def coarse_config_names(configs: Mapping[str, Any]) -> list[str] | None:
    """Return the names of the files that are read after ``train.json`` for the coarse network of a close look.

    Args:
        configs: configurations of the bundle by name, among them ``close_look``.

    Returns:
        The names without suffix. None if they are not known, or if the network finds other points than that of
        ``train.json``.
    """
    first, *others = configs["close_look"]["coarse_config"]
    names = [_name(path) for path in others]
    if first != _TRAIN or not all(name in configs for name in names):
        return None
    found = [configs[name].get("network_def", {}).get("num_landmarks", _ALL_LANDMARKS) for name in names if name]
    return [name for name in names if name] if set(found) <= {_ALL_LANDMARKS} else None


def with_coarse_network(configs: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the configurations of a bundle whose network is the coarse network of the close look.

    Args:
        configs: configurations of the bundle by name.
        names: result of :func:`coarse_config_names`.

    Returns:
        New configurations, without those of ``names``, which are part of ``train`` and ``inference``.
    """
    changes: dict[str, Any] = {}
    for name in names:
        changes |= configs[name]
    result = {name: dict(content) for name, content in configs.items() if name not in names}
    result["train"] |= changes
    # inference has no loss and no optimizer
    used: set[str] = set()
    more = set(result["inference"]) & set(changes)
    while more - used:
        used |= more
        more = references([changes[key] for key in used]) & set(changes)
    result["inference"] |= {key: value for key, value in changes.items() if key in used}
    for content in result.values():
        if "coarse_config" in content:
            content["coarse_config"] = [path for path in content["coarse_config"] if _name(path) not in names]
    return result


def _name(path: str) -> str | None:
    match = _CONFIG.fullmatch(path)
    return match.group(1) if match else None
