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


"""Images with two landmarks, a bright spot and a dark spot, and bundles with a single convolution that detects them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from monai_landmarks.data import LandmarkSet, build_datalist, write_landmarks
from monai_landmarks.planning import Machine, make_plan, summarize_datalist, write_bundle

NAMES = ("Bright", "dark spot")
SHAPES = {2: (48, 40), 3: (32, 28, 24)}
SPREAD = 2.0  # of a spot, in pixels


def oblique(shape: Sequence[int] = SHAPES[3], spacing: Sequence[float] = (1.2, 0.8, 2.0)) -> np.ndarray:
    """Return a left-handed affine to RAS mm with oblique axes and a distant origin."""
    a, b = np.deg2rad(20), np.deg2rad(-15)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1, 1, 1]) @ np.diag(spacing)
    affine[:3, 3] = (31.0, -47.0, 113.0)
    return affine


def spots(shape: Sequence[int], points: np.ndarray, spread: float = SPREAD) -> np.ndarray:
    """Return an image with a bright spot at the first index point and a dark spot at the second."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distances = ((grid[..., None, :] - points) ** 2).sum(axis=-1)
    return 128 + 100 * (np.exp(-distances / (2 * spread**2)) * [1, -1]).sum(axis=-1)


def random_points(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Return a point for the bright spot in the lower half of each axis and one for the dark spot in the upper half."""
    size = np.array(shape)
    return np.stack([random.uniform(0.2, 0.35, len(size)), random.uniform(0.65, 0.8, len(size))]) * size


def write_image(path: Path, points: np.ndarray, spread: float = SPREAD) -> Path:
    """Write an image with spots. Its suffix sets the number of dimensions. Some pictures state 72 dots per inch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(spots(SHAPES[3], points, spread).astype(np.float32), oblique()), path)
    else:
        picture = Image.fromarray(spots(SHAPES[2], points, spread).T.round().astype(np.uint8))
        picture.save(path, dpi=(72, 72))
    return path


def write_bundle_of_spots(folder: Path, suffix: str = ".nii.gz", trained: bool = True) -> Path:
    """Write a bundle as ``monai-landmarks init`` does, with a single convolution as its network.

    Trained, it gives the image and its negative: the heatmaps of the bright and of the dark spot. Untrained, it takes one for the other.
    """
    random, dims = np.random.default_rng(5), 3 if suffix == ".nii.gz" else 2
    data = folder.parent / f".{folder.name}_data"
    images = []
    for i in range(4):
        points = random_points(random, SHAPES[dims])
        images.append(write_image(data / f"{i}{suffix}", points))
        affine = oblique() if dims == 3 else np.diag([-0.5, -0.5, 1.0, 1.0])
        landmarks = LandmarkSet(NAMES, points, "index").to_world(affine)
        write_landmarks(data / f"{i}.mrk.json", landmarks.to("LPS"))
    datalist = data / "datalist.json"
    build_datalist(images, data, datalist, val_frac=0.25, **({} if dims == 3 else {"spacing": 0.5}))
    size = [32] * 3 if dims == 3 else [64, 64]
    given = {"spatial_size": size, "width": 8, "batch_size": 2, "max_epochs": 40, "val_interval": 10, "elastic": 0}
    plan = make_plan(summarize_datalist(datalist), "scn", Machine("cpu", 2**32), given=given)
    write_bundle(folder, plan, datalist)
    network = {"_target_": f"torch.nn.Conv{dims}d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    for name in ("train", "inference"):
        path = folder / "configs" / f"{name}.json"
        config = json.loads(path.read_text())
        config["network_def"] = network
        if name == "train":
            config["learning_rate"] = 0.5
        path.write_text(json.dumps(config))
    net = getattr(torch.nn, f"Conv{dims}d")(1, 2, 1)
    sign = 1.0 if trained else -1.0
    torch.nn.init.zeros_(net.bias)
    net.weight.data[:] = torch.tensor([sign, -sign]).reshape(net.weight.shape)
    (folder / "models").mkdir()
    torch.save(net.state_dict(), folder / "models" / "model.pt")
    return folder
