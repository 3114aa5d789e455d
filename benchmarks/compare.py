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

"""Functions that all benchmarks use: run the candidates in turns and print a table of times and peak memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from measure import peak_memory
from monai.utils import get_torch_version_tuple

import monai_landmarks

__all__ = ["Cost", "announce", "compare", "measure", "print_table", "program", "random_points"]

PATIENCE = 5.0  # seconds after which a slow candidate is not measured again
MEBIBYTE = 2**20

Name = TypeVar("Name", bound=Hashable)


class Cost(NamedTuple):
    """Median time of a candidate with its lower and upper quartile, and its peak memory in bytes where it is known."""

    milliseconds: float
    quartiles: tuple[float, float]
    memory: int | None


def announce(device: str, threads: int | None) -> None:
    """Set the seed and the number of threads (None: torch's default), and print the versions and the device."""
    # what was imported stays: the collection before each measurement of memory need not look through it
    gc.freeze()
    torch.manual_seed(0)
    if threads:
        torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    version = ".".join(map(str, get_torch_version_tuple()))
    print(f"monai_landmarks {monai_landmarks.__version__}, torch {version}, {name}; medians, ratios to the first row")


def random_points(num_landmarks: int, shape: tuple[int, ...], device: str) -> torch.Tensor:
    """Return random index points (N, D) in an image of this shape."""
    return torch.rand(num_landmarks, len(shape), device=device) * (torch.tensor(shape, device=device) - 1)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure(
    candidates: Mapping[Name, Callable[[], Any]], device: str, repeats: int, patience: float = PATIENCE
) -> dict[Name, Cost]:
    """
    Run all candidates in turns, so that a busy moment of the machine hits all alike; the first turn warms up.

    Args:
        candidates: name and call.
        device: ``cpu`` or ``cuda``.
        repeats: turns that count.
        patience: seconds after which a slow candidate is not measured again.
    """
    times: dict[Name, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name, run in candidates.items():
            if sum(times[name]) > patience:
                continue
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    costs = {}
    for name, run in candidates.items():
        low, median, high = 1e3 * np.quantile(times[name], [0.25, 0.5, 0.75])
        costs[name] = Cost(float(median), (float(low), float(high)), peak_memory(run, device))
    return costs


def print_table(title: str, costs: Mapping[str, Cost], facts: Mapping[str, Mapping[str, float]] | None = None) -> None:
    """
    Print the costs of each candidate and their ratios to the first.

    Args:
        title: printed above.
        costs: from :func:`measure`.
        facts: further columns, heading to name to value; a name without a value leaves its place empty.
    """
    facts = facts or {}
    width = max(44, *(len(name) + 3 for name in costs))
    print(f"\n{title}\n{'':{width}s}{'ms':>10s}{'quartiles':>20s}{'ratio':>8s}{'MiB':>10s}{'ratio':>8s}", end="")
    print("".join(f"{heading:>11s}" for heading in facts))
    limit = next(iter(costs.values()))
    for name, cost in costs.items():
        quartiles = "{:.2f}-{:.2f}".format(*cost.quartiles)
        line = f"  {name:{width - 2}s}{cost.milliseconds:10.2f}{quartiles:>20s}"
        line += f"{cost.milliseconds / limit.milliseconds:8.2f}"
        if cost.memory is None:
            line += f"{'':18s}"
        else:
            # below a MiB the first row is what it is to call anything, not a limit
            ratio = f"{cost.memory / limit.memory:.2f}" if limit.memory and limit.memory >= MEBIBYTE else "-"
            line += f"{cost.memory / MEBIBYTE:10.1f}{ratio:>8s}"
        for values in facts.values():
            line += f"{values[name]:11.1f}" if name in values else f"{'':11s}"
        print(line.rstrip(), flush=True)


def compare(title: str, candidates: Mapping[str, Callable[[], Any]], device: str, repeats: int) -> None:
    """Print median time, quartiles and peak memory of each candidate, and their ratios to the first candidate, the limit."""
    print_table(title, measure(candidates, device, repeats))


def program(run: Callable[[str, bool], None]) -> Callable[..., None]:
    """Return the ``main`` of a script, which announces and runs all comparisons.

    Args:
        run: the comparisons, for a device and, if its second argument is true, with tiny sizes.
    """

    def main(device: str = "cpu", threads: int | None = None, quick: bool = False) -> None:
        """Run all comparisons.

        Args:
            device: ``cpu`` or ``cuda``.
            threads: threads of torch, by default its own choice.
            quick: tiny sizes, to see that it runs; the numbers mean nothing.
        """
        announce(device, threads)
        run(device, quick)

    return main
