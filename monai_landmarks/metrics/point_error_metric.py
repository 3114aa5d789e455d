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
"""Point error metrics, such as the mean radial error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from .functional import image_specific_error, known_max, known_mean, known_median, known_std
from .landmark_metric import LandmarkMetric, Space

__all__ = ["ImageSpecificErrorMetric", "PointErrorMetric"]

_Reduction = Literal["mean", "std", "median", "max", "mean_batch", "mean_channel", "none"]

_OVERALL: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": known_mean,
    "std": known_std,
    "median": known_median,
    "max": known_max,
}


class PointErrorMetric(LandmarkMetric):
    """Point error (PE): distance between predicted and true landmarks, in mm for world points.

    The default ``"mean"`` is the mean radial error (MRE): every landmark of every image has the same weight, as in the
    literature. MONAI's own ``"mean"`` averages over channels first, which is different if landmarks are missing.

    Args:
        reduction: over all landmarks of all images: ``"mean"``, ``"std"`` (divided by n), ``"median"`` or ``"max"``.
            With MONAI's names: ``"mean_batch"``: one mean per landmark (N,); ``"mean_channel"``: one mean per image
            (B,); ``"none"``: all errors (B, N).
        missing_prediction: error of a missed landmark. ``"ignore"``: it is not counted, as in most papers. ``"inf"``:
            infinite. A number: this error. Use a number, such as half the size of an image, to select a model that may
            leave landmarks out; otherwise a model that predicts only the easiest landmarks has the lowest error.
        spacing: as in :class:`LandmarkMetric`.
        space: as in :class:`LandmarkMetric`.

    Raises:
        ValueError: for an unknown ``missing_prediction``.

    Example:
        >>> metric = PointErrorMetric()
        >>> _ = metric(torch.tensor([[[3.0, 4.0], [0.0, 1.0]]]), torch.zeros(1, 2, 2))
        >>> metric.aggregate()
        tensor(3.)
    """

    def __init__(
        self,
        reduction: _Reduction = "mean",
        missing_prediction: Literal["ignore", "inf"] | float = "ignore",
        spacing: float | Sequence[float] | None = None,
        space: Space = "world",
    ) -> None:
        super().__init__(spacing, space)
        if isinstance(missing_prediction, str) and missing_prediction not in ("ignore", "inf"):
            raise ValueError(f'missing_prediction must be "ignore", "inf" or a number, got {missing_prediction!r}.')
        self.reduction = reduction
        self.missed_as = float("nan") if missing_prediction == "ignore" else float(missing_prediction)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        error = super()._compute_tensor(y_pred, y, **kwargs)
        return error.masked_fill(torch.isinf(error), self.missed_as)

    def aggregate(self, reduction: _Reduction | None = None) -> torch.Tensor:
        """Reduce the errors of all iterations and ranks.

        Args:
            reduction: as in the constructor. None: that of the constructor.

        Raises:
            ValueError: if the metric has not been called since the last reset, or for an unknown reduction.
        """
        reduction, errors = reduction or self.reduction, self.errors()
        if reduction in _OVERALL:
            return _OVERALL[reduction](errors)
        if reduction == "mean_batch":
            return torch.nanmean(errors, dim=0)
        if reduction == "mean_channel":
            return torch.nanmean(errors, dim=1)
        if reduction == "none":
            return errors
        raise ValueError(
            f"reduction must be one of {', '.join(_OVERALL)}, mean_batch, mean_channel, none, got {reduction!r}."
        )


class ImageSpecificErrorMetric(PointErrorMetric):
    """Image-specific point error (IPE): the mean error of each image, and a statistic over the images.

    Args:
        reduction: over the images: ``"mean"``, ``"std"``, ``"median"``, ``"max"``, or ``"none"`` for one value per
            image (B,).
        missing_prediction: as in :class:`PointErrorMetric`.
        spacing: as in :class:`LandmarkMetric`.
        space: as in :class:`LandmarkMetric`.
    """

    def aggregate(self, reduction: _Reduction | None = None) -> torch.Tensor:
        """Reduce the mean errors of the images, see :meth:`PointErrorMetric.aggregate`."""
        reduction, errors = reduction or self.reduction, image_specific_error(self.errors())
        if reduction == "none":
            return errors
        if reduction not in _OVERALL:
            raise ValueError(f"reduction must be one of {', '.join(_OVERALL)}, none, got {reduction!r}.")
        return _OVERALL[reduction](errors)
