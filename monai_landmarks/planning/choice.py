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
"""A setting, and why it is so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "Choices"]


@dataclass(frozen=True)
class Choice:
    """What a rule has chosen.

    Args:
        value: plain data, as JSON knows it.
        reason: half a sentence for whoever will ask why.
    """

    value: Any
    reason: str


class Choices(dict[str, Choice]):
    """The choices of a plan by their names, in the order in which they were made.

    Args:
        given: values that are given and not chosen, by name.

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
        """The value of a new choice: the one that is given, or that of the rule."""
        self[name] = Choice(self.given[name], "given") if name in self.given else rule()
        return self[name].value

    @property
    def in_patches(self) -> bool:
        """Whether the network sees images in patches."""
        return "patch_size" in self and self["patch_size"].value is not None

    @property
    def network_size(self) -> list[int]:
        """Size in voxels of what the network sees: a patch, or the whole grid."""
        return self["patch_size" if self.in_patches else "spatial_size"].value

    def check_given(self) -> None:
        """Raise a ValueError if a value is given that nobody has asked for."""
        unknown = [name for name in self.given if name not in self]
        if unknown:
            raise ValueError(f"there is no setting {unknown[0]!r}; there are: {', '.join(self)}.")
