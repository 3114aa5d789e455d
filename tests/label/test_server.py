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
"""Checks of the label server, called directly."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from label_data import NAMES, SHAPES, random_points, write_image

pytest.importorskip("monailabel", reason="MONAI Label is not installed; ./setup.sh label installs it")
import requests
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)
from starlette.testclient import TestClient

from monai_landmarks.label import server
from monai_landmarks.label.datastore import LandmarkDatastore


@pytest.mark.parametrize(
    "error, status, detail",
    [
        (HTTPException(500, "Neither Image nor File"), 400, "Neither Image nor File"),
        (HTTPException(418, "no"), 418, "no"),
        (ImageNotFoundException("no image"), 404, "no image"),
        (LabelNotFoundException("no label"), 404, "no label"),
        (MONAILabelException(MONAILabelError.INVALID_INPUT, "not provided"), 400, "not provided"),
        (requests.ConnectionError("secret"), 502, "the server behind this server does not answer: ConnectionError."),
        (ValueError("wrong"), 400, "wrong"),
        (AssertionError(), 400, "AssertionError"),
        (KeyError("a"), 500, "the server failed, see its log: KeyError: 'a'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_is_an_answer_with_a_reason(error: Exception, status: int, detail: str) -> None:
    with pytest.raises(HTTPException) as caught, server._errors_as_answers():
        raise error
    assert (caught.value.status_code, caught.value.detail) == (status, detail)


def test_files_of_a_session_have_names() -> None:
    files = [SimpleNamespace(filename=name) for name in ("C:\\data\\a.png", "../b.png")]
    assert server._check_values("session", {"files": files}, False) == {}
    assert [file.filename for file in files] == ["a.png", "b.png"]


@pytest.mark.parametrize("as_text", [False, True])
def test_settings_of_a_slide_are_checked(as_text: bool) -> None:
    """They are in an object of the request, or in a form as text."""

    def check(text: str) -> Any:
        wsi = json.dumps({"params": {"a": text}}) if as_text else SimpleNamespace(params={"a": text})
        return server._check_values("wsi_infer", {"wsi": wsi}, False)

    assert check("b") == {"a": "b"}
    with pytest.raises(ValueError, match="setting"):
        check("$b")


def test_images_of_a_dicom_server_are_not_looked_for_in_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", "https://pacs.example/dicom-web")
    app = SimpleNamespace(_infers={"spots": None}, _trainers={}, sessions=lambda: None)  # without a datastore
    monkeypatch.setattr(server, "_instance", lambda: app)
    values = {"model": "spots", "image": "1.2.3", "output": "dicom_seg"}
    server._check_names("api_run_inference", values, {})
    with pytest.raises(HTTPException, match="there is no model 'brain'"):
        server._check_names("api_run_inference", {**values, "model": "brain"}, {})


def test_a_file_of_the_working_folder_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "studies" / "one.png", random_points(np.random.default_rng(0), SHAPES[2]))
    store = LandmarkDatastore(tmp_path / "studies", lambda: {"spots": NAMES})
    monkeypatch.chdir(tmp_path)
    server._require_image(store, "one", "final", None)
    (tmp_path / "one").touch()  # MONAI Label would read it
    with pytest.raises(HTTPException, match="started in a folder that also contains 'one'") as caught:
        server._require_image(store, "one", "final", None)
    assert caught.value.status_code == 409


@pytest.mark.parametrize("enabled", [True, False])
def test_the_login_exists_only_if_it_is_enabled(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    server.make_application()  # MONAI Label keeps whether there is a login from its first import
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", enabled)
    answer = TestClient(server.make_application()).get("/auth/")
    assert answer.status_code == (200 if enabled else 404)
    assert not enabled or answer.json()["enabled"] is True
