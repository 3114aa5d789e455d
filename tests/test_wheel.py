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

"""The wheel carries the package, its type marker and the bundles, and works from where it is installed."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import monai_landmarks
from monai_landmarks.apps.main import program
from monai_landmarks.data import hand_phantom, read_landmark_table

ROOT = Path(__file__).parents[1]
MADE_BY_RUNNING = {
    "monai_landmarks": ("__pycache__",),
    "bundles": ("data", "eval", "model.pt", "model_*", "training_state*", "presence.json", "replay", "__pycache__"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing left over from an earlier build can slip in."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("monai_landmarks", "bundles"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(*MADE_BY_RUNNING[name]))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    result = subprocess.run(build, cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = (source / "dist").glob("*.whl")
    return path


def shipped_files(folder):
    files = (p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*") if p.is_file())
    made = MADE_BY_RUNNING[folder]
    kept = (p for p in files if not any(fnmatch(part, pattern) for part in p.parts for pattern in made))
    return {str(p) for p in kept if "models" not in p.parts or free(p)}


def free(path):
    """Whether the weights of a bundle are under the licence of the package, which the wheel may carry."""
    metadata = ROOT / "bundles" / path.parts[0] / "configs" / "metadata.json"
    return metadata.is_file() and json.loads(metadata.read_text()).get("weights_terms") == "Apache-2.0"


@pytest.mark.parametrize(
    "folder, inside", [("monai_landmarks", "monai_landmarks"), ("bundles", "monai_landmarks/bundles")]
)
def test_wheel_holds_everything(wheel, folder, inside):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"{inside}/{name}" for name in shipped_files(folder)} - names == set()


def test_wheel_holds_no_weights_under_other_terms(wheel):
    weights = [name for name in zipfile.ZipFile(wheel).namelist() if "/models/" in name]
    assert all(free(Path(name).relative_to("monai_landmarks/bundles")) for name in weights)
    assert "monai_landmarks/bundles/hand_xray_landmarks_scn/models/pretrained.pt" in weights
    assert not [name for name in weights if not Path(name).name.startswith(("pretrained", "README"))]


def test_bundles_are_found_in_the_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    bundles = sorted(p.parent.name for p in (ROOT / "bundles").glob("*/configs"))
    program = f"import monai_landmarks; print(*(monai_landmarks.bundle_path(name) for name in {bundles}), sep='\\n')"
    # -S leaves out site-packages, and with it an editable install of this very package
    command = [sys.executable, "-S", "-c", program]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [str(tmp_path / "monai_landmarks" / "bundles" / name) for name in bundles]


def test_the_wheel_has_all_that_a_prediction_needs(wheel, tmp_path):
    """With the bundle of the wheel, not that of the repository; where it is found by name is tested above."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    pixels, landmarks = hand_phantom(11)
    Image.fromarray(np.round(255 * pixels.T).astype(np.uint8)).save(tmp_path / "hand.png")
    bundle = tmp_path / "monai_landmarks" / "bundles" / "hand_xray_landmarks_scn"
    arguments = [str(bundle), str(tmp_path / "hand.png"), "--spacing", "0.92", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(
        program, ["predict", *arguments, "--device", "cpu", "--drawings", "0", "--fail-on-doubt"]
    )
    assert result.exit_code == 0, result.output
    (found,) = read_landmark_table(tmp_path / "out" / "predictions.csv").values()
    errors = np.linalg.norm(found.points - landmarks.points, axis=1)
    assert np.median(errors) < 2 and (tmp_path / "out" / "measurements.csv").is_file()


def test_the_wheel_installs_the_program(wheel, monkeypatch, capsys):
    archive = zipfile.ZipFile(wheel)
    (listed,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
    config = configparser.ConfigParser()
    config.read_string(archive.read(listed).decode())
    (script,) = EntryPoints(EntryPoint(*item, "console_scripts") for item in config["console_scripts"].items())
    monkeypatch.setattr(sys, "argv", [script.name, "--version"])
    with pytest.raises(SystemExit) as end:
        script.load()()
    assert end.value.code == 0
    assert capsys.readouterr().out == f"monai-landmarks, version {monai_landmarks.__version__}\n"
