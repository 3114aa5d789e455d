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

"""Entry point of ``monai-landmarks`` and of ``python -m monai_landmarks``."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["INTERRUPTED", "end_plainly", "main"]

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended: 128 + the number of SIGINT


def main() -> None:
    """Run the program."""
    end_plainly(_run_program)


def end_plainly(function: Callable[[], object]) -> None:
    """Call a function. Ctrl-C ends it with one line, also while it imports modules."""
    try:
        function()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _run_program() -> None:
    from monai_landmarks.apps.main import program

    program(prog_name="monai-landmarks")


if __name__ == "__main__":
    main()
