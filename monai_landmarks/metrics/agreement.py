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
"""Agreement of annotators in one quantity: intraclass correlation and limits of agreement.

The functions need numpy only. The package that is well kept and computes the intraclass correlation, pingouin, requires
five large packages for the two-way analysis of variance below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import bootstrap_interval_of_sums

__all__ = ["IntraclassCorrelation", "LimitsOfAgreement", "intraclass_correlations", "limits_of_agreement"]

_NORMAL = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class IntraclassCorrelation:
    """Intraclass correlation of one quantity, see :func:`intraclass_correlations`.

    Args:
        images: number of images with a value from every annotator. Only these are used.
        single: ICC(A,1), absolute agreement of single annotators.
        low: lower end of the interval of ``single``.
        high: upper end of the interval of ``single``.
        consistency: ICC(C,1), agreement apart from a constant difference between annotators.
        average: ICC(A,k), absolute agreement of the mean of the k annotators.
        standard_error: standard error of measurement: standard deviation of the values of different annotators for
            the same image, in the unit of the quantity.
    """

    images: int
    single: float
    low: float
    high: float
    consistency: float
    average: float
    standard_error: float


@dataclass(frozen=True)
class LimitsOfAgreement:
    """Bland-Altman limits of agreement of one quantity, see :func:`limits_of_agreement`.

    Args:
        images: number of images with both values.
        bias: mean difference.
        low: lower end of the interval of the bias.
        high: upper end of the interval of the bias.
        std: standard deviation of the differences, divided by n - 1.
        lower_limit: ``bias - 1.96 std``.
        upper_limit: ``bias + 1.96 std``.
    """

    images: int
    bias: float
    low: float
    high: float
    std: float
    lower_limit: float
    upper_limit: float


def intraclass_correlations(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[IntraclassCorrelation]:
    r"""Return the intraclass correlations of quantities that K annotators determined in B images.

    The model is the two-way random model: images and annotators are random samples. With the mean squares of images
    :math:`R`, of annotators :math:`C` and of the residual :math:`E` for n images and k annotators,

    .. math::
        ICC(A,1) = \frac{R - E}{R + (k - 1) E + k (C - E) / n}, \quad ICC(C,1) = \frac{R - E}{R + (k - 1) E}, \quad
        ICC(A,k) = \frac{R - E}{R + (C - E) / n}.

    ICC(A,1) is ICC(2,1) of Shrout and Fleiss, ICC(C,1) their ICC(3,1), and ICC(A,k) their ICC(2,k). The squared
    standard error of measurement is :math:`E + \max(0, (C - E) / n)`. A correlation depends on the spread between the
    images: the same differences give a lower value if the images are similar. The standard error does not.

    Args:
        values: (B, K, Q), Q quantities. An image without a value from every annotator is left out of this quantity.
        confidence: confidence level of the interval of ICC(A,1), which is a bootstrap interval over images, see
            :func:`bootstrap_interval`. The annotators are not resampled, and for fewer than about 20 images the
            interval is too narrow.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap.

    Returns:
        One result per quantity. NaN for fewer than two images, and an interval of NaN for two.

    Raises:
        ValueError: if ``values`` does not have three dimensions, or has fewer than two annotators.

    References:
        Shrout and Fleiss, *Intraclass correlations: uses in assessing rater reliability*, Psychol. Bull. 86 (1979)
        420-428. McGraw and Wong, *Forming inferences about some intraclass correlation coefficients*, Psychol. Methods
        1 (1996) 30-46.

    Example:
        >>> values = np.array([[[9.0], [2.0]], [[6.0], [1.0]], [[8.0], [4.0]], [[7.0], [1.0]]])
        >>> result = intraclass_correlations(values, resamples=100)[0]
        >>> round(result.single, 3), round(result.consistency, 3)
        (0.06, 0.545)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 3 or values.shape[1] < 2:
        raise ValueError(
            f"values must have shape (images, annotators, quantities) with two or more annotators, got {values.shape}."
        )
    complete = np.isfinite(values).all(axis=1, keepdims=True)
    # centered, because positions are large and their differences small
    center = np.where(complete, values, 0).mean(axis=1).sum(axis=0) / complete.sum(axis=(0, 1)).clip(1)
    values = np.where(complete, values - center, 0)
    # all mean squares follow from these sums over images, (B, K + 3, Q)
    parts = np.concatenate(
        [complete, values, (values**2).sum(axis=1, keepdims=True), values.mean(axis=1, keepdims=True) ** 2], axis=1
    )
    shape = parts.shape[1:]
    found = _correlations(parts.sum(axis=0)[None])[0]
    low, high = bootstrap_interval_of_sums(
        parts.reshape(len(parts), -1),
        lambda sums: _correlations(sums.reshape(-1, *shape))[..., 0],
        confidence,
        resamples,
        seed,
    )
    return [
        IntraclassCorrelation(int(n), float(row[0]), float(a), float(b), *map(float, row[1:]))
        for n, row, a, b in zip(complete.sum(axis=(0, 1)), found, low, high)
    ]


