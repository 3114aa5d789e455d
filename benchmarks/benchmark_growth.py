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
"""Growth of time and memory with the side of the image, the number of landmarks and the batch size; see README.md.

python benchmarks/benchmark_growth.py [--device cuda] [--threads 2] [--quick]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fire
import numpy as np
import torch
from benchmark_networks import TrainingStep, recipes
from compare import MEBIBYTE, measure, print_table, program, random_points

from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.inferers import LandmarkInferer

NETWORK = "SCN, BasicUNet as local appearance"


def growth_exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return p of the power law ``cost = c * size ** p`` that fits best, by least squares of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def training_step(side: int, num_landmarks: int, batch_size: int, device: str, quick: bool) -> Callable[[], Any]:
    """Return a training step: forward pass, loss from points, backward pass, optimizer."""
    image = torch.rand(batch_size, 1, side, side, device=device)
    points = random_points(batch_size * num_landmarks, (side, side), device).view(batch_size, num_landmarks, 2)
    step = TrainingStep(recipes(num_landmarks, quick)[NETWORK], image, points, torch.contiguous_format)
    return partial(step, torch.float32)


def inference(side: int, num_landmarks: int, batch_size: int, device: str, quick: bool) -> Callable[[], Any]:
    """Return the inference of a batch, from images to points."""
    network = recipes(num_landmarks, quick)[NETWORK][0]().to(device).eval()
    return partial(LandmarkInferer(), torch.rand(batch_size, 1, side, side, device=device), network)


def decoding(side: int, num_landmarks: int, batch_size: int, device: str, quick: bool) -> Callable[[], Any]:
    """Return the decoding of a batch of heatmaps with 1 % noise."""
    points = random_points(batch_size * num_landmarks, (side, side), device)
    maps = gaussian_heatmaps(points, (side, side), sigma=3.0)
    maps = (maps + 0.01 * torch.randn_like(maps)).view(batch_size, num_landmarks, side, side)
    return partial(decode_heatmaps, maps, 2)


@program
def main(device: str, quick: bool) -> None:
    base = {"side": 32 if quick else 128, "landmarks": 2 if quick else 10, "batch": 1 if quick else 2}
    factors = (1, 2) if quick else (0.5, 1, 2, 4)
    makes: dict[str, Callable[..., Callable[[], Any]]] = {"Training step": training_step, "Inference": inference}
    makes["Decoding"] = decoding
    for what, make in makes.items():
        # decoding alone takes larger images, like those of the other tables
        start = {**base, "side": base["side"] * (1 if quick or make is not decoding else 2)}
        for axis in base:
            sizes = [int(start[axis] * factor) for factor in factors]
            runs = {size: make(*{**start, axis: size}.values(), device, quick) for size in sizes}
            costs = measure(runs, device, 1 if quick else 9)
            fixed = ", ".join(f"{name} {size}" for name, size in start.items() if name != axis)
            print_table(f"{what}: growth with {axis} ({fixed})", {f"{axis} {n}": costs[n] for n in sizes})
            line = f"  exponent: time {growth_exponent(sizes, [costs[n].milliseconds for n in sizes]):.2f}"
            memory = [costs[n].memory or 0 for n in sizes]
            # below a MiB it is what it is to call anything
            line += f", memory {growth_exponent(sizes, memory):.2f}" if min(memory) >= MEBIBYTE else ""
            print(line, flush=True)


if __name__ == "__main__":
    fire.Fire(main)
