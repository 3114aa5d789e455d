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

"""Bundles whose network passes a bright spot on, so that each landmark is at the spot; and images with a spot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from monai_landmarks.data import bundle_landmark_names

SOURCE = Path(__file__).parents[2] / "bundles"
PICTURES = [path.parents[1].name for path in sorted(SOURCE.glob("*_xray_*/configs/inference.json"))]
CEPH = "ceph_xray_landmarks_scn"
NETWORK = {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": "$len(@names)", "kernel_size": 1}


def spot_bundle(folder: Path, name: str = CEPH) -> Path:
    """A copy of a bundle, whose network takes a bright spot for each of its landmarks."""
    root = folder / name
    shutil.copytree(SOURCE / name / "configs", root / "configs")
    change(root, network_def=NETWORK, spatial_size=[96, 128])
    if "softmax" in json.loads((root / "configs" / "inference.json").read_text()):  # the spot is a heatmap, not logits
        change(root, softmax=False)
    count = len(bundle_landmark_names(root / "configs" / "metadata.json"))
    (root / "models").mkdir()
    state = {"weight": torch.ones(count, 1, 1, 1), "bias": torch.zeros(count)}
    torch.save(state, root / "models" / "model.pt")
    return root


def change(root: Path, **values) -> None:
    config = root / "configs" / "inference.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **values}))


def spot(size: tuple[int, int], point: tuple[float, float]) -> Image.Image:
    """An image, width and height, with a bright spot at pixel (x, y)."""
    x, y = np.mgrid[: size[0], : size[1]]
    width = max(size) / 20
    return Image.fromarray(
        (255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / 2 / width**2)).T.astype(np.uint8)
    )


SPOTS = {
    "a.png": ((90, 120), (40.3, 70.6)),
    "left/b.png": ((200, 180), (120.7, 50.2)),
    "right/b.png": ((150, 300), (30.9, 211.4)),
}


def write_spots(folder: Path) -> Path:
    for name, (size, point) in SPOTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        spot(size, point).save(folder / name)
    return folder
