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
from __future__ import annotations

import numpy as np
import pytest

from monai_landmarks.data import LandmarkSet
from monai_landmarks.uncertainty import covered, gaussian_level, mahalanobis_distance

NAN = float("nan")


@pytest.mark.parametrize("dims", [2, 3])
def test_distance_is_that_of_whitened_offsets(dims):
    random = np.random.RandomState(dims)
    roots, units = random.normal(size=(7, dims, dims)), random.normal(size=(7, dims))
    offsets = np.einsum("nij,nj->ni", roots, units)
    distance = mahalanobis_distance(offsets, roots @ roots.transpose(0, 2, 1))
    np.testing.assert_allclose(distance, np.linalg.norm(units, axis=1))


def test_distance_without_extent():
    flat = np.diag([4.0, 0.0])
    offsets = np.array([[3.0, 0.0], [0.0, 1.0], [NAN, NAN], [0.0, 0.0]])
    matrices = np.stack([flat, flat, flat, np.zeros((2, 2))])
    np.testing.assert_array_equal(mahalanobis_distance(offsets, matrices), [1.5, np.inf, NAN, 0.0])
    assert np.isnan(mahalanobis_distance(offsets[0], np.full((2, 2), NAN)))


@pytest.mark.parametrize("dims", [2, 3])
def test_levels_are_uniform_where_the_covariance_is_right(dims):
    """The share of Gaussian noise within the region of level c is c: drawn, not computed by the same formula."""
    random = np.random.RandomState(0)
    root = random.normal(size=(dims, dims))
    count = 4000
    offsets = random.normal(size=(count, dims)) @ root.T
    names = tuple(map(str, range(count)))
    true = LandmarkSet(names, np.zeros((count, dims)))
    found = LandmarkSet(names, offsets, covariances=np.broadcast_to(root @ root.T, (count, dims, dims)))
    levels = np.sort(gaussian_level(found, true))
    # Kolmogorov and Smirnov: the greatest distance is above 1.95 / sqrt(n) once in a thousand
    assert np.abs(levels - (np.arange(count) + 0.5) / count).max() < 1.95 / np.sqrt(count)
    over = LandmarkSet(names, offsets, covariances=found.covariances / 4)
    assert np.mean(gaussian_level(over, true) <= 0.9) < 0.75


def test_what_is_not_stated_is_not_judged():
    true = LandmarkSet(("a", "b", "c"), [[0, 0], [5, 5], [NAN, NAN]])
    found = LandmarkSet(("a", "b", "c"), [[1, 0], [NAN, NAN], [0, 0]])
    assert np.isnan(covered(found, true)).all() and np.isnan(gaussian_level(found, true)).all()
    for radius, expected in ((1.0, 1), (0.99, 0)):
        stated = LandmarkSet(found.names, found.points, regions=[np.eye(2) * radius**2] * 3, coverage=0.9)
        np.testing.assert_array_equal(covered(stated, true), [expected, NAN, NAN])
