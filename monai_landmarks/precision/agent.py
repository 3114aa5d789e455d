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


"""Agents that choose an action for each landmark: one that learns, and one that acts at random for comparison."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from .controller import Action
from .objective import FEATURES

__all__ = ["DoubleDQNAgent", "DuelingQNetwork", "RandomAgent", "ReplayBuffer"]

_MOVES = (Action.SHRINK, Action.KEEP, Action.GROW)


class RandomAgent:
    """
    Shrink, keep or grow at random, without learning. It is the baseline for an agent that learns.

    Args:
        seed: seed of the agent's own random numbers. The random state of torch is not used.
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def values(self, state: torch.Tensor) -> torch.Tensor:
        """
        Return the value of each action, NaN for this agent.

        Args:
            state: (M, F) states.

        Returns:
            (M, 4), one column per :class:`Action`.
        """
        return torch.full((len(state), len(Action)), float("nan"))

    def act(self, state: torch.Tensor, allowed: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Choose actions.

        Args:
            state: (M, F) states.
            allowed: (M, 4) bool, True for actions that may be chosen.
            epsilon: probability of a random action.

        Returns:
            (M,) chosen actions, and (M,) the actions with the highest value.
        """
        chosen = self._random(allowed)
        return chosen, torch.full_like(chosen, int(Action.KEEP))

    def _random(self, allowed: torch.Tensor) -> torch.Tensor:
        # STOP is not explored: its value is 0 by definition
        weight = allowed[:, : len(_MOVES)].float()
        return torch.multinomial(weight, 1, generator=self.generator)[:, 0]

    def learn(self, **transitions: torch.Tensor) -> None:
        """
        Learn from transitions. This agent does not.

        Args:
            **transitions: as for ``ReplayBuffer.add``.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the random state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self.generator.set_state(state["generator"].cpu())


class DoubleDQNAgent(RandomAgent):
    """
    Deep Q-learning with a dueling network, a target network, and double Q-learning (van Hasselt et al., AAAI 2016).

    One small network serves all landmarks. It runs on the CPU and has its own random numbers, so its decisions do not
    depend on the device or on the random numbers of the training.

    Args:
        num_features: length of a state.
        hidden: width of the hidden layers.
        discount: weight of the next reward.
        learning_rate: learning rate of Adam.
        batch_size: transitions per update.
        updates: updates per decision.
        target_rate: rate at which the target network follows the network.
        capacity: capacity of the replay buffer.
        seed: seed of weights, exploration and sampling.
    """

    def __init__(
        self,
        num_features: int = len(FEATURES),
        hidden: int = 64,
        discount: float = 0.5,
        learning_rate: float = 3e-3,
        batch_size: int = 64,
        updates: int = 40,
        target_rate: float = 0.05,
        capacity: int = 5000,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = DuelingQNetwork(num_features, hidden)
        self.slow_network = deepcopy(self.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.replay = ReplayBuffer(capacity, num_features, len(Action))
        self.discount, self.batch_size, self.updates, self.target_rate = discount, batch_size, updates, target_rate

    @torch.no_grad()
    def values(self, state: torch.Tensor) -> torch.Tensor:
        """Return the values of the actions, as :meth:`RandomAgent.values`."""
        return self.network(state)

    def act(self, state: torch.Tensor, allowed: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose the action with the highest value, or with probability ``epsilon`` a random one.

        Arguments and results are those of :meth:`RandomAgent.act`.
        """
        best = self.values(state).masked_fill(~allowed, -torch.inf).argmax(dim=1)
        explore = torch.rand(len(state), generator=self.generator) < epsilon
        return torch.where(explore, self._random(allowed), best), best

    def learn(self, **transitions: torch.Tensor) -> None:
        """
        Store transitions and run the updates of one decision.

        Args:
            **transitions: as for ``ReplayBuffer.add``.
        """
        self.replay.add(**transitions)
        for _ in range(self.updates if len(self.replay) else 0):
            self._update(self.replay.sample(self.batch_size, self.generator))

    def _update(self, batch: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            best = self.network(batch["next_state"]).masked_fill(~batch["next_allowed"], -torch.inf).argmax(dim=1)
            following = self.slow_network(batch["next_state"]).gather(1, best[:, None])[:, 0]
            target = batch["reward"] + self.discount * following
        value = self.network(batch["state"]).gather(1, batch["action"][:, None])[:, 0]
        self.optimizer.zero_grad()
        F.smooth_l1_loss(value, target).backward()
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.slow_network.parameters(), self.network.parameters()):
                slow.lerp_(fast, self.target_rate)

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimizer, replay buffer and random state."""
        parts = {name: getattr(self, name) for name in ("network", "slow_network", "optimizer", "replay")}
        return {**super().state_dict(), **{name: part.state_dict() for name, part in parts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        super().load_state_dict(state)
        for name in ("network", "slow_network", "optimizer", "replay"):
            getattr(self, name).load_state_dict(state[name])


class DuelingQNetwork(nn.Module):
    """
    The values of the actions: the value of the state plus the advantage of each action (Wang et al., ICML 2016).

    ``STOP`` has value 0 by definition, because no reward follows it.

    Args:
        num_features: length of a state.
        hidden: width of the two hidden layers.

    Shape:
        (M, num_features) to (M, 4).
    """

    def __init__(self, num_features: int = len(FEATURES), hidden: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(num_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.value = nn.Linear(hidden, 1)
        self.advantage = nn.Linear(hidden, len(_MOVES))

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """Return the values of SHRINK, KEEP, GROW and STOP."""
        features = self.body(state)
        advantage = self.advantage(features)
        moves = self.value(features) + advantage - advantage.mean(dim=-1, keepdim=True)
        return torch.cat([moves, torch.zeros_like(moves[..., :1])], dim=-1)


class ReplayBuffer:
    """
    A ring buffer of transitions: state, action, reward, next state, and the actions allowed in the next state.

    Args:
        capacity: number of transitions to keep. New ones replace the oldest.
        num_features: length of a state.
        num_actions: number of actions.

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
        Store transitions.

        Args:
            **transitions: ``state`` (M, F), ``action`` (M,), ``reward`` (M,), ``next_state`` (M, F) and
                ``next_allowed`` (M, 4).
        """
        count = len(transitions["action"])
        rows = (self._added + torch.arange(count)) % self.capacity
        for name, column in self._columns.items():
            column[rows] = transitions[name].to(column.dtype)
        self._added += count

    def sample(self, count: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Draw ``count`` transitions at random, with replacement."""
        rows = torch.randint(len(self), (count,), generator=generator)
        return {name: column[rows] for name, column in self._columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the stored transitions and the number of transitions that were ever added."""
        return {"added": self._added, **{name: column[: len(self)].clone() for name, column in self._columns.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`.

        Raises:
            ValueError: if the buffer that was saved had another capacity and its transitions do not fit.
        """
        filled = len(state["action"])
        if filled > self.capacity or (filled < self.capacity and filled != state["added"]):
            raise ValueError(f"a replay buffer of {filled} transitions does not fit one of capacity {self.capacity}.")
        self._added = state["added"]
        for name, column in self._columns.items():
            column[:filled] = state[name]
