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
"""Tables and landmark files of a MONAI evaluator, together with MONAI's own metric handler and saver."""

from __future__ import annotations

import csv
import logging

import numpy as np
import pytest
import torch
from engines import NAMES, make_cases, make_evaluator
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import IgniteMetricHandler, MetricsSaver, StatsHandler, from_engine
from monai.transforms import Resize

from monai_landmarks.data import read_landmark_table, read_landmarks
from monai_landmarks.handlers import LandmarkReport, OverlaySaver, PredictionSaver
from monai_landmarks.handlers.prediction_saver import distinct_names
from monai_landmarks.metrics import (
    ImageSpecificErrorMetric,
    OutlierMetric,
    PointErrorMetric,
    SuccessDetectionRateMetric,
)
from monai_landmarks.uncertainty import ConformalRegions


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ignite_metric(metric):
    return IgniteMetricHandler(metric_fn=metric, output_transform=from_engine(["pred_points", "label"]))


# five cases at 0, 1, 2, 3, 4 mm; the second has no truth for its third landmark
ERRORS = [0] * 3 + [1] * 2 + [2] * 3 + [3] * 3 + [4] * 3


@pytest.mark.parametrize("dims", [2, 3])
def test_metrics_in_an_evaluator(tmp_path, dims):
    additional = {
        "sdr_2mm": ignite_metric(SuccessDetectionRateMetric(2.001)),
        "sdr": ignite_metric(SuccessDetectionRateMetric((1.5, 2.5))),
        "outliers": ignite_metric(OutlierMetric(2.5)),
        "median": ignite_metric(PointErrorMetric("median")),
        "ipe": ignite_metric(ImageSpecificErrorMetric()),
        "per_landmark": ignite_metric(PointErrorMetric("mean_batch")),
    }
    saver = MetricsSaver(
        save_dir=str(tmp_path),
        metric_details=["val_mre"],
        batch_transform=lambda batch: [item["image"].meta for item in batch],
        summary_ops="*",
    )
    evaluator = make_evaluator(make_cases(dims=dims), [saver, StatsHandler(iteration_log=False)], additional)
    evaluator.run(1)
    metrics = evaluator.state.metrics
    assert metrics["val_mre"] == pytest.approx(np.mean(ERRORS))
    assert evaluator.state.best_metric == pytest.approx(np.mean(ERRORS))
    assert metrics["sdr_2mm"] == pytest.approx(8 / 14)
    assert metrics["sdr"].tolist() == pytest.approx([5 / 14, 8 / 14])
    assert metrics["outliers"] == 6
    assert metrics["median"] == pytest.approx(2.0)
    assert metrics["ipe"] == pytest.approx(2.0)
    assert metrics["per_landmark"].tolist() == pytest.approx([2.0, 2.0, 9 / 4])
    raw = read(tmp_path / "val_mre_raw.csv")
    assert [row["filename"] for row in raw] == [f"/data/a/case{i}.png" for i in range(5)]
    assert raw[1]["class2"] == "nan" and float(raw[4]["class0"]) == pytest.approx(4.0)


@pytest.mark.parametrize("dims", [2, 3])
def test_report(tmp_path, caplog, dims):
    report = LandmarkReport(tmp_path / "eval", NAMES, thresholds=(2.5,))
    evaluator = make_evaluator(make_cases(dims=dims), [report])
    with caplog.at_level(logging.INFO):
        evaluator.run(1)
        evaluator.run(2)  # a second validation must not count the first
    value = {row["metric"]: float(row["value"]) for row in read(tmp_path / "eval" / "metrics.csv")}
    assert value["MRE"] == pytest.approx(np.mean(ERRORS), abs=1e-4) and value["images"] == 5
    assert value["SDR 2.5 mm"] == pytest.approx(800 / 14, abs=1e-4)
    rows = read(tmp_path / "eval" / "errors_per_image.csv")
    assert rows[1]["image"] == "/data/a/case1.png" and rows[1]["menton"] == "" and float(rows[1]["sella"]) == 1.0
    assert "MRE 2.07" in caplog.text and str(tmp_path / "eval") in caplog.text
    assert report.report is not None and report.report.summary()[0] == ("images", 5, "images")


