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


"""The search as a whole: it finds known sigmas, stops, resumes, and has several children. Each stop rule by itself."""

from __future__ import annotations

import math

import pytest
import torch
from tables import NAN, Bandit, evaluation

from monai_landmarks.precision import (
    Action,
    DoubleDQNAgent,
    EarlyStop,
    PrecisionObjective,
    PrecisionSearch,
    RandomAgent,
    SigmaRange,
)
from monai_landmarks.precision.objective import FEATURES, PrecisionObservation

BEST = [1.2, 1.8, 2.5, 4.0, 6.0, 9.0]


class Script(RandomAgent):
    """Chooses the given moves, by decision and landmark, and prefers GROW in its values."""

    def __init__(self, moves, gain=1.0):
        super().__init__()
        self.moves, self.gain, self.learned = iter(moves), gain, []

    def values(self, state):
        values = torch.zeros(len(state), 4)
        values[:, Action.GROW] = self.gain
        return values

    def act(self, state, allowed, epsilon):
        chosen = torch.tensor(next(self.moves))
        return chosen, chosen

    def learn(self, **transitions):
        self.learned.append(transitions)


def only(**rules):
    """An early stop with these rules and no others."""
    return EarlyStop(**{"stop_chosen": 0, "settled": 0, "oscillation": 0, "no_improvement": 0, **rules})


def search(agent, early_stop, count=1, **options):
    whole = {"warmup": 0.0, "until": 1.0, "stop_from": 0.0, "imagine": False, "sigma_range": SigmaRange(1.0, 10.0)}
    options = {**whole, **options}
    return PrecisionSearch(count, 2, agent=agent, early_stop=early_stop, **options)


def feed(one, errors, sigma=4.0, steps=100):
    """Decisions for a list of errors of a single landmark."""
    decisions, now = [], torch.tensor([sigma])
    for step, error in enumerate(errors):
        decisions.append(one.update(evaluation(now.tolist(), [error], progress=step / steps)))
        now = decisions[-1].sigma
    return decisions


def sigmas(decisions):
    return [round(float(d.sigma), 3) for d in decisions]


def test_agent_finds_the_best_sigmas_of_a_bandit():
    """Sigmas go from 4 voxels to about one step from the best ones; with a random agent they do not."""
    off = {}
    for name, agent in (("learns", DoubleDQNAgent(seed=0)), ("random", RandomAgent(seed=0))):
        wide, objective = SigmaRange(1.0, 10.0), PrecisionObjective(2, calibration=0.0)
        one = PrecisionSearch(12, 2, sigma_range=wide, agent=agent, objective=objective)
        last = Bandit(2 * BEST).run(one, steps=60)[-1].sigma
        off[name] = (last / torch.tensor(2 * BEST)).log().abs() / torch.tensor(1.25).log()
        assert one.done
    assert off["learns"].mean() < 1.4 < off["random"].mean()


def test_nothing_is_done_before_and_after_the_search():
    one = PrecisionSearch(6, 2, agent=RandomAgent(), warmup=0.2, until=0.5, early_stop=only())
    decisions = Bandit(BEST).run(one, steps=20)
    moved = [bool((a.sigma != b.sigma).any()) for a, b in zip(decisions, decisions[1:])]
    # decision t is made at progress (t + 1) / 20: from 0.2 to 0.45
    assert moved == [False] * 2 + [True] * 6 + [False] * 11
    assert decisions[2].action is None and decisions[3].action is not None
    assert set(decisions[8].stopped) == {""} and set(decisions[9].stopped) == {"end of search"}


def test_stop_is_closed_at_first():
    agent = DoubleDQNAgent(learning_rate=0.0)
    with torch.no_grad():
        agent.network.value.bias.fill_(-5.0)  # all moves seem bad: it would stop at once
    one = search(agent, only(stop_chosen=2), count=6, stop_from=0.25, exploration=(0.0, 0.0))
    decisions = Bandit(BEST).run(one, steps=20)
    assert [Action.STOP in d.action.tolist() for d in decisions[:6]] == [False] * 4 + [True, False]
    assert set(decisions[4].stopped) == {""} and set(decisions[5].stopped) == {"stop chosen"}
    assert torch.equal(decisions[5].sigma, decisions[19].sigma)


def test_oscillation_freezes_in_the_middle():
    moves = [[Action.GROW], [Action.SHRINK]] * 5
    decisions = feed(search(Script(moves), only(oscillation=4)), [1.0] * 8)
    assert sigmas(decisions) == [5.0, 4.0, 5.0, 4.0, 4.472, 4.472, 4.472, 4.472]
    assert decisions[3].stopped == ("",) and decisions[4].stopped == ("oscillation",)
    # without the rule it goes on
    assert sigmas(feed(search(Script(moves), only()), [1.0] * 8)) == [5.0, 4.0] * 4


