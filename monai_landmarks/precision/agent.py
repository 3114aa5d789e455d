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


"""Agents that choose an action for each landmark: one that learns, and one that does not."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from .actions import Action
from .observation import FEATURES
from .replay import ReplayBuffer

__all__ = ["DoubleDQNAgent", "DuelingQNetwork", "RandomAgent"]

_MOVES = (Action.SHRINK, Action.KEEP, Action.GROW)


class DuelingQNetwork(nn.Module):
    """
    The value of each action in a state, as the value of the state plus the advantage of the action (Wang et al., ICML
    2016). ``STOP`` is worth 0 by definition: nothing comes after it.

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
        """Values of shrink, keep, grow and stop."""
        features = self.body(state)
        advantage = self.advantage(features)
        moves = self.value(features) + advantage - advantage.mean(dim=-1, keepdim=True)
        return torch.cat([moves, torch.zeros_like(moves[..., :1])], dim=-1)


class RandomAgent:
    """
    Shrinks, keeps or grows at random and learns nothing: what a search is worth without learning.

    Args:
        seed: of its own random numbers; those of torch are left alone.
    """

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def values(self, state: torch.Tensor) -> torch.Tensor:
        """(M, 4), NaN: it has no opinion."""
        return torch.full((len(state), len(Action)), float("nan"))

    def act(self, state: torch.Tensor, allowed: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            state: (M, F).
            allowed: (M, 4) which actions may be chosen.
            epsilon: probability of a random action.

        Returns:
            (M,) actions to take, and (M,) the actions that the agent takes to be best.
        """
        chosen = self._random(allowed)
        return chosen, torch.full_like(chosen, int(Action.KEEP))

    def _random(self, allowed: torch.Tensor) -> torch.Tensor:
        # stop is never tried at random: what comes of it is known
        weight = allowed[:, : len(_MOVES)].float()
        return torch.multinomial(weight, 1, generator=self.generator)[:, 0]

    def learn(self, **transitions: torch.Tensor) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Any]:
        """The random state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
        self.generator.set_state(state["generator"].cpu())


class DoubleDQNAgent(RandomAgent):
    """
    Deep Q-learning with a dueling head, a slow copy of the network for the targets, and the double estimate of the best
    next action (van Hasselt et al., AAAI 2016). One small network serves all landmarks. On the CPU, with random numbers
    of its own: neither the training of the heatmaps nor the device changes what it does.

    Args:
        num_features: length of a state.
        hidden: width of its layers.
        discount: how much the next reward counts.
        learning_rate: of Adam.
        batch_size: transitions of an update.
        updates: updates a decision.
        target_rate: how fast the slow copy follows.
        capacity: of the replay buffer.
        seed: of weights, exploration and sampling.
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
        """(M, 4) values of the actions."""
        return self.network(state)

    def act(self, state: torch.Tensor, allowed: torch.Tensor, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`RandomAgent.act`; a random action with probability epsilon, the best one else."""
        best = self.values(state).masked_fill(~allowed, -torch.inf).argmax(dim=1)
        explore = torch.rand(len(state), generator=self.generator) < epsilon
        return torch.where(explore, self._random(allowed), best), best

    def learn(self, **transitions: torch.Tensor) -> None:
        """
        Remember transitions and do the updates of one decision.

        Args:
            transitions: as in :meth:`ReplayBuffer.add`.
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
        """Networks, optimizer, replay buffer and random state."""
        parts = {name: getattr(self, name) for name in ("network", "slow_network", "optimizer", "replay")}
        return {**super().state_dict(), **{name: part.state_dict() for name, part in parts.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
        super().load_state_dict(state)
        for name in ("network", "slow_network", "optimizer", "replay"):
            getattr(self, name).load_state_dict(state[name])
