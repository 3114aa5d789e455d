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
"""Success detection rate and outliers: how many landmarks lie within a radius."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .functional import outlier_count, success_detection_rate
from .landmark_metric import LandmarkMetric

__all__ = ["OutlierMetric", "SuccessDetectionRateMetric"]


class SuccessDetectionRateMetric(LandmarkMetric):
    """Success detection rate (SDR): the share of landmarks, in [0, 1], whose error is at most a threshold.

    ``error <= threshold`` counts as found; with ``strict`` only ``error < threshold``. A landmark that is there but was not
    predicted is not found. A landmark without truth does not count.

    Args:
        thresholds: one radius, which gives one number (what a handler can log), or several, which give one each.
        strict: whether a landmark exactly at the threshold is lost.
        reduction: ``"mean"`` over all landmarks of all images, ``"mean_batch"``: one rate a landmark,
            ``"mean_channel"``: one an image.
        spacing: as in `LandmarkMetric`.
        space: as in `LandmarkMetric`.

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
        reduction: str = "mean",
        spacing: float | Sequence[float] | None = None,
        space: str = "world",
    ) -> None:
        super().__init__(spacing, space)
        self.thresholds = thresholds
        self.strict = strict
        self.reduction = reduction

    def aggregate(self, reduction: str | None = None) -> torch.Tensor:
        """The rates of all iterations and ranks, thresholds first. ``reduction`` as in the constructor, in its place."""
        axes = {"mean": None, "mean_batch": 0, "mean_channel": 1}
        return success_detection_rate(
            self.errors(), self.thresholds, self.strict, _look_up(reduction or self.reduction, axes)
        )


class OutlierMetric(LandmarkMetric):
    """Number of outliers (#O_r): landmarks whose error is greater than a threshold, missed ones among them.

    The complement of `SuccessDetectionRateMetric`: ``error > threshold``, or with ``strict`` ``error >= threshold``, which
    is the count of Payer et al. (Med. Image Anal. 2019).

    Args:
        thresholds: one radius or several.
        strict: whether a landmark exactly at the threshold is an outlier.
        reduction: ``"sum"`` over all landmarks of all images, ``"sum_batch"``: one count a landmark,
            ``"sum_channel"``: one an image.
        spacing: as in `LandmarkMetric`.
        space: as in `LandmarkMetric`.
    """

    def __init__(
        self,
        thresholds: float | Sequence[float] = (2.0, 4.0, 10.0),
        strict: bool = False,
        reduction: str = "sum",
        spacing: float | Sequence[float] | None = None,
        space: str = "world",
    ) -> None:
        super().__init__(spacing, space)
        self.thresholds = thresholds
        self.strict = strict
        self.reduction = reduction

    def aggregate(self, reduction: str | None = None) -> torch.Tensor:
        """The counts of all iterations and ranks, thresholds first. ``reduction`` as in the constructor, in its place."""
        axes = {"sum": None, "sum_batch": 0, "sum_channel": 1}
        return outlier_count(self.errors(), self.thresholds, self.strict, _look_up(reduction or self.reduction, axes))


def _look_up(reduction: str, axes: dict[str, int | None]) -> int | None:
    if reduction not in axes:
        raise ValueError(f"reduction must be one of {', '.join(axes)}, got {reduction!r}.")
    return axes[reduction]