def test_no_improvement_restores_the_best():
    errors = [3.0, 2.0, 1.0, 1.5, 1.6, 1.7, 1.8, 1.9]
    moves = [[Action.GROW]] * 8
    objective = PrecisionObjective(2, calibration=0.0, window=1)
    wide = SigmaRange(1.0, 100.0)
    decisions = feed(search(Script(moves), only(no_improvement=4), objective=objective, sigma_range=wide), errors)
    best = 4 * 1.25**2  # with which the error was 1
    assert decisions[5].stopped == ("",) and decisions[6].stopped == ("no improvement",)
    assert [float(d.sigma) for d in decisions[5:]] == pytest.approx([4 * 1.25**6, best, best])
    without = feed(search(Script(moves), only(), objective=objective, sigma_range=wide), errors)
    assert float(without[-1].sigma) == pytest.approx(4 * 1.25**8)


def test_settled_freezes_where_it_is():
    moves = [[Action.GROW]] * 6
    decisions = feed(search(Script(moves, gain=0.01), only(settled=3)), [1.0] * 6)
    assert sigmas(decisions) == [5.0, 6.25, 6.25, 6.25, 6.25, 6.25]
    assert decisions[2].stopped == ("settled",)
    assert sigmas(feed(search(Script(moves, gain=0.5), only(settled=3)), [1.0] * 4)) == [5.0, 6.25, 7.812, 9.766]


def test_a_move_that_is_not_allowed_is_no_gain():
    """The agent prefers GROW, but sigma is at its upper bound: nothing is better than to keep it."""
    decisions = feed(search(Script([[Action.KEEP]] * 4, gain=1.0), only(settled=3)), [1.0] * 4, sigma=10.0)
    assert decisions[1].stopped == ("",) and decisions[2].stopped == ("settled",)


def test_a_stopped_landmark_is_frozen_and_teaches_nothing_more():
    moves = [[Action.GROW, Action.STOP], [Action.GROW, Action.STOP], [Action.SHRINK, Action.GROW], [1, 2], [1, 2]]
    agent = Script(moves)
    one = search(agent, only(stop_chosen=2), count=2)
    now, found = torch.tensor([4.0, 4.0]), []
    for step in range(5):
        decision = one.update(evaluation(now.tolist(), [1.0, 1.0], progress=step / 10))
        now = decision.sigma
        found.append((decision.stopped, [round(float(s), 3) for s in now], decision.reward))
    assert [stopped for stopped, _, _ in found] == [("", "")] + [("", "stop chosen")] * 4
    assert [sigma[1] for _, sigma, _ in found] == [4.0] * 5 and found[2][1][0] == 5.0
    assert [len(learned["action"]) for learned in agent.learned] == [2, 1, 1, 1]
    assert agent.learned[0]["action"].tolist() == [Action.GROW, Action.KEEP]  # a stop that no rule takes up
    assert found[4][2].isnan().tolist() == [False, True]


def test_what_the_agent_learns_from():
    agent = Script([[Action.GROW], [Action.KEEP], [Action.KEEP]])
    one = search(agent, only(), objective=PrecisionObjective(2, calibration=0.0, window=1))
    decisions = feed(one, [2.0, 1.0, 1.0])
    first, second = agent.learned
    # the error was halved, far beyond its noise of ln 2 / 2; then nothing changed
    own = min(1.0, 0.6931 / (0.6931 / 2 + 0.02))
    torch.testing.assert_close(first["reward"], torch.tensor([1.3 * own - 0.01]), atol=1e-3, rtol=0)
    assert torch.equal(first["next_state"], second["state"]) and second["reward"] == 0
    assert torch.equal(decisions[1].reward, first["reward"])
    assert first["next_allowed"].all()  # from 5 voxels all is open


def test_a_state_is_that_of_the_whole_history():
    """The search stores only as many validations as a state needs."""
    seen = []

    class Spy(RandomAgent):
        def values(self, state):
            seen.append(state)
            return super().values(state)

    torch.manual_seed(0)
    objective, sigma_range = PrecisionObjective(2), SigmaRange(1.0, 10.0)
    one = search(Spy(), only(), objective=objective, sigma_range=sigma_range)
    observe = PrecisionObservation(sigma_range, objective)
    history, now, since = [], torch.tensor([4.0]), torch.zeros(1)
    for step, error in enumerate((3 + torch.rand(12)).tolist()):
        history.append(evaluation(now.tolist(), [error], progress=step / 20, train_loss=[error / 2]))
        decision = one.update(history[-1])
        expected = observe(history, since, torch.ones(1, dtype=torch.bool))
        # but for the slope of the cost, which is that of the kept validations
        torch.testing.assert_close(seen[-1][:, :-1], expected[:, :-1])
        since = (since + 1) * (decision.action == Action.KEEP)
        now = decision.sigma


