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

"""A training step of a bundle beside a plain loop with MONAI's ``BasicUNet``; see README.md.

python benchmarks/benchmark_steps.py [--rounds 15] [--threads 1] [--quick]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fire
import numpy as np
import torch
from compare import announce
from gpu import configuration, training_step
from monai.networks.nets import BasicUNet
from torch.nn.functional import mse_loss

from monai_landmarks.handlers import keep_freed_memory

BUNDLE, LANDMARKS = "ceph_xray_landmarks_scn", 19
PLAIN = "MONAI BasicUNet, plain float32 loop"


def plain_step(size: Sequence[int], batch: int) -> Callable[[], Any]:
    """Return a training step with target maps that are stored."""
    network = BasicUNet(2, 1, LANDMARKS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    image, targets = torch.randn(batch, 1, *size), torch.rand(batch, LANDMARKS, *size)

    def step() -> None:
        optimizer.zero_grad()
        mse_loss(network(image), targets).backward()
        optimizer.step()

    return step


def bundle_step(configs: tuple[str, ...], size: Sequence[int], batch: int) -> Callable[[], Any]:
    """Return a training step of a bundle, in the precision that it chooses for this machine."""
    keep_freed_memory()
    return training_step(configuration(BUNDLE, configs), list(size), batch, "auto", False, "cpu")


STEPS: dict[str, Callable[[Sequence[int], int], Callable[[], Any]]] = {
    PLAIN: plain_step,
    "U-Net of the bundle": partial(bundle_step, ("train", "unet")),
    "SCN of the bundle": partial(bundle_step, ("train",)),
}


def serve(name: str, threads: int) -> None:
    """Run a step for each line of the input, and print its wall time and CPU time in ms."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    step = STEPS[name]((160, 192), 4)
    for _ in sys.stdin:
        print(json.dumps(timed(step)), flush=True)


def timed(step: Callable[[], Any]) -> tuple[float, float]:
    """Return wall time and CPU time of a step in ms."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def start(name: str, threads: int) -> Callable[[], tuple[float, float]]:
    """Start a process that runs a step when it is called: what a bundle sets for its process counts for itself alone."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serving", name, "--threads", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    ask, answers = process.stdin, process.stdout

    def run() -> tuple[float, float]:
        ask.write("\n")
        ask.flush()
        return tuple(json.loads(answers.readline()))  # type: ignore[return-value]

    return run


def main(rounds: int = 15, threads: int = 1, quick: bool = False, serving: str | None = None) -> None:
    """Run the steps in turns, each in a process of its own.

    Args:
        rounds: steps of each that count, after two that do not.
        threads: threads of torch.
        quick: tiny sizes in this process, to see that it runs; the numbers mean nothing.
        serving: only for processes that this program starts.
    """
    if serving is not None:
        return serve(serving, threads)
    announce("cpu", threads)
    if quick:
        runs = {name: partial(timed, make((64, 64), 1)) for name, make in STEPS.items()}
    else:
        runs = {name: start(name, threads) for name in STEPS}
    times = np.array([[run() for run in runs.values()] for _ in range(1 if quick else rounds + 2)])
    times = times if quick else times[2:]
    print(f"\nTraining step: {LANDMARKS} landmarks, medians and quartiles; ratios of CPU times within a round")
    print(f"{'':38s}{'ms':>8s}{'CPU ms':>8s}{'ratio':>8s}{'quartiles':>14s}")
    for row, name in enumerate(runs):
        low, ratio, high = np.quantile(times[:, row, 1] / times[:, 0, 1], [0.25, 0.5, 0.75])
        wall, cpu = np.median(times[:, row], axis=0)
        print(f"  {name:36s}{wall:8.0f}{cpu:8.0f}{ratio:8.2f}{f'{low:.2f}-{high:.2f}':>14s}")


if __name__ == "__main__":
    fire.Fire(main)
