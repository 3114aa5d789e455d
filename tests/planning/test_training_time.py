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
"""The estimated time of a training, and plans for a given time."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from click.testing import CliRunner
from summaries import GIB, MEMORY, summary

from monai_landmarks.apps.main import program
from monai_landmarks.data import write_hand_phantom
from monai_landmarks.planning import (
    METHODS,
    Budget,
    Machine,
    Pace,
    duration_text,
    estimated_seconds,
    make_plan,
    measure_close_look,
    measure_plan,
    parse_duration,
)

MACHINE = Machine("cpu", 8 * GIB)
PACE = Pace(train=1e-6, infer=3e-7)  # one second per step of a megavoxel


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Memory does not matter here, and its measurement takes time."""
    monkeypatch.setattr("monai_landmarks.planning.plan.measure_training", lambda *args: MEMORY)


def test_durations():
    for text, seconds in (("15min", 900), ("1h", 3600), ("0.5 h", 1800), ("overnight", 36000), (" 90min ", 5400)):
        assert parse_duration(text) == seconds
    for text in ("", "15", "1d", "0min", "-1h", "h", "1h30min"):
        with pytest.raises(ValueError, match="expected for example 15min, 1.5h or overnight"):
            parse_duration(text)
    assert [duration_text(s) for s in (0.5, 61, 100, 900, 5399, 5400, 400000)] == [
        "0.5 s", "61 s", "1.7 min", "15 min", "90 min", "1.5 h", "111 h"
    ]  # fmt: skip


def test_the_estimate_counts_all_steps_and_validations():
    data = summary((256, 320), images=28)  # 20 for training
    plan = make_plan(data, "scn", MACHINE, given={"spatial_size": [256, 320], "max_epochs": 50, "val_interval": 10})
    voxels = 256 * 320
    expected = 50 * 20 * voxels * PACE.train + 5 * 8 * voxels * PACE.infer
    assert estimated_seconds(plan, PACE) == pytest.approx(expected)


def test_the_estimate_of_patches_counts_windows():
    data = summary((96, 96, 96), images=28)
    given = {"patch_size": [32, 32, 32], "spacing_mm": 1.0, "max_epochs": 10, "val_interval": 5}
    plan = make_plan(data, "scn", MACHINE, given=given)
    patches, voxels = plan.choices["patches_per_image"].value, 32**3
    # windows at 0, 16, ..., 64 along each axis
    expected = 10 * 20 * patches * voxels * PACE.train + 2 * 8 * 5**3 * voxels * PACE.infer
    assert estimated_seconds(plan, PACE) == pytest.approx(expected)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_estimate_of_the_close_look_counts_its_patches(mirrored):
    data = summary((256, 320), images=28, pairs=(("a", "b"),))  # 20 for training, 8 for validation
    given = {"spatial_size": [64, 96], "max_epochs": 50, "close_size": [32, 48], "close_patches_per_image": 3}
    given |= {"flip": 0.5, "close_mirrored": mirrored}
    plan = make_plan(data, "scn", MACHINE, given=given)
    fine = Pace(train=4e-6, infer=2e-6)
    # 12 validations, each of the coarse points and of a patch around each of the 3 landmarks
    validation = 8 * (64 * 96 * PACE.infer + len(data.names) * 32 * 48 * fine.infer)
    expected = 50 * 20 * 3 * 32 * 48 * fine.train + 12 * validation * (2 if mirrored else 1)
    assert estimated_seconds(plan, PACE, (fine,)) == pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1000, 1200), (200, 200, 220)], ids=["2d", "3d"])
def test_a_plan_keeps_within_its_time(method, size):
    data = summary(size, images=60)
    sides, epochs = [], []
    for minutes in (15, 60, 600):
        budget = Budget(60 * minutes, PACE)
        plan = make_plan(data, method, MACHINE, budget=budget)
        assert plan.choices == make_plan(data, method, MACHINE, budget=budget).choices  # nothing is measured here
        assert estimated_seconds(plan, PACE) <= budget.seconds
        sides.append(math.prod(plan.choices.network_size))
        epochs.append(plan.choices["max_epochs"].value)
    assert sides == sorted(sides) and (sides[0] < sides[2] or epochs[0] < epochs[2])
    text = " ".join(plan.choices[name].reason for name in ("max_epochs",))
    assert "10 h" in text


def test_a_very_short_time_makes_few_epochs():
    data = summary((1000, 1200), images=60)
    plan = make_plan(data, "scn", MACHINE, budget=Budget(900, replace(PACE, train=1e-4)))
    usual = make_plan(data, "scn", MACHINE)
    least = METHODS["scn"].voxels["cpu", 2] / 4
    assert math.prod(plan.choices["spatial_size"].value) <= least < math.prod(usual.choices["spatial_size"].value)
    assert "a quarter of the usual limit" in plan.choices["spatial_size"].reason
    assert plan.choices["max_epochs"].value < usual.choices["max_epochs"].value / 10
    assert "fewer than the usual 1400" in plan.choices["max_epochs"].reason


def test_much_time_is_not_used_up():
    data = summary((64, 64), images=60)
    plan, usual = make_plan(data, "scn", MACHINE, budget=Budget(360000, PACE)), make_plan(data, "scn", MACHINE)
    assert plan.choices["spatial_size"].value == usual.choices["spatial_size"].value
    assert plan.choices["max_epochs"].value == 2 * usual.choices["max_epochs"].value
    assert "more hardly help" in plan.choices["max_epochs"].reason


@pytest.mark.parametrize(("method", "size"), [("scn", (32, 32, 64)), ("farnet", (64, 64)), ("adaptive", (64, 64))])
def test_a_measured_step(method, size):
    plan = make_plan(summary(size, images=20), method, MACHINE, given={"width": 4})
    pace = measure_plan(plan)
    assert pace.train > 0 and pace.infer > 0
    (fine,) = measure_close_look(plan)
    assert fine.train > 0 and fine.infer > 0
    for measure in (measure_plan, measure_close_look):
        assert not measure(replace(plan, machine=Machine("cuda", 8 * GIB))) or plan.machine.on_gpu


def test_init_says_the_time(tmp_path):
    datalist = write_hand_phantom(tmp_path / "hand", 5, size=(48, 64), val_frac=0.4)

    def init(name, *args):
        out = ["--out", str(tmp_path / name), "--device", "cpu", "--set", "width=4", *args]
        return CliRunner().invoke(program, ["init", str(datalist), *out])

    usual = init("a")
    assert "The training takes about " in usual.stdout and "estimated from measured steps" in usual.stdout
    assert re.search(r"that of the close look, takes about \S+ \w+ more", usual.stdout)
    short = init("b", "--budget", "1min")
    assert short.exit_code == 0 and "60 s" in short.stdout
    assert "'1' is not a duration" in init("c", "--budget", "1").stderr
