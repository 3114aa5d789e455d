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
"""``monai-landmarks evaluate``: the right numbers from whatever files hold the points."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from monai.data import MetaTensor

from monai_landmarks.apps.main import program
from monai_landmarks.data import (
    LandmarkSet,
    datalist_item,
    load_landmark_datalist,
    read_image,
    read_landmark_table,
    read_landmarks,
    save_datalist,
    write_hand_phantom,
    write_landmark_table,
    write_landmarks,
    write_spine_phantom,
)
from monai_landmarks.evaluation import evaluate_predictions
from monai_landmarks.handlers import PredictionSaver
from monai_landmarks.metrics import bootstrap_interval

NAN, INF = float("nan"), float("inf")
NAMES = ("a", "b", "c")
SPACING = 0.5
FEW = {"resamples": 50}


def evaluate(*args):
    return CliRunner().invoke(program, ["evaluate", *map(str, args), "--resamples", "50"])


def moved(truth, seed, scale=3.0):
    rng = np.random.default_rng(seed)
    return {name: s.points + rng.normal(0, scale, s.points.shape) for name, s in truth.items()}


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    sets = {f"{i}.png": LandmarkSet(NAMES, rng.uniform(10, 40, (3, 2)), "index") for i in range(6)}
    points = sets["2.png"].points.copy()
    points[1] = NAN
    sets["2.png"] = LandmarkSet(NAMES, points, "index")
    return sets


@pytest.fixture
def files(tmp_path, truth):
    """Truth as a table, predictions as a table, and the errors in pixels by hand: one missed, one without truth."""
    points = moved(truth, 1)
    points["4.png"][2] = NAN
    points["2.png"][1] = 7.0
    write_landmark_table(tmp_path / "truth.csv", truth)
    pred = {f"/elsewhere/{name}": LandmarkSet(NAMES, points[name], "index") for name in truth}
    write_landmark_table(tmp_path / "pred.csv", pred)
    errors = np.array([np.linalg.norm(points[name] - truth[name].points, axis=1) for name in truth])
    errors[4, 2], errors[2, 1] = INF, NAN
    return tmp_path, errors


def test_numbers(files):
    folder, errors = files
    result = evaluate_predictions(folder / "pred.csv", folder / "truth.csv", thresholds=(2, 4), seed=3, **FEW)
    assert (result.unit, result.images, result.names) == ("px", [f"{i}.png" for i in range(6)], list(NAMES))
    np.testing.assert_allclose(result.errors, errors)
    assert result.limit is None and result.notes == []
    found = errors[np.isfinite(errors)]
    rows = {row["metric"]: row for row in result.summary()}
    expected = {"MRE": np.mean, "std": np.std, "median": np.median}
    for metric, function in expected.items():
        assert rows[metric]["value"] == pytest.approx(function(found))
    assert rows["SDR 4 px"]["value"] == pytest.approx(100 * (found <= 4).sum() / 17) and rows["missed"]["value"] == 1
    # the intervals are those of the function itself on the drawn images
    for metric, function in {**expected, "SDR 4 px": lambda known: 100 * (known <= 4).mean()}.items():

        def statistic(sample):
            known = np.isfinite if metric in expected else lambda values: ~np.isnan(values)  # a missed one is not found
            return np.array([function(drawn[known(drawn)]) for drawn in sample])

        interval = bootstrap_interval(errors, statistic, resamples=50, seed=3)
        assert (rows[metric]["low"], rows[metric]["high"]) == pytest.approx(tuple(interval))
    identified = bootstrap_interval(
        result.identified, lambda sample: 100 * np.nanmean(sample, axis=(1, 2)), resamples=50, seed=3
    )
    assert (rows["identified"]["low"], rows["identified"]["high"]) == pytest.approx(tuple(identified))
    assert np.isnan(rows["max"]["low"]) and rows["SDR 2 px"]["low"] < rows["SDR 2 px"]["high"]
    landmark = result.per_landmark()[1]
    assert (landmark["n"], landmark["mean"]) == (5, pytest.approx(np.nanmean(errors[:, 1])))
    assert landmark["mean_low"] < landmark["mean"] < landmark["mean_high"]


@pytest.mark.parametrize("known_by", ["spacing", "datalist", "pixels"])
def test_pixels_become_mm_where_their_size_is_known(files, truth, known_by):
    folder, errors = files
    options, path = {"spacing": SPACING}, folder / "truth.csv"
    if known_by != "spacing":
        size = SPACING if known_by == "datalist" else 1
        items = [datalist_item(f"images/{name}", landmarks, size) for name, landmarks in truth.items()]
        definition = {"names": NAMES, "pairs": [], "coordinate_system": "index"}
        path, options = folder / "datalist.json", {}
        save_datalist(path, {"landmarks": definition, "training": items[:2], "validation": items[2:]})
    result = evaluate_predictions(folder / "pred.csv", path, **options, **FEW)
    scale, unit, limit = (1, "px", None) if known_by == "pixels" else (SPACING, "mm", 20)
    np.testing.assert_allclose(result.errors, errors * scale)
    assert (result.unit, result.limit) == (unit, limit)
    if known_by != "spacing":
        part = evaluate_predictions(folder / "pred.csv", path, section="validation", **FEW)
        np.testing.assert_allclose(part.errors, errors[2:] * scale)
        assert part.notes == ["predicted, but without ground truth: /elsewhere/0.png, /elsewhere/1.png."]


@pytest.mark.parametrize("spacing", [SPACING, (0.5, 0.25)])
def test_slicer_files_of_pictures_against_pixels(files, truth, spacing):
    """Predictions in mm, truth in pixels: the spacing leads from one to the other."""
    folder, _ = files
    steps = np.broadcast_to(spacing, (2,))
    points = moved(truth, 2)
    for name in truth:
        landmarks = LandmarkSet(NAMES, points[name] * steps, "LPS")  # where ITK has the pixels of a picture
        write_landmarks(folder / "slicer" / name.replace(".png", ".mrk.json"), landmarks)
    expected = [np.linalg.norm((points[name] - truth[name].points) * steps, axis=1) for name in truth]
    result = evaluate_predictions(folder / "slicer", folder / "truth.csv", spacing=spacing, **FEW)
    np.testing.assert_allclose(result.errors, expected, atol=1e-4)
    back = evaluate_predictions(folder / "truth.csv", folder / "slicer", spacing=spacing, **FEW)
    np.testing.assert_allclose(back.errors, expected, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"0.*some points are in pixels and others in mm; give the images, or the spacing"
    ):
        evaluate_predictions(folder / "slicer", folder / "truth.csv", **FEW)


def test_what_a_bundle_writes(tmp_path):
    """`PredictionSaver`: a file in mm for each image and a table in pixels, of which that in the truth's space is taken."""
    write_hand_phantom(tmp_path / "hand", 4, size=(48, 48), val_frac=0.5, test_frac=0)
    items = load_landmark_datalist(tmp_path / "hand/datalist.json", "validation")
    names, rng = items[0]["label_names"], np.random.default_rng(0)
    saver, expected = PredictionSaver(tmp_path / "out", names), []
    engine = SimpleNamespace(state=SimpleNamespace(rank=0), logger=logging.getLogger(__name__))
    saver._start(engine)
    for item in items:
        pixels, affine = read_image(item["image"], item["spacing"])
        offset = rng.normal(0, 1, (len(names), 2))
        image = MetaTensor(
            torch.from_numpy(pixels), affine=torch.from_numpy(affine), meta={"filename_or_obj": item["image"]}
        )
        engine.state.output = [{"image": image, "pred_points": torch.tensor(item["label"]) + torch.from_numpy(offset)}]
        saver._save(engine)
        expected.append(np.linalg.norm(offset, axis=1))
    saver._finish(engine)
    (tmp_path / "out" / "predictions_std.csv").write_text("image,landmark,std_x,std_y\n1,a,0,0\n")  # no points
    step = items[0]["spacing"][0]
    assert len(list((tmp_path / "out").glob("*.mrk.json"))) == 2
    for truth, scale, unit in (
        (tmp_path / "hand/landmarks.csv", 1, "px"),
        (tmp_path / "hand/datalist.json", step, "mm"),
    ):
        result = evaluate_predictions(tmp_path / "out", truth, **FEW)
        np.testing.assert_allclose(result.errors, np.array(expected) * scale, rtol=1e-4)
        assert result.unit == unit
        assert [note[:57] for note in result.notes] == ["without predictions and not counted: 2 of 4 images (hand_"]


