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

"""Calibrated covariances hold what they state, on images that were not used."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from monai_landmarks.uncertainty import CovarianceCalibration, calibration_path, mahalanobis_distance

# squared radius of the ellipses of 50, 90 and 95 %
RADII = {2: (1.386294, 4.605170, 5.991465), 3: (2.365974, 6.251389, 7.814728)}
NAMES = ("a", "b", "c")


def phantom(random, images, dims, truth=(0.25, 4.0, 1.0)):
    """Offsets of three landmarks, whose stated covariances are wrong by known factors."""
    roots = random.normal(size=(images, 3, dims, dims))
    covariances = roots @ np.swapaxes(roots, -1, -2) + np.eye(dims)
    noise = np.einsum("knij,knj->kni", np.linalg.cholesky(covariances), random.normal(size=(images, 3, dims)))
    return np.sqrt(np.array(truth))[:, None] * noise, covariances


@pytest.mark.parametrize("dims", [2, 3])
def test_factors_and_coverage_on_new_images(dims):
    random = np.random.default_rng(dims)
    found = CovarianceCalibration.fit(NAMES, *phantom(random, 400, dims))
    np.testing.assert_allclose(found.factors, [0.25, 4.0, 1.0], rtol=0.2)
    assert found.pooled == (False,) * 3 and found.cases == (400,) * 3
    offsets, covariances = phantom(random, 2000, dims)
    distances = mahalanobis_distance(offsets, found.apply(covariances)) ** 2
    for radius, level in zip(RADII[dims], (0.5, 0.9, 0.95)):
        np.testing.assert_allclose((distances <= radius).mean(axis=0), level, atol=0.05)


def test_few_images_share_a_factor():
    """30 small calibrations: on average, the ellipses hold what they state."""
    held = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        found = CovarianceCalibration.fit(NAMES, *phantom(random, 12, 2, truth=(3.0, 3.0, 3.0)))
        assert found.pooled == (True,) * 3 and len(set(found.factors)) == 1
        offsets, covariances = phantom(random, 300, 2, truth=(3.0, 3.0, 3.0))
        held.append([(mahalanobis_distance(offsets, found.apply(covariances)) ** 2 <= r).mean() for r in RADII[2]])
    np.testing.assert_allclose(np.mean(held, axis=0), [0.5, 0.9, 0.95], atol=0.03)


def test_a_rare_landmark_has_the_factor_of_all():
    offsets, covariances = phantom(np.random.default_rng(0), 100, 2)
    offsets[10:, 1] = np.nan
    found = CovarianceCalibration.fit(NAMES, offsets, covariances)
    assert found.pooled == (False, True, False) and found.cases == (100, 100, 100)
    assert found.factors[1] not in (found.factors[0], found.factors[2])


def test_a_gross_error_does_not_enlarge_the_ellipses():
    offsets, covariances = phantom(np.random.default_rng(0), 100, 2)
    good = CovarianceCalibration.fit(NAMES, offsets, covariances).factors[0]
    offsets[0] = 1000.0
    assert CovarianceCalibration.fit(NAMES, offsets, covariances).factors[0] < 1.3 * good


def test_too_few_images():
    with pytest.raises(ValueError, match="3 images have a landmark with error and covariance; .* requires 4"):
        CovarianceCalibration.fit(NAMES, *phantom(np.random.default_rng(0), 3, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_apply_to_tensors_and_by_name(dtype):
    calibration = CovarianceCalibration(NAMES, (1.0, 4.0, 9.0), (40,) * 3, (False,) * 3)
    covariances = torch.eye(2, dtype=dtype).expand(5, 2, 2, 2)
    found = calibration.apply(covariances, ["c", "a"])
    assert found.dtype == dtype and found[0, :, 0, 0].tolist() == [9, 1]
    with pytest.raises(ValueError, match="other landmarks.*'x'"):
        calibration.apply(covariances, ["c", "x"])


def test_file(tmp_path):
    path = calibration_path(tmp_path / "best.pt")
    assert path.name == "best_calibration.json"
    calibration = CovarianceCalibration(NAMES, (1.0, 0.1234567890123, 9.0), (40, 12, 40), (False, True, False))
    calibration.save(path)
    assert CovarianceCalibration.load(path) == calibration
    for change in ({"kind": "?"}, {"landmarks": []}, {"landmarks": {"a": {"factor": -1, "images": 2}}}):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(ValueError, match="best_calibration.json"):
            CovarianceCalibration.load(path)
