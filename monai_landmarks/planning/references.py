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
"""References between the entries of a configuration."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["references"]


def references(content: Any) -> set[str]:
    """Return the names of the entries at the top of a configuration that a part of it refers to.

    Example:
        >>> sorted(references({"a": "@b", "c": ["$@d#e + 1", "f"]}))
        ['b', 'd']
    """
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return {name for part in content for name in references(part)}
    return set(re.findall(r"@(\w+)", content)) if isinstance(content, str) else set()
