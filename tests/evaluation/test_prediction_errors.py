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

"""Evaluation of predictions: the right numbers from any files that hold the points."""

from __future__ import annotations

import csv
import logging
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from error_tables import FEW, INF, NAMES, NAN, SPACING, moved, pixel_truth, write_tables
from monai.data import MetaTensor

from monai_landmarks.data import (
    LandmarkSet,
    check_data,
    datalist_item,
    load_landmark_datalist,
    read_image,
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
from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, MeasurementClass, load_landmark_schema


@pytest.fixture
def truth():
    return pixel_truth()


@pytest.fixture
def files(tmp_path, truth):
    """Folder with the tables of ground truth and predictions, and the errors by hand."""
    return tmp_path, write_tables(tmp_path, truth)


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


def test_a_landmark_that_is_never_found(files, truth):
    folder, _ = files
    pred = {name: LandmarkSet(NAMES, [*landmarks.points[:2], [NAN, NAN]], "index") for name, landmarks in truth.items()}
    write_landmark_table(folder / "two.csv", pred)
    names = (*NAMES, "q")  # which nobody annotated
    true = {name: LandmarkSet(names, [*landmarks.points, [NAN, NAN]], "index") for name, landmarks in truth.items()}
    write_landmark_table(folder / "four.csv", true)
    assert evaluate_predictions(folder / "two.csv", folder / "four.csv", **FEW).notes == [
        "landmarks found in no image: c."
    ]


def test_mm_and_pixels_are_not_mixed(files, truth):
    folder, _ = files
    items = [datalist_item(name, landmarks, None if name == "3.png" else 0.5) for name, landmarks in truth.items()]
    definition = {"names": NAMES, "pairs": [], "coordinate_system": "index"}
    save_datalist(folder / "datalist.json", {"landmarks": definition, "training": items})
    with pytest.raises(ValueError, match=r"errors of 0.png are in mm, but those of 3.png are in pixels"):
        evaluate_predictions(folder / "pred.csv", folder / "datalist.json", **FEW)


def test_measurements_of_images_without_predictions(tmp_path):
    """The ground truth is in files of 3D Slicer, which hold 3-D points also for pictures."""
    for i in range(3):
        true = LandmarkSet(("a", "b"), [[0.0, 0.0], [3.0 + i, 4.0]], "LPS")
        write_landmarks(tmp_path / "truth" / f"{i}.mrk.json", true)
        if i < 2:
            write_landmarks(tmp_path / "pred" / f"{i}.mrk.json", LandmarkSet(("a", "b"), 2 * true.points, "LPS"))
    marks = (Landmark("a"), Landmark("b"))
    flat, solid = (
        LandmarkSchema("s", dims, marks, measurements=(Measurement("apart", "distance(a, b)", "mm"),))
        for dims in (2, 3)
    )
    options = {"all_images": True, "schema": flat, **FEW}
    report = evaluate_predictions(tmp_path / "pred", tmp_path / "truth", **options).measurements
    [row] = report.rows()
    # predicted at twice the distance: the errors are the distances themselves, 5 and the root of 32
    assert (row["n"], row["missed"]) == (2, 1) and row["bias"] == pytest.approx((5 + np.sqrt(32)) / 2)
    with pytest.raises(ValueError, match="has 3-D landmarks; these are of another dimension"):
        evaluate_predictions(tmp_path / "pred", tmp_path / "truth", schema=solid, **FEW)


SIZES = (MeasurementClass("short", below=3), MeasurementClass("long", at_least=3))
TRIANGLE = LandmarkSchema(
    "triangle",
    2,
    tuple(map(Landmark, NAMES)),
    measurements=(
        Measurement("side", "distance(a, b)", "mm", classes=SIZES),
        Measurement("corner", "angle(a, b, c)", "degree", classes=SIZES),
    ),
)


@pytest.mark.parametrize("spacing, unit", [(None, "px"), (SPACING, "mm")])
def test_lengths_in_pixels_are_in_no_class(files, spacing, unit):
    """Limits of lengths are in mm. An angle is the same in pixels."""
    folder, _ = files
    options = {"spacing": spacing, "schema": TRIANGLE, **FEW}
    found = evaluate_predictions(folder / "pred.csv", folder / "truth.csv", compare=folder / "truth.csv", **options)
    for one in (found, found.comparisons["compare"][0]):
        side, corner = one.measurement_rows()
        assert (side["unit"], corner["unit"]) == (unit, "degree")
        assert np.isnan(side["agreement_percent"]) == (unit == "px") and corner["agreement_percent"] >= 0
    rows = [row for row in found.measurements_per_image() if row["measurement"] == "side"]
    assert {row["unit"] for row in rows} == {unit}
    for key in ("class", "true_class"):
        assert ("long" in [row[key] for row in rows]) == (unit == "mm")


def test_tables_of_an_earlier_evaluation_are_removed(files):
    folder, _ = files
    predicted, true, out = folder / "pred.csv", folder / "truth.csv", folder / "out"
    options = {"compare": true, "second_annotator": true, "schema": TRIANGLE}
    first = evaluate_predictions(predicted, true, **options, **FEW).write(out)
    assert len(first) == 3 * 5 + 1 and all(path.is_file() for path in first)
    others = {out / "compare" / "mine.csv", out / "second_annotator" / "metrics.csv"}
    for path in others:
        path.write_text("image,my column\n")
    second = evaluate_predictions(predicted, true, **FEW).write(out)
    assert len(second) == 4 and {path for path in out.rglob("*") if path.is_file()} == {*second, *others}


def test_two_annotators_of_real_data(isbi2015_root):
    """The mean distance between the two doctors on the training images, as the data's description has it: 2.35 mm."""
    result = evaluate_predictions(
        isbi2015_root / "landmarks_junior.csv", isbi2015_root / "landmarks_senior.csv", spacing=0.3, **FEW
    )
    with open(isbi2015_root / "splits.csv", newline="") as file:
        train = {row["image"] for row in csv.DictReader(file) if row["split"] == "train"}
    chosen = [image in train for image in result.images]
    assert sum(chosen) == 150 and result.errors[chosen].mean() == pytest.approx(2.35, abs=0.005)


def test_points_of_a_coronal_slice(tmp_path):
    """Its first two axes are x and z of the world, so 5 rows of 2 mm are 10 mm."""
    affine = np.array([[0.5, 0, 0, 0], [0, 0, 1, 30.0], [0, 2, 0, 0], [0, 0, 0, 1]])
    images = tmp_path / "images"
    images.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((40, 30, 1), np.int16), affine), images / "c.nii.gz")
    (tmp_path / "true.csv").write_text("image,landmark,x,y\nc.nii.gz,a,10,10\nc.nii.gz,b,20,20\n")
    (tmp_path / "found.csv").write_text("image,landmark,x,y\nc.nii.gz,a,10,15\nc.nii.gz,b,23,20\n")
    found = evaluate_predictions(tmp_path / "found.csv", tmp_path / "true.csv", images=images)
    np.testing.assert_allclose(found.errors, [[10, 1.5]])
    (fault,) = check_data(images, tmp_path / "true.csv").faults
    assert "does not lie in the x-y plane of the world" in fault


