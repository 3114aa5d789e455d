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

"""Every bundle learns from what annotators have saved, with the overrides that MONAI Label's own app gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from small_bundles import BUNDLES, SIZE, SOURCE, metadata, network_def

from monai_landmarks.data import LandmarkSet, write_landmarks

bundle_task = pytest.importorskip("monailabel.tasks.train.bundle", reason="MONAI Label is not installed")
local = pytest.importorskip("monailabel.datastore.local")


def studies(folder: Path, names: list[str]) -> Any:
    """A datastore with five labeled pictures; of the first one two landmarks are left out."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(5):
        Image.fromarray(random.integers(0, 255, (80, 64), dtype=np.uint8)).save(folder / f"{number}.png")
    datastore = local.LocalDatastore(str(folder), extensions=("*.png",))
    for number in range(5):
        points = -random.uniform(8, 56, (len(names), 2))  # RAS
        points[: 2 * (number == 0)] = np.nan
        write_landmarks(folder.parent / f"{number}.mrk.json", LandmarkSet(tuple(names), points).to("LPS"))
        datastore.save_label(str(number), str(folder.parent / f"{number}.mrk.json"), "final", {})
    return datastore


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_bundle_learns_from_saved_labels(bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / bundle
    (root / "models").mkdir(parents=True)
    (root / "configs").symlink_to(SOURCE / bundle / "configs")
    names = list(metadata(bundle)["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(monai.bundle, "run", lambda **arguments: calls.append(arguments))
    task = bundle_task.BundleTrainTask(str(root), {})
    # some bundles validate more rarely than that, but not so rarely that nothing would come out
    request = {"model": bundle, "max_epochs": 2, "device": "cpu", "val_split": 0.2, "multi_gpu": False}
    task(request, studies(tmp_path / "studies", names))

    (given,) = calls
    overrides = {key: value for key, value in given.items() if not key.endswith(("_id", "_file"))}
    flow = ConfigWorkflow(
        given["config_file"],
        logging_file=False,  # the root logger is the tests'
        network_def=network_def(bundle),
        spatial_size=SIZE,
        **overrides,
    )
    flow.initialize()
    flow.run()
    trainer = flow.parser.get_parsed_content("train#trainer")
    assert trainer.state.epoch == 2  # and the schedule of the learning rate, too, is made for that
    assert len(trainer.data_loader.dataset) == 4
    schedule = flow.parser.get_parsed_content("lr_scheduler")
    assert schedule.total_steps == 2 * len(trainer.data_loader)
    weights = torch.load(root / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
