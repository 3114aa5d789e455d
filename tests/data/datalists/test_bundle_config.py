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

"""Parts and runs of other configuration files get the values that they are given."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_landmarks.data import bundle_component, run_bundle_config

VALUES = [
    "data/$1 + 1.json",
    "$1 + 1",
    "@other",
    "%other",
    Path("data.json"),
    torch.device("cpu"),
    {"training": [{"image": "$1 + 1"}, {"image": "@other"}, {"image": "%other", "_target_": "float"}]},
    [None, 1.5, "a@#b"],
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    entries = {
        "given": "own",
        "other": 3,
        "steps": [],
        "pair": {
            "_target_": "builtins.dict",
            "first": "@given",
            "second": {"_target_": "builtins.dict", "n": "@other"},
        },
        "initialize": ["$@steps.append('initialize')"],
        "training": ["$@steps.append(@given)"],
        "run": ["$@steps.append('run')"],
        "finalize": ["$@steps.append('finalize')"],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize("text", ['{"other": 3, "gi', "", "[1, 2]", "[" * 100_000])
def test_a_damaged_file_is_named(config: Path, text: str) -> None:
    (damaged := config.with_name("more.json")).write_text(text)
    for use in (partial(bundle_component, "pair"), run_bundle_config):
        with pytest.raises(ValueError, match=r"more.json: .*Copy (it|the file) again from the source"):
            use([config, damaged])


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_part_has_the_given_value(config: Path, value: Any) -> None:
    pair = bundle_component("pair", config, given=value, **{"pair#second#n": value})
    assert pair["first"] is value and pair["second"]["n"] is value


def test_a_part_without_changes(config: Path, tmp_path: Path) -> None:
    assert bundle_component("pair", str(config)) == {"first": "own", "second": {"n": 3}}
    more = tmp_path / "more.json"
    more.write_text('{"other": 4}')
    assert bundle_component("pair", [config, more])["second"] == {"n": 4}
    with pytest.raises(ValueError, match="train.json: there is no entry 'size'"):
        bundle_component("size", config)


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_run_has_the_given_value(config: Path, value: Any) -> None:
    steps: list[Any] = []
    run_bundle_config(config, "training", given=value, steps=steps)
    assert [steps[0], steps[2]] == ["initialize", "finalize"] and steps[1] is value


def test_the_log_shows_the_values(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MONAI's log lists what was given to a run."""
    with caplog.at_level("INFO"):
        run_bundle_config(config, "training", given=Path("some/folder"), other=[None, "$1 + 1"])
    for value in (Path("some/folder"), [None, "$1 + 1"]):
        assert f"{{'_target_': {value!r}}}" in caplog.text


@pytest.mark.parametrize("processes", [1, 2])
def test_several_processes_do_not_run_all_of_it_each(
    config: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: processes)
    steps: list[Any] = []
    if processes > 1:
        with pytest.raises(RuntimeError, match="--ckpt_dir models/coarse, and then fine_training"):
            run_bundle_config(config, "training", steps=steps, ckpt_dir="models/coarse")
    else:
        run_bundle_config(config, "training", steps=steps)
    assert len(steps) == (3 if processes == 1 else 0)
