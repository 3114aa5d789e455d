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


"""What the bundles ask of a GPU: few kernels, hardly any waiting, and no tensor of the wrong device. No GPU is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.fx.experimental._config
from device_counter import DeviceCounter
from ignite.engine import Engine, Events
from small_bundles import BUNDLES, VOLUMES, copy_bundle, training_size, workflow

from monai_landmarks.handlers import safe_checkpoint

META = torch.device("meta")
# the optimizer runs in few kernels on a GPU; on the meta device it is a loop over the parameters
NO_OPTIMIZER = {"optimizer": {"_target_": "torch.optim.SGD", "params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1}}


@pytest.fixture(autouse=True)
def weights_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no values, so the check for NaN before saving is switched off."""
    monkeypatch.setattr(safe_checkpoint, "non_finite_weights", lambda holder: None)


def count(engine: Engine, batches: int) -> tuple[DeviceCounter, DeviceCounter]:
    """Run some batches. Returns the counts of the last iteration, and those of everything."""
    whole, last = DeviceCounter(), DeviceCounter()

    def start() -> None:
        last.reset()
        last.__enter__()

    def end(engine: Engine) -> None:
        last.__exit__(None, None, None)
        if engine.state.iteration == batches:
            engine.terminate()

    engine.add_event_handler(Events.ITERATION_STARTED, start)
    engine.add_event_handler(Events.ITERATION_COMPLETED, end)
    # the real number of elements that a mask selects is not known
    with whole, torch.fx.experimental._config.patch(meta_nonzero_assume_all_nonzero=True):
        engine.run()
    return last, whole


def engines(root: Path, *configs: str, **options: Any) -> Callable[[str], Any]:
    """The parts of a training on the meta device, by name."""
    options = {"device": META, **training_size(root, epochs=1), **options}
    flow = workflow(root, "train", *configs, **options)
    with DeviceCounter():
        flow.initialize()
        flow.parser.get_parsed_content("train#trainer")
    return flow.parser.get_parsed_content


@pytest.mark.parametrize("bundle", BUNDLES)
def test_no_bundle_mixes_devices(bundle: str, tmp_path: Path) -> None:
    # without values, all cells of all windows are candidates for a maximum
    few_windows = {"overlap": 0.0, "windows#candidates": 2} if bundle in VOLUMES else {}
    part = engines(copy_bundle(bundle, tmp_path), **NO_OPTIMIZER, **few_windows)
    step, training = count(part("train#trainer"), batches=2)
    assert not training.mixtures and sum(step.waits.values()) <= 3, step.waits
    _, validation = count(part("validate#evaluator"), batches=1)
    assert not validation.mixtures and sum(validation.kernels.values()) > 0


@pytest.mark.parametrize(
    "bundle, size, most_kernels",
    [
        # 28 convolutions, each with a normalization and an activation, forward and backward, and the loss in two parts
        ("ceph_xray_landmarks_scn", [512, 640], 500),
        # DenseNet-121 alone has 120 convolutions, each with a normalization and an activation, forward and backward
        ("ceph_xray_landmarks_farnet", [640, 800], 1190),
    ],
)
def test_a_full_step_has_few_kernels(bundle: str, size: list[int], most_kernels: int, tmp_path: Path) -> None:
    options = {"spatial_size": size, "batch_size": 4, "backbone_weights": None, **NO_OPTIMIZER}
    root = copy_bundle(bundle, tmp_path)
    network = {"network_def": json.loads((root / "configs" / "full.json").read_text())["network_def"]}
    part = engines(root, "full", **options, **network)
    step, _ = count(part("train#trainer"), batches=1)
    assert sum(step.kernels.values()) <= most_kernels, step.kernels
    assert sum(step.waits.values()) <= 3, step.waits
