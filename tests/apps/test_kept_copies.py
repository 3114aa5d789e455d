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
"""Commands that are run again: files that the user changed are kept, those of the command itself are replaced."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from reports import skip_painting

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, write_landmark_table, write_landmarks

NAMES = ("tip", "root")
PICTURES = ["--images", "images", "--spacing", "1", "--resamples", "20"]
COMMANDS = {
    "check": ["images", "ann.csv", "--spacing", "1", "--sheet", "2"],
    "evaluate": ["bob.csv", "ann.csv", "--compare", "eve.csv", *PICTURES],
    "agreement": ["ann.csv", "bob.csv", "eve.csv", "--cases", "0", *PICTURES],
    "calibrate": ["bob.csv", "ann.csv", "--for", "new", "--images", "images", "--spacing", "1"],
    "report": ["bob.csv", "ann.csv", "--cases", "0", *PICTURES],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_changed_files_are_kept(command, tmp_path, monkeypatch, unpainted):
    skip_painting(monkeypatch)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    true = {f"{i}.png": random.uniform(10, 30, (2, 2)) for i in range(12)}
    for image in true:
        Image.fromarray(random.integers(0, 255, (40, 44), dtype=np.uint8)).save(tmp_path / "images" / image)
    for name in ("ann", "bob", "eve"):
        sets = {image: LandmarkSet(NAMES, p + random.normal(0, 1, p.shape), "index") for image, p in true.items()}
        write_landmark_table(tmp_path / f"{name}.csv", sets)
    write_landmarks(tmp_path / "new" / "9.mrk.json", LandmarkSet(NAMES, random.uniform(10, 30, (2, 2)), "LPS"))
    out = tmp_path / "out"

    def run() -> str:
        where = out / "report.html" if command == "report" else out
        result = CliRunner().invoke(program, [command, *COMMANDS[command], "--out", str(where)])
        assert result.exit_code == 0, result.output
        return result.output

    def files(pattern: str) -> dict[str, bytes]:
        found = [path for path in out.rglob(pattern) if path.is_file()]
        return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}

    assert "copies are kept" not in run()
    first = files("[!.]*")
    assert first
    for name, content in first.items():
        (out / name).write_bytes(content + b" changed")
    assert "copies are kept" in run()
    kept = {f"{name}.bak": content + b" changed" for name, content in first.items()}
    assert files("*.bak*") == kept
    # the command's own files are replaced, also if they have other contents now
    sets = {image: LandmarkSet(NAMES, points, "index") for image, points in true.items()}
    write_landmark_table(tmp_path / "ann.csv", sets)
    assert "copies are kept" not in run()
    assert files("*.bak*") == kept
