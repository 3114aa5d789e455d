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
"""Intervals and tests, against closed forms, all choices of signs counted out, scipy, and simulation."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from monai_landmarks.metrics import (
    bootstrap_interval,
    bootstrap_interval_of_counts,
    bootstrap_interval_of_sums,
    compare_errors,
    holm_correction,
    signed_rank_test,
    statistics,
)

NAN, INF = float("nan"), float("inf")


def means(sample):
    return np.nanmean(sample.reshape(*sample.shape[:2], -1), axis=(1, 2))


def two_sided(differences):
    """The definition: every choice of signs, ranks by scipy."""
    differences = np.array([d for d in differences if d != 0])
    ranks = stats.rankdata(np.abs(differences))
    observed = ranks[differences > 0].sum()
    sums = np.array(
        [sum(r for r, positive in zip(ranks, signs) if positive) for signs in product((0, 1), repeat=len(ranks))]
    )
    return min(1.0, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_with_ties_and_zeros_counts_every_choice_of_signs(seed):
    differences = np.random.default_rng(seed).integers(-4, 6, 11)
    assert signed_rank_test(differences) == pytest.approx(two_sided(differences), abs=1e-12)
    assert signed_rank_test(-differences) == pytest.approx(two_sided(differences), abs=1e-12)
    assert signed_rank_test([NAN, *differences]) == signed_rank_test(differences)


@pytest.mark.parametrize("count", [3, 20, 60, 300])
def test_signed_rank_as_scipy(count):
    differences = np.random.default_rng(count).normal(0.2, 1, count)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank_test(differences) == pytest.approx(expected, rel=1e-9)


def test_signed_rank_closed_forms():
    assert signed_rank_test(np.arange(1, 11)) == pytest.approx(2 * 0.5**10)
    assert signed_rank_test([]) == signed_rank_test([0.0, 0.0]) == signed_rank_test([1.0]) == 1.0
    assert signed_rank_test([1.0, -1.0]) == 1.0


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_bootstrap_as_scipy(statistic):
    values = np.random.default_rng(3).lognormal(0, 1, 40)
    function = getattr(np, statistic)
    ours = bootstrap_interval(values, lambda sample: function(sample, axis=1), resamples=20000)
    theirs = stats.bootstrap((values,), function, n_resamples=20000, method="BCa", rng=np.random.default_rng(1))
    width = np.ptp(ours)
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.04 * width)
    percentiles = stats.bootstrap(
        (values,), function, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    )
    if statistic == "mean":  # the correction is what makes the difference: it moves both ends up for a long upper tail
        assert (ours > np.array(percentiles.confidence_interval) + 0.03 * width).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_bootstrap_outside_of_what_is_drawn_gives_percentiles(sign):
    """A sample with replacement has fewer different values than the data, so there is no bias to correct with."""
    values = np.arange(30.0)

    def different(sample, axis=1):
        return sign * (1.0 + (np.diff(np.sort(sample, axis=axis), axis=axis) > 0).sum(axis=axis))

    percentiles = stats.bootstrap((values,), different, n_resamples=4000, method="percentile", rng=0)
    np.testing.assert_array_equal(
        bootstrap_interval(values, different, resamples=4000), percentiles.confidence_interval
    )


def test_bootstrap_covers_the_true_mean():
    """Of many samples of 30 images, as many intervals hold the mean as theory says: a bit fewer than 95 %."""
    rng = np.random.default_rng(0)
    runs, held = 300, 0
    for run in range(runs):
        # landmarks of an image belong together: four of them are not four times as much to know
        values = rng.normal(2.0, 1.0, (30, 1)) + rng.normal(0, 0.2, (30, 4))
        low, high = bootstrap_interval(values, means, resamples=300, seed=run)
        held += low <= 2.0 <= high
    # the resampled means spread by std / sqrt(n), and not by that of the t distribution
    expected = 1 - 2 * stats.t.sf(1.96 * np.sqrt(29 / 30), 29)
    assert abs(held / runs - expected) < 3 * np.sqrt(expected * (1 - expected) / runs)


def test_images_are_drawn_and_not_landmarks():
    """Landmarks that repeat their image's error add nothing: the interval stays as wide as that of the images."""
    images = np.random.default_rng(1).normal(2, 1, (25, 1))
    one = bootstrap_interval(images, means)
    many = bootstrap_interval(np.repeat(images, 50, axis=1), means)
    np.testing.assert_allclose(one, many, atol=1e-12)


