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
"""Ctrl-C during the training of a bundle from the command line: one line, and exit code 130."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

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
