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

"""Measurements of each image: table, markups of 3D Slicer, and the comparison with the ground truth."""

from __future__ import annotations

import csv
import json
import math

import jsonschema
import numpy as np
import pytest
from markups_schema import MARKUPS_SCHEMA

from monai_landmarks.data import LandmarkSet, read_landmarks, write_landmark_table, write_landmarks
from monai_landmarks.evaluation import evaluate_predictions
from monai_landmarks.evaluation.image_measurements import measure_images, write_measurements
from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, MeasurementClass

SCHEMA = LandmarkSchema(
    "square",
    2,
    (Landmark("corner", "C"), Landmark("east", "E"), Landmark("north", "N")),
    measurements=(
        Measurement(
            "width",
            "distance(corner, east)",
            "mm",
            classes=(MeasurementClass("narrow", below=8), MeasurementClass("wide", at_least=8)),
        ),
        Measurement("corner_angle", "angle(east, corner, north)", "degree"),
    ),
)


def square(width, names=("corner", "east", "north"), variance=0.25):
    points = np.array([[0.0, 0.0], [width, 0.0], [0.0, 10.0]])
    return LandmarkSet(names, points, covariances=np.tile(variance * np.eye(2), (3, 1, 1)))


def test_table_by_abbreviation(tmp_path):
    measured = measure_images(
        SCHEMA, {"a.png": square(6.0, ("C", "x", "north")), "b.png": square(10.0, ("C", "x", "north"))}
    )
    assert np.isnan(measured.measured["width"].values).all()  # "x" is not "E"
    assert measured.notes == (
        "abbreviations of the schema square are read: C as corner; the schema square does not have the landmarks x; east"
        " of the schema square are not among the landmarks.",
    )
    measured = measure_images(SCHEMA, {"a.png": square(6.0, ("C", "E", "N")), "b.png": square(10.0, ("C", "E", "N"))})
    path = measured.write(tmp_path / "measurements.csv")
    rows = list(csv.DictReader(path.open()))
    assert [(row["image"], row["measurement"], row["class"]) for row in rows] == [
        ("a.png", "width", "narrow"),
        ("a.png", "corner_angle", ""),
        ("b.png", "width", "wide"),
        ("b.png", "corner_angle", ""),
    ]
    assert float(rows[0]["value"]) == 6 and float(rows[0]["std"]) == pytest.approx(math.sqrt(0.5), rel=0.05)
    assert float(rows[3]["value"]) == pytest.approx(90)


def independent_values(path):
    """Lengths and angles that the nodes of a markups file show, computed as 3D Slicer does."""
    values = {}
    for node in json.loads(path.read_text())["markups"]:
        points = [np.array(point["position"]) for point in node["controlPoints"] if "position" in point]
        if node["type"] == "Line":
            values[node["name"]] = np.linalg.norm(points[1] - points[0])
        elif node["type"] == "Angle":
            a, b = points[0] - points[1], points[2] - points[1]
            values[node["name"]] = np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return values


def test_lines_and_angles_beside_the_points(tmp_path):
    landmarks = square(6.0)
    path = tmp_path / "a.mrk.json"
    write_landmarks(path, landmarks)
    before = read_landmarks(path)
    measure_images(SCHEMA, {"a.png": landmarks}).add_to_markups(path, 0, plane=3.0)
    jsonschema.validate(json.loads(path.read_text()), MARKUPS_SCHEMA)
    assert read_landmarks(path) == before  # the points are still read, and only they
    assert independent_values(path) == pytest.approx({"width": 6.0, "corner_angle": 90.0})
    line = json.loads(path.read_text())["markups"][1]
    assert line["controlPoints"][0]["position"][2] == 3.0
    assert line["controlPoints"][0]["description"].startswith("width: 6.0 mm (90 %: ") and "narrow" in str(line)


