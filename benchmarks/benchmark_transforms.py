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

"""Time and memory of what runs for every image, beside a peer and beside the physical limit; see README.md.

python benchmarks/benchmark_transforms.py [--device cuda] [--threads 2] [--quick]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import fire
import numpy as np
import torch
from measure import peak_memory
from monai.networks.nets import BasicUNet
from monai.transforms import GenerateHeatmap, Rand2DElastic, Rand3DElastic
from monai.utils import get_torch_version_tuple
from torch.nn.functional import grid_sample

import monai_landmarks
from monai_landmarks.losses import SCNLoss
from monai_landmarks.networks.nets import SCN
from monai_landmarks.transforms import HeatmapToLandmarks, LandmarksToHeatmap, RandLandmarkWarp

SIGMA = 3.0
PATIENCE = 5.0  # seconds after which a slow candidate is not measured again


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def compare(title: str, candidates: dict[str, Callable[[], Any]], device: str, repeats: int) -> None:
    """Print median time and peak memory of each candidate, and their ratios to the first, which is the limit."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):  # in turns, so that a busy moment of the machine hits all alike; the first warms up
        for name, run in candidates.items():
            if sum(times[name]) > PATIENCE:
                continue
            synchronize(device)
            start = time.perf_counter()
            run()
            synchronize(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    print(f"\n{title}\n{'':44s}{'ms':>10s}{'ratio':>8s}{'MiB':>10s}{'ratio':>8s}")
    rows = {name: (1e3 * float(np.median(times[name])), peak_memory(run, device)) for name, run in candidates.items()}
    limit_time, limit_memory = next(iter(rows.values()))
    for name, (milliseconds, memory) in rows.items():
        line = f"  {name:42s}{milliseconds:10.2f}{milliseconds / limit_time:8.2f}"
        if memory is not None:
            line += f"{memory / 2**20:10.1f}"
            # below a MiB the first row is what it is to call anything, not a limit
            line += f"{memory / limit_memory:8.2f}" if limit_memory and limit_memory >= 2**20 else f"{'-':>8s}"
        print(line, flush=True)


def random_points(num_landmarks: int, shape: tuple[int, ...], device: str) -> torch.Tensor:
    return torch.rand(num_landmarks, len(shape), device=device) * (torch.tensor(shape, device=device) - 1)


def heatmaps(num_landmarks: int, shape: tuple[int, ...], device: str, repeats: int) -> None:
    points = random_points(num_landmarks, shape, device)
    encode, monai_encode = LandmarksToHeatmap(sigma=SIGMA), GenerateHeatmap(sigma=SIGMA)
    what = f"{len(shape)}-D, {num_landmarks} maps of {' x '.join(map(str, shape))}, float32"
    encoders: dict[str, Callable[[], Any]] = {
        "torch.full (limit)": partial(torch.full, (num_landmarks, *shape), 1.0, device=device),
        "LandmarksToHeatmap": partial(encode, points, spatial_shape=shape),
        "MONAI GenerateHeatmap": partial(monai_encode, points, spatial_shape=shape),
    }
    compare(f"Encode: points to heatmaps, {what}", encoders, device, repeats)

    maps = torch.as_tensor(encode(points, spatial_shape=shape))
    maps = maps + 0.01 * torch.randn_like(maps)
    decoders: dict[str, Callable[[], Any]] = {
        "torch.amax (limit)": partial(torch.amax, maps, dim=tuple(range(1, maps.ndim))),
        "HeatmapToLandmarks": partial(HeatmapToLandmarks(), maps),
        "torch.argmax": lambda: maps.flatten(1).argmax(dim=1),
    }
    compare(f"Decode: heatmaps with 1 % noise to points, {what}", decoders, device, repeats)


def warp(num_landmarks: int, shape: tuple[int, ...], device: str, repeats: int) -> None:
    image = torch.rand(1, *shape, device=device)
    points = random_points(num_landmarks, shape, device)
    axes = [torch.linspace(-1, 1, n, device=device) for n in shape]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], dim=-1)[None]
    angles = 0.2 if len(shape) == 2 else (0.2, 0.2, 0.2)
    ours = RandLandmarkWarp(10, angles, 0.1, elastic_range=5, units="voxel", prob=1.0)
    peer: Any
    if len(shape) == 2:
        spacing = (shape[0] / 4, shape[1] / 4)
        peer = Rand2DElastic(spacing, (0, 1), prob=1.0, rotate_range=0.2, translate_range=10, device=image.device)
    else:
        peer = Rand3DElastic((5, 6), (0, 1), prob=1.0, rotate_range=angles, translate_range=10, device=image.device)
    candidates: dict[str, Callable[[], Any]] = {
        "grid_sample, grid ready (limit)": lambda: grid_sample(image[None], grid, align_corners=False),
        f"RandLandmarkWarp, with {num_landmarks} points": lambda: ours(image, points),
        f"MONAI {type(peer).__name__}, image only": lambda: peer(image),
    }
    compare(f"Warp: {len(shape)}-D image of {' x '.join(map(str, shape))}", candidates, device, repeats)