def test_actions_that_were_not_taken_are_imagined_with_the_same_errors():
    agent = Script([[Action.GROW], [Action.KEEP]])
    objective = PrecisionObjective(2, calibration=1.0, margin=2.0, window=1)
    one = search(agent, only(), objective=objective, imagine=True)
    feed(one, [2.0, 1.5])
    (learned,) = agent.learned
    assert learned["action"].tolist() == [Action.GROW, Action.SHRINK, Action.KEEP]

    def cost(sigma, error):
        return math.log(sigma) + (2 * error) ** 2 / (2 * 2 * sigma**2)

    # the error fell by as much, whatever was done; half of its logarithm is its noise
    gains = [cost(4, 2) - cost(sigma, 1.5) for sigma in (5.0, 3.2, 4.0)]
    own = [max(-1.0, min(1.0, gain / (math.log(2 / 1.5) / 2 + 0.02))) for gain in gains]
    expected = [1.3 * gain - price for gain, price in zip(own, (0.01, 0.01, 0.0))]
    assert learned["reward"].tolist() == pytest.approx(expected, abs=1e-4)
    sigma = learned["next_state"][:, FEATURES.index("log_sigma")].exp() * 10**0.5
    assert sigma.tolist() == pytest.approx([5.0, 3.2, 4.0])
    # with the error alone as the cost there is nothing to imagine
    assert not search(agent, only(), objective=PrecisionObjective(2, calibration=0.0), imagine=True).imagine


@pytest.mark.parametrize("children", [1, 2])
def test_a_resumed_search_goes_on_as_it_would_have(children, tmp_path):
    def made():
        return PrecisionSearch(6, 2, agent=DoubleDQNAgent(hidden=8, updates=5, seed=3), children=children)

    whole_bandit, bandit = Bandit(BEST), Bandit(BEST)
    whole = made()
    expected = whole_bandit.run(whole, steps=31)
    one, now = made(), torch.full((6,), 4.0)
    for step in range(1, 32):
        if step in (2, 13, 14):
            torch.save(one.state_dict(), tmp_path / "search.pt")
            one = made()
            one.load_state_dict(torch.load(tmp_path / "search.pt", weights_only=True))
        decision = one.update(bandit.measure(now, step / 31))
        now = decision.sigma
        assert torch.equal(now, expected[step - 1].sigma), step
    assert one.stopped == whole.stopped
    assert len({tuple(decision.sigma.tolist()) for decision in expected}) > 5


def test_children_start_alike_and_the_best_goes_on():
    agent = Script([[Action.SHRINK], [Action.KEEP], [Action.GROW]] + [[Action.KEEP]] * 3)
    one = search(agent, only(), children=3, objective=PrecisionObjective(2, calibration=0.0, window=1))
    now, told = torch.tensor([4.0]), []
    for step, error in enumerate([2.0, 1.9, 3.0, 1.0]):
        decision = one.update(evaluation(now.tolist(), [error], progress=step / 10))
        now = decision.sigma
        told.append((round(float(now), 3), decision.save_as, decision.load, decision.complete))
    assert told[0] == (3.2, None, None, True)
    assert told[1] == (4.0, "child 0", "start", False)
    assert told[2] == (5.0, "child 1", "start", False)
    # the third had the smallest error; the next decision starts from its sigma
    assert told[3] == (5.0, "child 2", "child 2", True)
    assert decision.validation.sigma.tolist() == [5.0] and decision.previous_action.tolist() == [Action.GROW]
    (learned,) = agent.learned
    assert learned["action"].tolist() == [Action.SHRINK, Action.KEEP, Action.GROW]
    assert learned["reward"].argmin() == 1


