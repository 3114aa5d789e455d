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
"""Error of Cobb angles as a MONAI metric."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.spaces import plain_tensor, points_of_batch

from .cobb import angle_smape, cobb_angles
from .functional import known_mean

__all__ = ["CobbAngleMetric"]

_Reduction = Literal["mae", "mae_batch", "smape"]


class CobbAngleMetric(CumulativeIterationMetric):
    """Error of the Cobb angles of predicted vertebra corners.

    Call the metric with prediction and ground truth, each either points (B, 4 V, 2) or (B, 1, 4 V, 2), see
    :func:`cobb_angles`, or angles (B, 3). An image with a missing corner is not counted, and an unknown angle (NaN) is
    not counted.

    Args:
        reduction: ``"mae"``: mean absolute error of all angles, in degrees. ``"mae_batch"``: mean absolute error of
            each of the three angles. ``"smape"``: mean of :func:`angle_smape` over the images, in percent.
        height: number of rows of the images, see :func:`cobb_angles`. Without it, the third angle of an S-shaped spine
            may differ from that in the table of the challenge.

    Example:
        >>> metric = CobbAngleMetric()
        >>> _ = metric(torch.tensor([[30.0, 10.0, 0.0]]), torch.tensor([[40.0, 10.0, float("nan")]]))
        >>> metric.aggregate(), metric.aggregate("mae_batch")
        (tensor(5.), tensor([10.,  0., nan]))
    """

    def __init__(self, reduction: _Reduction = "mae", height: float | None = None) -> None:
        super().__init__()
        self.reduction = reduction
        self.height = height

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("CobbAngleMetric requires the ground truth y: points or angles.")
        height = kwargs.get("height", self.height)
        pred, target = (_as_angles(values, height) for values in (y_pred, y))
        return torch.stack([pred, target.to(pred)], dim=1)

    def aggregate(self, reduction: _Reduction | None = None) -> torch.Tensor:
        """Return the error over all iterations and ranks.

        Args:
            reduction: as in the constructor. None: that of the constructor.

        Raises:
            ValueError: if the metric has not been called since the last reset, or for an unknown reduction.
        """
        angles = self.get_buffer()
        if angles is None:
            raise ValueError("CobbAngleMetric was not called on any points yet, so there is nothing to aggregate.")
        reduction, (pred, target) = reduction or self.reduction, angles.unbind(1)
        if reduction == "mae":
            return known_mean((pred - target).abs())
        if reduction == "mae_batch":
            return torch.nanmean((pred - target).abs(), dim=0)
        if reduction == "smape":
            return known_mean(angle_smape(pred, target))
        raise ValueError(f"reduction must be one of {', '.join(get_args(_Reduction))}, got {reduction!r}.")


def _as_angles(values: torch.Tensor, height: float | torch.Tensor | None) -> torch.Tensor:
    if values.ndim == 2 and values.shape[-1] == 3:
        return plain_tensor(values)
    return cobb_angles(points_of_batch(values), height)
