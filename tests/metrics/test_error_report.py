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
"""The tables, against numpy on the same errors."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from monai_landmarks.metrics import ErrorReport

NAN, INF = float("nan"), float("inf")


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_landmark_with_the_name_of_a_column():
    [row] = ErrorReport(np.array([[1.0, 3.0]]), ("mean", "image"), ("x.png",)).per_image()
    assert row == {"image": "x.png", "mean": 2.0, "mean (landmark)": 1.0, "image (landmark)": 3.0}


def test_tables(tmp_path):
    errors = np.array([[1.0, 3.0, NAN], [2.0, INF, 4.0], [0.5, 2.5, 6.0]])
    report = ErrorReport(errors, ("sella", "nasion", "a, b"), ("c.png", "a.png", "b.png"), thresholds=(2.0, 4.0))
    metrics, per_landmark, per_image = (read(path) for path in report.write(tmp_path / "new"))
    found = errors[np.isfinite(errors)]
    value = {row["metric"]: (float(row["value"]), row["unit"]) for row in metrics}
    assert value["images"] == (3, "images") and value["missed"] == (1, "landmarks")
    assert value["landmarks with truth"] == (8, "landmarks")
    for metric, function in (("MRE", np.mean), ("std", np.std), ("median", np.median), ("max", np.max)):
        assert value[metric] == (pytest.approx(function(found), abs=1e-4), "mm")
    assert value["SDR 2 mm"] == (pytest.approx(300 / 8), "%") and value["SDR 4 mm"] == (pytest.approx(600 / 8), "%")
    assert value["outliers 2 mm"][0] == 5 and value["outliers 4 mm"][0] == 2
    assert value["IPE mean"] == (pytest.approx(np.mean([2, 3, 3]), abs=1e-4), "mm")

    assert [row["landmark"] for row in per_landmark] == ["sella", "nasion", "a, b"]
    nasion = per_landmark[1]
    assert (nasion["n"], nasion["missed"], float(nasion["mean"]), float(nasion["max"])) == ("3", "1", 2.75, 3.0)
    assert float(nasion["sdr_4mm_percent"]) == pytest.approx(200 / 3, abs=1e-4)

    assert [row["image"] for row in per_image] == ["a.png", "b.png", "c.png"]
    assert [float(row["mean"]) for row in per_image] == [3.0, 3.0, 2.0]
    assert per_image[2]["a, b"] == "" and per_image[0]["nasion"] == "inf"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "errors_per_image.csv",
        "errors_per_landmark.csv",
        "metrics.csv",
    ]
    text = str(report)
    assert "MRE 2.71" in text and "1 missed" in text and "nasion" in text and "<=4 mm" in text


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path):
    report = ErrorReport(np.array([[1.0, 3.0]]), ("=1+1", "b"), ("@a.png",))
    for path in report.write(tmp_path):
        with open(path, newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@"))]
    assert read(tmp_path / "errors_per_image.csv")[0]["'=1+1"] == "1.0000"


def test_threshold_convention_is_said_and_kept():
    for strict, sign, rate in ((False, "<=", 100.0), (True, "<", 0.0)):
        report = ErrorReport(torch.tensor([[2.0]]), thresholds=(2.0,), strict=strict, unit="px")
        assert ("SDR 2 px", rate, "%") in report.summary()
        assert f" {sign} 2 px" in str(report)


def test_without_any_truth_the_cells_are_empty(tmp_path):
    paths = ErrorReport(torch.full((2, 2), NAN)).write(tmp_path)
    values = {row["metric"]: row["value"] for row in read(paths[0])}
    assert values["MRE"] == "" and values["landmarks with truth"] == "0"
    assert [row["image"] for row in read(paths[2])] == ["0", "1"]


def test_names_must_fit():
    with pytest.raises(ValueError, match="3 names"):
        ErrorReport(torch.zeros(4, 2), names=("a", "b", "c"))
    with pytest.raises(ValueError, match="1 images"):
        ErrorReport(torch.zeros(4, 2), images=("a",))
    with pytest.raises(ValueError, match="shape"):
        ErrorReport(torch.zeros(4))
