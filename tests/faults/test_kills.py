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
"""A training that is killed at any moment leaves complete files, and continues as if it had not been killed.

``MONAI_LANDMARKS_KILLS`` is the number of kills, 6 if it is not set::

    MONAI_LANDMARKS_KILLS=20 pytest tests/faults/test_kills.py
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from small_training import EPOCHS, SAVES, check_files, load, run, start

KILLS = int(os.environ.get("MONAI_LANDMARKS_KILLS", "6"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a training that was not killed, and its time in seconds."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "warm", folder / "report.txt", epochs=1)  # starts the server of the processes
    started = time.monotonic()
    assert run(folder / "run", folder / "report.txt") == 0
    return folder / "run", time.monotonic() - started


def same_result(folder: Path, whole: Path) -> None:
    for name in ("model.pt", "model_final.pt"):
        torch.testing.assert_close(load(folder / name), load(whole / name), rtol=0, atol=0)
    for name in ("training_curve.csv", "predictions/predictions.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    files = {path.relative_to(folder) for path in folder.rglob("*")}
    assert files == {path.relative_to(whole) for path in whole.rglob("*")}  # nothing is left behind


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_training_continues(number: int, whole: tuple[Path, float], tmp_path: Path) -> None:
    folder, report = tmp_path / "run", tmp_path / "report.txt"
    if number % 2 == 0:  # in the middle of a save
        save = 1 + (number // 2 * 4 + 2) % SAVES
        assert run(folder, report, die_in_save=save) == -signal.SIGKILL
    else:  # at any time
        process = start(folder, report)
        time.sleep(random.Random(number).uniform(0.1, 0.8) * whole[1])
        process.kill()
        process.join(60)
        assert process.exitcode in (-signal.SIGKILL, 0)  # 0: this machine has become faster
    if folder.is_dir():
        check_files(folder)
    assert run(folder, report) == 0, report.read_text()
    same_result(folder, whole[0])
    assert load(folder / "training_state.pt")["trainer"]["epoch"] == EPOCHS
