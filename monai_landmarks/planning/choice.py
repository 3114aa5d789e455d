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
"""Settings with their reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "Choices"]


@dataclass(frozen=True)
class Choice:
    """A setting that a rule has chosen.

    Args:
        value: plain value that JSON can hold.
        reason: reason for the value, a phrase without a period.
    """

    value: Any
    reason: str


class Choices(dict[str, Choice]):
    """The choices of a plan by name, in the order in which they were made.

    Args:
        given: values that replace those of the rules, by name.

    Example:
        >>> choices = Choices({"batch_size": 8})
        >>> choices.choose("batch_size", lambda: Choice(4, "it fits"))
        8
        >>> choices["batch_size"].reason
        'given'
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.given = dict(given or {})

    def choose(self, name: str, rule: Callable[[], Choice]) -> Any:
        """Add a choice, with the given value or else that of the rule, and return its value."""
        self[name] = Choice(self.given[name], "given") if name in self.given else rule()
        return self[name].value

    @property
    def in_patches(self) -> bool:
        """Whether the network works on patches of the images."""
        return "patch_size" in self and self["patch_size"].value is not None

    @property
    def network_size(self) -> list[int]:
        """Size in voxels of the input of the network, which is a patch, or the whole grid."""
        return self["patch_size" if self.in_patches else "spatial_size"].value

    def require_known_settings(self) -> None:
        """Raise a ``ValueError`` if a value was given for a setting that does not exist."""
        unknown = [name for name in self.given if name not in self]
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}; expected one of {', '.join(self)}.")
