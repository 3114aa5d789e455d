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


"""Each rule on a table of decisions, and what it does not stop."""

from __future__ import annotations

import math

import torch

from monai_landmarks.precision import Action, Decisions, NoImprovement, Oscillation, Settled, StopChosen


def decisions(sigma=None, cost=None, best_action=None, gain=None):
    """Columns are landmarks, rows are decisions; what is not given does not matter."""
    given = next(torch.as_tensor(table) for table in (sigma, cost, best_action, gain) if table is not None)
    tables = [
        torch.full(given.shape, math.nan) if table is None else torch.as_tensor(table)
        for table in (sigma, cost, best_action, gain)
    ]
    if sigma is None:
        tables[0] = torch.arange(1.0, len(given) + 1)[:, None].expand(given.shape)
    return Decisions(*tables)


def column(*rows):
    return torch.tensor(rows).T


def test_stop_chosen_twice_in_a_row():
    keep, stop = int(Action.KEEP), int(Action.STOP)
    table = column([keep, stop, stop], [stop, keep, stop], [stop, stop, keep])
    assert StopChosen()(decisions(best_action=table)).nan_to_num(0.0).tolist() == [3.0, 0.0, 0.0]
    assert StopChosen(times=4)(decisions(best_action=table)).isnan().all()


def test_settled_three_times_in_a_row():
    table = column([0.5, 0.0, 0.01, 0.019], [0.0, 0.0, 0.0, 0.02], [0.0, math.nan, 0.0, 0.0])
    assert Settled()(decisions(gain=table)).nan_to_num(0.0).tolist() == [4.0, 0.0, 0.0]
    assert Settled()(decisions(gain=table[:2])).isnan().all()


def test_oscillation_ends_in_the_middle():
    up_and_down = [4.0, 5.0, 4.0, 5.0, 4.0]
    with_a_pause = [4.0, 5.0, 4.0, 4.0, 5.0]
    upward = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = Oscillation()(decisions(sigma=column(up_and_down, with_a_pause, upward)))
    torch.testing.assert_close(found.nan_to_num(0.0), torch.tensor([math.sqrt(20), 0.0, 0.0]))
    assert Oscillation()(decisions(sigma=column(up_and_down[1:]))).isnan().all()


def test_no_improvement_goes_back_to_the_best():
    old, recent = [5.0, 1.0, 2.0, 3.0, 4.0, 2.0, 1.5, 1.2], [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]
    table = column(old, recent, [math.nan] * 8)
    found = NoImprovement(patience=6)(decisions(cost=table))
    assert found.nan_to_num(0.0).tolist() == [2.0, 0.0, 0.0]
    assert NoImprovement(patience=7)(decisions(cost=table)).isnan().all()
