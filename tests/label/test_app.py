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
"""The app without a server: what it has, and what it answers to requests that it cannot serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_data import SHAPES, random_points, write_bundle_of_spots, write_image

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
from fastapi import HTTPException
from monailabel.interfaces.app import MONAILabelApp

from monai_landmarks.label.app import LandmarksApp


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one image, and a bundle without weights."""
    folder = tmp_path_factory.mktemp("app")
    write_image(folder / "studies" / "one.nii.gz", random_points(np.random.default_rng(1), SHAPES[3]))
    bundle = write_bundle_of_spots(folder / "spots")
    (bundle / "models" / "model.pt").rename(folder / "weights")
    return folder


@pytest.fixture
def app(root: Path, tmp_path: Path) -> LandmarksApp:
    return LandmarksApp(str(tmp_path / "app"), str(root / "studies"), {"models": str(root / "spots")})


def test_a_model_is_there_as_soon_as_it_has_weights(app: LandmarksApp, root: Path) -> None:
    assert list(app.bundles) == ["spots"] and app.models() == {}
    with pytest.raises(HTTPException, match="no weights yet; submit labels and train it") as caught:
        app.infer({"model": "spots", "image": "one"})
    assert caught.value.status_code == 409
    weights = app.bundles["spots"] / "models" / "model.pt"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes((root / "weights").read_bytes())
    assert list(app.models()) == ["spots"]


@pytest.mark.parametrize(
    "request_", [{"strategy": "random"}, {"method": "landmark_uncertainty"}], ids=["next image", "scoring"]
)
def test_an_unknown_model(app: LandmarksApp, request_: dict[str, str]) -> None:
    ask = app.next_sample if "strategy" in request_ else app.scoring
    with pytest.raises(HTTPException, match="there is no model 'brain'; the models are spots") as caught:
        ask({**request_, "model": "brain"})
    assert caught.value.status_code == 404


def test_the_reason_of_an_error_is_its_first_cause(app: LandmarksApp, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, request: dict[str, Any]) -> None:
        try:
            raise OSError("disk full")
        except OSError as error:
            raise RuntimeError("applying transform") from error

    monkeypatch.setattr(MONAILabelApp, "train", fail)
    with pytest.raises(HTTPException, match="the training of spots failed: OSError: disk full") as caught:
        app.train({"model": "spots"})
    assert caught.value.status_code == 422

    def refuse(self: Any, request: dict[str, Any]) -> None:
        raise HTTPException(418, "no")

    monkeypatch.setattr(MONAILabelApp, "train", refuse)
    with pytest.raises(HTTPException) as caught:
        app.train({"model": "spots"})
    assert caught.value.status_code == 418


def test_images_are_scored_only_if_scores_are_missing(app: LandmarksApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MONAILabelApp, "async_scoring", lambda self, method, params=None: {"started": method})
    assert app.async_scoring(None) == {}  # without a model there is nothing to score
    assert app.async_scoring("landmark_uncertainty") == {"started": "landmark_uncertainty"}
    monkeypatch.setattr(app._scoring_methods["landmark_uncertainty"], "pending", lambda datastore: ["one"])
    assert app.async_scoring(None) == {"started": None}


def test_without_bundles_and_with_images_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = object()
    monkeypatch.setattr(MONAILabelApp, "init_datastore", lambda self: elsewhere)
    monkeypatch.setattr("monai_landmarks.label.app.find_models", lambda selected, folder: {})
    app = LandmarksApp(str(tmp_path / "app"), "https://pacs.example/dicom-web", {})
    assert "There is no bundle with weights" in caplog.text and app.models() == {}
    assert app.datastore() is elsewhere
