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
"""Locks of a study: one process per run, also after the study was killed while a training went on."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from monai_landmarks.study.locks import TAKEN, held

STUDY = """
import subprocess, sys, time
from pathlib import Path
from monai_landmarks.study.locks import held
with held(Path(sys.argv[1])) as lock:
    training = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(lock,))
    print(training.pid, flush=True)
    time.sleep(60)
"""


def test_a_training_keeps_the_lock_of_a_killed_study(tmp_path):
    path = tmp_path / "runs" / ".run.lock"
    with subprocess.Popen([sys.executable, "-c", STUDY, str(path)], stdout=subprocess.PIPE, text=True) as study:
        training = int(study.stdout.readline())
        study.send_signal(signal.SIGKILL)
    try:
        with held(path) as lock:
            assert lock is TAKEN
    finally:
        os.kill(training, signal.SIGKILL)
    with held(path, patient=True) as lock:  # the training has ended
        assert lock is not TAKEN
        with held(path) as other:
            assert other is TAKEN


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"\.lock: cannot be locked .*No locks available.*file system with locks"):
        with held(tmp_path / ".lock"):
            pass
