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


"""The agent's network, replay buffer, exploration and learning."""

from __future__ import annotations

import copy

import pytest
import torch

from monai_landmarks.precision import Action, DoubleDQNAgent, RandomAgent
from monai_landmarks.precision.agent import DuelingQNetwork, ReplayBuffer

ALL = torch.ones(6, 4, dtype=torch.bool)


def transitions(state, action, reward, next_state=None, allowed=ALL):
    count = len(action)
    return {
        "state": state,
        "action": torch.as_tensor(action),
        "reward": torch.as_tensor(reward),
        "next_state": state if next_state is None else next_state,
        "next_allowed": allowed[:1].expand(count, -1),
    }


def test_dueling_head():
    torch.manual_seed(0)
    network, state = DuelingQNetwork(5, hidden=8), torch.randn(7, 5)
    values = network(state)
    features = network.body(state)
    assert values.shape == (7, 4) and torch.equal(values[:, Action.STOP], torch.zeros(7))
    # the mean over the moves is the value of the state: the advantages have none of it
    torch.testing.assert_close(values[:, :3].mean(1), network.value(features)[:, 0])
    advantage = network.advantage(features)
    torch.testing.assert_close(values[:, 0] - values[:, 2], advantage[:, 0] - advantage[:, 2])


def test_replay_is_a_ring():
    buffer = ReplayBuffer(5, num_features=1, num_actions=4)
    for start in (0, 4):
        numbers = torch.arange(start, start + 4)
        buffer.add(**transitions(numbers[:, None].float(), numbers % 3, numbers.float()))
    assert len(buffer) == 5
    drawn = buffer.sample(300, torch.Generator().manual_seed(0))
    assert set(drawn["reward"].tolist()) == {3.0, 4.0, 5.0, 6.0, 7.0}
    assert torch.equal(drawn["state"][:, 0], drawn["reward"])
    other = ReplayBuffer(5, 1, 4)
    other.load_state_dict(buffer.state_dict())
    for one in (buffer, other):
        one.add(**transitions(torch.full((1, 1), 9.0), [0], [9.0]))
    again = [b.sample(50, torch.Generator().manual_seed(1))["reward"] for b in (buffer, other)]
    assert torch.equal(*again)
    with pytest.raises(ValueError, match="capacity 4"):
        ReplayBuffer(4, 1, 4).load_state_dict(buffer.state_dict())
    with pytest.raises(ValueError, match="capacity"):
        ReplayBuffer(0, 1, 4)


@pytest.mark.parametrize("agent", [RandomAgent, lambda: DoubleDQNAgent(num_features=3, hidden=8)])
def test_exploration_tries_each_open_move_and_never_stop(agent):
    agent = agent()
    allowed = torch.ones(300, 4, dtype=torch.bool)
    allowed[::2, Action.SHRINK] = False
    actions, _ = agent.act(torch.zeros(300, 3), allowed, epsilon=1.0)
    assert set(actions[::2].tolist()) == {Action.KEEP, Action.GROW}
    assert set(actions[1::2].tolist()) == {Action.SHRINK, Action.KEEP, Action.GROW}


def test_without_exploration_the_best_open_action_is_taken():
    agent = DoubleDQNAgent(num_features=3, hidden=8)
    state = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 5
    allowed = torch.rand(40, 4, generator=torch.Generator().manual_seed(1)) < 0.5
    allowed[:, Action.KEEP] = True
    actions, best = agent.act(state, allowed, epsilon=0.0)
    assert torch.equal(actions, best)
    values = agent.values(state)
    for n in range(40):
        assert values[n, actions[n]] == values[n][allowed[n]].max()


def test_values_become_rewards_and_what_follows():
    """Two states that lead to each other, each with one rewarded move: values in closed form."""
    discount = 0.5
    agent = DoubleDQNAgent(num_features=2, hidden=16, discount=discount, learning_rate=0.02, updates=40, seed=1)
    states = torch.eye(2).repeat_interleave(3, dim=0)
    actions = torch.tensor([0, 1, 2, 0, 1, 2])
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.5])
    following = states.flip(0)  # the other state
    for _ in range(12):
        agent.learn(**transitions(states, actions, rewards, following))
    # V0 = 1 + V1 / 2 and V1 = 1/2 + V0 / 2
    v0, v1 = 5 / 3, 4 / 3
    expected = torch.tensor([[1 + v1 / 2, v1 / 2, v1 / 2], [v0 / 2, v0 / 2, 0.5 + v0 / 2]])
    torch.testing.assert_close(agent.values(torch.eye(2))[:, :3], expected, atol=0.1, rtol=0)


