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

"""Cobb angles in an evaluation that loads, resizes and batches images as a bundle does."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.transforms import Compose, LoadImaged, Resize, Resized
from PIL import Image

from monai_landmarks.handlers import CobbReport, LandmarkReport
from monai_landmarks.metrics import PointErrorMetric, cobb_angles, error_is_lower
from monai_landmarks.spaces import file_affine
from monai_landmarks.transforms import EnsureWorldAffined, LoadLandmarksd

NAN = float("nan")
HEIGHTS = (300, 120, 200)


def bent_spine(tilts=(10, -10, 25, -30, 10), height=16.0):
    """Return the corners (20, 2) of five vertebrae with upright sides."""
    y = height * np.arange(5)[:, None] + np.array([0, 0, 8.0, 8.0]) + 20
    y[:, 1::2] += 20 * np.tan(np.deg2rad(tilts))[:, None]
    x = 10 + np.array([0, 20.0, 0, 20.0]) + np.array([0, 4, 0, -4, 0])[:, None]
    return np.stack([x, y], axis=-1).reshape(20, 2)


def changed(item):
    """Replace decoding: the last vertebra of each spine is predicted level, and a corner of the third image is missed."""
    points = item["label"].clone()
    points[0, [17, 19], 1] = points[0, [16, 18], 1]
    if "case_2" in item["image"].meta["filename_or_obj"]:
        points[0, 3] = NAN
    item["pred_points"] = points
    return item


@pytest.fixture
def cases(tmp_path):
    """Write images of different heights: the same spine is in the upper half of one and in the lower half of another."""
    items = []
    for i, height in enumerate(HEIGHTS):
        path = tmp_path / f"case_{i}.png"
        Image.new("L", (40, height)).save(path)
        angles = cobb_angles(torch.tensor(bent_spine()), height).tolist()
        items.append({"image": str(path), "label": bent_spine().tolist(), "spacing": [0.5, 0.5], "cobb_angles": angles})
    items[1]["cobb_angles"][2] = NAN
    return items


def evaluate(cases, report, further=(), name="cobb", postprocessing=changed):
    load = [
        LoadImaged("image", ensure_channel_first=True),
        EnsureWorldAffined("image"),
        LoadLandmarksd("label"),
        Resized("image", (32, 64), mode="bilinear"),
    ]
    metric = IgniteMetricHandler(metric_fn=PointErrorMetric(), output_transform=from_engine(["pred_points", "label"]))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases, Compose(load)), batch_size=2),
        network=torch.nn.Identity(),
        postprocessing=postprocessing,
        key_val_metric={"val_mre": metric},
        additional_metrics={name: report},
        metric_cmp_fn=error_is_lower,
        val_handlers=list(further),
    )
    evaluator.run(1)
    return evaluator


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(row, kind):
    return [float(row[f"{kind}_cobb{i}"] or "nan") for i in (1, 2, 3)]


def test_angles_in_a_bundle_like_evaluation(cases, tmp_path, caplog):
    out = tmp_path / "eval"
    with caplog.at_level(logging.INFO):
        evaluator = evaluate(cases, CobbReport(out), [LandmarkReport(out)])
    level = bent_spine((10, -10, 25, -30, 0))
    expected = np.array([cobb_angles(torch.tensor(level), height).tolist() for height in HEIGHTS])
    assert abs(expected[0] - expected[1]).max() > 5  # otherwise the height of the image would not matter
    expected[2] = NAN
    truth = np.array([case["cobb_angles"] for case in cases])
    rows = read(out / "cobb_angles.csv")
    assert [Path(row["image"]).name for row in rows] == ["case_0.png", "case_1.png", "case_2.png"]
    for kind, values in (("pred", expected), ("true", truth), ("error", expected - truth)):
        np.testing.assert_allclose([numbers(row, kind) for row in rows], values, atol=6e-4, rtol=0)
    error = abs(expected - truth)
    first = 100 * error[0].sum() / (expected + truth)[0].sum()
    metrics = evaluator.state.metrics
    assert metrics["cobb_mae_degrees"] == pytest.approx(np.nanmean(error), abs=1e-3)
    assert [metrics[f"cobb{i}_mae_degrees"] for i in (1, 2, 3)] == pytest.approx(np.nanmean(error, axis=0), abs=1e-3)
    assert metrics["cobb_smape_percent"] == pytest.approx(first, abs=1e-3)
    assert np.nanmean(error) == pytest.approx(10 / 5)  # only the third angle of the first image differs
    summary = {row["metric"]: float(row["value"]) for row in read(out / "metrics.csv")}
    assert summary["cobb_mae_degrees"] == pytest.approx(np.nanmean(error), abs=1e-3)
    assert "val_mre" not in summary and summary["MRE"] == pytest.approx(metrics["val_mre"], abs=1e-4)
    assert f"Cobb angles of 3 images: mean absolute error {np.nanmean(error):.2f} degrees" in caplog.text
    with Image.open(out / "cobb_angles.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("truth_key", [None, "angles_that_no_item_has"])
def test_truth_from_the_corners(truth_key, cases, tmp_path):
    evaluator = evaluate(cases, CobbReport(tmp_path / "eval", truth_key=truth_key), name="spine")
    rows = read(tmp_path / "eval" / "cobb_angles.csv")
    expected = [cobb_angles(torch.tensor(bent_spine()), height).tolist() for height in HEIGHTS]
    np.testing.assert_allclose([numbers(row, "true") for row in rows], expected, atol=6e-4, rtol=0)
    assert set(evaluator.state.metrics) >= {"spine_mae_degrees", "spine2_mae_degrees", "spine_smape_percent"}


def test_corners_as_named_and_after_the_best_shift(cases, tmp_path):
    """The label of the second image begins one vertebra later, so that its prediction is shifted by one."""
    truth = bent_spine()
    cases[1]["label"] = (truth - [0, 16]).tolist()

    def predicted(item):
        points = torch.tensor(truth)[None] + torch.tensor([0.0, 1.0])
        item["pred_points"] = MetaTensor(points, affine=torch.from_numpy(file_affine(item["image"])))
        return item

    evaluator = evaluate(cases, CobbReport(tmp_path / "eval"), postprocessing=predicted)
    rows, metrics = read(tmp_path / "eval" / "cobb_angles.csv"), evaluator.state.metrics
    assert [row["shift"] for row in rows] == ["0", "1", "0"] and metrics["cobb_shifted_images"] == 1
    after = np.linalg.norm(truth[:-4] + [0, 1] - (truth[4:] - [0, 16]), axis=1).mean()
    assert [float(row["error_pixels"]) for row in rows] == pytest.approx([1, 17, 1], abs=1e-3)
    assert [float(row["error_after_shift_pixels"]) for row in rows] == pytest.approx([1, after, 1], abs=1e-3)
    assert metrics["cobb_error_after_shift_pixels"] == pytest.approx((2 + after) / 3, abs=1e-3)
    mse = [(1 / 300) ** 2 / 2, (17 / 120) ** 2 / 2, (1 / 200) ** 2 / 2]
    assert metrics["cobb_normalized_mse"] == pytest.approx(np.mean(mse), rel=1e-4)
    sizes = np.array(HEIGHTS)[:, None]
    columns = truth[:, 0] / 40
    true = np.stack([truth[:, 1], truth[:, 1] - 16, truth[:, 1]]) / sizes
    found = (truth[:, 1] + 1) / sizes
    pairs = np.stack([np.stack([columns] * 3 + list(found)), np.stack([columns] * 3 + list(true))])
    expected = np.corrcoef(pairs.reshape(2, -1))[0, 1]
    assert metrics["cobb_coordinate_correlation"] == pytest.approx(expected, abs=1e-6)


def test_only_the_best(cases, tmp_path):
    report = CobbReport(tmp_path / "eval", best_only=True)
    evaluator = evaluate(cases, report)
    table = tmp_path / "eval" / "cobb_angles.csv"
    assert table.is_file()
    table.unlink()
    evaluator.run(2)  # as good as before, which is not better
    assert not table.exists() and "cobb_mae_degrees" in evaluator.state.metrics
    evaluator.state.best_metric = 1e9
    evaluator.run(3)
    assert len(read(table)) == 3  # of this evaluation alone


def test_as_a_handler(cases, tmp_path):
    class Nothing:
        def attach(self, engine, name):
            pass

    evaluator = evaluate(cases, Nothing(), [CobbReport(tmp_path / "eval")])
    assert len(read(tmp_path / "eval" / "cobb_angles.csv")) == 3 and evaluator.state.metrics["cobb_mae_degrees"] > 0


def test_it_says_what_is_lacking(cases, tmp_path):
    for case in cases:
        del case["cobb_angles"]
    with pytest.raises(KeyError, match="CobbReport needs 'cobb_angles'.*to None"):
        evaluate(cases, CobbReport(tmp_path / "eval", label_key=None))


def test_predicted_angles_alone(cases, tmp_path, caplog):
    out = tmp_path / "eval"
    with caplog.at_level(logging.INFO):
        evaluator = evaluate(cases, CobbReport(out, truth_key=None, label_key=None))
    rows = read(out / "cobb_angles.csv")
    level = torch.tensor(bent_spine((10, -10, 25, -30, 0)))
    expected = [cobb_angles(level, height).tolist() for height in HEIGHTS[:2]] + [[NAN] * 3]
    np.testing.assert_allclose([numbers(row, "pred") for row in rows], expected, atol=6e-4, rtol=0)
    assert list(rows[0]) == ["image", "pred_cobb1", "pred_cobb2", "pred_cobb3"]
    assert [path.name for path in out.iterdir()] == ["cobb_angles.csv"]
    assert not any(name.startswith("cobb") for name in evaluator.state.metrics)
    assert "Cobb angles of 3 images\n" in caplog.text


def test_an_image_of_unknown_affine_is_refused(tmp_path):
    """It was resampled, and its metadata does not have the affine of the file."""
    image = Resize((32, 64), mode="bilinear")(MetaTensor(torch.zeros(1, 40, 300), meta={"filename_or_obj": "a.png"}))
    item = {"image": image, "pred_points": MetaTensor(torch.tensor(bent_spine())[None], affine=torch.eye(4))}
    engine = Engine(lambda engine, batch: batch)
    CobbReport(tmp_path, truth_key=None, label_key=None).attach(engine)
    with pytest.raises(ValueError, match="a.png: the image was transformed .* EnsureWorldAffined"):
        engine.run([[item]])
