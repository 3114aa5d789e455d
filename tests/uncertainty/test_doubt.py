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

"""Doubt about predictions of a phantom population whose true shapes and heatmaps are known."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import pytest

from monai_landmarks.uncertainty import Doubt, DoubtModel, doubt_path

NAMES = tuple("abcdefghij")


def population(random, count, dims=2):
    """Shapes of 10 landmarks in mm, in varying pose and size, and the heatmaps of a good model."""
    mean = np.random.default_rng(7).uniform(0, 100, (10, dims))
    bend = np.random.default_rng(8).normal(0, 3, (10, dims))
    points = mean + bend * random.normal(size=(count, 1, 1)) + random.normal(0, 1, (count, 10, dims))
    points = points * np.exp(random.normal(0, 0.05, (count, 1, 1))) + random.normal(0, 20, (count, 1, dims))
    angles = random.normal(0, 0.08, count)
    turn = np.tile(np.eye(dims), (count, 1, 1))
    turn[:, :2, :2] = np.stack([np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)], 1).reshape(-1, 2, 2)
    points = np.einsum("kij,knj->kni", turn, points)
    scores = np.exp(random.normal(0, 0.2, (count, 10)))
    covariances = 4 * np.exp(random.normal(0, 0.1, (count, 10, 1, 1))) * np.eye(dims)
    return points, scores, covariances


@lru_cache
def fitted(dims=2, validation=40):
    random = np.random.default_rng(dims)
    return DoubtModel.fit(NAMES, population(random, 60, dims)[0], *population(random, validation, dims))


def share(model, cases):
    return np.mean([bool(model.examine(*case)) for case in zip(*cases)])


@pytest.mark.parametrize("dims", [2, 3])
def test_good_predictions_are_not_in_doubt(dims):
    assert share(fitted(dims), population(np.random.default_rng(99), 100, dims)) <= 0.02


QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p, s, c, r: (p @ QUARTER.T, s, c),
        lambda p, s, c, r: (-p, s, c),
        lambda p, s, c, r: (p * [-1, 1], s, c),
        lambda p, s, c, r: (r.uniform(0, 100, p.shape), s, c),
        lambda p, s, c, r: (p[:, r.permutation(10)], s, c),
        lambda p, s, c, r: (2.5 * p, s, c),
        lambda p, s, c, r: (p + r.normal(0, 4, p.shape), s, c),
        lambda p, s, c, r: (p, 0.2 * s, c),
        lambda p, s, c, r: (p, s, 5 * c),
        lambda p, s, c, r: (np.where(np.arange(10)[:, None] < 6, np.nan, p), s, c),
        lambda p, s, c, r: (np.full_like(p, np.nan), s, c),
    ],
    ids=[
        "turned",
        "upside down",
        "mirrored",
        "noise",
        "exchanged",
        "other size",
        "blurred",
        "weak",
        "wide",
        "few",
        "none",
    ],
)
def test_bad_predictions_are_in_doubt(spoil):
    random = np.random.default_rng(5)
    assert share(fitted(), spoil(*population(random, 20), random)) >= 0.95


def test_reasons():
    model = fitted()
    (points,), (scores,), (covariances,) = population(np.random.default_rng(1), 1)
    assert model.examine(points, scores, covariances) == Doubt()
    moved = points + np.eye(10)[3][:, None] * 40
    found = model.examine(moved, scores, covariances)
    assert list(found.landmarks) == [3] and "'d'" in str(found) and "away from the expected place" in found.landmarks[3]
    assert found.cells(10)[3] == (str(found), found.landmarks[3]) and found.cells(10)[0] == (str(found), "")
    weak = model.examine(points, np.where(np.arange(10) == 2, 1e-3, 1.0) * scores, covariances)
    assert weak.landmarks == {2: "its heatmap is weaker than in any validation image"}
    assert "mirror image" in str(model.examine(points * [-1, 1], scores, covariances))
    assert "only 2 of 10 landmarks were found" in str(
        model.examine(np.where(np.arange(10)[:, None] < 8, np.nan, points), scores, covariances)
    )


def test_all_landmarks_at_one_place_or_none():
    """Constant heatmaps have their maxima at their first voxel."""
    assert "all landmarks are at one place" in str(fitted().examine(np.full((10, 2), 5.0), None, None))
    assert "only 0 of 10" in str(fitted(validation=3).examine(np.full((10, 2), np.nan), None, None))


def test_many_small_deviations_are_another_shape():
    """Each landmark is within its own limit, as in a spine that is upside down."""
    random, model = np.random.default_rng(6), fitted()
    points, scores, covariances = population(random, 20)
    for one in points + random.choice([-2.5, 2.5], points.shape):
        found = model.examine(one, scores[0], covariances[0])
        assert found and not found.landmarks, found
        assert "together form another shape" in str(found)
    assert not any(model.examine(one, scores[0], covariances[0]) for one in points)


def test_without_scores_or_enough_images(tmp_path):
    model = fitted(validation=3)
    model.save(tmp_path / "model_shape.json")
    assert model.form_limit == DoubtModel.load(tmp_path / "model_shape.json").form_limit == np.inf
    assert model.heatmaps is None and model.shape is not None
    points = population(np.random.default_rng(1), 1)[0][0]
    assert not model.examine(points, None, None) and model.examine(-points, None, None)
    empty = DoubtModel.fit(NAMES, np.zeros((0, 10, 2)), *population(np.random.default_rng(0), 0))
    assert not empty.examine(-points, None, None)


def test_file(tmp_path):
    path = doubt_path(tmp_path / "model.pt")
    model = fitted()
    model.save(path)
    again = DoubtModel.load(path)
    for case in zip(*population(np.random.default_rng(3), 20)):
        for scale in (1, -1):
            assert again.examine(scale * case[0], *case[1:]) == model.examine(scale * case[0], *case[1:])
    assert again.form_limit == model.form_limit < np.inf
    content = json.loads(path.read_text())
    for change in (
        {"kind": "?"},
        {"names": ["a"]},
        {"heatmaps": {}},
        {"shape": {"mean": 1}},
        {"place_limit": None},
        {"form_limit": "?"},
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match="model_shape.json"):
            DoubtModel.load(path)