def test_report_names_an_image_that_was_evaluated_twice(tmp_path, caplog):
    cases = make_cases(2)
    for images, count in ((cases, 0), ([*cases, cases[1]], 1)):
        make_evaluator(images, [LandmarkReport(tmp_path, NAMES)]).run(1)
        assert caplog.text.count("1 images were evaluated more than once, for example /data/a/case1.png") == count


def test_report_says_what_is_lacking(tmp_path):
    evaluator = make_evaluator(make_cases(), [LandmarkReport(tmp_path, NAMES, pred_key="points")])
    with pytest.raises(KeyError, match="LandmarkReport needs 'points'.*pred_points"):
        evaluator.run(1)


def test_nothing_evaluated_is_nothing_written(tmp_path):
    evaluator = Engine(lambda engine, batch: batch)
    LandmarkReport(tmp_path, NAMES).attach(evaluator)
    evaluator.fire_event(Events.EPOCH_COMPLETED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dims", [2, 3])
def test_saver(tmp_path, dims):
    cases = make_cases(dims=dims)
    ConformalRegions(NAMES, 0.8, (1.0, 2.0, 3.0), (20,) * 3, dims).save(tmp_path / "regions")
    saver = PredictionSaver(
        tmp_path, NAMES, formats=("mrk.json", ".fcsv"), table="all.csv", regions=tmp_path / "regions"
    )
    make_evaluator(cases, [saver]).run(1)
    table = read_landmark_table(tmp_path / "all.csv")
    assert list(table) == [f"/data/a/case{i}.png" for i in range(5)]
    for i, case in enumerate(cases):
        offset = np.zeros(dims)
        offset[:2] = 0.6 * i, 0.8 * i
        linear = case["label"].affine[:dims, :dims].numpy()
        expected = np.nan_to_num(case["label"][0].numpy() @ linear.T, nan=1.0) + offset
        row = table[f"/data/a/case{i}.png"]
        assert row.coordinate_system == ("index" if dims == 2 else "RAS")
        for landmarks in (
            read_landmarks(tmp_path / f"case{i}.mrk.json").to("RAS").with_spatial_dims(dims),
            read_landmarks(tmp_path / f"case{i}.fcsv").to("RAS").with_spatial_dims(dims),
            row.to_world(case["image"].affine.numpy()),
        ):
            assert landmarks.names == NAMES
            np.testing.assert_allclose(landmarks.points, expected, atol=1e-3)
            np.testing.assert_allclose(landmarks.scores, [0.5, 0.7, 0.9], atol=1e-4)
            np.testing.assert_allclose(landmarks.covariances, [0.25 * np.eye(dims)] * 3, atol=1e-6)
            np.testing.assert_allclose(landmarks.region_radius, [1, 2, 3], rtol=1e-5)
            assert landmarks.coverage == 0.8
    std = read(tmp_path / "all_std.csv")
    assert len(std) == 15 and float(std[0]["std_x"]) == 0.5 and ("std_z" in std[0]) == (dims == 3)
    assert [float(row["region_radius"]) for row in std[:3]] == [1, 2, 3]


@pytest.mark.parametrize("again", [False, True], ids=["same handler", "new handler"])
def test_points_that_were_corrected_in_the_folder_are_kept(tmp_path, caplog, again):
    """Files that the handler wrote are replaced, also by a later run; those of another origin are copied first."""
    evaluator = make_evaluator(make_cases(2), [PredictionSaver(tmp_path, NAMES)])
    evaluator.run(1)
    corrected, table = tmp_path / "case1.mrk.json", tmp_path / "predictions.csv"
    text = corrected.read_text().replace("1.0", "2.5")
    corrected.write_text(text)
    table.write_text("mine")
    if again:
        evaluator = make_evaluator(make_cases(2), [PredictionSaver(tmp_path, NAMES)])
    evaluator.run(2)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.bak*")} == {
        "case1.mrk.json.bak": text,
        "predictions.csv.bak": "mine",
    }
    assert corrected.read_text() != text and list(read_landmark_table(table)) == [
        "/data/a/case0.png",
        "/data/a/case1.png",
    ]
    assert all(f"{tmp_path / name}.bak" in caplog.text for name in ("case1.mrk.json", "predictions.csv"))
    caplog.clear()
    evaluator.run(3)
    assert len(list(tmp_path.glob("*.bak*"))) == 2 and ".bak" not in caplog.text


