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

"""Time to prepare a training batch of a bundle, relative to a training step, on the CPU and on the device.

python benchmarks/benchmark_pipelines.py [--bundle hand_xray_landmarks_scn] [--dataset_dir data]
    [--device cuda] [--threads 2] [--quick]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fire
import torch
from compare import announce, compare
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader

BUNDLES = Path(__file__).parents[1] / "bundles"


def pipeline(root: Path, options: dict[str, Any]) -> tuple[ConfigParser, Callable[[], Any]]:
    """Return the training configuration and a function that creates a batch from the cache."""
    parser = ConfigParser()
    parser.read_config(root / "configs" / "train.json")
    parser.update({"bundle_root": str(root), "num_workers": 0, **options})
    size = parser.get_parsed_content("batch_size")
    items = parser.get_parsed_content("train#dataset#data")[:size]
    cached = CacheDataset(items, parser.get_parsed_content("train#preprocessing"), progress=False)
    loader = DataLoader(cached, batch_size=size)
    return parser, lambda: next(iter(loader))


def training_step(parser: ConfigParser, batch: dict[str, Any], device: str) -> Callable[[], None]:
    """Run forward pass, loss, backward pass and optimizer on a prepared batch."""
    names = ("network", "loss", "optimizer", "train#inferer")
    network, loss, optimizer, inferer = (parser.get_parsed_content(name) for name in names)
    image, label = (batch[key].as_tensor().to(device) for key in ("image", "label"))

    def step() -> None:
        optimizer.zero_grad()
        loss(inferer(image, network), label).backward()
        optimizer.step()

    return step


def main(
    bundle: str = "hand_xray_landmarks_scn",
    dataset_dir: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    quick: bool = False,
) -> None:
    """Run the comparison.

    Args:
        bundle: name of a bundle of this checkout.
        dataset_dir: where its data is; the hand bundle draws its own.
        device: ``cpu`` or ``cuda``.
        threads: threads of torch, by default its own choice.
        quick: tiny sizes, to see that it runs; the numbers mean nothing.
    """
    announce(device, threads)
    root = BUNDLES / bundle
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"device": torch.device(device), "dataset_dir": dataset_dir or folder}
        if "hand" in root.name:
            options["datalist#num_images"] = 10
        if quick:
            options.update({"spatial_size": [32, 32], "network_def#features": 8, "network_def#unet_features": [8] * 6})
        parser, on_device = pipeline(root, options)
        _, on_cpu = pipeline(root, {**options, "train#to_device": []})
        batch = on_cpu()
        candidates = {
            "training step, batch ready (limit)": training_step(parser, batch, device),
            "a batch prepared on the CPU, no workers": on_cpu,
            f"a batch prepared on {device}": on_device,
        }
        size = " x ".join(map(str, batch["image"].shape[2:]))
        title = f"Batches of {root.name}: {len(batch['image'])} images of {size}"
        compare(title, candidates, device, 1 if quick else 10)


if __name__ == "__main__":
    fire.Fire(main)
