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
"""Confidence intervals of errors, and the comparison of the errors of two methods.

The landmarks of one image are not independent of each other. Therefore, images and not landmarks are resampled and
paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

__all__ = [
    "PairedComparison",
    "bootstrap_interval",
    "bootstrap_interval_of_counts",
    "bootstrap_interval_of_sums",
    "compare_errors",
    "holm_correction",
    "signed_rank_test",
]

_CHUNK = 4_000_000  # values that are resampled at once
_MOST_EXACT = 1000  # differences whose signs are all combined; the time grows with the third power


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Return bias-corrected and accelerated (BCa) bootstrap confidence intervals over images.

    The acceleration is estimated by the jackknife. If the observed value lies outside all resampled values, the
    correction is undefined, and the percentile interval is returned.

    Args:
        values: (B, ...), the measured values of B images.
        statistic: function from resampled values (R, B, ...) to R numbers (R,), or to K numbers per sample (R, K); NaN
            where a sample has no value.
        confidence: two-sided confidence level of the interval.
        resamples: number of samples of B images, drawn with replacement.
        seed: seed of the random numbers. The same seed gives the same interval.

    Returns:
        Lower and upper ends, (2,) or (2, K). NaN for fewer than two images, or where leaving out one image leaves no
        value: the value of a single image says nothing about its spread.

    Raises:
        ValueError: if the confidence is not between 0 and 1, or if ``resamples`` is less than 1.

    References:
        Efron, *Better bootstrap confidence intervals*, J. Am. Stat. Assoc. 82 (1987) 171-185.

    Example:
        >>> errors = np.array([[1.0, 2.0], [2.0, 3.0], [1.5, 4.0], [0.5, 1.0]])
        >>> low, high = bootstrap_interval(errors, lambda sample: sample.mean(axis=(1, 2)))
        >>> bool(1.0 < low < errors.mean() < high < 3.5)
        True
    """
    values = np.asarray(values)
    observed = np.asarray(statistic(values[None]), dtype=np.float64)[0]
    count = len(values)
    draws = _draws(count, confidence, resamples, seed)
    if count < 2:
        return np.full((2, *observed.shape), np.nan)
    step = max(1, _CHUNK // max(1, values.size))
    others = np.arange(count - 1)
    left_out = (others + (others >= np.arange(i, min(i + step, count))[:, None]) for i in range(0, count, step))
    drawn = [statistic(values[draws[i : i + step]]) for i in range(0, resamples, step)]
    jackknife = [statistic(values[rows]) for rows in left_out]
    return _ends(observed, _joined(drawn), _joined(jackknife), confidence)


def bootstrap_interval_of_counts(
    images: int,
    statistic: Callable[[np.ndarray], np.ndarray],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Return the intervals of :func:`bootstrap_interval` for a statistic of how often each image is in a sample.

    It is much faster where the statistic need not look at all values of each sample, for example for a sum, which is a
    product of matrices, or for a median of values that are sorted once.

    Args:
        images: number of images B.
        statistic: function from numbers of times (R, B) to (R,) or (R, K).
        confidence: see :func:`bootstrap_interval`.
        resamples: see :func:`bootstrap_interval`.
        seed: see :func:`bootstrap_interval`.

    Returns:
        Lower and upper ends, (2,) or (2, K).

    Example:
        >>> values = np.array([1.0, 2.0, 4.0])
        >>> low, high = bootstrap_interval_of_counts(3, lambda counts: counts @ values / counts.sum(axis=1))
        >>> bool(1.0 <= low < 7 / 3 < high <= 4.0)
        True
    """
    observed = np.asarray(statistic(np.ones((1, images))), dtype=np.float64)[0]
    draws = _draws(images, confidence, resamples, seed)
    if images < 2:
        return np.full((2, *observed.shape), np.nan)
    step = max(1, _CHUNK // images)
    drawn = [statistic(_counts(draws[i : i + step])) for i in range(0, resamples, step)]
    every = np.arange(images)
    jackknife = [statistic((every[i : i + step, None] != every).astype(np.float64)) for i in range(0, images, step)]
    return _ends(observed, _joined(drawn), _joined(jackknife), confidence)


def bootstrap_interval_of_sums(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> np.ndarray:
    """Return the intervals of :func:`bootstrap_interval` for a statistic of sums over images, much faster.

    Means, rates and variances depend on the images only through sums, for example of values and of their squares.

    Args:
        values: (B, F), finite values of B images.
        statistic: function from sums over images (R, F) to (R,) or (R, K).
        confidence: see :func:`bootstrap_interval`.
        resamples: see :func:`bootstrap_interval`.
        seed: see :func:`bootstrap_interval`.

    Returns:
        Lower and upper ends, (2,) or (2, K).

    Example:
        >>> values = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
        >>> low, high = bootstrap_interval_of_sums(values, lambda sums: sums[:, 0] / sums[:, 1])
        >>> bool(1.0 <= low < 7 / 3 < high <= 4.0)
        True
    """
    values = np.asarray(values, dtype=np.float64)
    return bootstrap_interval_of_counts(
        len(values), lambda counts: statistic(counts @ values), confidence, resamples, seed
    )


def signed_rank_test(differences: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test, exact for up to 1000 differences.

    The null hypothesis is that paired differences are symmetric about 0. Differences of 0 are left out, as Wilcoxon
    did. Equal differences share the mean of their ranks. The probability is computed over all combinations of signs,
    also with ties. For more than 1000 differences, the probability is that of the normal distribution with a correction
    for continuity, as is usual for large numbers.

    Args:
        differences: (B,), one per case; NaN is not counted.

    Returns:
        Probability of a rank sum that is at least as extreme, if the differences are symmetric about 0.

    Example:
        >>> signed_rank_test(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))  # 2 of 32 choices of signs
        0.0625
    """
    differences = np.asarray(differences, dtype=np.float64)
    differences = differences[~np.isnan(differences) & (differences != 0)]
    size = np.abs(differences)
    # twice the mean rank is an integer: the number of smaller values + the number of values not larger + 1
    ordered = np.sort(size)
    ranks = np.searchsorted(ordered, size, "left") + np.searchsorted(ordered, size, "right") + 1
    if len(ranks) > _MOST_EXACT:
        positive = int(ranks[differences > 0].sum())
        distance = max(0.0, abs(positive - ranks.sum() / 2) - 1)
        return math.erfc(distance / math.sqrt(2 * (ranks.astype(np.float64) ** 2).sum() / 4))
    chances = np.ones(1)  # probability of each sum of the ranks with a positive sign
    for rank in ranks:
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] += chances / 2
        longer[rank:] += chances / 2
        chances = longer
    observed = int(ranks[differences > 0].sum())
    return float(min(1.0, 2 * min(chances[: observed + 1].sum(), chances[observed:].sum())))


def holm_correction(p_values: np.ndarray) -> np.ndarray:
    """Return p-values of several tests, corrected by the method of Holm.

    A test with a corrected p-value of at most 0.05 is significant, and the probability that any such finding is wrong
    is at most 0.05.

    Args:
        p_values: (K,), NaN for a test that was not made.

    Returns:
        (K,), corrected p-values, NaN where the test was not made.

    References:
        Holm, *A simple sequentially rejective multiple test procedure*, Scand. J. Stat. 6 (1979) 65-70.

    Example:
        >>> holm_correction(np.array([0.01, 0.04, 0.03])).round(3).tolist()
        [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    corrected = np.full_like(p_values, np.nan)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)))
    return corrected


@dataclass(frozen=True)
class PairedComparison:
    """Comparison of two methods on the same images, see :func:`compare_errors`.

    Args:
        images: number of images in which both methods have an error.
        first: mean over the images of the first method's mean errors.
        second: mean over the images of the second method's mean errors.
        difference: ``second - first``.
        low: lower end of the confidence interval of the difference.
        high: upper end of the confidence interval of the difference.
        first_better: number of images in which the first method has the smaller error.
        second_better: number of images in which the second method has the smaller error.
        p_value: of the signed-rank test.
    """

    images: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    first_better: int
    second_better: int
    p_value: float


def compare_errors(
    first: np.ndarray, second: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> PairedComparison:
    """Compare the errors of two methods on the same images and landmarks.

    Each image has one value per method: its mean error over the landmarks that both methods found. A missed landmark
    has no error, so report the number of missed landmarks as well. The test is :func:`signed_rank_test` on the
    differences of these means, and the interval is the :func:`bootstrap_interval` of their mean.

    Args:
        first: errors (B, N) from :func:`point_error`: NaN without ground truth, inf for a missed landmark.
        second: errors (B, N) of the same images and landmarks, in the same order.
        confidence: see :func:`bootstrap_interval`.
        resamples: see :func:`bootstrap_interval`.
        seed: see :func:`bootstrap_interval`.

    Returns:
        The comparison. Its numbers are NaN if the methods have no landmark in common.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> comparison = compare_errors(np.array([[1.0], [2.0], [4.0]]), np.array([[1.5], [3.0], [4.5]]))
        >>> round(comparison.difference, 3), comparison.first_better, comparison.p_value
        (0.667, 3, 0.25)
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"errors must have the same shape (images, landmarks), got {first.shape} and {second.shape}.")
    both = np.isfinite(first) & np.isfinite(second)
    known = both.any(axis=1)
    means = [np.where(both, errors, 0)[known].sum(axis=1) / both[known].sum(axis=1) for errors in (first, second)]
    difference = means[1] - means[0]
    if len(difference) == 0:
        return PairedComparison(0, np.nan, np.nan, np.nan, np.nan, np.nan, 0, 0, np.nan)
    low, high = bootstrap_interval(difference, lambda sample: sample.mean(axis=1), confidence, resamples, seed)
    return PairedComparison(
        images=len(difference),
        first=float(means[0].mean()),
        second=float(means[1].mean()),
        difference=float(difference.mean()),
        low=float(low),
        high=float(high),
        first_better=int((difference > 0).sum()),
        second_better=int((difference < 0).sum()),
        p_value=signed_rank_test(difference),
    )