def test_files_state_their_image(tmp_path):
    make_evaluator(make_cases(1), [PredictionSaver(tmp_path, NAMES, formats=("csv",), table=None)]).run(1)
    assert read_landmarks(tmp_path / "case0.csv").image == "/data/a/case0.png"


def test_saver_without_scores_and_covariances(tmp_path):
    saver = PredictionSaver(tmp_path, NAMES, score_key=None, covariance_key="not there")
    make_evaluator(make_cases(1), [saver]).run(1)
    for landmarks in (
        read_landmarks(tmp_path / "case0.mrk.json"),
        *read_landmark_table(tmp_path / "predictions.csv").values(),
    ):
        assert landmarks.scores is None and landmarks.covariances is None and landmarks.regions is None
    assert not (tmp_path / "predictions_std.csv").exists()


def test_saver_with_regions_alone(tmp_path):
    regions = ConformalRegions(NAMES, 0.8, (1.0, 2.0, 3.0), (20,) * 3, 2)
    make_evaluator(make_cases(1), [PredictionSaver(tmp_path, NAMES, covariance_key=None, regions=regions)]).run(1)
    rows = read(tmp_path / "predictions_std.csv")
    assert [(row["std_x"], row["std_y"], float(row["region_radius"])) for row in rows] == [
        ("", "", r) for r in (1, 2, 3)
    ]


@pytest.mark.parametrize("moved", [False, True])
def test_an_image_that_comes_twice_has_one_file(tmp_path, caplog, moved):
    cases = make_cases(2)
    again = dict(cases[0])
    if moved:  # for example another slice of the same volume
        again["label"] = again["label"] + 3.0
    evaluator = make_evaluator([*cases, again], [PredictionSaver(tmp_path, NAMES, table=None)])
    evaluator.run(1)
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"case0.mrk.json", "case1.mrk.json"}
    said = "case0.png: another prediction with other points replaces the one before it" in caplog.text
    assert said == moved


@pytest.mark.parametrize("count", [4, 5])
def test_same_name_in_two_folders(tmp_path, count):
    cases = make_cases(count, folders=("left", "right"))
    make_evaluator(cases, [PredictionSaver(tmp_path, NAMES, table=None)]).run(1)
    expected = {"left_case0", "right_case0", "left_case1", "right_case1"} | ({"case2"} if count == 5 else set())
    assert {path.name for path in tmp_path.glob("[!.]*")} == {f"{name}.mrk.json" for name in expected}
    right = read_landmarks(tmp_path / "right_case1.mrk.json").to("RAS").points
    case = cases[3]  # at 3 mm
    np.testing.assert_allclose(right[0, :2], -0.5 * case["label"][0, 0].numpy() + [1.8, 2.4], atol=1e-3)


def test_a_landmark_that_was_not_found_is_missing_in_the_file(tmp_path):
    def lose(engine):
        points = torch.full((1, 3, 2), float("inf"))
        points[0, 0] = 4.0
        engine.state.output[0]["pred_points"] = MetaTensor(points, affine=torch.eye(4))

    evaluator = make_evaluator(make_cases(1), [PredictionSaver(tmp_path, NAMES)])
    evaluator.add_event_handler(IterationEvents.MODEL_COMPLETED, lose)
    evaluator.run(1)
    assert read_landmarks(tmp_path / "case0.mrk.json").missing.tolist() == [False, True, True]


