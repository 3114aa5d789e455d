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
"""A process of torchrun: ``python -m`` of its arguments. With ``DOWN_AFTER`` it stands still after so many epochs."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path

from monai_landmarks.handlers import OverlaySaver, ResumeTraining


def go_down_after(epochs: int, file: Path) -> None:
    """Stop this process at the end of an epoch, and write its id, so that it can be killed as its node is."""
    save, left = ResumeTraining._save, [epochs]

    def save_and_stop(self, engine):
        save(self, engine)
        left[0] -= 1
        if left[0] == 0:
            file.with_suffix(".new").write_text(str(os.getpid()))
            file.with_suffix(".new").rename(file)
            signal.pause()

    ResumeTraining._save = save_and_stop


if __name__ == "__main__":
    OverlaySaver.attach = lambda saver, engine: None  # drawing takes longer than these trainings
    if "DOWN_AFTER" in os.environ:
        go_down_after(int(os.environ["DOWN_AFTER"]), Path(os.environ["DOWN_FILE"]))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
