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


"""Cost and reward, worked out by hand on a small table."""

from __future__ import annotations

import math

import pytest
import torch
from tables import NAN, evaluation

from monai_landmarks.precision import Action, PrecisionObjective, PrecisionReward, discounted_mean, spread


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