def test_volumes(tmp_path):
    """Truth in LPS mm, one file an image; predictions as voxels of a turned image, through the images themselves."""
    write_spine_phantom(tmp_path, 3, size=(16, 16, 24), spacing=(8, 8, 8), oblique=20, val_frac=0.15)
    pred, expected = {}, []
    for i in range(3):
        name = f"spine_{i:04d}"
        truth = read_landmarks(tmp_path / f"points/{name}.mrk.json").to("RAS")
        offset = np.random.default_rng(i).normal(0, 9, truth.points.shape)
        affine = read_image(tmp_path / f"images/{name}.nii.gz")[1]
        pred[name] = LandmarkSet(truth.names, truth.points + offset, "RAS").to_index(affine)
        expected.append(np.linalg.norm(offset, axis=1))
    write_landmark_table(tmp_path / "pred.csv", pred)
    result = evaluate_predictions(tmp_path / "pred.csv", tmp_path / "points", images=tmp_path / "images", **FEW)
    np.testing.assert_allclose(result.errors, expected, rtol=1e-5)
    distances = []
    for name, landmarks in pred.items():
        points = landmarks.to_world(read_image(tmp_path / f"images/{name}.nii.gz")[1]).points
        true = read_landmarks(tmp_path / f"points/{name}.mrk.json").to("RAS").points
        distances.append(np.linalg.norm(points[:, None] - true, axis=2))
    identified = [(d.argmin(axis=1) == np.arange(len(d))) & (np.diag(d) < 20) for d in distances]
    np.testing.assert_array_equal(result.identified, identified)
    assert 0 < np.mean(identified) < 1
    assert {"metric": "identified < 20 mm", "unit": "%"}.items() <= result.summary()[-1].items()
    assert result.summary()[-1]["value"] == pytest.approx(100 * np.mean(identified))