def _draws(count: int, confidence: float, resamples: int, seed: int) -> np.ndarray:
    """Return the images of each sample, (R, B)."""
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"confidence is {confidence} and resamples is {resamples}; expected one between 0 and 1, and at least 1."
        )
    return np.random.default_rng(seed).integers(0, max(count, 1), (resamples, count))


def _ends(observed: np.ndarray, drawn: np.ndarray, jackknife: np.ndarray, confidence: float) -> np.ndarray:
    columns = zip(observed.reshape(-1), drawn.reshape(len(drawn), -1).T, jackknife.reshape(len(jackknife), -1).T)
    return np.array([_bca(*column, confidence) for column in columns]).T.reshape(2, *observed.shape)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.float64)


def _counts(draws: np.ndarray) -> np.ndarray:
    """Return how often each of B images is in each of R samples (R, B)."""
    rows, count = draws.shape
    flat = (draws + count * np.arange(rows)[:, None]).reshape(-1)
    return np.bincount(flat, minlength=rows * count).reshape(rows, count).astype(np.float64)


def _bca(observed: float, drawn: np.ndarray, jackknife: np.ndarray, confidence: float) -> tuple[float, float]:
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0 or np.isnan(observed) or np.isnan(jackknife).any():
        return np.nan, np.nan
    normal = NormalDist()
    levels = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    below = float((drawn < observed).mean() + (drawn == observed).mean() / 2)
    if 0 < below < 1:
        bias = normal.inv_cdf(below)
        deviation = jackknife.mean() - jackknife
        spread = (deviation**2).sum() ** 1.5
        acceleration = float((deviation**3).sum() / (6 * spread)) if spread > 0 else 0.0
        z = np.array([bias + normal.inv_cdf(level) for level in levels])
        levels = np.array([normal.cdf(value) for value in bias + z / (1 - acceleration * z)])
    low, high = np.quantile(drawn, levels)
    return float(low), float(high)
