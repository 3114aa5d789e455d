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

"""What ships weights: half precision, the right network, and files in the form of MONAI's model zoo."""

from __future__ import annotations

import hashlib
import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from small_bundles import BUNDLES, SOURCE, copy_bundle, small, table, workflow

from monai_landmarks.data import isbi2015_datalist
from monai_landmarks.uncertainty import CovarianceCalibration, calibration_path, doubt_path

TOOLS = SOURCE.parent / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("ship_weights")


def test_half_precision(tool: ModuleType) -> None:
    state = {"a": torch.tensor([1.0, 1e-3]), "count": torch.tensor(70000)}
    half = tool.in_half_precision(state)
    assert half["a"].dtype == torch.float16 and half["count"].item() == 70000
    with pytest.raises(ValueError, match="half precision is not enough.*'a'"):
        tool.in_half_precision({"a": torch.tensor([1e5])})


def test_large_files_as_the_model_zoo_reads_them(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "pretrained.pt").write_bytes(b"coarse")
    (tmp_path / "pretrained_close_look.pt").write_bytes(b"both")
    (tmp_path / "large_files.yml").write_text(tool.large_files(tmp_path, "https://example.org/models/"))
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "large_files.yml"))
    first, second = parser.get()["large_files"]
    assert [first["path"], second["path"]] == ["models/model.pt", "models/pretrained_close_look.pt"]
    assert first["url"] == "https://example.org/models/model.pt" and first["hash_type"] == "sha256"
    assert second["hash_val"] == hashlib.sha256(b"both").hexdigest()


def test_weights_of_another_network(tool: ModuleType) -> None:
    with pytest.raises(ValueError, match="do not belong to the network of hand_xray_landmarks_scn"):
        tool.require_fit(SOURCE / "hand_xray_landmarks_scn", {"weight": torch.zeros(1)})


def test_weights_of_a_training_on_all_images(tool: ModuleType) -> None:
    """Its file changes the validation, which an inference does not have."""
    bundle = SOURCE / "lumbar_mri_landmarks_scn"
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser["bundle_root"] = str(bundle)
    state = parser.get_parsed_content("network_def").state_dict()
    tool.require_fit(bundle, state, ["all_training_images.json"])
    with pytest.raises(ValueError, match="do not belong"):
        tool.require_fit(bundle, {}, ["all_training_images.json"])


def test_every_bundle_that_was_trained_has_facts_for_its_card(tool: ModuleType) -> None:
    facts = yaml.safe_load((TOOLS / "model_cards.yaml").read_text())
    assert set(facts) == set(BUNDLES) - {"vertebrae_ct_landmarks_scn"}
    for name, entries in facts.items():
        assert {"finds", "data", "not_tried_on", "terms", "why"} <= set(entries), name


def test_errors_and_calibration_of_all_folds(tool: ModuleType, tmp_path: Path) -> None:
    """Each image is predicted by the weights of its own fold, and counts once."""
    root = copy_bundle("ceph_xray_landmarks_scn", tmp_path)
    config = root / "configs" / "train.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **small(root)}))
    datalist = isbi2015_datalist(root / "data")
    items = [*datalist["training"], *datalist["validation"]]
    folds, errors = [], []
    for fold in (0, 1):
        own = tmp_path / f"fold{fold}.json"
        parts = (
            {"training": items[:4], "validation": items[4:]}
            if fold
            else {"training": items[4:], "validation": items[:4]}
        )
        own.write_text(json.dumps({**datalist, **parts}))
        flow = workflow(root, "train", datalist=str(own), seed=fold, output_dir=str(tmp_path / f"out{fold}"))
        flow.initialize()
        weights = tmp_path / f"fold{fold}.pt"
        torch.save(flow.parser.get_parsed_content("network").state_dict(), weights)
        folds.append((weights, own))
        flow = workflow(
            root,
            *("train", "evaluate"),
            datalist=str(own),
            section="validation",
            checkpoint=str(weights),
            output_dir=str(tmp_path / f"out{fold}"),
            precision="float32",
        )
        flow.initialize()
        flow.run()
        for row in table(tmp_path / f"out{fold}" / "errors_per_image.csv"):
            errors += [float(value) for column, value in row.items() if column not in ("image", "mean")]
    found = tool.cross_validate(root, tmp_path / "all.pt", folds, root / "data", ())
    assert found.section == "folds" and found.images == len(items) == len(errors) / 19 == 8
    assert found.mean == pytest.approx(np.mean(errors), rel=1e-4)
    assert found.median == pytest.approx(np.median(errors), rel=1e-4)
    calibration = CovarianceCalibration.load(calibration_path(tmp_path / "all.pt"))
    assert calibration.cases == (8,) * 19 and doubt_path(tmp_path / "all.pt").is_file()
