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


"""The transitions that an agent learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """
    A ring of transitions (state, action, reward, next state, which actions were allowed there).

    Args:
        capacity: how many are kept; the oldest go first.
        num_features: length of a state.
        num_actions: length of a mask of actions.

    Raises:
        ValueError: for a capacity below 1.
    """

    def __init__(self, capacity: int, num_features: int, num_actions: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}.")
        self.capacity = capacity
        self._columns = {
            "state": torch.zeros(capacity, num_features),
            "action": torch.zeros(capacity, dtype=torch.long),
            "reward": torch.zeros(capacity),
            "next_state": torch.zeros(capacity, num_features),
            "next_allowed": torch.zeros(capacity, num_actions, dtype=torch.bool),
        }
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    def add(self, **transitions: torch.Tensor) -> None:
        """
        Args:
            transitions: ``state``, ``action``, ``reward``, ``next_state`` and ``next_allowed``, each (M, ...).
        """
        count = len(transitions["action"])
        rows = (self._added + torch.arange(count)) % self.capacity
        for name, column in self._columns.items():
            column[rows] = transitions[name].to(column.dtype)
        self._added += count

    def sample(self, count: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """``count`` transitions at random, with replacement."""
        rows = torch.randint(len(self), (count,), generator=generator)
        return {name: column[rows] for name, column in self._columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """The transitions that are there, and how many have been added."""
        return {"added": self._added, **{name: column[: len(self)].clone() for name, column in self._columns.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`.

        Raises:
            ValueError: where it holds more transitions than fit.
        """
        filled = len(state["action"])
        if filled > self.capacity or (filled < self.capacity and filled != state["added"]):
            raise ValueError(f"a replay buffer of {filled} transitions does not fit one of capacity {self.capacity}.")
        self._added = state["added"]
        for name, column in self._columns.items():
            column[:filled] = state[name]