def test_a_landmark_that_is_never_seen_does_no_harm():
    one = PrecisionSearch(2, 2, warmup=0.0)
    now = torch.tensor([4.0, 4.0])
    for step in range(12):
        now = one.update(evaluation(now.tolist(), [1.0, NAN], progress=step / 20)).sigma
    assert now.isfinite().all()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"warmup": 0.8}, "warmup"),
        ({"until": 1.1}, "until"),
        ({"children": 0}, "children"),
        ({"exploration": (0.5,)}, "two probabilities"),
        ({"exploration": (0.5, 1.5)}, "two probabilities"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        PrecisionSearch(2, 2, **options)
    with pytest.raises(ValueError, match="does not fit"):
        PrecisionSearch(2, 2).load_state_dict(PrecisionSearch(3, 2).state_dict())


def tables(sigma=None, cost=None, best_action=None, gain=None):
    """Columns are landmarks, rows are decisions. Tables that are not given are NaN."""
    given = next(torch.as_tensor(table) for table in (sigma, cost, best_action, gain) if table is not None)
    columns = [
        torch.full(given.shape, math.nan) if table is None else torch.as_tensor(table)
        for table in (sigma, cost, best_action, gain)
    ]
    if sigma is None:
        columns[0] = torch.arange(1.0, len(given) + 1)[:, None].expand(given.shape)
    return dict(zip(("sigma", "cost", "best_action", "gain"), columns))


def column(*rows):
    return torch.tensor(rows).T


def test_stop_chosen_twice_in_a_row():
    keep, stop = int(Action.KEEP), int(Action.STOP)
    table = column([keep, stop, stop], [stop, keep, stop], [stop, stop, keep])
    assert only(stop_chosen=2)(**tables(best_action=table))[0].nan_to_num(0.0).tolist() == [3.0, 0.0, 0.0]
    assert only(stop_chosen=4)(**tables(best_action=table))[0].isnan().all()


def test_settled_three_times_in_a_row():
    table = column([0.5, 0.0, 0.01, 0.019], [0.0, 0.0, 0.0, 0.02], [0.0, math.nan, 0.0, 0.0])
    assert only(settled=3)(**tables(gain=table))[0].nan_to_num(0.0).tolist() == [4.0, 0.0, 0.0]
    assert only(settled=3)(**tables(gain=table[:2]))[0].isnan().all()


def test_oscillation_ends_in_the_middle():
    up_and_down = [4.0, 5.0, 4.0, 5.0, 4.0]
    with_a_pause = [4.0, 5.0, 4.0, 4.0, 5.0]
    upward = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = only(oscillation=4)(**tables(sigma=column(up_and_down, with_a_pause, upward)))[0]
    torch.testing.assert_close(found.nan_to_num(0.0), torch.tensor([math.sqrt(20), 0.0, 0.0]))
    assert only(oscillation=4)(**tables(sigma=column(up_and_down[1:])))[0].isnan().all()


def test_no_improvement_goes_back_to_the_best():
    old, recent = [5.0, 1.0, 2.0, 3.0, 4.0, 2.0, 1.5, 1.2], [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    table = column(old, recent, [math.nan] * 8)
    found = only(no_improvement=6)(**tables(cost=table))[0]
    assert found.nan_to_num(0.0).tolist() == [2.0, 0.0, 0.0]
    assert only(no_improvement=7)(**tables(cost=table))[0].isnan().all()


def test_the_first_rule_that_applies_gives_reason_and_sigma():
    stop, keep = int(Action.STOP), int(Action.KEEP)
    sigma = column(*[[4.0, 5.0, 4.0, 5.0, 4.0, 5.0, 4.0]] * 4)
    cost = column(*[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]] * 3, [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    best = column([stop] * 7, *[[keep] * 7] * 3)
    gain = column([0.0] * 7, [0.0] * 7, [0.5] * 7, [0.5] * 7)
    middle = math.sqrt(20)
    kept, reasons = EarlyStop()(sigma, cost, best, gain)
    assert reasons == ["stop chosen", "settled", "oscillation", "oscillation"]
    assert kept.tolist() == pytest.approx([4.0, 4.0, middle, middle])
    kept, reasons = EarlyStop(oscillation=0)(sigma, cost, best, gain)
    assert reasons == ["stop chosen", "settled", "no improvement", ""]
    assert kept[:3].tolist() == [4.0, 4.0, 4.0] and kept[3].isnan()


def test_exploration_decreases_over_the_first_half_of_the_search():
    seen = []

    class Spy(RandomAgent):
        def act(self, state, allowed, epsilon):
            seen.append(epsilon)
            return super().act(state, allowed, epsilon)

    one = PrecisionSearch(1, 2, agent=Spy(), exploration=(0.4, 0.2), early_stop=only(), warmup=0.2, until=0.6)
    for progress in (0.1, 0.2, 0.3, 0.4, 0.5, 0.59, 0.7):
        one.update(evaluation([4.0], [1.0], progress=progress))
    assert seen == pytest.approx([0.4, 0.3, 0.2, 0.2, 0.2])
