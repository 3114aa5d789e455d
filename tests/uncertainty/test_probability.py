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

"""Probabilities that landmarks are within a distance of their true places hold on images that were not used."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_landmarks.uncertainty import CovarianceCalibration, ProbabilityModel, gaussian_coverage

NAMES = tuple("abcdef")


def phantom(random, images, dims):
    """Errors that grow as scores fall and covariances grow, with gross errors, and covariances that are wrong by a factor."""
    own = np.array([0.4, 0.6, 0.8, 1.0, 1.3, 1.6])
    hard = random.normal(size=(images, 6))
    std = own * np.exp(0.4 * hard)
    offsets = std[..., None] * random.normal(size=(images, 6, dims))
    gross = random.random((images, 6)) < 0.5 / (1 + np.exp(-3 * hard))
    offsets[gross] += random.uniform(-9, 9, (int(gross.sum()), dims))
    scores = np.exp(-0.8 * hard + 0.2 * random.normal(size=hard.shape)) * np.linspace(1, 50, 6)
    variances = 5 * std**2 * np.exp(1.0 * random.normal(size=hard.shape))
    return offsets, scores, variances[..., None, None] * np.eye(dims)


@pytest.mark.parametrize("dims, images, radius", [(2, 40, 2.0), (3, 40, 2.0), (2, 200, 1.0)])
def test_probabilities_hold_on_new_images(dims, images, radius):
    random = np.random.default_rng(dims)
    offsets, scores, covariances = phantom(random, images, dims)
    calibration = CovarianceCalibration.fit(NAMES, offsets, covariances)
    errors = np.linalg.norm(offsets, axis=-1)
    model = ProbabilityModel.fit(NAMES, errors, scores, calibration.apply(covariances), radius)
    offsets, scores, covariances = phantom(random, 3000, dims)
    found = model.probabilities(scores, calibration.apply(covariances))
    inside = np.linalg.norm(offsets, axis=-1) <= radius
    assert found.radius == radius and found.values.shape == inside.shape
    order = np.argsort(found.values.ravel())
    for part in np.array_split(order, 4):
        stated, observed = found.values.ravel()[part].mean(), inside.ravel()[part].mean()
        # the sampling error is that of the quarter of the images that were learned from
        sampling = np.sqrt(observed * (1 - observed) / (images * 6 / 4)) + 0.01
        assert abs(stated - observed) < 3 * sampling, (stated, observed)
    brier = [((guess - inside) ** 2).mean() for guess in (found.values, inside.mean())]
    assert brier[0] < 0.9 * brier[1]


def test_of_right_covariances_it_is_their_own_probability():
    random = np.random.default_rng(0)
    std = random.uniform(0.5, 3, (4000, 6))
    offsets = std[..., None] * random.normal(size=(4000, 6, 2))
    covariances = std[..., None, None] ** 2 * np.eye(2)
    scores = np.exp(random.normal(size=std.shape))
    model = ProbabilityModel.fit(NAMES, np.linalg.norm(offsets, axis=-1), scores, covariances, 2.0)
    np.testing.assert_allclose(model.weights, [0, 1, 0], atol=0.05)
    expected = 1 - np.exp(-(2.0**2) / (2 * std**2))
    np.testing.assert_allclose(model.probabilities(scores, covariances).values, expected, atol=0.02)


def test_gaussian_coverage_of_samples():
    for dims in (2, 3):
        lengths = np.linalg.norm(np.random.default_rng(0).normal(size=(100_000, dims)), axis=-1)
        for distance in (0.5, 1.0, 2.5):
            assert gaussian_coverage(distance, dims) == pytest.approx((lengths <= distance).mean(), abs=0.005)


def test_all_errors_on_one_side():
    offsets, scores, covariances = phantom(np.random.default_rng(0), 20, 2)
    for radius, low, high in ((1000.0, 0.99, 1.0), (1e-6, 0.0, 0.02)):
        model = ProbabilityModel.fit(NAMES, np.linalg.norm(offsets, axis=-1), scores, covariances, radius)
        values = model.probabilities(scores, covariances).values
        assert low < values.mean() < high and (0 < values).all() and (values < 1).all()


def test_missing_unknown_and_few(tmp_path):
    offsets, scores, covariances = phantom(np.random.default_rng(0), 30, 2)
    errors = np.linalg.norm(offsets, axis=-1)
    errors[5:, 5], scores[3, 0] = np.nan, np.nan  # the last landmark is annotated in five images
    calibration = CovarianceCalibration.fit(NAMES, offsets, covariances)
    model = ProbabilityModel.fit(NAMES, errors, scores, covariances, 2.0)
    covariances[0, 1] = np.nan  # not found
    values = model.probabilities(scores[0], covariances[0]).values
    assert np.isnan(values[1]) and np.isfinite(np.delete(values, 1)).all()
    assert np.isfinite(model.probabilities(np.full(6, np.nan), covariances[1]).values).all()
    with pytest.raises(ValueError, match="7 images have a landmark with error and covariance; 8 are required"):
        ProbabilityModel.fit(NAMES, errors[:7], scores[:7], covariances[:7], 2.0)

    path = tmp_path / "model_calibration.json"
    whole = CovarianceCalibration(
        *(getattr(calibration, key) for key in ("names", "factors", "cases", "pooled")), model
    )
    whole.save(path)
    loaded = CovarianceCalibration.load(path).probability
    assert loaded is not None and loaded.weights == model.weights and loaded.radius == 2.0
    np.testing.assert_array_equal(loaded.scores, model.scores)
    content = json.loads(path.read_text())
    for change in ({"weights": [1, 2]}, {"radius_mm": "2"}, {"scores": {"a": [1]}}, {"scores": []}, {"radius_mm": -1}):
        path.write_text(json.dumps({**content, "probability": {**content["probability"], **change}}))
        with pytest.raises(ValueError, match=r"model_calibration.json: .*(malformed|other landmarks|radius)"):
            CovarianceCalibration.load(path)
