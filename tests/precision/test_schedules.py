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


"""Sigmas of each schedule, compared to its rule."""

from __future__ import annotations

import pytest
import torch
from tables import NAN, evaluation

from monai_landmarks.precision import Adaloss, CalibratedSigma, FixedSigma, LinearSigma, PrecisionController, SigmaRange


def test_fixed():
    start = torch.tensor([1.0, 2.0])
    for one, expected in (
        (FixedSigma(3.0), [3.0, 3.0]),
        (FixedSigma(), [1.0, 2.0]),
        (PrecisionController(), [1.0, 2.0]),
    ):
        assert one.done
        sigma = one.start(start)
        assert sigma.tolist() == expected == one.update(evaluation(sigma.tolist(), [1.0, 1.0])).sigma.tolist()


def test_linear():
    one = LinearSigma(6.0, 2.0, until=0.5)
    assert one.start(torch.ones(2)).tolist() == [6.0, 6.0]
    found = [float(one.update(evaluation([9.0], [1.0], progress=p)).sigma) for p in (0.125, 0.25, 0.5, 0.9)]
    assert found == pytest.approx([5.0, 4.0, 2.0, 2.0])
    with pytest.raises(ValueError, match="positive"):
        LinearSigma(last=0.0)


def test_adaloss_by_hand():
    one = Adaloss(rate=0.9, window=3, max_change=1.0, sigma_range=SigmaRange(1.0, 6.0))
    # variances: (8, 4, 6) 8/3 then (4, 6, 5) 2/3: 1 - 4 = -3, clamped; constant losses; noisier: 1 - (2/3)/(8/3) = 3/4
    losses = [[8.0, 1.0, 4.0, 1.0], [4.0, 1.0, 6.0, 2.0], [6.0, 1.0, 5.0, NAN], [5.0, 1.0, 9.0, 2.0]]
    sigma = [4.0] * 4
    for row in losses:
        sigma = one.update(evaluation(sigma, [1.0] * 4, train_loss=row)).sigma.tolist()
        if row is not losses[-1]:
            assert sigma == [4.0] * 4
    after = torch.tensor([6.0, 5.0, 9.0]).var(correction=0)
    grown = 4 + 0.9 * (1 - (2 / 3) / float(after))
    assert sigma == pytest.approx([3.0, 4.0, grown, 4.0])
    shrinking = Adaloss(only_shrink=True)
    shrinking.load_state_dict(Adaloss().state_dict())
    for row in losses:
        decision = shrinking.update(evaluation([4.0] * 4, [1.0] * 4, train_loss=row))
    assert decision.sigma.tolist() == pytest.approx([3.0, 4.0, 4.0, 4.0])


def test_calibrated_is_the_error_along_an_axis():
    one = CalibratedSigma(2, margin=2.0, warmup=0.1, until=0.9, sigma_range=SigmaRange(1.0, 10.0))
    assert one.update(evaluation([4.0, 4.0], [1.0, 1.0], progress=0.0)).sigma.tolist() == [4.0, 4.0]
    decision = one.update(evaluation([4.0, 4.0], [1.0, NAN], square=[35.0, NAN], progress=0.5))
    mean = (0.9 * 1 + 35) / 1.9
    assert decision.sigma.tolist() == pytest.approx([2 * (mean / 2) ** 0.5, 2 * 0.5**0.5])
    for after in (0.9, 0.95):  # from `until` on sigma stays the same
        assert one.update(evaluation([7.0, 7.0], [1.0, 1.0], progress=after)).sigma.tolist() == [7.0, 7.0]
    unknown = CalibratedSigma(2).update(evaluation([4.0, 4.0], [NAN, 0.1], progress=0.5))
    assert unknown.sigma.tolist() == [4.0, 1.0]  # what is not known stays; not below the range


@pytest.mark.parametrize("kind", [Adaloss, lambda: CalibratedSigma(2)])
def test_schedules_resume(kind, tmp_path):
    torch.manual_seed(0)
    losses = torch.rand(8, 3).tolist()
    one, other = kind(), kind()
    for number, row in enumerate(losses):
        table = evaluation([4.0] * 3, row, progress=0.5, train_loss=row)
        if number == 4:
            torch.save(one.state_dict(), tmp_path / "state.pt")
            other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        expected = one.update(table).sigma
        if number >= 4:
            assert torch.equal(other.update(table).sigma, expected)
