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

"""Lines and angles that show measurements."""

from __future__ import annotations

import numpy as np
import pytest

from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, load_landmark_schema, measurement_drawings

POINTS = np.array([[0.0, 0.0], [10.0, 0.0], [4.0, 3.0], [10.0, 10.0]])


def drawings(expression, unit, points=POINTS):
    schema = LandmarkSchema(
        "test", 2, tuple(Landmark(name) for name in "abcd"), measurements=(Measurement("m", expression, unit),)
    )
    return [(drawing.kind, drawing.points.tolist()) for drawing in measurement_drawings(schema, points)]


@pytest.mark.parametrize(
    "expression, unit, expected",
    [
        ("distance(a, b, line(c, d))", "mm", [("line", [[0, 0], [10, 0]])]),
        ("angle(a, b, d)", "degree", [("angle", [[0, 0], [10, 0], [10, 10]])]),
        (
            "angle_between(line(a, b), line(b, d))",
            "degree",
            [("line", [[0, 0], [10, 0]]), ("line", [[10, 0], [10, 10]])],
        ),
        ("point_line_distance(c, line(a, b))", "mm", [("line", [[4, 3], [4, 0]])]),
        (
            "distance(midpoint(a, b), d) / distance(a, d)",
            "ratio",
            [("line", [[5, 0], [10, 10]]), ("line", [[0, 0], [10, 10]])],
        ),
        ("max(distance(a, b), 2 * distance(a, d))", "mm", [("line", [[0, 0], [10, 0]]), ("line", [[0, 0], [10, 10]])]),
    ],
)
def test_parts(expression, unit, expected):
    assert drawings(expression, unit) == expected


def test_a_missing_point_leaves_out_its_drawings():
    points = np.where(np.arange(4)[:, None] == 3, np.nan, POINTS)
    assert drawings("distance(a, b) + distance(a, d)", "mm", points) == [("line", [[0, 0], [10, 0]])]


def test_another_measurement_is_not_drawn_again():
    schema = load_landmark_schema("cephalometric_19")
    points = np.random.default_rng(0).uniform(0, 100, (19, 2))
    by_name = [drawing.measurement for drawing in measurement_drawings(schema, points)]
    assert "ANB" not in by_name and by_name.count("SNA") == by_name.count("SNB") == 1 and by_name.count("FHI") == 2
