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

"""Statistics of shapes, on shapes whose deviations are put in."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from monai_landmarks.shapes import (
    ShapeFinding,
    ShapeModel,
    align_shapes,
    common_shape,
    examine_shape,
    examine_shapes,
    fit_shape_model,
)

NAMES = [f"p{i}" for i in range(9)]
NOISE = 1.0


def rotation(dims, angle):
    """A rotation by an angle in the plane of the first two axes."""
    result = np.eye(dims)
    result[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return result


def shapes(count, dims, seed=0, landmarks=9):
    """A shape of size 50 with noise of 1 mm, turned by a few degrees, 5 % larger or smaller, anywhere."""
    rng = np.random.default_rng(seed)
    mean = np.random.default_rng(99).uniform(-50, 50, (landmarks, dims))
    points = mean + rng.normal(0, NOISE, (count, landmarks, dims))
    for k in range(count):
        points[k] = np.exp(rng.normal(0, 0.05)) * points[k] @ rotation(dims, rng.normal(0, 0.05)).T
    return points + rng.uniform(-100, 100, (count, 1, dims)), mean


def exchange(points, *indices):
    """A copy in which each of some landmarks takes the place of the next one, and the last that of the first."""
    result = points.copy()
    result[list(indices)] = points[np.roll(indices, -1)]
    return result


def test_a_landmark_is_out_of_place_beyond_five_usual_deviations():
    """Moved from 4 to 6 usual deviations away from where the others make it expected."""
    points, _ = shapes(200, 2)
    model = fit_shape_model(points[1:])
    steps = []
    for step in np.arange(6, 16, 0.5):
        moved = points.copy()
        moved[0, 3] += step * np.array([0.6, 0.8])
        deviation = float(model.compare(moved[:1]).distances[0, 3])
        if 4 < deviation < 6:
            steps.append((deviation > 5, list(examine_shapes(moved)[0].displaced) == [3]))
    # the model of examine_shapes is learned from nine tenths of the shapes, so it differs a little at the limit
    assert len(steps) > 3 and sum(far == found for far, found in steps) >= len(steps) - 1
    assert steps[0] == (False, False) and steps[-1] == (True, True)


@pytest.mark.parametrize("dims", [2, 3])
def test_alignment_ignores_outliers_and_missing_points(dims):
    """An exact copy with two wild points and two missing ones goes back to its place."""
    _, mean = shapes(1, dims)
    turn, shift = rotation(dims, 2.0), np.arange(dims) * 30.0
    copy = 3.0 * mean @ turn.T + shift
    copy[0] += 150
    copy[4] -= 90
    copy[[2, 7]] = np.nan
    fit = align_shapes(copy[None], mean)
    np.testing.assert_allclose(fit.scales, 1 / 3, rtol=1e-3)
    np.testing.assert_allclose(fit.rotations[0], turn.T, atol=1e-3)
    good = [1, 3, 5, 6, 8]
    np.testing.assert_allclose(fit(copy[None])[0, good], mean[good], atol=0.1)
    mirror = align_shapes(mean[None] * np.array([-1.0] + [1.0] * (dims - 1)), mean, mirrored=True)
    assert np.linalg.det(mirror.rotations[0]) == pytest.approx(-1)


@pytest.mark.parametrize("dims", [2, 3])
def test_common_shape_is_that_of_most(dims):
    points, mean = shapes(15, dims)
    points[:4] = np.random.default_rng(1).uniform(-50, 50, (4, 9, dims))  # four are nonsense
    found = common_shape(points)
    back = align_shapes(found[None], mean)(found[None])[0]
    assert np.linalg.norm(back - mean, axis=1).max() < 3 * NOISE


@pytest.mark.parametrize("dims", [2, 3])
def test_ordinary_shapes_are_not_named(dims):
    points, _ = shapes(30, dims)
    points[np.random.default_rng(2).random((30, 9)) < 0.2] = np.nan
    assert not any(examine_shapes(points))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("count", [12, 40])
def test_what_is_put_in_is_named(dims, count):
    """One exchange, one displaced point and one mirrored shape; the others are ordinary, though there are only 12."""
    points, _ = shapes(count, dims, seed=3)
    points[5, 8] = np.nan
    points[1] = exchange(points[1], 0, 6)
    points[4, 3] += 25.0 / np.sqrt(dims)
    points[6, :, 0] *= -1
    found = examine_shapes(points)
    assert [k for k, finding in enumerate(found) if finding] == [1, 4, 6]
    assert found[1] == ShapeFinding(exchanged=((0, 6),))
    assert set(found[4].displaced) == {3} and found[4].displaced[3] == pytest.approx(25, abs=5)
    assert found[6] == ShapeFinding(mirrored=True)
    assert found[1].describe(NAMES) == "landmarks 'p0' and 'p6' look exchanged"
    assert found[4].describe(NAMES, "pixels").startswith(
        "landmark away from the expected place: 'p3' by 2"
    ) and "mm" in found[4].describe(NAMES)


def test_every_exchange_is_named():
    """Each pair of landmarks that are ten times the noise apart."""
    points, _ = shapes(30, 2, seed=4, landmarks=6)
    model = fit_shape_model(points)
    shape = shapes(1, 2, seed=5, landmarks=6)[0][0]
    for first, second in itertools.combinations(range(6), 2):
        if np.linalg.norm(shape[first] - shape[second]) > 10 * NOISE:
            finding = examine_shape(exchange(shape, first, second), model)
            assert finding == ShapeFinding(exchanged=((first, second),)), (first, second)


def test_pose_and_size_of_a_shape_do_not_matter_for_its_landmarks():
    points, _ = shapes(20, 2, seed=6)
    model = fit_shape_model(points)
    shape = exchange(shapes(1, 2, seed=7)[0][0], 2, 5)
    for angle, size in ((0.1, 1.2), (3.1, 0.9), (-1.5, 4.0)):
        finding = examine_shape(size * shape @ rotation(2, angle).T + 500, model)
        assert finding.exchanged == ((2, 5),) and not finding.displaced
        assert (finding.turned is not None) == (abs(angle) > 1) and (finding.resized is not None) == (size == 4)


@pytest.mark.parametrize("dims", [2, 3])
def test_turned_and_of_another_size(dims):
    points, _ = shapes(20, dims, seed=8)
    points[2] = points[2] @ rotation(dims, np.pi).T
    points[9] *= 2.54
    found = examine_shapes(points)
    assert [k for k, finding in enumerate(found) if finding] == [2, 9]
    assert 90 < found[2].turned <= 180 + 1e-6 and found[9].resized == pytest.approx(2.54, rel=0.2)
    if dims == 2:
        assert found[2].turned == pytest.approx(180, abs=15)
    assert "pixel size" in found[9].describe(NAMES) and "degrees" in found[2].describe(NAMES)


def test_poses_that_all_differ_are_not_named():
    """Shapes in random orientations and of sizes that differ by more than a factor of two."""
    points, _ = shapes(40, 2, seed=9)
    rng = np.random.default_rng(0)
    for k in range(40):
        points[k] = np.exp(rng.uniform(-1, 1)) * points[k] @ rotation(2, rng.uniform(0, 6.28)).T
    assert not any(examine_shapes(points))


def test_a_turn_about_the_line_of_the_landmarks_is_none():
    """The direction of rotation about a chain of nearly collinear points is noise."""
    rng = np.random.default_rng(0)
    chain = np.stack([np.zeros(6), np.zeros(6), 35.0 * np.arange(6)], axis=1)
    assert not any(examine_shapes(chain + rng.normal(0, 1, (20, 6, 3))))


def test_labels_one_level_off_in_a_chain():
    """Cyclically shifted labels of a chain: landmarks out of place or exchanged are named."""
    rng = np.random.default_rng(1)
    chain = np.stack([10 * np.sin(np.arange(6)), 35.0 * np.arange(6)], axis=1)
    points = chain + rng.normal(0, 1, (20, 6, 2))
    points[7] = exchange(points[7], *range(6))
    found = examine_shapes(points)
    assert [k for k, finding in enumerate(found) if finding] == [7]
    assert len(found[7].displaced) + 2 * len(found[7].exchanged) >= 2


@pytest.mark.parametrize(
    "points",
    [
        shapes(7, 2)[0],
        shapes(20, 2, landmarks=2)[0],
        np.zeros((20, 5, 2)),
        np.where(np.arange(9)[None, :, None] < 2, shapes(20, 2)[0], np.nan),
    ],
    ids=["seven shapes", "two landmarks", "all at one place", "two landmarks known"],
)
def test_nothing_is_said_about_too_little(points):
    assert examine_shapes(points) is None
    with pytest.raises(ValueError, match="requires 8"):
        fit_shape_model(points)


def test_degenerate_shapes():
    """A shape at one place, one with two landmarks, one without; landmarks that no shape has, and that one has."""
    points, _ = shapes(12, 2, seed=10)
    points[0] = points[0, 0]
    points[1, 2:] = np.nan
    points[2] = np.nan
    points[:, 7] = np.nan
    points[:-1, 8] = np.nan
    found = examine_shapes(points)
    assert [k for k, finding in enumerate(found) if finding] == [0] and found[0].resized == 0
    exact = np.repeat(points[3:4], 10, axis=0)
    assert not any(examine_shapes(exact))


def test_the_model_goes_through_json():
    points, _ = shapes(20, 3, seed=11)
    points[:, 4] = np.nan  # a landmark that is never there
    model = fit_shape_model(points)
    again = ShapeModel.from_dict(json.loads(json.dumps(model.to_dict(), allow_nan=False)))
    for key in ("mean", "covariance", "factors"):
        np.testing.assert_array_equal(getattr(again, key), getattr(model, key))
    assert (again.count, again.turn_spread, again.size_spread) == (20, model.turn_spread, model.size_spread)
    assert model.size_spread == pytest.approx(0.05, abs=0.04)
    shape = exchange(points[0], 1, 5)
    assert examine_shape(shape, again) == ShapeFinding(exchanged=((1, 5),))


@pytest.mark.parametrize("wanted", [(80, 40), (100, 60, 35, 20)])
def test_exchanges_of_several_pairs(wanted):
    """Two pairs, or the four that are looked for at most, and a landmark that is out of place besides."""
    points, mean = shapes(30, 3, seed=4, landmarks=24)
    shape = shapes(1, 3, seed=5, landmarks=24)[0][0]
    pairs, free = [], list(range(24))
    for distance in wanted:  # each exchange settles more than half of the rest
        pair = min(
            itertools.combinations(free, 2), key=lambda p: abs(np.linalg.norm(mean[p[0]] - mean[p[1]]) - distance)
        )
        pairs.append(pair)
        free = [index for index in free if index not in pair]
        shape = exchange(shape, *pair)
    shape[free[0], 0] += 15
    finding = examine_shape(shape, fit_shape_model(points))
    assert finding.exchanged == tuple(pairs) and set(finding.displaced) == {free[0]}


def test_a_landmark_beside_a_displaced_one_is_not_displaced():
    """The first two landmarks move together. So if the first is displaced, the second deviates more from its usual place."""
    _, mean = shapes(1, 2)
    covariance = np.eye(18)
    covariance[:4, :4] += 4 * np.kron(np.ones((2, 2)), np.eye(2))
    factors = np.ones(9)
    factors[0] = 2.0
    model = ShapeModel(mean - mean.mean(axis=0), covariance, factors, 0.05, 0.05, 100)
    shape = model.mean.copy()
    shape[0] += 45 / np.sqrt(2)
    distances = model.compare(shape[None]).distances[0]
    assert distances[1] > distances[0] > 6  # times the usual deviation
    finding = examine_shape(shape, model)
    assert set(finding.displaced) == {0} and finding.displaced[0] == pytest.approx(45, abs=5)


@pytest.mark.parametrize("moved", [[3], [3, 6]])
def test_a_landmark_that_the_model_does_not_know_changes_nothing(moved):
    points, _ = shapes(40, 2, seed=3)
    whole = points[0].copy()
    whole[moved] += 40
    known = points.copy()
    known[:, 8] = np.nan
    model = fit_shape_model(known)
    without = whole.copy()
    without[8] = np.nan
    expected = examine_shape(without, model).displaced
    found = examine_shape(whole, model).displaced
    assert set(found) == set(moved) and found == pytest.approx(expected)


def test_shapes_with_few_landmarks():
    """Of three landmarks, none can be left out to find which one is out of place. Two have no shape."""
    points, mean = shapes(30, 2, seed=12)
    model = fit_shape_model(points)
    shape = np.full_like(mean, np.nan)
    shape[[1, 4]] = 5 * mean[[1, 4]]
    assert not examine_shape(shape, model) and np.isnan(model.compare(shape[None]).distances).all()
    triangle = [0, 3, 6]
    shape = np.full_like(mean, np.nan)
    shape[triangle] = mean[triangle]
    assert not examine_shape(shape, model)
    shape[3] += 60
    finding = examine_shape(shape, model)
    assert finding.displaced and set(finding.displaced) <= set(triangle)
    assert not finding.exchanged and not finding.mirrored and finding.turned is None and finding.resized is None
