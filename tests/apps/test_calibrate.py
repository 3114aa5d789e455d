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
"""``monai-landmarks calibrate``: regions.json, and predictions with their regions."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, read_landmark_table, read_landmarks, write_landmark_table, write_landmarks
from monai_landmarks.data.landmarks.formats.slicer_markups import add_markup_nodes, other_nodes
from monai_landmarks.uncertainty import ConformalRegions, covered

NAMES = ("a", "b")


def run(*args):
    return CliRunner().invoke(program, ["calibrate", *map(str, args)])


def make(folder, dims, count, seed, scale=1.0):
    """Truth in a table, predictions in a file each, with the covariance of their noise."""
    random = np.random.RandomState(seed)
    true, covariance = {}, scale**2 * np.eye(dims)
    for i in range(count):
        points = random.uniform(0, 50, (2, dims))
        true[f"{i}.nii"] = LandmarkSet(NAMES, points)
        found = LandmarkSet(NAMES, points + random.normal(0, scale, points.shape), covariances=[covariance] * 2)
        write_landmarks(folder / "pred" / f"{i}.mrk.json", found.to("LPS"))
    write_landmark_table(folder / "truth.csv", true)
    return folder / "pred", folder / "truth.csv", true


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shape", ["ball", "ellipse"])
def test_from_predictions_to_regions_of_others(tmp_path, dims, shape):
    old, truth, _ = make(tmp_path / "old", dims, 90, seed=0)
    if dims == 2:  # a table of x and y without a word of where they are would be pixels
        assert "# coordinate_system=RAS" in truth.read_text()
    new, _, true = make(tmp_path / "new", dims, 90, seed=1)
    out = tmp_path / "out"
    result = run(old, truth, "--out", out, "--for", new, "--shape", shape, "--coverage", "0.8", "--min-std", "0")
    assert result.exit_code == 0, result.output
    assert f"{out}: 90 files with regions" in result.output and "regions with a coverage of 80 %" in result.output
    regions = ConformalRegions.load(out / "regions.json")
    assert (regions.names, regions.cases, regions.spatial_dims, regions.shape) == (NAMES, (90, 90), dims, shape)
    # the radius of noise of 1 mm is its quantile: sqrt(chi-squared(0.8)), 1.794 in 2-D and 2.154 in 3-D
    assert regions.bounds == pytest.approx([1.794 if dims == 2 else 2.154] * 2, rel=0.25)
    held = []
    for name, case in true.items():
        stated = read_landmarks(out / name.replace(".nii", ".mrk.json"))
        assert stated.coordinate_system == "LPS" and stated.coverage == 0.8
        held.append(covered(stated.to("RAS").with_spatial_dims(dims), case))
    assert abs(np.mean(held) - 0.8) < 4 * np.sqrt(0.16 * (1 / 90 + 1 / 180))


def test_what_cannot_hold_regions_is_left_out_with_a_note(tmp_path):
    old, truth, true = make(tmp_path / "old", 3, 12, seed=0)
    result = run(old, truth, "--out", tmp_path / "regions only")
    assert result.exit_code == 0 and [p.name for p in (tmp_path / "regions only").glob("[!.]*")] == ["regions.json"]
    write_landmarks(tmp_path / "new/a.pts", true["0.nii"])
    write_landmark_table(tmp_path / "new/b.csv", {"x": LandmarkSet(NAMES, np.ones((2, 3)), "index")})
    result = run(old, truth, "--out", tmp_path / "out", "--for", tmp_path / "new")
    assert result.exit_code == 1 and "no file in it can hold regions" in result.output
    write_landmark_table(tmp_path / "new/c/d.csv", {"x": true["1.nii"], "y": true["2.nii"]})
    result = run(old, truth, "--out", tmp_path / "out", "--for", tmp_path / "new")
    assert result.exit_code == 0 and result.output.count("note: ") == 2 and "1 files with regions" in result.output
    table = read_landmark_table(tmp_path / "out/c/d.csv")
    assert list(table) == ["x", "y"] and table["y"].coverage == 0.9 and np.isfinite(table["y"].region_radius).all()


def test_lines_and_angles_are_copied(tmp_path):
    old, truth, true = make(tmp_path / "old", 3, 12, seed=0)
    new = tmp_path / "new" / "a.mrk.json"
    write_landmarks(new, true["0.nii"])
    lines = [{"type": "Line", "name": "length (IN DOUBT)", "controlPoints": []}, {"type": "Angle", "name": "angle"}]
    add_markup_nodes(new, lines)
    result = run(old, truth, "--out", tmp_path / "out", "--for", tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert other_nodes(tmp_path / "out" / "a.mrk.json") == lines
    assert read_landmarks(tmp_path / "out" / "a.mrk.json").coverage == 0.9


def test_errors(tmp_path):
    old, truth, _ = make(tmp_path, 3, 8, seed=0)
    result = run(old, truth, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "at least 9" in result.output and not (tmp_path / "out").exists()
    result = run(old, truth, "--out", old, "--for", old, "--coverage", "0.5")
    assert result.exit_code == 1 and "the new file would overwrite this one" in result.output
    assert read_landmarks(old / "0.mrk.json").regions is None
    write_landmarks(tmp_path / "other/x.mrk.json", LandmarkSet(NAMES, np.ones((2, 3))))
    result = run(tmp_path / "other", truth)
    assert result.exit_code == 1 and "none of its images is among the 8" in result.output
