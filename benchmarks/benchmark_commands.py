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

"""Time of the commands that need no network, from start to end, beside the start of Python and torch; see README.md.

python benchmarks/benchmark_commands.py [--images 150] [--rounds 7] [--quick]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fire
import numpy as np
from PIL import Image

from monai_landmarks.data import CoordinateSystem, LandmarkSet, write_landmark_table

SIZE = (645, 800)
LANDMARKS = 19


def draw(folder: Path, images: int) -> None:
    """Write pictures with noise, a table of random landmarks, and predictions with an error of about 2 mm."""
    rng = np.random.default_rng(0)
    names = tuple(f"landmark_{i + 1}" for i in range(LANDMARKS))
    shape = rng.uniform(50, 600, (LANDMARKS, 2))
    truth, predicted = {}, {}
    (folder / "images").mkdir()
    for i in range(images):
        name = f"{i:04d}.png"
        pixels = rng.integers(0, 255, SIZE[::-1], dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name, compress_level=1)
        points = shape + rng.normal(0, 10, shape.shape)
        truth[name] = LandmarkSet(names, points, CoordinateSystem.INDEX)
        predicted[name] = LandmarkSet(names, points + rng.normal(0, 5, shape.shape), CoordinateSystem.INDEX)
    write_landmark_table(folder / "landmarks.csv", truth)
    write_landmark_table(folder / "predictions.csv", predicted)


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command in a new process. Return its wall time, and its CPU time, which other programs change little."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[2:4]) - sum(before[2:4])


def main(images: int = 150, rounds: int = 7, quick: bool = False) -> None:
    """Run all commands in turns, and print the medians and the ranges of their times.

    Args:
        images: number of images.
        rounds: number of runs of each command, after one that is not counted.
        quick: few images and one run, without the import of torch, to see that it runs; the numbers mean nothing.
    """
    if quick:
        images, rounds = 3, 0
    program = ["-m", "monai_landmarks"]
    compared = ["predictions.csv", "landmarks.csv", "--spacing", "0.3"]
    commands = {
        "Python alone (limit)": ["-c", "pass"],
        "import torch, monai": ["-c", "import torch, monai"],
        "--help": [*program, "--help"],
        "convert": [*program, "convert", "landmarks.csv", "points", "--to", "labelme", "--images", "images"],
        "convert, without images": [*program, "convert", "landmarks.csv", "points", "--to", "npz"],
        "evaluate": [*program, "evaluate", *compared, "--out", "tables"],
        "report": [*program, "report", *compared, "--images", "images", "--out", "report.html"],
        "check": [*program, "check", "images", "landmarks.csv", "--spacing", "0.3", "--out", "checked"],
    }
    if quick:
        del commands["import torch, monai"]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), images)
        for turn in range(rounds + 1):
            for name, command in commands.items():
                taken = seconds(command, Path(folder))
                if turn or quick:
                    times[name].append(taken)
    print(f"{images} images of {SIZE[0]} x {SIZE[1]} with {LANDMARKS} landmarks\n")
    print("| command | wall time in s | CPU time in s |\n|---|---|---|")
    for name, taken in times.items():
        cells = [f"{statistics.median(column):.2f} ({min(column):.2f} to {max(column):.2f})" for column in zip(*taken)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    fire.Fire(main)
