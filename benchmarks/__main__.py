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
"""Run all benchmarks and write their tables to a file; see README.md.

python -m benchmarks [--only transforms,growth] [--out benchmark_results.txt] [--device cuda] [--threads 2] [--quick]
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import fire

FOLDER = Path(__file__).parent
PREFIX = "benchmark_"


class Tee:
    """Write to several files at once.

    Args:
        files: open for writing.
    """

    def __init__(self, *files: TextIO) -> None:
        self.files = files

    def write(self, text: str) -> int:
        for file in self.files:
            file.write(text)
        return len(text)

    def flush(self) -> None:
        for file in self.files:
            file.flush()


def main(
    only: str | Sequence[str] = (),
    out: str = "benchmark_results.txt",
    device: str = "cpu",
    threads: int | None = None,
    quick: bool = False,
) -> None:
    """Run the scripts ``benchmark_*.py`` one after the other.

    Args:
        only: names of some of them, without ``benchmark_``, separated by commas. Default: all.
        out: text file for the tables, which are also printed.
        device: ``cpu`` or ``cuda``.
        threads: threads of torch, by default its own choice.
        quick: tiny sizes, to see that it runs; the numbers mean nothing.

    Raises:
        ValueError: for an unknown name.
    """
    names = sorted(path.stem.removeprefix(PREFIX) for path in FOLDER.glob(f"{PREFIX}*.py"))
    wanted = (only.split(",") if isinstance(only, str) else list(only)) or names
    if unknown := sorted(set(wanted) - set(names)):
        raise ValueError(f"There are no benchmarks {', '.join(unknown)}, only {', '.join(names)}.")
    sys.path.insert(0, str(FOLDER))  # the scripts import each other by name
    with open(out, "w", encoding="utf-8") as file, contextlib.redirect_stdout(Tee(sys.stdout, file)):
        for name in wanted:
            print(f"$ python benchmarks/{PREFIX}{name}.py", flush=True)
            script = importlib.import_module(PREFIX + name)
            taken = inspect.signature(script.main).parameters
            options = {"device": device, "threads": threads, "quick": quick}
            script.main(**{option: value for option, value in options.items() if option in taken})
            print(flush=True)
    print(f"The tables are in {Path(out).resolve()}")


if __name__ == "__main__":
    fire.Fire(main)
