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

"""Errors of measurements and agreement on classes, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, MeasurementClass, compare_measurements

SIZES = (
    MeasurementClass("small", below=10),
    MeasurementClass("medium", at_most=20),
    MeasurementClass("large", below=100),
)
SCHEMA = LandmarkSchema(
    "stick",
    2,
    (Landmark("a"), Landmark("b"), Landmark("c")),
    measurements=(
        Measurement("length", "distance(a, b)", "mm", classes=SIZES),
        Measurement("bend", "angle(a, b, c)", "degree"),
    ),
)


def sticks(lengths):
    """Sticks along x from a to b, with c above b: a right angle. NaN: b is missing."""
    points = np.zeros((len(lengths), 3, 2))
    points[:, 1:, 0] = np.array(lengths)[:, None]
    points[:, 2, 1] = 5
    points[np.isnan(lengths), 2, 0] = 0  # c is there all the same
    return points


NAN = float("nan")
TRUE = [5, 5, 8, 15, 15, 15, 15, 30, 200, NAN, 12, NAN]
PRED = [6, 4, 12, 15, 19, 22, NAN, 40, 210, 7, 200, NAN]


def test_a_schema_without_measurements_has_an_empty_table():
    points = sticks([5, 8])
    report = compare_measurements(LandmarkSchema("points", 2, SCHEMA.landmarks), points, points)
    assert str(report).splitlines() == [str(compare_measurements(SCHEMA, points, points)).splitlines()[0]]


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_by_hand(make):
    report = compare_measurements(SCHEMA, make(sticks(PRED)), make(sticks(TRUE)))
    length = report["length"]
    errors = [1, -1, 4, 0, 4, 7, 10, 10, 188]
    assert length.errors.tolist() == pytest.approx(errors)
    assert length.missed == 1
    assert length.bias == pytest.approx(np.mean(errors))
    assert length.mean_absolute_error == pytest.approx(np.mean(np.abs(errors)))
    assert length.std == pytest.approx(np.std(errors))
    # rows: true small, medium, large; columns: predicted small, medium, large, none. 200 is in no class
    assert length.confusion.tolist() == [[2, 1, 0, 0], [0, 2, 1, 2], [0, 0, 1, 0]]
    assert length.agreement == pytest.approx(5 / 9)
    assert length.mean_class_agreement == pytest.approx((2 / 3 + 2 / 5 + 1) / 3)
    bend = report["bend"]
    assert bend.classes == () and bend.bias == pytest.approx(0) and np.isnan(bend.agreement)


def test_rows_and_text():
    report = compare_measurements(SCHEMA, sticks(PRED), sticks(TRUE))
    row, other = report.rows()
    assert row == {
        "measurement": "length",
        "unit": "mm",
        "n": 9,
        "missed": 1,
        "mean_absolute_error": pytest.approx(25),
        "bias": pytest.approx(223 / 9),
        "std": report["length"].std,
        "agreement_percent": pytest.approx(500 / 9),
        "mean_class_agreement_percent": pytest.approx(100 * (2 / 3 + 2 / 5 + 1) / 3),
    }
    assert list(other) == list(row) and other["unit"] == "degree"
    head, *lines = str(report).splitlines()
    assert head.split() == "measurement unit n missed MAE bias std agree % by class".split()
    assert lines[0].split()[:6] == ["length", "mm", "9", "1", "25.00", "24.78"] and lines[0].split()[-2] == "55.56"
    assert lines[1].split() == ["bend", "degree", "9", "1", "0.00", "0.00", "0.00"]


def test_equal_points_agree_in_everything():
    points = sticks([1.0, 15.0, 50.0])
    for spacing in (None, 2.0):
        for comparison in compare_measurements(SCHEMA, points, points, spacing).comparisons.values():
            assert comparison.bias == comparison.mean_absolute_error == comparison.std == 0
    assert compare_measurements(SCHEMA, points, points)["length"].agreement == 1
    shapes = compare_measurements(SCHEMA, points[None, :, None], points[None, :, None])
    assert len(shapes["length"].errors) == 3


def test_spacing_scales_errors_and_changes_classes():
    report = compare_measurements(SCHEMA, sticks([6.0]), sticks([5.0]), spacing=3.0)
    assert report["length"].bias == pytest.approx(3)
    assert report["length"].confusion.tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_nothing_known():
    report = compare_measurements(SCHEMA, sticks([NAN]), sticks([NAN]))
    assert np.isnan(report["length"].bias) and np.isnan(report["length"].agreement) and report["length"].missed == 0
    assert "length" in str(report)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 2\) and true ones \(1, 3, 2\); expected the same"):
        compare_measurements(SCHEMA, sticks([1.0, 2.0]), sticks([1.0]))