def test_measurements_where_an_image_has_no_landmark(tmp_path):
    schema = load_landmark_schema("lumbar_5")
    points = np.stack([np.zeros(5), np.arange(5.0), -35 * np.arange(5.0)], axis=1)
    sets = {"a": points, "b": np.full((5, 3), np.nan)}
    write_landmark_table(tmp_path / "true.csv", {name: LandmarkSet(schema.names, own) for name, own in sets.items()})
    write_landmark_table(
        tmp_path / "found.csv",
        {
            name: LandmarkSet(schema.names, own + 1, covariances=np.eye(3) * own[:, :1, None] ** 0)
            for name, own in sets.items()
        },
    )
    found = evaluate_predictions(tmp_path / "found.csv", tmp_path / "true.csv", schema=schema)
    assert found.cases[0].predicted.covariances is not None
    measured = found.measurements["lumbar_length"]
    np.testing.assert_allclose(measured.errors, [0], atol=1e-9)
    assert measured.missed == 0


def test_measurements_where_the_known_points_of_an_image_lie_in_one_plane(tmp_path):
    """Such an image looks 2-D, but its covariances are 3-D."""
    schema = load_landmark_schema("lumbar_5")
    points = np.stack([np.zeros(5), np.arange(5.0), -35 * np.arange(5.0)], axis=1)
    flat = np.where(np.arange(5)[:, None] == 0, points, np.nan)  # L1 alone, at z = 0
    sets = {"a": points, "b": flat}
    for name in ("true", "found"):
        table = {key: LandmarkSet(schema.names, own, covariances=_unit(own)) for key, own in sets.items()}
        write_landmark_table(tmp_path / f"{name}.csv", table)
    found = evaluate_predictions(tmp_path / "found.csv", tmp_path / "true.csv", schema=schema)
    np.testing.assert_allclose(found.measurements["lumbar_length"].errors, [0], atol=1e-9)
    assert found.errors[0].max() == 0


def _unit(points):
    """Unit covariances (N, 3, 3), NaN where a point is missing."""
    return np.eye(3) * points[:, :1, None] ** 0
