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

"""``monai-landmarks evaluate``: the tables that it prints and writes, and its errors."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from error_tables import NAMES, SPACING, moved, pixel_truth, write_tables

from monai_landmarks.apps.main import program
from monai_landmarks.data import LandmarkSet, read_landmark_table, write_landmark_table, write_landmarks
from monai_landmarks.evaluation import compare_annotators


def evaluate(*args):
    return CliRunner().invoke(program, ["evaluate", *map(str, args), "--resamples", "50"])


@pytest.fixture
def truth():
    return pixel_truth()


@pytest.fixture
def files(tmp_path, truth):
    """Folder with the tables of ground truth and predictions, and the errors by hand."""
    return tmp_path, write_tables(tmp_path, truth)


def test_tables_and_comparisons(files, truth):
    folder, errors = files
    for name, scale, count in (("junior", 1.0, 6), ("other", 12.0, 5)):
        points = moved(truth, 5, scale)
        write_landmark_table(
            folder / f"{name}.csv", {k: LandmarkSet(NAMES, points[k], "index") for k in list(truth)[:count]}
        )
    arguments = [
        folder / "pred.csv",
        folder / "truth.csv",
        "--spacing",
        SPACING,
        "--out",
        folder / "out",
        "--radius",
        1,
        "--radius",
        2,
    ]
    result = evaluate(*arguments, "--second-annotator", folder / "junior.csv", "--compare", folder / "other.csv")
    assert result.exit_code == 0, result.output
    text = result.stdout
    found = errors[np.isfinite(errors)] * SPACING
    assert text.startswith(
        f"6 images, 3 landmarks, errors in mm\nnote: compare: {folder / 'other.csv'} lacks 1 of 6 images.\n"
    )
    assert f"MRE                    {found.mean():.2f}  mm" in text and "<=1 mm %  <=2 mm %" in text
    assert "second annotator, 6 images" in text and "other.csv, 5 images" in text
    # one landmark has no ground truth, and one is missed; both are in the five images
    assert "of the landmarks that both found, over 6 images" in text
    assert "\nmissed: 1 of 17 landmarks (predictions), 0 of 17 (second annotator)\n" in text
    assert f"\nmissed: 1 of 14 landmarks (predictions), 0 of 14 ({folder / 'other.csv'})\n" in text

    out = folder / "out"
    tables = ["errors_per_image.csv", "errors_per_landmark.csv", "metrics.csv"]
    assert sorted(path.name for path in out.glob("[!.]*")) == [
        "compare",
        *tables[:2],
        "evaluation.json",
        "metrics.csv",
        "second_annotator",
    ]
    assert sorted(path.name for path in (out / "compare").iterdir()) == tables
    with open(out / "metrics.csv", newline="") as file:
        metrics = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(metrics["MRE"]["value"]) == pytest.approx(found.mean(), abs=1e-4)
    assert float(metrics["MRE"]["low"]) < found.mean() < float(metrics["MRE"]["high"]) and metrics["max"]["low"] == ""
    with open(out / "errors_per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (
        rows[4]["c"] == "inf"
        and rows[2]["b"] == ""
        and float(rows[0]["a"]) == pytest.approx(errors[0, 0] * SPACING, abs=1e-4)
    )

    content = json.loads((out / "evaluation.json").read_text())
    assert content["unit"] == "mm" and content["images"][4] == {
        "image": "4.png",
        "errors": {"a": errors[4, 0] * SPACING, "b": pytest.approx(errors[4, 1] * SPACING), "c": None},
        "missed": ["c"],
    }
    junior = np.array([np.linalg.norm(moved(truth, 5, 1.0)[k] - truth[k].points, axis=1) for k in truth]) * SPACING
    compared = content["comparisons"]["second_annotator"]
    assert compared["metrics"][3]["value"] == pytest.approx(np.nanmean(junior))
    both = np.isfinite(errors) & np.isfinite(junior)
    first, second = (np.array([e[b].mean() for e, b in zip(x, both)]) for x in (errors * SPACING, junior))
    assert compared["difference"] == pytest.approx((second - first).mean())
    assert compared["first_better"] == (first < second).sum() and 0 < compared["p_value"] <= 1
    assert content["comparisons"]["compare"]["images"] == 5
    (out / "compare" / "metrics.csv").write_text("metric,changed\n")
    again = evaluate(*arguments)
    left = [path for name in ("compare", "second_annotator") for path in (out / name).iterdir()]
    assert left == [out / "compare" / "metrics.csv.bak"]  # a copy of what was changed
    assert again.exit_code == 0 and again.stdout.partition("\n\n")[2].startswith(text.partition("\n\n")[2][:800])


def test_errors(files, truth, tmp_path):
    folder, _ = files
    other = {f"q{name}": landmarks for name, landmarks in truth.items()}
    write_landmark_table(folder / "others.csv", other)
    renamed = {name: LandmarkSet(("x", "y", "z"), s.points, "index") for name, s in truth.items()}
    write_landmark_table(folder / "renamed.csv", renamed)
    twice = {"b/1.png": truth["1.png"], "c/1.png": truth["1.png"]}
    write_landmark_table(folder / "twice.csv", twice)
    write_landmark_table(folder / "bare.csv", {"1.png": truth["1.png"]})
    (folder / "none").mkdir()
    (folder / "malformed.csv").write_text("image,landmark,x,y\n1.png,a,1\n")
    for arguments, message in (
        (["others.csv", "truth.csv"], "none of its images is among the 6"),
        (
            ["renamed.csv", "truth.csv"],
            "no landmark is in both the predictions and the ground truth: ['x', 'y', 'z'] are predicted",
        ),
        (["twice.csv", "truth.csv"], "'c/1.png' and 'b/1.png' match the same image 1.png"),
        (["bare.csv", "twice.csv"], "'1.png' matches more than one image: b/1.png, c/1.png"),
        (["pred.csv", "twice.csv"], "none of its images is among the 2"),  # /elsewhere/1.png
        (["none", "truth.csv"], "no landmark file in it"),
        (["malformed.csv", "truth.csv"], "line 2: 3 columns; expected 4"),
        (["pred.csv", "truth.csv", "--section", "validation"], "only a datalist has sections"),
        (["pred.csv", "truth.csv", "--compare", "others.csv"], "none of its images is among those of"),
    ):
        result = evaluate(*[one if one.startswith("--") or one == "validation" else folder / one for one in arguments])
        assert result.exit_code == 1 and result.stderr.startswith("Error: ") and message in result.stderr
    assert evaluate(folder / "absent", folder / "truth.csv").exit_code == 2
    assert evaluate(folder / "pred.csv", folder / "truth.csv", "--radius", "-2").exit_code == 2


def test_measurements_of_a_schema(files, truth):
    """By hand: distances in mm and angles of the points that both files have; one of a missed landmark is missed."""
    folder, _ = files
    schema = {
        "name": "triangle",
        "spatial_dims": 2,
        "landmarks": [{"name": name} for name in ("c", "b", "a", "elsewhere")],
        "measurements": [
            {"name": "side", "expression": "distance(a, c)", "unit": "mm"},
            {"name": "corner", "expression": "angle(a, b, c)", "unit": "degree"},
            {"name": "unknown", "expression": "distance(a, elsewhere)", "unit": "mm"},
        ],
    }
    (folder / "schema.json").write_text(json.dumps(schema))
    options = ("--schema", folder / "schema.json", "--spacing", SPACING, "--second-annotator", folder / "pred.csv")
    done = evaluate(folder / "pred.csv", folder / "truth.csv", *options, "--out", folder / "out")
    assert done.exit_code == 0, done.output
    points = {Path(name).name: s.points for name, s in read_landmark_table(folder / "pred.csv").items()}

    def side(p):
        return SPACING * np.linalg.norm(p[0] - p[2])

    def corner(p):
        u, v = p[0] - p[1], p[2] - p[1]
        return np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))

    with open(folder / "out" / "measurement_errors.csv") as file:
        rows = {row["measurement"]: row for row in csv.DictReader(file)}
    whole = [name for name in truth if name not in ("4.png", "2.png")]
    for name, of, images in (("side", side, [*whole, "2.png"]), ("corner", corner, whole)):
        errors = np.array([of(points[image]) - of(truth[image].points) for image in images])
        assert (int(rows[name]["n"]), int(rows[name]["missed"])) == (len(images), 1)
        assert float(rows[name]["mean_absolute_error"]) == pytest.approx(np.abs(errors).mean(), abs=1e-3)
        assert float(rows[name]["bias"]) == pytest.approx(errors.mean(), abs=1e-3)
        assert f"{np.abs(errors).mean():.2f}" in done.stdout
    assert rows["unknown"]["n"] == "0"
    content = json.loads((folder / "out" / "evaluation.json").read_text())
    assert content["measurements"] == content["comparisons"]["second_annotator"]["measurements"]
    assert (folder / "out" / "second_annotator" / "measurement_errors.csv").is_file()
    done = evaluate(folder / "pred.csv", folder / "truth.csv", "--schema", folder / "schema.json")
    assert "note: the pixel size is not known, so measured lengths are in pixels and in no class." in done.stdout
    width = {"name": "width", "expression": "distance(x, y)", "unit": "mm"}
    other = {"name": "other", "spatial_dims": 2, "landmarks": [{"name": "x"}, {"name": "y"}], "measurements": [width]}
    (folder / "other.json").write_text(json.dumps(other))
    for name, message in (
        (folder / "other.json", "has none of the landmarks"),
        ("mouse_skull_45", "has no measurements"),
        ("nothing", "nothing"),
    ):
        done = evaluate(folder / "pred.csv", folder / "truth.csv", "--schema", name)
        assert done.exit_code == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_intervals_of_measurements_that_hold(tmp_path):
    """Two lengths with a standard deviation of 1 mm, whose errors are 0 and 4 mm; files without covariances say nothing."""
    width = {"name": "width", "expression": "distance(a, b)", "unit": "mm"}
    marks = [{"name": "a"}, {"name": "b"}]
    schema = {"name": "two", "spatial_dims": 2, "landmarks": marks, "measurements": [width]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    for name, covariances in (("true", None), ("found", np.tile(0.5 * np.eye(2), (2, 1, 1)))):
        far = 4.0 * (covariances is not None)
        sets = {
            f"{i}.png": LandmarkSet(("a", "b"), [[0.0, 0.0], [20.0 + i * far, 0.0]], covariances=covariances)
            for i in (0, 1)
        }
        write_landmark_table(tmp_path / f"{name}.csv", sets)
    done = evaluate(tmp_path / "found.csv", tmp_path / "true.csv", "--schema", tmp_path / "schema.json")
    assert "\n90 % intervals: 50.0 % of 2 contain the true value\n" in done.stdout, done.output
    done = evaluate(tmp_path / "true.csv", tmp_path / "true.csv", "--schema", tmp_path / "schema.json")
    assert done.exit_code == 0 and "contain the true value" not in done.stdout


def test_names_of_files_that_are_not_utf_8(tmp_path):
    name = os.fsdecode(b"sch\xe4del.csv")
    for folder in ("pred", "true", "third"):
        (tmp_path / folder).mkdir()
        try:
            write_landmarks(tmp_path / folder / name, LandmarkSet(("tip",), [[8.0, 4.0]], "index"))
        except OSError:
            pytest.skip("this file system only takes names that are text")
        write_landmarks(tmp_path / folder / "b.csv", LandmarkSet(("tip",), [[9.0, 5.0]], "index"))
    result = evaluate(tmp_path / "pred", tmp_path / "true", "--spacing", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with open(tmp_path / "out" / "errors_per_image.csv", encoding="utf-8") as file:
        assert sorted(row["image"] for row in csv.DictReader(file)) == ["b", r"sch\udce4del"]
    people = [tmp_path / folder for folder in ("pred", "true", "third")]
    compare_annotators(people, spacing=1, resamples=20).write(tmp_path / "agreement")
    assert sorted(read_landmark_table(tmp_path / "agreement" / "consensus.csv")) == ["b", r"sch\udce4del"]
