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

"""Standard deviations and intervals of measurements, against closed forms and derivatives."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from monai_landmarks.schema import Landmark, LandmarkSchema, Measurement, load_landmark_schema, measure_with_uncertainty


def schema_of(dims: int, **expressions: tuple[str, str]) -> LandmarkSchema:
    measurements = tuple(Measurement(name, text, unit) for name, (text, unit) in expressions.items())
    return LandmarkSchema("test", dims, tuple(Landmark(name) for name in "abc"), measurements=measurements)


def covariances_of(random: np.random.Generator, count: int, dims: int, size: float) -> np.ndarray:
    roots = random.normal(0, size, (count, dims, dims))
    return roots @ np.swapaxes(roots, 1, 2) + 0.1 * size**2 * np.eye(dims)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_distance_has_the_variance_along_its_direction(dims):
    random = np.random.default_rng(dims)
    points = np.stack([np.zeros(dims), 100 * np.eye(dims)[0], np.full(dims, np.nan)])
    covariances = covariances_of(random, 3, dims, 0.5)
    covariances[2] = np.nan
    schema = schema_of(dims, apart=("distance(a, b)", "mm"), double=("2 * apart", "mm"))
    found = measure_with_uncertainty(schema, points[None], covariances[None], coverage=0.95)
    expected = np.sqrt(covariances[0, 0, 0] + covariances[1, 0, 0])
    assert found["apart"].std[0] == pytest.approx(expected, rel=0.05)
    assert found["double"].std[0] == pytest.approx(2 * expected, rel=0.05)
    row = found["apart"].row(0)
    assert row["low"] == pytest.approx(100 - 1.96 * expected, abs=0.2 * expected)
    assert row["high"] == pytest.approx(100 + 1.96 * expected, abs=0.2 * expected)


def test_an_angle_has_no_interval_above_a_straight_one():
    points = np.array([[[-20.0, 0.0], [0.0, 0.0], [20.0, 0.2]]])
    schema = schema_of(2, bend=("angle(a, b, c)", "degree"))
    found = measure_with_uncertainty(schema, points, np.broadcast_to(4 * np.eye(2), (1, 3, 2, 2)))["bend"]
    assert 179 < found.values[0] < found.highs[0] == 180 and found.lows[0] < 175


def test_where_the_derivative_is_zero_there_is_still_uncertainty():
    """The distance of a point from a line through it: |N(0, 1)|, whose variance is 1 - 2 / pi."""
    points = np.array([[[5.0, 0.0], [0.0, 0.0], [10.0, 0.0]]])
    covariances = np.zeros((1, 3, 2, 2))
    covariances[0, 0] = np.eye(2)
    schema = schema_of(2, off=("point_line_distance(a, line(b, c))", "mm"))
    assert measure_with_uncertainty(schema, points, covariances)["off"].std[0] == pytest.approx(
        np.sqrt(1 - 2 / np.pi), rel=0.08
    )


@pytest.mark.parametrize("name", ["cephalometric_19", "hand_37", "lumbar_5"])
def test_against_the_jacobian(name):
    """First-order propagation with numerical derivatives, for errors that are small."""
    schema = load_landmark_schema(name)
    random = np.random.default_rng(0)
    count, dims = len(schema), schema.spatial_dims
    points = random.uniform(0, 150, (count, dims))
    covariances = covariances_of(random, count, dims, 0.2)
    found = measure_with_uncertainty(schema, points[None], covariances[None])
    step = 1e-5
    moved = points + step * np.eye(count * dims).reshape(-1, count, dims)
    slopes = {key: (value - schema.measure(points)[key]) / step for key, value in schema.measure(moved).items()}
    for key, slope in slopes.items():
        g = slope.reshape(count, dims)
        assert found[key].std[0] == pytest.approx(np.sqrt(np.einsum("ni,nij,nj->", g, covariances, g)), rel=0.06), key


def test_the_largest_of_many_is_skewed():
    """The longer of two equal lengths: quantiles of the larger of two normal values, which have a closed form.

    The measured length is the median of the interval.
    """
    points = np.array([[[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]])
    covariances = np.zeros((1, 3, 2, 2))
    covariances[0, 1] = covariances[0, 2] = np.eye(2)
    schema = schema_of(2, longest=("max(distance(a, b), distance(a, c))", "mm"))
    found = measure_with_uncertainty(schema, points, covariances, coverage=0.8)["longest"]
    normal = NormalDist(0, 1)
    middle = normal.inv_cdf(np.sqrt(0.5))
    assert found.lows[0] == pytest.approx(100 + normal.inv_cdf(np.sqrt(0.1)) - middle, abs=0.1)
    assert found.highs[0] == pytest.approx(100 + normal.inv_cdf(np.sqrt(0.9)) - middle, abs=0.1)


def test_intervals_hold_what_they_state():
    """Points with known errors: a length, an angle, the largest of three angles, and a distance near 0."""
    random = np.random.default_rng(4)
    schema = schema_of(
        2,
        length=("distance(a, b)", "mm"),
        angle=("angle(a, b, c)", "degree"),
        largest=("max(angle(a, b, c), angle(b, c, a), angle(c, a, b))", "degree"),
        off=("point_line_distance(c, line(a, b))", "mm"),
    )
    true = np.array([[0.0, 0.0], [50.0, 0.0], [20.0, 2.0]]) + random.normal(0, 3, (300, 3, 2)) * [1, 0.3]
    points = true + random.normal(0, 1.5, true.shape)
    found = measure_with_uncertainty(schema, points, np.broadcast_to(2.25 * np.eye(2), (300, 3, 2, 2)))
    for name, values in schema.measure(true).items():
        own = found[name]
        assert ((own.lows <= own.values) & (own.values <= own.highs)).all(), name
        # 300 images: a standard deviation of 1.7 %
        assert np.mean((own.lows <= values) & (values <= own.highs)) == pytest.approx(0.9, abs=0.07), name
    assert (found["off"].lows >= 0).all() and (found["off"].lows == 0).any()


def test_the_largest_of_many_angles_is_in_its_interval():
    """Cobb angles of a spine with large errors: without the move, the interval is far above the angle."""
    schema = load_landmark_schema("aasce_68")
    rows = np.repeat(np.arange(17), 4)
    corner = np.tile([[20.0, 8.0], [-20.0, 8.0], [20.0, -8.0], [-20.0, -8.0]], (17, 1))
    slope = np.stack([np.zeros(68), 0.15 * np.sin(rows / 4) * corner[:, 0]], axis=1)  # of the end plates
    points = corner + slope - np.stack([np.zeros(68), 25.0 * rows], axis=1)
    found = measure_with_uncertainty(schema, points[None], np.broadcast_to(36 * np.eye(2), (1, 68, 2, 2)))["cobb_main"]
    assert 0 <= found.lows[0] < found.values[0] < found.highs[0]


def test_what_is_not_known():
    schema = schema_of(2, ab=("distance(a, b)", "mm"), bc=("distance(b, c)", "mm"))
    points = np.array([[[0.0, 0.0], [3.0, 4.0], [np.nan, np.nan]], [[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]]])
    covariances = np.broadcast_to(np.eye(2), (2, 3, 2, 2)).copy()
    covariances[1, 2] = np.nan
    found = measure_with_uncertainty(schema, points, covariances)
    assert found["ab"].values.tolist() == [5, 5] and np.isfinite(found["ab"].std).all()
    assert np.isnan(found["bc"].values[0]) and found["bc"].values[1] == 1 and np.isnan(found["bc"].std).all()
    assert np.isnan(measure_with_uncertainty(schema, points)["ab"].std).all()


def test_classes_have_names():
    schema = load_landmark_schema("cephalometric_19")
    points = np.random.default_rng(1).uniform(0, 200, (3, 19, 2))
    points[2] = np.nan
    found = measure_with_uncertainty(schema, points)["ANB"]
    expected = ["class I" if 3.2 <= v <= 5.7 else "class II" if v > 5.7 else "class III" for v in found.values[:2]]
    assert list(found.classes) == [*expected, ""]
