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


"""Freed memory is used again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from monai_landmarks.handlers import memory

# in a process of its own, because the setting stays until the process ends
SCRIPT = """
import resource, runpy, sys
accepted = sys.argv[2] == "keep" and runpy.run_path(sys.argv[1])["keep_freed_memory"]()
bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    bytearray(64 << 20)
print(int(accepted), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has the setting")
def test_blocks_are_not_returned_to_the_system() -> None:
    def run(how: str) -> list[int]:
        command = [sys.executable, "-S", "-c", SCRIPT, str(memory.__file__), how]
        return [int(word) for word in subprocess.check_output(command, text=True).split()]

    accepted, faults = run("keep")
    if not accepted:
        pytest.skip("this C library does not accept the setting")
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert faults < pages / 100
    assert run("default")[1] >= pages / 512  # huge pages have up to 512 times the size


def test_nothing_happens_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert not memory.keep_freed_memory()
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())  # a C library without mallopt
    assert not memory.keep_freed_memory()