def test_the_network_chooses_the_next_action_and_the_slow_network_values_it():
    """One update, written a second time: double Q-learning, Huber loss, Adam, and the slow copy after it."""
    torch.manual_seed(0)
    agent = DoubleDQNAgent(3, hidden=8, discount=0.5, learning_rate=0.01, batch_size=5, updates=1, target_rate=0.25)
    with torch.no_grad():
        for parameter in agent.slow_network.parameters():
            parameter.normal_()
    network, slow = copy.deepcopy(agent.network), copy.deepcopy(agent.slow_network)
    state, following = torch.randn(1, 3), torch.randn(40, 3)
    # a next state in which the two networks disagree about the best move
    moves = network(following)[:, :3].argmax(1), slow(following)[:, :3].argmax(1)
    following = following[moves[0] != moves[1]][:1]
    open_moves = torch.tensor([[True, True, True, False]])
    batch = {"state": state, "action": torch.tensor([2]), "reward": torch.tensor([0.3])}
    agent.learn(**batch, next_state=following, next_allowed=open_moves)

    target = 0.3 + 0.5 * slow(following)[0, network(following)[0, :3].argmax()].detach()
    off = network(state)[0, 2] - target
    (0.5 * off**2 if off.abs() < 1 else off.abs() - 0.5).backward()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    torch.optim.Adam(network.parameters(), lr=0.01).step()
    for found, expected in zip(agent.network.parameters(), network.parameters()):
        torch.testing.assert_close(found, expected)
    assert any(not torch.equal(old, new) for old, new in zip(before, network.parameters()))
    for found, old, new in zip(agent.slow_network.parameters(), slow.parameters(), network.parameters()):
        torch.testing.assert_close(found, 0.75 * old + 0.25 * new)


def test_closed_actions_are_not_counted_on():
    """SHRINK would be the best next action, but it is not allowed there."""
    agent = DoubleDQNAgent(num_features=1, hidden=16, discount=0.5, learning_rate=0.02, updates=30)
    open_moves = ALL[:1].clone()
    open_moves[0, Action.SHRINK] = False
    state = torch.ones(3, 1)
    for _ in range(8):
        agent.learn(**transitions(state, [0, 1, 2], [1.0, -0.5, -0.5], allowed=open_moves))
    # what is left is stop, which is worth nothing
    torch.testing.assert_close(agent.values(state[:1])[0, :3], torch.tensor([1.0, -0.5, -0.5]), atol=0.1, rtol=0)


def test_torch_random_numbers_are_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    agent = DoubleDQNAgent(num_features=3, hidden=8)
    agent.learn(**transitions(torch.zeros(6, 3), [0] * 6, [0.0] * 6))
    agent.act(torch.zeros(6, 3), ALL, 0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_state_is_whole(tmp_path):
    torch.manual_seed(0)
    state = torch.randn(6, 3)
    one, two = DoubleDQNAgent(3, hidden=8, seed=1), DoubleDQNAgent(3, hidden=8, seed=2)
    for _ in range(2):
        one.learn(**transitions(state, [0, 1, 2, 0, 1, 2], torch.randn(6)))
    torch.save(one.state_dict(), tmp_path / "agent.pt")
    two.load_state_dict(torch.load(tmp_path / "agent.pt", weights_only=True))
    for agent in (one, two):
        agent.learn(**transitions(state, [2, 1, 0, 0, 1, 2], torch.ones(6)))
    assert torch.equal(one.values(state), two.values(state))
    assert torch.equal(one.act(state, ALL, 0.5)[0], two.act(state, ALL, 0.5)[0])
    random = RandomAgent(seed=5)
    random.load_state_dict(RandomAgent(seed=6).state_dict())
    assert torch.equal(random.act(state, ALL, 1.0)[0], RandomAgent(seed=6).act(state, ALL, 1.0)[0])