def test_bootstrap_shapes_seeds_and_edges():
    values = np.random.default_rng(2).random((12, 5))
    columns = bootstrap_interval(values, lambda sample: sample.mean(axis=1))
    assert columns.shape == (2, 5) and (columns[0] < values.mean(0)).all() and (values.mean(0) < columns[1]).all()
    single = bootstrap_interval(values[:, 1], lambda sample: sample.mean(axis=1))
    np.testing.assert_allclose(columns[:, 1], single, rtol=1e-12)
    assert (columns != bootstrap_interval(values, lambda sample: sample.mean(axis=1), seed=1)).any()
    np.testing.assert_allclose(bootstrap_interval(np.ones((5, 2)), means), [1, 1])
    assert np.isnan(bootstrap_interval(np.ones((1, 2)), means)).all()
    assert np.isnan(bootstrap_interval(np.full((4, 1), NAN), lambda sample: sample[:, 0, 0])).all()
    wider = bootstrap_interval(values[:, 0], lambda sample: sample.mean(axis=1), confidence=0.99)
    assert wider[0] < columns[0, 0] and wider[1] > columns[1, 0]
    for wrong in ({"confidence": 95}, {"confidence": 0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="expected one between 0 and 1"):
            bootstrap_interval(values, means, **wrong)


@pytest.mark.filterwarnings("ignore:.*empty slice|All-NaN:RuntimeWarning")
@pytest.mark.parametrize("statistic", [np.nanmean, np.nanmedian])
def test_a_value_of_one_image_has_no_interval(statistic):
    """Of 20 images one has the first value, two have the second and all have the third."""
    values = np.full((20, 3), NAN)
    values[4, 0], values[[4, 9], 1], values[:, 2] = 1.9, (1.0, 2.0), np.arange(20)
    low, high = bootstrap_interval(values, lambda sample: statistic(sample, axis=1))
    assert np.isnan([low[0], high[0]]).all()
    assert (low[1], high[1]) == (1.0, 2.0) and low[2] < high[2]  # more than 2.5 % of the samples have only one of two


def test_large_samples_are_drawn_in_parts(monkeypatch):
    values = np.random.default_rng(2).random((12, 5))
    whole = bootstrap_interval(values, means)
    monkeypatch.setattr("monai_landmarks.metrics.statistics._CHUNK", 7)
    np.testing.assert_array_equal(bootstrap_interval(values, means), whole)


def test_compare_errors():
    first = np.array([[1.0, 3.0], [2.0, INF], [NAN, 1.0], [NAN, NAN], [1.0, 1.0], [3.0, 5.0]])
    second = np.array([[2.0, 4.0], [1.0, 9.0], [NAN, 1.5], [NAN, NAN], [INF, INF], [5.0, 3.0]])
    result = compare_errors(first, second)
    # the fourth has no truth, of the fifth the second found nothing, and in the sixth both are equally good
    difference = np.array([1.0, -1.0, 0.5, 0.0])
    assert (result.images, result.first_better, result.second_better) == (4, 2, 1)
    assert result.first == pytest.approx((2 + 2 + 1 + 4) / 4) and result.second == pytest.approx((3 + 1 + 1.5 + 4) / 4)
    assert result.difference == pytest.approx(difference.mean())
    assert result.p_value == pytest.approx(two_sided(difference[:3]))
    np.testing.assert_array_equal([result.low, result.high], bootstrap_interval(difference, lambda s: s.mean(axis=1)))
    swapped = compare_errors(second, first)
    assert swapped.difference == pytest.approx(-result.difference) and swapped.p_value == result.p_value
    nothing = compare_errors(first[3:4], second[3:4])
    assert nothing.images == 0 and np.isnan(nothing.p_value)
    with pytest.raises(ValueError, match=r"\(6, 2\) and \(4, 2\)"):
        compare_errors(first, second[:4])


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_the_closed_test_of_bonferroni(seed):
    """The corrected p-value is the largest of Bonferroni's over all sets of hypotheses that contain this one."""
    p = np.random.default_rng(seed).uniform(0, 0.3, 5).round(2)
    sets = [one for size in range(1, 6) for one in combinations(range(5), size)]
    expected = [max(min(1, len(one) * min(p[j] for j in one)) for one in sets if i in one) for i in range(5)]
    np.testing.assert_allclose(holm_correction(p), expected)
    np.testing.assert_allclose(holm_correction(np.append(p, NAN)), [*expected, NAN])
    assert holm_correction(np.array([])).shape == (0,)


def test_many_differences_have_the_p_value_of_the_normal_distribution(monkeypatch):
    random = np.random.default_rng(0)
    for shift in (0.0, 0.05, 0.2):
        differences = random.normal(shift, 1, 400).round(1)  # with ties
        exact = signed_rank_test(differences)
        monkeypatch.setattr(statistics, "_MOST_EXACT", 100)
        assert signed_rank_test(differences) == pytest.approx(exact, rel=0.1, abs=1e-6)
        monkeypatch.undo()


def test_many_images_are_resampled_in_parts(monkeypatch):
    values = np.random.default_rng(0).normal(size=30)
    whole = bootstrap_interval(values, lambda sample: sample.mean(axis=1), resamples=60)
    monkeypatch.setattr(statistics, "_CHUNK", 100)
    for found in (
        bootstrap_interval(values, lambda sample: sample.mean(axis=1), resamples=60),
        bootstrap_interval_of_counts(30, lambda counts: counts @ values / counts.sum(axis=1), resamples=60),
        bootstrap_interval_of_sums(
            np.stack([values, np.ones(30)], axis=1), lambda sums: sums[:, 0] / sums[:, 1], resamples=60
        ),
    ):
        np.testing.assert_allclose(found, whole, rtol=1e-9)