def training_step(num_landmarks: int, features: int, size: int, device: str, repeats: int) -> None:
    image = torch.rand(1, 1, size, size, device=device)
    points = random_points(num_landmarks, (size, size), device)
    nets = {
        "SCN": SCN(2, 1, num_landmarks, features=features),
        "MONAI BasicUNet": BasicUNet(2, 1, num_landmarks, features=(32, 32, 64, 128, 256, 32)),
    }
    loss = SCNLoss(num_landmarks, 2).to(device)
    encode = GenerateHeatmap(sigma=SIGMA)

    def propagate(net: torch.nn.Module) -> None:
        net(image).sum().backward()

    def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer, from_points: bool) -> None:
        optimizer.zero_grad()
        prediction = net(image)
        if from_points:
            loss(prediction, points[None]).backward()
        else:
            target = torch.as_tensor(encode(points, spatial_shape=(size, size)), device=image.device)[None]
            torch.nn.functional.mse_loss(prediction, target).backward()
        optimizer.step()

    candidates: dict[str, Callable[[], Any]] = {}
    for name, net in nets.items():
        net.to(device).train()
        optimizer = torch.optim.SGD([*net.parameters(), *loss.parameters()], 1e-9, momentum=0.99, nesterov=True)
        candidates[f"{name}: forward and backward alone"] = partial(propagate, net)
        candidates[f"{name}: step, SCNLoss from points"] = partial(step, net, optimizer, True)
        candidates[f"{name}: step, GenerateHeatmap and MSE"] = partial(step, net, optimizer, False)
    title = f"Training step: {num_landmarks} landmarks, one image of {size} x {size}, SCN of {features} features"
    compare(title, candidates, device, repeats)


def main(device: str = "cpu", threads: int | None = None, quick: bool = False) -> None:
    """Run all comparisons.

    Args:
        device: ``cpu`` or ``cuda``.
        threads: threads of torch, by default its own choice.
        quick: tiny sizes, to see that it runs; the numbers mean nothing.
    """
    torch.manual_seed(0)
    if threads:
        torch.set_num_threads(threads)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    version = ".".join(map(str, get_torch_version_tuple()))
    print(f"monai_landmarks {monai_landmarks.__version__}, torch {version}, {name}; medians, ratios to the first row")
    repeats = 1 if quick else 15
    for num_landmarks, shape in ((3, (32, 24)), (3, (16, 12, 20))) if quick else ((37, (512, 512)), (25, (96, 96, 96))):
        heatmaps(num_landmarks, shape, device, repeats)
        warp(num_landmarks, shape, device, repeats)
    if quick:
        training_step(num_landmarks=3, features=4, size=64, device=device, repeats=1)
    else:
        training_step(num_landmarks=37, features=128, size=256, device=device, repeats=3)


if __name__ == "__main__":
    fire.Fire(main)
