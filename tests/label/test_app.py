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

import logging
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from label_data import SHAPES, random_points, write_bundle_of_spots, write_image

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
import requests
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp

from monai_landmarks.label.app import LandmarksApp
from monai_landmarks.label.gate import Access


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


@pytest.fixture
def trained(app: LandmarksApp, root: Path) -> LandmarksApp:
    weights = app.bundles["spots"] / "models" / "model.pt"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes((root / "weights").read_bytes())
    return app


def test_a_model_is_there_as_soon_as_it_has_weights(app: LandmarksApp, root: Path) -> None:
    assert list(app.bundles) == ["spots"] and app.models() == {}
    with pytest.raises(HTTPException, match="no weights yet; submit labels and train it") as caught:
        app.infer({"model": "spots", "image": "one"})
    assert caught.value.status_code == 409
    weights = app.bundles["spots"] / "models" / "model.pt"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes((root / "weights").read_bytes())
    assert list(app.models()) == ["spots"]


def test_which_images_are_predicted(trained: LandmarksApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of the studies by name, files that MONAI Label has made, and arrays of a caller in Python; no other file."""
    (tmp_path / "sent").mkdir()
    sent, other = tmp_path / "sent" / "a.nii.gz", tmp_path / "other.nii.gz"
    for path in (sent, other):
        path.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "sent"))
    monkeypatch.setattr(MONAILabelApp, "infer", lambda self, request, datastore=None: request)
    for image in ("one", str(sent), np.zeros((4, 4))):
        assert trained.infer({"model": "spots", "image": image})["image"] is image
    monkeypatch.chdir(tmp_path)
    for image in ("nobody", str(other), "other.nii.gz", str(tmp_path / "sent" / "b.nii.gz")):
        with pytest.raises(HTTPException, match="there is no image") as caught:
            trained.infer({"model": "spots", "image": image})
        assert caught.value.status_code == 404
    (tmp_path / "one").touch()  # MONAI Label would read it
    with pytest.raises(HTTPException, match="started in a folder that contains 'one'; start it elsewhere") as caught:
        trained.infer({"model": "spots", "image": "one"})
    assert caught.value.status_code == 409


def test_a_background_task_shows_the_token(
    app: LandmarksApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[Any] = []

    def answer(address: str, json: Any, headers: dict[str, str]) -> Any:
        asked.append((address, json, headers))
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: {"id": 1})

    monkeypatch.setattr(settings, "MONAI_LABEL_SERVER_PORT", 8123)
    monkeypatch.setattr(requests, "post", answer)
    assert app.async_batch_infer("spots", "unlabeled", {"a": 1}) == {"id": 1}
    for key, value in Access(token="0123456789abcdefghij").to_environment().items():
        monkeypatch.setenv(key, value)
    assert app._local_request("/train/spots", None, "Training") == {"id": 1}
    address = "http://127.0.0.1:8123"
    assert asked == [
        (f"{address}/batch/infer/spots?images=unlabeled", {"a": 1}, {}),
        (f"{address}/train/spots", {}, {"Authorization": "Bearer 0123456789abcdefghij"}),
    ]

    def refuse(address: str, **more: Any) -> Any:
        raise requests.ConnectionError("nobody answers")

    monkeypatch.setattr(requests, "post", refuse)
    with caplog.at_level(logging.ERROR):
        assert app._local_request("/train/spots", {}, "Training") is None
    assert "Training was not started: nobody answers" in caplog.text


@pytest.mark.parametrize(
    "request_", [{"strategy": "random"}, {"method": "landmark_uncertainty"}], ids=["next image", "scoring"]
)
def test_an_unknown_model(app: LandmarksApp, request_: dict[str, str]) -> None:
    ask = app.next_sample if "strategy" in request_ else app.scoring
    for unknown in (ask, app.train):
        with pytest.raises(HTTPException, match="there is no model 'brain'; the models are spots") as caught:
            unknown({**request_, "model": "brain"})
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
