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

"""Intraclass correlation and limits of agreement, against printed values and a second implementation."""

from __future__ import annotations

import numpy as np
import pytest

from monai_landmarks.metrics import (
    bootstrap_interval,
    bootstrap_interval_of_sums,
    intraclass_correlations,
    limits_of_agreement,
)

# Shrout and Fleiss 1979, tables 2 and 4: six targets, four judges
RATINGS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float)


def least_squares_icc(values):
    """ICC(A,1), ICC(C,1) and ICC(A,k) from residuals of linear models with dummy variables."""
    n, k = values.shape
    rows, columns = (index.reshape(-1) for index in np.indices((n, k)))
    image, annotator = np.eye(n)[rows], np.eye(k)[columns]

    def residual(*parts):
        design = np.column_stack([np.ones(n * k), *parts])
        return ((values.reshape(-1) - design @ np.linalg.lstsq(design, values.reshape(-1), rcond=None)[0]) ** 2).sum()

    error = residual(image, annotator)
    r, c = (residual(annotator) - error) / (n - 1), (residual(image) - error) / (k - 1)
    e = error / ((n - 1) * (k - 1))
    return ((r - e) / (r + (k - 1) * e + k * (c - e) / n), (r - e) / (r + (k - 1) * e), (r - e) / (r + (c - e) / n))


def test_printed_table():
    [found] = intraclass_correlations(RATINGS[..., None], resamples=10)
    assert (round(found.single, 2), round(found.consistency, 2), round(found.average, 2)) == (0.29, 0.71, 0.62)
    # the same far from zero, where squares lose digits
    [moved] = intraclass_correlations(RATINGS[..., None] + 1e7, resamples=10)
    assert moved.single == pytest.approx(found.single, rel=1e-6)


@pytest.mark.parametrize("annotators", [2, 5])
def test_second_implementation_and_missing_values(annotators):
    rng = np.random.default_rng(annotators)
    values = rng.normal(0, 3, (12, 1)) + rng.normal(0, 1, annotators) + rng.normal(0, 1, (12, annotators))
    holes = values.copy()
    holes[[2, 5], [0, 1]] = np.nan
    found = intraclass_correlations(np.stack([values, holes], axis=-1), resamples=50)
    for one, complete in zip(found, (values, np.delete(values, [2, 5], axis=0))):
        assert one.images == len(complete)
        expected = least_squares_icc(complete)
        assert (one.single, one.consistency, one.average) == pytest.approx(expected, rel=1e-9)
        assert one.low < one.single < one.high


def test_standard_error_is_the_spread_between_annotators():
    rng = np.random.default_rng(0)
    bias, noise = np.array([0.0, 3.0, -3.0]), 2.0
    values = rng.normal(0, 50, (4000, 1)) + bias + rng.normal(0, noise, (4000, 3))
    [found] = intraclass_correlations(values[..., None], resamples=1)
    assert found.standard_error == pytest.approx(np.sqrt(noise**2 + bias.var(ddof=1)), rel=0.02)


def test_without_spread_or_images():
    same = np.ones((5, 2, 1))
    assert np.isnan(intraclass_correlations(same, resamples=5)[0].single)
    assert np.isnan(intraclass_correlations(RATINGS[:1, :, None], resamples=5)[0].single)
    [nothing] = intraclass_correlations(np.full((4, 2, 1), np.nan), resamples=5)
    assert nothing.images == 0 and np.isnan(nothing.single) and np.isnan(nothing.standard_error)
    two = np.full((9, 4, 1), np.nan)
    two[3:5, :, 0] = RATINGS[:2]
    [found] = intraclass_correlations(two, resamples=50)
    assert found.images == 2 and found.single == pytest.approx(least_squares_icc(RATINGS[:2])[0])
    assert np.isnan([found.low, found.high]).all()  # one image alone has no correlation
    with pytest.raises(ValueError, match="two or more annotators"):
        intraclass_correlations(RATINGS[:, :1, None])


def test_limits_of_agreement():
    differences = np.array([[1.0, np.nan], [2.0, 5.0], [6.0, np.nan]])
    first, second = limits_of_agreement(differences, resamples=200)
    assert (first.images, first.bias, first.std) == (3, 3.0, pytest.approx(np.std([1, 2, 6], ddof=1)))
    assert first.upper_limit - first.bias == pytest.approx(1.96 * first.std, rel=1e-4)
    assert first.low < first.bias < first.high
    assert (second.images, second.bias) == (1, 5.0) and np.isnan([second.std, second.low, second.high]).all()


def test_intervals_of_sums_are_those_of_the_images():
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, size=(15, 2))
    settings = (0.9, 300, 7)
    whole = bootstrap_interval(
        values, lambda sample: sample[..., 0].mean(axis=1) / sample[..., 1].mean(axis=1), *settings
    )
    sums = bootstrap_interval_of_sums(values, lambda total: total[:, 0] / total[:, 1], *settings)
    np.testing.assert_allclose(sums, whole, rtol=1e-12)
    assert np.isnan(bootstrap_interval_of_sums(values[:1], lambda total: total[:, 0])).all()
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval_of_sums(values, lambda total: total[:, 0], 1.5)
