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
"""Success detection rate and outliers: landmarks within and outside a radius of the true position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from .functional import outlier_count, success_detection_rate
from .landmark_metric import LandmarkMetric, Space

__all__ = ["OutlierMetric", "SuccessDetectionRateMetric"]

_Mean = Literal["mean", "mean_batch", "mean_channel"]
_Sum = Literal["sum", "sum_batch", "sum_channel"]


class SuccessDetectionRateMetric(LandmarkMetric):
    """Success detection rate (SDR): the fraction of landmarks, in [0, 1], with an error of at most a threshold.

    A landmark is found if ``error <= threshold``, or with ``strict`` if ``error < threshold``. A missed landmark is not
    found. A landmark without ground truth is not counted.

    Args:
        thresholds: one radius, for a single rate that a handler can log, or several radii, for one rate each.
        strict: whether an error equal to the threshold is too large.
        reduction: ``"mean"``: over all landmarks of all images. ``"mean_batch"``: one rate per landmark.
            ``"mean_channel"``: one rate per image.
        spacing: as in :class:`LandmarkMetric`.
        space: as in :class:`LandmarkMetric`.

    Example:
        >>> metric = SuccessDetectionRateMetric(thresholds=(2.0, 4.0))
        >>> _ = metric(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), torch.zeros(1, 2, 2))
        >>> metric.aggregate()
        tensor([0.5000, 1.0000])
    """

    def __init__(
        self,
        thresholds: float | Sequence[float] = (2.0, 2.5, 3.0, 4.0),
        strict: bool = False,
        reduction: _Mean = "mean",
        spacing: float | Sequence[float] | None = None,
        space: Space = "world",
    ) -> None:
        super().__init__(spacing, space)
        self.thresholds = thresholds
        self.strict = strict
        self.reduction = reduction

    def aggregate(self, reduction: _Mean | None = None) -> torch.Tensor:
        """Return the rates over all iterations and ranks, with the thresholds along the first axis.

        Args:
            reduction: as in the constructor. None: that of the constructor.

        Raises:
            ValueError: if the metric has not been called since the last reset, or for an unknown reduction.
        """
        axes = {"mean": None, "mean_batch": 0, "mean_channel": 1}
        return success_detection_rate(
            self.errors(), self.thresholds, self.strict, _look_up(reduction or self.reduction, axes)
        )


class OutlierMetric(LandmarkMetric):
    """Number of outliers (#O_r): landmarks with an error above a threshold, including missed landmarks.

    An outlier has ``error > threshold``, or with ``strict`` ``error >= threshold``, as Payer et al. count (Med. Image
    Anal. 2019). Outliers are the landmarks that :class:`SuccessDetectionRateMetric` does not count as found.

    Args:
        thresholds: one radius or several.
        strict: whether an error equal to the threshold is an outlier.
        reduction: ``"sum"``: over all landmarks of all images. ``"sum_batch"``: one count per landmark.
            ``"sum_channel"``: one count per image.
        spacing: as in :class:`LandmarkMetric`.
        space: as in :class:`LandmarkMetric`.
    """

    def __init__(
        self,
        thresholds: float | Sequence[float] = (2.0, 4.0, 10.0),
        strict: bool = False,
        reduction: _Sum = "sum",
        spacing: float | Sequence[float] | None = None,
        space: Space = "world",
    ) -> None:
        super().__init__(spacing, space)
        self.thresholds = thresholds
        self.strict = strict
        self.reduction = reduction

    def aggregate(self, reduction: _Sum | None = None) -> torch.Tensor:
        """Return the counts over all iterations and ranks, with the thresholds along the first axis.

        Args:
            reduction: as in the constructor. None: that of the constructor.

        Raises:
            ValueError: if the metric has not been called since the last reset, or for an unknown reduction.
        """
        axes = {"sum": None, "sum_batch": 0, "sum_channel": 1}
        return outlier_count(self.errors(), self.thresholds, self.strict, _look_up(reduction or self.reduction, axes))


def _look_up(reduction: str, axes: dict[str, int | None]) -> int | None:
    if reduction not in axes:
        raise ValueError(f"reduction must be one of {', '.join(axes)}, got {reduction!r}.")
    return axes[reduction]
