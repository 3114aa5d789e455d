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

"""Our bundles in MONAI Label's own app ``monaibundle``, as they are: a real server, asked as viewers ask it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from label_server import LabelServer, errors, random_weights, write_studies
from small_bundles import BUNDLES, SIZE, SOURCE, network_def

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, read_landmarks, write_landmarks

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
from monailabel.client import MONAILabelClient  # noqa: E402

sitk = pytest.importorskip("SimpleITK")

STOCK_APP = Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle"
VOLUMES = "head_ct_landmarks_scn"
TRAINED = [f"volume_{i}" for i in range(6)]
UNSEEN = "volume_7"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stock")


@pytest.fixture(scope="module")
def truth(home: Path) -> dict[str, LandmarkSet]:
    return write_studies(home / "studies")


@pytest.fixture(scope="module")
def server(home: Path, truth: dict[str, LandmarkSet]) -> Iterator[LabelServer]:
    """The app with all bundles of the package, small, and one for volumes, none of which has learned anything."""
    app = home / "app"
    shutil.copytree(STOCK_APP, app)
    (app / "model").mkdir(exist_ok=True)
    for bundle in BUNDLES:
        shutil.copytree(
            SOURCE / bundle, app / "model" / bundle, ignore=shutil.ignore_patterns("models", "eval", "data")
        )
        random_weights(app / "model" / bundle, network_def(bundle), spatial_size=SIZE)
    datalist = home / "datalist.json"
    names = list(truth[UNSEEN].names)
    items = [
        {"image": f"studies/{name}.nii.gz", "label": landmarks.points.tolist()} for name, landmarks in truth.items()
    ]
    definition = {"names": names, "pairs": [], "coordinate_system": "RAS"}
    datalist.write_text(json.dumps({"landmarks": definition, "training": items[:6], "validation": items[6:]}))
    arguments = ["init", datalist, "--out", app / "model" / VOLUMES, "--device", "cpu", "--memory", 4]
    for setting in ("width=8", "spatial_size=[32,32,32]", "batch_size=2", "modality=CT"):
        arguments += ["--set", setting]
    result = CliRunner().invoke(program, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    random_weights(app / "model" / VOLUMES)
    with LabelServer(app, home / "studies", home / "home", {"models": ",".join([*BUNDLES, VOLUMES])}) as server:
        yield server


@pytest.fixture
def client(server: LabelServer, tmp_path: Path) -> MONAILabelClient:
    return MONAILabelClient(server.url, tmpdir=str(tmp_path))


def infer(client: MONAILabelClient, image: str, model: str = VOLUMES) -> tuple[Path, dict[str, Any]]:
    """As the module for 3D Slicer asks."""
    file, params = client.infer(model, image, {"result_extension": ".nrrd", "result_dtype": "uint16"})
    return Path(file), params


def test_info(client: MONAILabelClient, truth: dict[str, LandmarkSet]) -> None:
    info = client.info()
    assert set(info["models"]) == set(info["trainers"]) == {*BUNDLES, VOLUMES}
    assert {model["type"] for model in info["models"].values()} == {"segmentation"}  # which Slicer's module offers
    assert info["models"][VOLUMES]["labels"] == {name: i for i, name in enumerate(truth[UNSEEN].names)}
