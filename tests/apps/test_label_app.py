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
"""``monai-landmarks label-app`` and ``label-server``: the folder that they write, the command, and who has access."""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import ModuleSpec

import pytest
from click.testing import CliRunner

from monai_landmarks.apps import label_server
from monai_landmarks.apps.main import program


def run(*arguments):
    return CliRunner().invoke(program, [*map(str, arguments)])


def test_the_app_folder_is_made_once_and_nothing_else_is_touched(tmp_path):
    folder = tmp_path / "app"
    for _ in range(2):
        done = run("label-app", folder)
        assert (done.exit_code, done.stdout) == (0, f"{folder}\n") and (folder / "main.py").is_file()
        (folder / "model").mkdir(exist_ok=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.nii").touch()
    done = run("label-app", tmp_path / "mine")
    assert done.exit_code == 1 and "choose another folder" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["scan.nii"]


def test_another_app_is_not_replaced(tmp_path):
    (tmp_path / "monaibundle").mkdir()
    app = tmp_path / "monaibundle" / "main.py"
    app.write_text("class MyApp: ...")
    done = run("label-app", tmp_path / "monaibundle")
    assert done.exit_code == 1 and "choose another folder" in done.stderr and app.read_text() == "class MyApp: ..."


def test_a_changed_app_is_kept(tmp_path):
    run("label-app", tmp_path / "app")
    own = (tmp_path / "app" / "main.py").read_text()
    (tmp_path / "app" / "main.py").write_text(own + "# changed")
    done = run("label-app", tmp_path / "app")
    assert done.stdout == f"{tmp_path / 'app'}\n" and "copies are kept" in done.stderr
    assert (tmp_path / "app" / "main.py").read_text() == own
    assert (tmp_path / "app" / "main.py.bak").read_text() == own + "# changed"


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Commands that would have replaced this process; MONAI Label seems to be installed."""
    commands = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONAI_LABEL_DATASTORE_FILE_EXT", "")
    monkeypatch.delenv("MONAI_LABEL_DATASTORE_FILE_EXT")
    monkeypatch.setenv("MONAI_LANDMARKS_LABEL_ACCESS", "{}")
    monkeypatch.setattr(label_server, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(os, "execv", lambda path, command: commands.append((path, command)))
    return commands


def test_the_server_is_started_for_this_machine_only(started, tmp_path):
    done = run("label-server", "--studies", "scans", "--conf", "models", "a,b", "--conf", "sam2", "true", "--", "-x")
    assert done.exit_code == 0, done.output
    [(path, command)] = started
    assert path == command[0] == sys.executable and command[-1] == "-x" and "start_server" in command
    options = dict(zip(command, command[1:]))
    assert options["--app"] == str(tmp_path / "label_app") and (tmp_path / "label_app" / "main.py").is_file()
    assert (options["--studies"], options["--host"], options["--port"]) == ("scans", "127.0.0.1", "8000")
    conf = {command[i + 1]: command[i + 2] for i, part in enumerate(command) if part == "--conf"}
    assert conf == {"zoo_source": "ngc", "sam2": "true", "models": "a,b"}
    assert {"*.nii.gz", "*.nrrd", "*.dcm", "*.png"} <= set(json.loads(os.environ["MONAI_LABEL_DATASTORE_FILE_EXT"]))


def test_a_server_for_other_machines_prints_its_token(started, tmp_path):
    done = run("label-server", "--studies", "scans", "--host", "0.0.0.0", "--port", 8001, "--name", "scanner")
    token = (tmp_path / "label_app" / "token").read_text()
    assert done.exit_code == 0 and f"http://scanner:8001/{token}\n" in done.output and len(started) == 1
    assert token not in " ".join(started[0][1])  # which every user of the machine can read
    access = json.loads(os.environ["MONAI_LANDMARKS_LABEL_ACCESS"])
    assert access["token"] == token and access["names"][0] == "scanner" and not access["open"]
    assert run("label-server", "--studies", "scans", "--max-upload", 5).exit_code == 0
    access = json.loads(os.environ["MONAI_LANDMARKS_LABEL_ACCESS"])
    assert access == {"names": [], "token": None, "open": False, "max_upload": 5 * 2**20}


def test_the_server_needs_monai_label(started, monkeypatch):
    monkeypatch.setattr(label_server, "find_spec", lambda name: None)
    done = run("label-server", "--studies", "scans")
    assert done.exit_code == 1 and "MONAI Label is not installed; install it with" in done.stderr and started == []
