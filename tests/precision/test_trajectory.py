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


"""The record of a search is written, read and replayed."""

from __future__ import annotations

import json

import pytest
import torch
from tables import NAN, Bandit, evaluation

from monai_landmarks.precision import (
    Decision,
    EarlyStop,
    PrecisionSearch,
    PrecisionTrajectory,
    RandomAgent,
    ReplayedSigma,
)


def recorded(tmp_path, children=1):
    """A search on the bandit with its record, as a handler would write it."""
    bandit, names = Bandit([1.5, 6.0]), ["a", "b"]
    one = PrecisionSearch(
        2, 2, agent=RandomAgent(seed=1), warmup=0.1, children=children, early_stop=EarlyStop(0, 0, 0, 0)
    )
    trajectory, now = PrecisionTrajectory(names, "mm"), torch.tensor([4.0, 4.0])
    trajectory.add(0, 0.0, Decision(now))
    used = []
    for epoch in range(1, 31):
        found = bandit.measure(now, epoch / 30)
        decision = one.update(found)
        if decision.complete:
            trajectory.add(epoch, epoch / 30, decision, decision.validation or found)
            used.append((decision.validation or found).sigma.tolist())
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
