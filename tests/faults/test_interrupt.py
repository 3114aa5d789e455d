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
"""Ctrl-C during the training of a bundle or during the imports of a command: one line, and exit code 130."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_bundles import copy_bundle, option, small, training_size
from warm_python import WarmPython

from monai_landmarks.handlers import plain_errors

BUNDLE = "hand_xray_landmarks_scn"


def test_interrupt(tmp_path: Path) -> None:
    root = copy_bundle(BUNDLE, tmp_path)
    state = root / "models" / "training_state.pt"
    options = {**small(root, **training_size(root, epochs=10_000, val_interval=10_000)), "num_workers": 0}
    command = ["-m", "monai.bundle", "run", "training", "--config_file", root / "configs" / "train.json"]
    for key, value in options.items():
        command += option(key, value)
    process = WarmPython(command, tmp_path, tmp_path / "printed.txt")
    try:
        deadline = time.monotonic() + 300
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        code = process.wait(120)
    finally:
        process.kill()  # or a failure would wait for all epochs
    output = process.output.read_text()
    assert code == 130, output
    assert "Traceback" not in output and "terminating" not in output
    line = next(line for line in output.splitlines() if line.startswith("Interrupted."))
    assert output.rstrip().endswith(line)
    assert f"{state} is at epoch" in line and "repeat the command with --resume true" in line
    assert not [path.name for path in root.rglob(".*")]
    assert json.loads((root / "configs" / "train.json").read_text())["resume"] is False


def test_exit_code_of_a_new_interpreter() -> None:
    """The training above is copied from a process that runs already. The module alone needs no torch."""
    file = sys.modules[plain_errors.__module__].__file__
    code = f"import runpy; runpy.run_path({file!r})['plain_errors'](); raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("click", ["monai_landmarks", "--help"]),
        ("torch", ["monai_landmarks", "predict", "hand_xray_landmarks_scn", "."]),
        ("monailabel", ["monai_landmarks.apps.label_process", "start_server"]),
    ],
)
def test_interrupt_during_the_imports(module: str, command: list[str], tmp_path: Path) -> None:
    """The module is replaced by one during whose import Ctrl-C is pressed."""
    (tmp_path / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    process = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "Interrupted.\n")
