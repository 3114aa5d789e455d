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

"""Training of every bundle with saved labels and the overrides of MONAI Label's own app."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from small_bundles import BUNDLES, IN_PAIRS, PATCH, PICTURES, SIZE, SOURCE, metadata, network_def

from monai_landmarks.data import LandmarkSet, write_landmarks

bundle_task = pytest.importorskip("monailabel.tasks.train.bundle", reason="MONAI Label is not installed")
local = pytest.importorskip("monailabel.datastore.local")


def studies(folder: Path, bundle: str, names: list[str]) -> Any:
    """Return a datastore with five labeled images. The label of the first one leaves out two landmarks."""
    random = np.random.default_rng(0)
    picture = bundle in PICTURES
    folder.mkdir()
    for number in range(5):
        if picture:
            Image.fromarray(random.integers(0, 255, (80, 64), dtype=np.uint8)).save(folder / f"{number}.png")
        else:
            pixels = random.integers(0, 400, (36, 40, 36)).astype(np.int16)
            nib.save(nib.Nifti1Image(pixels, np.diag([-0.4, -0.4, 0.4, 1.0])), folder / f"{number}.nii.gz")
    datastore = local.LocalDatastore(str(folder), extensions=("*.png", "*.nii.gz"))
    for number in range(5):
        points = (
            -random.uniform(8, 56, (len(names), 2)) if picture else random.uniform(4, 10, (len(names), 3)) * (-1, -1, 1)
        )
        points[: 2 * (number == 0)] = np.nan
        write_landmarks(folder.parent / f"{number}.mrk.json", LandmarkSet(tuple(names), points, "RAS").to("LPS"))
        datastore.save_label(str(number), str(folder.parent / f"{number}.mrk.json"), "final", {})
    return datastore


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_bundle_learns_from_saved_labels(bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / bundle
    (root / "models").mkdir(parents=True)
    (root / "configs").symlink_to(SOURCE / bundle / "configs")
    names = list(metadata(bundle)["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(monai.bundle, "run", lambda **arguments: calls.append(arguments))
    task = bundle_task.BundleTrainTask(str(root), {})
    # some bundles validate more rarely than that, but not so rarely that no weights would be saved
    request = {"model": bundle, "max_epochs": 2, "device": "cpu", "val_split": 0.2, "multi_gpu": False}
    task(request, studies(tmp_path / "studies", bundle, names))

    (given,) = calls
    overrides = {key: value for key, value in given.items() if not key.endswith(("_id", "_file"))}
    flow = ConfigWorkflow(
        given["config_file"],
        logging_file=False,  # the root logger is the tests'
        network_def=network_def(bundle),
        **({"spatial_size": SIZE} if bundle in PICTURES else {"patch_size": PATCH, **IN_PAIRS}),
        **overrides,
    )
    flow.initialize()
    flow.run()
    trainer = flow.parser.get_parsed_content("train#trainer")
    assert trainer.state.epoch == 2
    assert len(trainer.data_loader.dataset) == 4
    schedule = flow.parser.get_parsed_content("lr_scheduler")
    if isinstance(schedule, torch.optim.lr_scheduler.OneCycleLR):
        assert schedule.total_steps == 2 * len(trainer.data_loader)
    weights = torch.load(root / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
