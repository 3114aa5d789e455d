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


"""Cost, reward and state, calculated by hand on a small table."""

from __future__ import annotations

import math

import pytest
import torch
from tables import NAN, evaluation

from monai_landmarks.precision import Action, PrecisionObjective, PrecisionReward, SigmaRange
from monai_landmarks.precision.objective import FEATURES, PrecisionObservation, discounted_mean, spread


def test_means_of_the_last_validations():
    values = [torch.tensor([99.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([2.0, NAN]), torch.tensor([4.0, NAN])]
    weights = 0.81 + 0.9 + 1
    expected = torch.tensor([(0.81 * 1 + 0.9 * 2 + 4) / weights, 1.0])
    torch.testing.assert_close(discounted_mean(values), expected)
    assert discounted_mean([torch.tensor([NAN])]).isnan()
    # of 99, 1, 2, 4 the standard deviation; of a single known value none
    mean = 26.5
    by_hand = math.sqrt(sum((v - mean) ** 2 for v in (99, 1, 2, 4)) / 4)
    torch.testing.assert_close(spread(values[:0] + values), torch.tensor([by_hand, 0.0]))


def test_cost_by_hand():
    history = [evaluation(sigma=[9.0, 9.0], error=[3.0, 3.0]), evaluation(sigma=[2.0, 4.0], error=[2.0, 1.0])]
    error = [(0.9 * 3 + 2) / 1.9, (0.9 * 3 + 1) / 1.9]
    square = [(0.9 * 9 + 4) / 1.9, (0.9 * 9 + 1) / 1.9]
    for dims in (2, 3):
        for c in (0.0, 0.5, 1.0):
            expected = [
                (1 - c) * math.log(e) + c * (math.log(s) + q / (2 * dims * s * s))
                for e, q, s in zip(error, square, (2.0, 4.0))
            ]
            torch.testing.assert_close(
                PrecisionObjective(dims, calibration=c, margin=1.0)(history), torch.tensor(expected)
            )


@pytest.mark.parametrize("dims", [2, 3])
def test_the_likelihood_is_best_where_sigma_is_the_error_that_remains(dims):
    torch.manual_seed(0)
    errors = (3.0 * torch.randn(20000, dims)).norm(dim=-1)  # a standard deviation of 3 along each axis
    sigma = torch.linspace(1, 9, 801)
    table = evaluation(sigma.tolist(), [float(errors.mean())] * 801, [float(errors.square().mean())] * 801)
    for margin in (1.0, 2.5):
        cost = PrecisionObjective(dims, calibration=1.0, margin=margin)([table])
        assert sigma[cost.argmin()] == pytest.approx(3.0 * margin, abs=0.03 * margin)


def test_reward_by_hand():
    before, after = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([0.99, 1.04, 0.5, NAN])
    # errors that went from 1 to e twice have a standard deviation of the logarithm of 1/2
    history = [evaluation([4.0] * 4, [e, 1.0, 1.0, NAN]) for e in (1.0, math.e, 1.0, math.e)]
    actions = torch.tensor([Action.KEEP, Action.GROW, Action.SHRINK, Action.GROW])
    own = [0.01 / (0.5 + 0.02), -1.0, 1.0]
    mean = sum(own) / 3
    expected = [own[0] + 0.3 * mean, own[1] + 0.3 * mean - 0.01, own[2] + 0.3 * mean - 0.01, 0.0]
    torch.testing.assert_close(PrecisionReward()(before, after, history, actions), torch.tensor(expected))


def test_a_reward_without_any_error_is_zero():
    unknown = torch.full((2,), NAN)
    history = [evaluation([4.0] * 2, [NAN] * 2)]
    assert PrecisionReward()(unknown, unknown, history, torch.tensor([0, 1])).tolist() == [0.0, 0.0]


def test_calibration_is_a_share():
    with pytest.raises(ValueError, match="calibration"):
        PrecisionObjective(2, calibration=1.5)
    with pytest.raises(ValueError, match="margin"):
        PrecisionObjective(2, margin=0.0)


def observe(history, since=(2.0, 3.0, 0.0), active=(True, True, False), dims=2):
    observation = PrecisionObservation(SigmaRange(1.0, 16.0), PrecisionObjective(dims, margin=1.0, window=1))
    state = observation(history, torch.tensor(since), torch.tensor(active))
    assert state.shape == (3, len(FEATURES)) and state.isfinite().all()
    return dict(zip(FEATURES, state.T))


def test_state_by_hand():
    errors = [[8.0, 1.0, 1.0], [4.0, 1.0, 1.0], [3.0, 1.0, 1.0], [3.0, 1.0, 1.0], [6.0, 2.0, 1.0]]
    history = [evaluation([1.0] * 3, e, train_loss=[2.0, 2.0, 2.0]) for e in errors[:-1]]
    now = {"train_loss": [1.0, 3.0, NAN], "radius": [4.0, 2.0, NAN], "peak": [0.5, 1.0, 2.0]}
    found = observe([*history, evaluation([4.0, 2.0, 16.0], errors[-1], progress=0.25, **now)])
    log = math.log
    expected = {
        "log_sigma": [0.0, log(0.5), log(4)],
        "above_low": [0.5, 0.25, 1.0],
        "below_high": [0.5, 0.75, 0.0],
        "change_1": [log(2), log(2), 0.0],
        "change_2": [0.0, 0.0, 0.0],
        "change_3": [log(3 / 4), 0.0, 0.0],
        "change_4": [log(1 / 2), 0.0, 0.0],
        "error_to_median": [log(3), 0.0, log(0.5)],
        "loss_slope": [-0.5, 0.5, 0.0],
        "radius_to_sigma": [0.0, 0.0, 0.0],
        "peak_to_median": [log(0.5), 0.0, log(2)],
        # of the last four errors: 4, 3, 3, 6 and 1, 1, 1, 2
        "noise": [float(torch.tensor([4.0, 3, 3, 6]).log().std(correction=0)), log(2) * math.sqrt(3) / 4, 0.0],
        "progress": [0.25, 0.25, 0.25],
        "steps_since_change": [0.2, 0.3, 0.0],
        "active": [1.0, 1.0, 0.0],
        "error_to_sigma": [log(6 / math.sqrt(2) / 4), log(2 / math.sqrt(2) / 2), -3.0],
        "last_move": [log(4), log(2), log(16)],
    }
    assert set(found) - set(expected) == {"cost_slope"}
    for name, values in expected.items():
        torch.testing.assert_close(found[name], torch.tensor(values), msg=lambda text: f"{name}: {text}")


def test_slope_of_the_cost():
    """All landmarks improve as the network learns. In addition, one improves by a wider and one by a narrower target."""
    sigma = [[2.0, 4.0, 4.0], [4.0, 2.0, 4.0], [2.0, 4.0, 4.0]]
    common = [0.0, -0.3, -0.5]
    history = [
        evaluation(s, [math.exp(c - 0.5 * math.log(s[0])), math.exp(c + 0.5 * math.log(s[1])), math.exp(c)])
        for s, c in zip(sigma, common)
    ]
    observation = PrecisionObservation(SigmaRange(1.0, 16.0), PrecisionObjective(2, calibration=0.0))
    state = observation(history, torch.zeros(3), torch.ones(3, dtype=torch.bool))
    slope = dict(zip(FEATURES, state.T))["cost_slope"]
    # the mean over the landmarks takes -1/3 ln 2 out of each change of +-(1/2 + 1/2) ln 2, and the ridge a little more
    moves = 2 * math.log(2) ** 2
    change = math.log(2)
    expected = torch.tensor([-0.5, 0.5, 0.0]) * 2 * change**2
    mean = (-0.5 - 0.5) * change / 3
    shift = torch.tensor([-mean * change, mean * change, 0.0]) * 2
    torch.testing.assert_close(slope, (expected + shift) / (moves + 0.05**2), atol=1e-4, rtol=1e-3)
    assert slope[0] < 0 < slope[1] and slope[2] == 0


def test_a_short_history_and_unknown_errors():
    found = observe([evaluation([4.0] * 3, [NAN] * 3)])
    for name in (
        "change_1",
        "change_4",
        "error_to_median",
        "loss_slope",
        "noise",
        "error_to_sigma",
        "last_move",
        "cost_slope",
    ):
        assert found[name].tolist() == [0.0] * 3


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_nothing_depends_on_the_unit(scale):
    """In another unit of length, sigma, its bounds, errors and radii change together, and the state stays the same."""

    def state(unit):
        history = [
            evaluation([s * unit for s in (2.0, 3.0, 5.0)], [e * unit for e in row], radius=[unit * r for r in (1.0, 2.0, 3.0)])
            for row in ([4.0, 3.0, 2.0], [2.0, 3.0, 1.0])
        ]  # fmt: skip
        observation = PrecisionObservation(SigmaRange(unit, 10 * unit), PrecisionObjective(3))
        return observation(history, torch.zeros(3), torch.ones(3, dtype=torch.bool))

    torch.testing.assert_close(state(scale), state(1.0), rtol=1e-4, atol=1e-5)
