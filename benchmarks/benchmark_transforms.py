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

"""Time and memory of the steps that run for every image, compared with a peer and a lower bound; see README.md.

python benchmarks/benchmark_transforms.py [--device cuda] [--threads 2] [--quick]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import fire
import torch
from compare import compare, program, random_points
from monai.transforms import GenerateHeatmap, Rand2DElastic, Rand3DElastic
from torch.nn.functional import grid_sample

from monai_landmarks.transforms import HeatmapToLandmarks, LandmarksToHeatmap, RandLandmarkWarp

SIGMA = 3.0


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
    angles = 0.2 if len(shape) == 2 else (0.2, 0.2, 0.2)
    ours = RandLandmarkWarp(10, angles, 0.1, elastic_range=5, unit="voxel", prob=1.0)
    # the time of grid_sample depends on the grid: that of the identity reads the image in the order of its memory
    ours.randomize(image)
    assert ours.warp is not None
    grid = ours.warp.grid(device, image.dtype)
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


@program
def main(device: str, quick: bool) -> None:
    repeats = 1 if quick else 15
    for num_landmarks, shape in ((3, (32, 24)), (3, (16, 12, 20))) if quick else ((37, (512, 512)), (25, (96, 96, 96))):
        heatmaps(num_landmarks, shape, device, repeats)
        warp(num_landmarks, shape, device, repeats)


if __name__ == "__main__":
    fire.Fire(main)