def limits_of_agreement(
    differences: np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> list[LimitsOfAgreement]:
    """Return bias and 95 % limits of agreement of quantities that were determined twice in B images.

    Args:
        differences: (B, Q), first minus second value of Q quantities; NaN is not counted.
        confidence: confidence level of the interval of the bias, see :func:`bootstrap_interval`.
        resamples: number of bootstrap samples of images.
        seed: seed of the bootstrap.

    Returns:
        One result per quantity. NaN where there are too few images.

    References:
        Bland and Altman, *Statistical methods for assessing agreement between two methods of clinical measurement*,
        Lancet 327 (1986) 307-310.

    Example:
        >>> result = limits_of_agreement(np.array([[1.0], [2.0], [3.0]]), resamples=100)[0]
        >>> result.bias, result.std, round(result.upper_limit, 2)
        (2.0, 1.0, 3.96)
    """
    differences = np.asarray(differences, dtype=np.float64)
    known = np.isfinite(differences)
    parts = np.stack([known, np.where(known, differences, 0)], axis=1)
    low, high = bootstrap_interval_of_sums(
        parts.reshape(len(parts), -1), lambda sums: _means(sums.reshape(len(sums), 2, -1)), confidence, resamples, seed
    )
    counts, biases = known.sum(axis=0), _means(parts.sum(axis=0)[None])[0]
    squares = np.where(known, (differences - biases) ** 2, 0).sum(axis=0)
    stds = np.sqrt(np.where(counts > 1, squares, np.nan) / np.maximum(counts - 1, 1))
    rows: Sequence[tuple[float, ...]] = list(
        zip(biases, low, high, stds, biases - _NORMAL * stds, biases + _NORMAL * stds)
    )
    return [LimitsOfAgreement(int(n), *map(float, row)) for n, row in zip(counts, rows)]


def _means(sums: np.ndarray) -> np.ndarray:
    """Return means (R, Q) from counts and sums (R, 2, Q)."""
    count, total = sums[:, 0], sums[:, 1]
    return np.where(count > 0, total, np.nan) / np.maximum(count, 1)


def _correlations(sums: np.ndarray) -> np.ndarray:
    """Return ICC(A,1), ICC(C,1), ICC(A,k) and the standard error, (R, Q, 4).

    Args:
        sums: (R, K + 3, Q), sums over images of 1, of the value of each annotator, of the squares of all values, and of
            the squared mean of the values.
    """
    k = sums.shape[1] - 3
    enough, n = sums[:, 0] > 1, np.maximum(sums[:, 0], 2)
    constant = sums[:, 1:-2].sum(axis=1) ** 2 / (n * k)
    of_annotators = (sums[:, 1:-2] ** 2).sum(axis=1) / n - constant
    of_images = k * sums[:, -1] - constant
    residual = np.maximum(sums[:, -2] - constant - of_images - of_annotators, 0)
    rows, error = of_images / (n - 1), residual / ((n - 1) * (k - 1))
    between = (of_annotators / (k - 1) - error) / n
    with np.errstate(divide="ignore", invalid="ignore"):  # images without any difference have no correlation
        ratios = [
            (rows - error) / total
            for total in (rows + (k - 1) * error + k * between, rows + (k - 1) * error, rows + between)
        ]
    ratios = [np.where(enough & np.isfinite(ratio), ratio, np.nan) for ratio in ratios]
    spread = np.where(enough, np.sqrt(error + np.maximum(between, 0)), np.nan)
    return np.stack([*ratios, spread], axis=-1)
