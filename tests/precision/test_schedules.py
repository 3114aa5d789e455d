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


"""Sigmas by rule, against the rule written out; and a trajectory that is written, read and replayed."""

from __future__ import annotations

import json

import pytest
import torch
from tables import NAN, Bandit, evaluation

from monai_landmarks.precision import (
    Adaloss,
    CalibratedSigma,
    Decision,
    FixedSigma,
    LinearSigma,
    PrecisionController,
    PrecisionSearch,
    PrecisionTrajectory,
    RandomAgent,
    ReplayedSigma,
    SigmaRange,
)


def test_fixed():
    start = torch.tensor([1.0, 2.0])
    for one, expected in (
        (FixedSigma(3.0), [3.0, 3.0]),
        (FixedSigma(), [1.0, 2.0]),
        (PrecisionController(), [1.0, 2.0]),
    ):
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
    assert one.update(evaluation([7.0, 7.0], [1.0, 1.0], progress=0.95)).sigma.tolist() == [7.0, 7.0]
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


def recorded(tmp_path, children=1):
    """A search on the bandit with its record, as a handler would write it."""
    bandit, names = Bandit([1.5, 6.0]), ["a", "b"]
    one = PrecisionSearch(2, 2, agent=RandomAgent(seed=1), warmup=0.1, children=children, stop_rules=())
    trajectory, now = PrecisionTrajectory(names, "mm"), torch.tensor([4.0, 4.0])
    trajectory.add(0, 0.0, Decision(now))
    used = []
    for epoch in range(1, 31):
        found = bandit.measure(now, epoch / 30)
        decision = one.update(found)
        if decision.complete:
            trajectory.add(epoch, epoch / 30, decision, decision.evaluation or found)
            used.append((decision.evaluation or found).sigma.tolist())
        now = decision.sigma
    trajectory.write(tmp_path / "precision.json")
    return trajectory, used


@pytest.mark.parametrize("children", [1, 3])
def test_a_record_holds_what_was_used_and_can_be_replayed(children, tmp_path):
    trajectory, used = recorded(tmp_path, children)
    for row, sigma in zip(trajectory.decisions, used):
        assert row["sigma"] == pytest.approx(sigma, rel=1e-5)
    replayed = ReplayedSigma(tmp_path / "precision.json")
    now = replayed.start(torch.ones(2))
    for row, following in zip(trajectory.decisions, trajectory.decisions[1:]):
        assert now.tolist() == pytest.approx(row["sigma"])
        # a replay needs no errors, and another length of training changes nothing
        now = replayed.update(evaluation(now.tolist(), [NAN, NAN], progress=following["progress"])).sigma
    assert set(trajectory.decisions[-1]["stopped"]) == {"end of search"}
    with pytest.raises(ValueError, match="2 landmarks and the loss has 3"):
        replayed.start(torch.ones(3))


def test_the_file_is_plain_json(tmp_path):
    trajectory, _ = recorded(tmp_path)
    content = json.loads((tmp_path / "precision.json").read_text())
    assert content["names"] == ["a", "b"] and content["unit"] == "mm" and len(content["decisions"]) == 31
    row = content["decisions"][10]
    assert row["action"][0] in ("shrink", "keep", "grow") and row["values"] == [[None] * 4] * 2
    assert len(row["reward"]) == len(row["error"]) == 2 and row["epoch"] == 10
    assert PrecisionTrajectory.read(tmp_path / "precision.json").decisions == trajectory.decisions
    other = PrecisionTrajectory(["a", "b"])
    other.load_state_dict(trajectory.state_dict())
    assert other.decisions == trajectory.decisions


@pytest.mark.parametrize(
    "text,message",
    [
        ("{", "line 1"),
        ("[]", "not a file of format"),
        ('{"format": "other", "version": 1}', "not a file of format"),
        (
            '{"format": "monai_landmarks.precision.trajectory", "version": 1, "names": ["a"], "decisions": []}',
            "one decision",
        ),
        (
            '{"format": "monai_landmarks.precision.trajectory", "version": 1, "names": ["a"], '
            '"decisions": [{"progress": 0, "sigma": [-1]}]}',
            "decision 0 needs",
        ),
        (
            '{"format": "monai_landmarks.precision.trajectory", "version": 1, "names": ["a", "b"], '
            '"decisions": [{"progress": 0, "sigma": [1]}]}',
            "2 positive numbers",
        ),
    ],
)
def test_a_wrong_file_is_refused(text, message, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        PrecisionTrajectory.read(tmp_path / "x.json")