def test_plain_points_are_pixels_of_the_image_and_the_table_of_its_file(tmp_path):
    """The image was resampled from 0.25 mm to 0.5 mm and is a slice at z = 7 mm."""
    case = make_cases(1)[0]
    original = np.diag([-0.25, -0.25, 1.0, 1.0])
    case["image"].affine[2, 3] = original[2, 3] = 7.0
    case["image"].meta["original_affine"] = original
    case["image"].affine[0, 3] = 1.0

    case["pred_points"] = torch.tensor([[10.0, 4.0]] * 3)

    engine = Engine(lambda engine, batch: batch)
    PredictionSaver(tmp_path, NAMES).attach(engine)
    engine.run([[case]])
    world = read_landmarks(tmp_path / "case0.mrk.json").to("RAS").points
    np.testing.assert_allclose(world[0], [1.0 - 5.0, -2.0, 7.0], atol=1e-3)
    table = read_landmark_table(tmp_path / "predictions.csv")["/data/a/case0.png"]
    np.testing.assert_allclose(table.points[0], [16.0, 8.0], atol=1e-3)


@pytest.mark.parametrize("table", [None, "RAS"])
def test_pixels_of_a_file_whose_affine_is_not_known_are_refused(tmp_path, table):
    case = make_cases(1)[0]
    case["image"] = Resize((8, 8), mode="bilinear")(case["image"])
    case["pred_points"] = torch.tensor([[4.0, 4.0]] * 3)
    engine = Engine(lambda engine, batch: batch)
    PredictionSaver(tmp_path, NAMES, table_coordinate_system=table).attach(engine)
    if table is None:
        with pytest.raises(ValueError, match="case0.png: the image was transformed .* EnsureWorldAffined"):
            engine.run([[case]])
    else:
        engine.run([[case]])
        found = read_landmark_table(tmp_path / "predictions.csv")["/data/a/case0.png"].points
        np.testing.assert_allclose(found[0], [-4.25, -4.25], atol=1e-3)


def test_best_only(tmp_path):
    """Five cases at 0 to 4 mm, then at 1 to 5 mm, which is worse, then at -1 to 3 mm."""
    cases = make_cases()
    handlers = [
        LandmarkReport(tmp_path, NAMES, best_only=True, log_table=False),
        PredictionSaver(tmp_path, NAMES, best_only=True),
        OverlaySaver(tmp_path, num_images=2, best_only=True, single=False),
    ]
    evaluator = make_evaluator(cases, handlers)
    means = []
    for epoch, shift in enumerate((0, 1, -1)):
        for i, case in enumerate(cases):
            case["number"] = i + shift
        evaluator.run(epoch + 1)
        mean = next(float(row["value"]) for row in read(tmp_path / "metrics.csv") if row["metric"] == "MRE")
        means.append(mean)
        written = read_landmarks(tmp_path / "case4.mrk.json").to("RAS").points[0, :2]
        distance = np.linalg.norm(written - -0.5 * cases[4]["label"][0, 0].numpy())
        assert distance == pytest.approx((4, 4, 3)[epoch], abs=1e-3)
    assert means == pytest.approx([29 / 14, 29 / 14, (3 * 1 + 0 + 3 * 1 + 3 * 2 + 3 * 3) / 14], abs=1e-4)
    assert len(list(tmp_path.glob("[!.]*"))) == 3 + 5 + 2 + 1


def test_names_must_fit(tmp_path):
    with pytest.raises(ValueError, match="case0.png: .* 3 points, but 2 landmark names"):
        make_evaluator(make_cases(1), [PredictionSaver(tmp_path, NAMES[:2])]).run(1)


def test_distinct_names():
    assert distinct_names(["/d/a/x.nii.gz", "/d/b/x.nii.gz", "/d/b/y.nii"]) == ["a_x", "b_x", "y"]
    assert distinct_names(["/d/x.png", "/d/x.jpg"]) == ["x_png", "x_jpg"]
    assert distinct_names(["/d/1/a/x.png", "/d/2/a/x.png"]) == ["1_a_x", "2_a_x"]
    names = distinct_names(["/d/a/x.png", "/d/b/x.png", "/d/a_x.png"])
    assert len(set(names)) == 3