def test_images_without_predictions(files, truth):
    folder, errors = files
    pred = {name: truth[name] for name in list(truth)[:4]}
    pred["unknown.png"] = LandmarkSet(("a", "x"), [[1, 2], [3, 4]], "index")
    pred["0.png"] = LandmarkSet(("a", "x"), [truth["0.png"].points[0], [3, 4]], "index")
    write_landmark_table(folder / "few.csv", pred)
    result = evaluate_predictions(folder / "few.csv", folder / "truth.csv", **FEW)
    assert result.errors.shape == (4, 3) and result.errors[0].tolist() == [0, INF, INF]
    assert result.notes == [
        "without predictions and not counted: 2 of 6 images (4.png, 5.png).",
        "predicted, but without ground truth: unknown.png.",
        "predicted landmarks that are not in the ground truth: x.",
    ]
    every = evaluate_predictions(folder / "few.csv", folder / "truth.csv", all_images=True, **FEW)
    assert every.errors.shape == (6, 3) and np.isinf(every.errors[4:]).all()
    assert every.notes[0] == "without predictions and counted as missed: 2 of 6 images (4.png, 5.png)."
    np.testing.assert_array_equal(every.errors[:4], result.errors)


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

    out = folder / "out"
    tables = ["errors_per_image.csv", "errors_per_landmark.csv", "metrics.csv"]
    assert sorted(path.name for path in out.iterdir()) == [
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
    again = evaluate(*arguments)
    assert again.exit_code == 0 and again.stdout.partition("\n\n")[2].startswith(text.partition("\n\n")[2][:800])


def test_errors(files, truth, tmp_path):
    folder, _ = files
    other = {f"q{name}": landmarks for name, landmarks in truth.items()}
    write_landmark_table(folder / "others.csv", other)
    renamed = {name: LandmarkSet(("x", "y", "z"), s.points, "index") for name, s in truth.items()}
    write_landmark_table(folder / "renamed.csv", renamed)
    twice = {"b/1.png": truth["1.png"], "c/1.png": truth["1.png"]}
    write_landmark_table(folder / "twice.csv", twice)
    (folder / "none").mkdir()
    (folder / "malformed.csv").write_text("image,landmark,x,y\n1.png,a,1\n")
    for arguments, message in (
        (["others.csv", "truth.csv"], "none of its images is among the 6"),
        (
            ["renamed.csv", "truth.csv"],
            "no landmark is in both the predictions and the ground truth: ['x', 'y', 'z'] are predicted",
        ),
        (["twice.csv", "truth.csv"], "'c/1.png' and 'b/1.png' match the same image 1.png"),
        (["pred.csv", "twice.csv"], "'/elsewhere/1.png' matches more than one image: b/1.png, c/1.png"),
        (["none", "truth.csv"], "no landmark file in it"),
        (["malformed.csv", "truth.csv"], "line 2: 3 columns; expected 4"),
        (["pred.csv", "truth.csv", "--compare", "others.csv"], "none of its images is among those of"),
    ):
        result = evaluate(*[argument if argument.startswith("--") else folder / argument for argument in arguments])
        assert result.exit_code == 1 and result.stderr.startswith("Error: ") and message in result.stderr
    assert evaluate(folder / "absent", folder / "truth.csv").exit_code == 2


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

    with open(folder / "out" / "measurements.csv") as file:
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
    assert (folder / "out" / "second_annotator" / "measurements.csv").is_file()
    done = evaluate(folder / "pred.csv", folder / "truth.csv", "--schema", folder / "schema.json")
    assert "note: the pixel size is not known, so measured lengths are in pixels." in done.stdout
    for name, message in (
        ("cephalometric_19", "has none of the landmarks"),
        ("mouse_skull_45", "has no measurements"),
        ("nothing", "nothing"),
    ):
        done = evaluate(folder / "pred.csv", folder / "truth.csv", "--schema", name)
        assert done.exit_code == 1 and message in done.stderr and "Traceback" not in done.stderr


def test_two_annotators_of_real_data(isbi2015_root):
    """The mean distance between the two doctors on the training images, as the data's description has it: 2.35 mm."""
    result = evaluate_predictions(
        isbi2015_root / "landmarks_junior.csv", isbi2015_root / "landmarks_senior.csv", spacing=0.3, **FEW
    )
    with open(isbi2015_root / "splits.csv", newline="") as file:
        train = {row["image"] for row in csv.DictReader(file) if row["split"] == "train"}
    chosen = [image in train for image in result.images]
    assert sum(chosen) == 150 and result.errors[chosen].mean() == pytest.approx(2.35, abs=0.005)
