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


"""Children of one network that try different sigmas, of which the best goes on."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = ["Population"]


class Population:
    """
    Copies of a training's state, by name, so that one process can train several children in turn from the same state and
    go on from the best of them (as AM-LFS, ICCV 2019, does).

    Args:
        holders: what makes up the state: network, optimizer, scheduler; anything with ``state_dict`` and
            ``load_state_dict``.

    Raises:
        ValueError: when nothing is given.
    """

    def __init__(self, holders: Mapping[str, Any]) -> None:
        if not holders:
            raise ValueError("a population needs what to copy, such as {'model': network, 'optimizer': optimizer}.")
        self.holders = dict(holders)
        self._copies: dict[str, dict[str, Any]] = {}

    def save(self, name: str) -> None:
        """Keep a copy of the present state."""
        self._copies[name] = {key: deepcopy(holder.state_dict()) for key, holder in self.holders.items()}

    def load(self, name: str) -> None:
        """Go back to a copy."""
        for key, holder in self.holders.items():
            # an optimizer takes over the tensors that it is given, and would write into the copy
            holder.load_state_dict(deepcopy(self._copies[name][key]))

    def forget(self, *keep: str) -> None:
        """Drop all copies but these."""
        self._copies = {name: copy for name, copy in self._copies.items() if name in keep}

    def state_dict(self) -> dict[str, Any]:
        """The copies."""
        return {"copies": self._copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
        self._copies = dict(state["copies"])
