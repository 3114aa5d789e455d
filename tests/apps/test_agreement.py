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

"""``monai-landmarks agreement``: its tables, pictures, page and consensus, and what it refuses."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from reports import Content, skip_painting

from monai_landmarks.apps.agreement import _lowest_first
from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, read_landmark_table, write_landmark_table

NAMES = ("<b>tip", "root")


def run(*args):
    return CliRunner().invoke(program, ["agreement", *map(str, args), "--resamples", "20"])


@pytest.fixture
def files(tmp_path, monkeypatch):
    skip_painting(monkeypatch)
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    true = {}
    for i in range(5):
        true[f"{i}.png"] = rng.uniform(10, 30, (2, 2))
        Image.fromarray(rng.integers(0, 255, (40, 44), dtype=np.uint8)).save(tmp_path / "images" / f"{i}.png")
    paths = []
    for name in ("ann", "bob", "eve", "found"):
        sets = {image: LandmarkSet(NAMES, p + rng.normal(0, 1, p.shape), "index") for image, p in true.items()}
        paths.append(tmp_path / f"{name}.csv")
        write_landmark_table(paths[-1], sets)
    return paths, tmp_path


@pytest.mark.parametrize("people", [2, 3])
def test_everything_is_written(files, people, unpainted):
    paths, folder = files
    out = folder / "out"
    options = ["--model", paths[3], "--images", folder / "images", "--spacing", 0.5, "--out", out, "--cases", 1]
    result = run(*paths[:people], *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{people} annotators, 5 images, 2 landmarks, distances in mm\n")
    assert "lowest intraclass correlations" in result.stdout and "model 0." in result.stdout
    names = {path.name for path in out.glob("[!.]*")}
    assert {"report.html", "consensus.csv", "icc.csv", "model.csv", "bland_altman.csv", "disagreement.csv"} <= names
    assert len([name for name in names if name.endswith(".png")]) == (2 if people == 2 else 4)
    assert all(name in result.stdout for name in names)
    sets = [read_landmark_table(path)["3.png"].points for path in paths[:people]]
    np.testing.assert_allclose(read_landmark_table(out / "consensus.csv")["3.png"].points, np.mean(sets, axis=0))
    page = Content(out / "report.html")
    assert "script" not in page.tags and "b" not in page.tags and "ICC(A,1)" in page.text
    # curve, box plot, Bland-Altman of each side and of the model, one image
    assert len(page.pictures) == 2 + (1 if people == 2 else people) + 1 + 1
    assert f"{people} " in page.text and "landmarks with the largest disagreement" in page.text


def test_a_model_that_finds_little_is_not_praised(files, unpainted):
    paths, folder = files
    sets = read_landmark_table(paths[3])
    for name in ("0.png", "1.png", "2.png"):
        sets[name] = LandmarkSet(NAMES, [[np.nan] * 2, sets[name].points[1]], "index")
    write_landmark_table(paths[3], sets)
    out = folder / "out"
    result = run(*paths[:3], "--model", paths[3], "--out", out)
    assert "note: the model found 7 of 10 landmarks that annotators marked" in result.stdout
    with open(out / "model.csv", newline="") as file:
        rows = {row["annotator"]: row for row in csv.DictReader(file)}
    assert [rows[name]["model_missed"] for name in ("ann", "bob", "eve", "all")] == ["3", "3", "3", "9"]
    assert rows["all"]["annotator_missed"] == "0" and rows["all"]["unit"] == "px"
    assert "missed by model" in Content(out / "report.html").text
    # without the model and with one annotator less, nothing of it stays
    assert run(*paths[:2], "--out", out).exit_code == 0
    assert not (out / "model.csv").exists()
    assert [path.name for path in sorted(out.glob("*.png"))] == ["bland_altman_1_ann_bob.png"]


def test_the_summary_counts_every_pair(files, unpainted):
    """One pair within 1 pixel, two pairs 3 pixels apart."""
    paths, folder = files
    first = read_landmark_table(paths[0])
    for path, offset in ((paths[1], 0.0), (paths[2], 3.0)):
        write_landmark_table(
            path, {name: LandmarkSet(NAMES, one.points + [offset, 0], "index") for name, one in first.items()}
        )
    assert run(*paths[:3], "--radius", 1, "--radius", 4, "--out", folder / "out").exit_code == 0
    text = Content(folder / "out" / "report.html").text
    assert "within 1 px 33.3 %" in text and "within 4 px 100.0 %" in text


@pytest.mark.parametrize(("confidence", "chance"), [(0.95, "0.7"), (0.9, "1.4")])
def test_how_many_biases_are_chance(files, unpainted, confidence, chance):
    """14 intervals: two coordinates of two landmarks of three annotators, and of the one that the model has twice."""
    paths, folder = files
    sets = read_landmark_table(paths[3])
    for name in ("1.png", "2.png", "3.png", "4.png"):
        sets[name] = LandmarkSet(NAMES, [sets[name].points[0], [np.nan] * 2], "index")
    write_landmark_table(paths[3], sets)
    options = ["--model", paths[3], "--confidence", confidence, "--out", folder / "out"]
    assert run(*paths[:3], *options).exit_code == 0
    text = Content(folder / "out" / "report.html").text
    assert f"Without any bias, about {chance} of the 14 intervals in the table would not contain 0" in text
    assert "may be systematic" in text


def test_a_consensus_that_lacks_landmarks_says_so(files, unpainted):
    """The first image is read by all three, each of the others by two."""
    paths, folder = files
    for k, path in enumerate(paths[:3]):
        sets = read_landmark_table(path)
        write_landmark_table(path, {name: one for i, (name, one) in enumerate(sets.items()) if i == 0 or i % 3 != k})
    result = run(*paths[:3], "--out", folder / "out")
    assert result.exit_code == 0 and "consensus lacks" not in result.stdout
    assert all(np.isfinite(one.points).all() for one in read_landmark_table(folder / "out" / "consensus.csv").values())
    result = run(*paths[:3], "--at-least", 3, "--out", folder / "out")
    note = "the consensus lacks 8 of 10 landmarks that annotators marked"
    assert f"note: {note}" in result.stdout and "--at-least" in result.stdout
    assert note in Content(folder / "out" / "report.html").text


def test_unknown_correlations_come_last(files, unpainted):
    known, unknown = (("a", "x", "px", SimpleNamespace(single=value)) for value in (0.5, math.nan))
    lowest = ("b", "x", "px", SimpleNamespace(single=0.1))
    assert _lowest_first([unknown, known, lowest]) == [lowest, known, unknown]


def test_without_images(files, unpainted):
    paths, folder = files
    result = run(*paths[:2], "--out", folder / "out")
    assert result.exit_code == 0 and "distances in px" in result.stdout
    assert "note: the image files are not known, so no image is drawn" in result.stdout


def test_a_robust_consensus(files, unpainted):
    paths, folder = files
    sets = read_landmark_table(paths[2])
    moved = {name: LandmarkSet(NAMES, one.points + 500, "index") for name, one in sets.items()}
    write_landmark_table(paths[2], moved)
    assert run(*paths[:3], "--out", folder / "out", "--consensus", "geometric-median").exit_code == 0
    found = read_landmark_table(folder / "out" / "consensus.csv")
    assert max(one.points.max() for one in found.values()) < 60


def test_refused(files):
    paths, folder = files
    assert "give two or more annotators" in run(paths[0]).stderr and run().exit_code == 2
    result = run(paths[0], paths[0])
    assert result.exit_code == 1 and "the same annotator is given twice" in result.stderr
    result = run(*paths[:2], "--at-least", 3, "--out", folder / "out")
    assert result.exit_code == 1 and "expected 1 to 2" in result.stderr and not (folder / "out").exists()
    named = paths[0].rename(paths[0].with_name("consensus.csv"))
    result = run(named, paths[1], "--out", named.parent)
    assert result.exit_code == 2 and "consensus.csv is read by this command and would be replaced" in result.stderr
    named.rename(paths[0])
    others = {name: LandmarkSet(("x", "y"), one.points, "index") for name, one in read_landmark_table(paths[2]).items()}
    write_landmark_table(paths[2], others)
    result = run(*paths[:3], "--out", folder / "out")
    assert result.exit_code == 1 and "eve.csv: has no landmark that another annotator has, too" in result.stderr
