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

"""The bundles at the size of a test: a copy to run in, small images, a small network, data that is made on the spot."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow
from PIL import Image

from monai_landmarks.data.isbi2015 import ISBI2015_LANDMARKS

SOURCE = Path(__file__).parents[2] / "bundles"
BUNDLES = sorted(path.parents[1].name for path in SOURCE.glob("*/configs/train.json"))

NETWORK = {
    "_target_": "monai_landmarks.networks.nets.SCN",
    "spatial_dims": 2,
    "in_channels": 1,
    "num_landmarks": "$len(@names)",
    "local_appearance": "unet",
    "unet_features": [8, 8, 8, 8, 8, 8],
    "features": 8,
    "spatial_kernel": 5,
    "norm": "instance",
    "spatial_bias": 1.0,
    "head_init_std": 0.01,
}
SIZE = [64, 64]
# the network is given whole, so that the tests do not depend on which one a bundle trains
SMALL = {"spatial_size": SIZE, "network_def": NETWORK, "batch_size": 2}


def metadata(bundle: str) -> dict[str, Any]:
    return json.loads((SOURCE / bundle / "configs" / "metadata.json").read_text())


def copy_bundle(bundle: str, folder: Path) -> Path:
    """A copy without what earlier runs have left; its data is made or written on the spot."""
    root = folder / bundle
    shutil.copytree(SOURCE / bundle, root, ignore=shutil.ignore_patterns("models", "eval", "data"))
    if bundle.startswith("ceph"):
        write_ceph_data(root / "data")
    return root


def small(root: Path, **more: Any) -> dict[str, Any]:
    """Overrides of a configuration, for `workflow` or, as JSON, for the command line."""
    overrides = {"bundle_root": str(root), **SMALL, **more}
    if root.name.startswith("ceph"):
        overrides["dataset_dir"] = overrides.get("dataset_dir", str(root / "data"))
    return overrides


def option(key: str, value: Any) -> tuple[str, str]:
    """An override as it is written on the command line."""
    return f"--{key}", value if isinstance(value, str) else repr(value)


def workflow(
    root: Path, *configs: str, workflow_type: str | None = None, tracking: str | None = None, **overrides: Any
):
    """The workflow of some configuration files, such as ``"train", "evaluate"``."""
    return ConfigWorkflow(
        [str(root / "configs" / f"{config}.json") for config in configs],
        logging_file=False,  # the root logger is the tests'
        workflow_type=workflow_type or ("infer" if configs[0] == "inference" else "train"),
        tracking=tracking,
        **small(root, **overrides),
    )


def run(root: Path, *configs: str, **overrides: Any) -> ConfigWorkflow:
    """Run a workflow as ``python -m monai.bundle run`` does."""
    flow = workflow(root, *configs, **overrides)
    flow.initialize()
    flow.run()
    flow.finalize()
    return flow


def training_size(root: Path, images: int = 10, epochs: int = 2, val_interval: int = 1) -> dict[str, Any]:
    """Overrides for a training of some seconds; a phantom of 10 images has 6 for training, 2 and 2 for the rest."""
    phantom = {} if root.name.startswith("ceph") else {"datalist#num_images": images}
    return {"max_epochs": epochs, "val_interval": val_interval, **phantom}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_ceph_data(folder: Path, size: tuple[int, int] = (77, 96)) -> None:
    """A folder as `isbi2015_datalist` reads it, with 19 bright spots on each image for landmarks."""
    random = np.random.default_rng(0)
    x, y = np.mgrid[: size[0], : size[1]]
    template = random.uniform(0.15, 0.85, (19, 2)) * size
    brightness = random.uniform(0.3, 1.0, 19)
    (folder / "images").mkdir(parents=True)
    splits = ["train"] * 8 + ["test1"] * 2 + ["test2"]
    tables: dict[str, list[list[Any]]] = {"": [], "_senior": [], "_junior": [], "_challenge": []}
    for number, _ in enumerate(splits, 1):
        points = template + random.normal(0, 2, 2) + random.normal(0, 1, template.shape)
        spots = [b * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for b, (px, py) in zip(brightness, points)]
        Image.fromarray((np.max(spots, axis=0).T * 255).astype(np.uint8)).save(folder / f"images/{number:03d}.png")
        for name, shift in {"": 0.0, "_senior": -0.25, "_junior": 0.25, "_challenge": -0.25}.items():
            tables[name] += [
                [f"{number:03d}.png", landmark, *(point + shift)] for landmark, point in zip(ISBI2015_LANDMARKS, points)
            ]
    for name, rows in tables.items():
        _write_table(folder / f"landmarks{name}.csv", ["image", "landmark", "x", "y"], rows)
    _write_table(folder / "splits.csv", ["image", "split"], [[f"{n:03d}.png", s] for n, s in enumerate(splits, 1)])


def _write_table(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
