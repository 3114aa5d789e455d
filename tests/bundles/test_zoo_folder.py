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

"""The folder for the model zoo holds what the zoo takes, and the check finds what it does not."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SOURCE, NAME = ROOT / "bundles", "hand_xray_landmarks_scn"
sys.path.insert(0, str(ROOT / "tools"))
from make_zoo_folder import check_zoo_folder, make_zoo_folder  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    return make_zoo_folder(SOURCE / NAME, tmp_path, "https://example.org/weights/")


def test_large_files_are_those_to_upload(folder, tmp_path):
    (entry,) = yaml.safe_load((folder / "large_files.yml").read_text())["large_files"]
    weights = tmp_path / "files" / NAME / "model.pt"
    assert entry["path"] == "models/model.pt"
    assert entry["url"] == f"https://example.org/weights/{NAME}/model.pt"
    assert entry["hash_val"] == hashlib.sha256((SOURCE / NAME / "models/pretrained.pt").read_bytes()).hexdigest()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == entry["hash_val"]
    assert [path.name for path in folder.rglob("*.pt")] == ["model_sigma.pt"]
    assert check_zoo_folder(folder) == []


def test_without_an_address_the_weights_are_in_the_folder(tmp_path):
    folder = make_zoo_folder(SOURCE / NAME, tmp_path)
    assert (folder / "models" / "model.pt").is_file() and not (folder / "large_files.yml").exists()
    assert (folder / "models" / "model_calibration.json").is_file()
    assert check_zoo_folder(folder) == []


def test_faults_are_found(folder):
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(metadata | {"version": "9.9.9", "eval_metrics": {}}))
    train = folder / "configs" / "train.json"
    config = json.loads(train.read_text())
    del config["train"]["trainer"]["max_epochs"]
    train.write_text(json.dumps(config))
    (folder / "LICENSE").unlink()
    (folder / "docs" / "film.png").write_bytes(bytes(25_000_001))
    assert check_zoo_folder(folder) == [
        "LICENSE is missing.",
        "configs/train.json has no entry train#trainer#max_epochs.",
        "configs/metadata.json: version 9.9.9 is not in the changelog.",
        "configs/metadata.json has no eval_metrics.",
        "docs/film.png is larger than 25 MB.",
    ]
    (folder / "large_files.yml").write_text('large_files:\n- path: "models/model.ts"\n  url: ""\n')
    faults = check_zoo_folder(folder)
    assert "large_files.yml: models/model.ts has no address." in faults
    assert any(fault.startswith("models/model.pt is missing") for fault in faults)