def test_evaluation_per_image_and_agreement_of_the_intervals(tmp_path):
    """300 images whose errors have the stated covariance: 90 % of the intervals hold."""
    random = np.random.default_rng(0)
    true = {f"{i}.png": square(width) for i, width in enumerate(random.uniform(7, 12, 300))}
    found = {
        name: LandmarkSet(one.names, one.points + random.normal(0, 0.5, one.points.shape), covariances=one.covariances)
        for name, one in true.items()
    }
    for name, sets in (("true", true), ("found", found)):
        write_landmark_table(tmp_path / f"{name}.csv", sets)
    result = evaluate_predictions(tmp_path / "found.csv", tmp_path / "true.csv", schema=SCHEMA, resamples=20)
    rows = {row["measurement"]: row for row in result.measurement_rows()}
    for row in rows.values():
        assert row["intervals"] == 300 and row["held_percent"] == pytest.approx(90, abs=4)
    per_image = result.measurements_per_image()
    assert len(per_image) == 600
    row = next(row for row in per_image if row["image"] == "7.png" and row["measurement"] == "width")
    points = found["7.png"].points
    assert row["value"] == pytest.approx(np.linalg.norm(points[1] - points[0]), abs=1e-3)
    assert row["true"] == pytest.approx(true["7.png"].points[1, 0], abs=1e-3)
    assert row["true_class"] == ("wide" if row["true"] >= 8 else "narrow")
    assert row["held"] == int(row["low"] <= row["true"] <= row["high"])
    written = {path.name for path in result.write(tmp_path / "out")}
    assert {"measurement_errors.csv", "measurement_errors_per_image.csv"} <= written


def test_predictions_by_name_and_ground_truth_by_abbreviation(tmp_path):
    found = {"a.png": square(6.0), "b.png": square(10.0)}
    true = {name: LandmarkSet(("C", "East", "n"), one.points + [0.0, 1.0]) for name, one in found.items()}
    for name, sets in (("true", true), ("found", found)):
        write_landmark_table(tmp_path / f"{name}.csv", sets)
    with pytest.raises(ValueError, match="give the landmark schema"):
        evaluate_predictions(tmp_path / "found.csv", tmp_path / "true.csv")
    files = [tmp_path / "found.csv", tmp_path / "true.csv"]
    result = evaluate_predictions(*files, second_annotator=files[0], schema=SCHEMA, resamples=20)
    # "n" is not "N": one letter must be written as in the schema
    assert result.names == ["C", "East", "n"]
    np.testing.assert_allclose(result.errors, [[1, 1, math.inf]] * 2)
    other, _ = result.comparisons["second_annotator"]
    np.testing.assert_array_equal(other.errors, result.errors)
    assert "predicted landmarks under other names, by the schema square: corner as C, east as East." in result.notes
    assert "predicted landmarks that are not in the ground truth: north." in result.notes
    width, _ = result.measurement_rows()
    assert width["n"] == 2 and width["mean_absolute_error"] == 0
    # names that both sides have stay, whatever the schema says
    again = evaluate_predictions(files[1], files[1], schema=SCHEMA, resamples=20)
    assert not again.errors.any() and not [note for note in again.notes if "under other names" in note]


def test_doubts_stand_beside_the_values(tmp_path):
    """In the table and in 3D Slicer, where values are read without the report."""
    landmarks = square(6.0)
    measured = measure_images(SCHEMA, {"a.png": landmarks, "b.png": landmarks})
    images = [("a.png", measured.rows(0)), ("b.png", measured.rows(1))]
    path = write_measurements(tmp_path / "measurements.csv", images, {"b.png": "unusual shape"})
    doubts = {row["image"]: row["doubt"] for row in csv.DictReader(path.open())}
    assert doubts == {"a.png": "", "b.png": "unusual shape"}
    for doubt, beginning in (("", "width: 6.0"), ("unusual shape", "IN DOUBT (unusual shape): width: 6.0")):
        markups = tmp_path / "a.mrk.json"
        write_landmarks(markups, landmarks)
        measured.add_to_markups(markups, 0, doubt=doubt)
        (line,) = [node for node in json.loads(markups.read_text())["markups"] if node["type"] == "Line"]
        assert any(point["description"].startswith(beginning) for point in line["controlPoints"])


def test_an_assumed_pixel_size_stands_beside_lengths(tmp_path):
    landmarks = square(6.0)
    known = measure_images(SCHEMA, {"a.png": landmarks})
    assumed = known.with_assumed_size()
    assert [row["class"] for row in known.rows(0)] == ["narrow", ""]
    assert [row["class"] for row in assumed.rows(0)] == ["", ""]  # limits of classes are in mm
    units = {row["unit"] for row in assumed.rows(0)}
    assert units == {"mm (pixel size assumed)", *({row.unit for row in SCHEMA.measurements} - {"mm"})}
    write_landmarks(tmp_path / "a.mrk.json", landmarks)
    assumed.add_to_markups(tmp_path / "a.mrk.json", 0)
    assert "width: 6.0 mm (pixel size assumed)" in (tmp_path / "a.mrk.json").read_text()
