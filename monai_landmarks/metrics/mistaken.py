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
"""Landmarks that were mistaken for another one, such as a vertebra for its neighbor."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.spaces import points_of_batch, world_points

from .identification import identification

__all__ = ["MistakenLandmarksMetric"]


class MistakenLandmarksMetric(CumulativeIterationMetric):
    """Number of predicted landmarks that are closer to the true position of another landmark than to their own.

    A mean error cannot separate many small errors from a few vertebrae that are mistaken for their neighbors. Call the
    metric with predicted and true points, each (B, N, D) or (B, 1, N, D), or a list of (N, D) or (1, N, D). Points with
    an affine are converted to the world. A landmark without ground truth or prediction is not counted.

    Example:
        >>> truth = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]]])
        >>> metric = MistakenLandmarksMetric()
        >>> _ = metric(torch.tensor([[[1.0, 0.0], [19.0, 0.0], [float("nan")] * 2]]), truth)
        >>> metric.aggregate()
        tensor(1.)
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("MistakenLandmarksMetric requires the true points y.")
        pred, target = (world_points(points_of_batch(points)) for points in (y_pred, y))
        mistaken = 1 - identification(pred, target, limit=None)
        return mistaken.masked_fill(~torch.isfinite(pred).all(dim=-1), torch.nan)

    def aggregate(self) -> torch.Tensor:
        """Return the number of mistaken landmarks in all images of all ranks.

        Raises:
            ValueError: if the metric has not been called since the last reset.
        """
        mistaken = self.get_buffer()
        if mistaken is None:
            raise ValueError(
                "MistakenLandmarksMetric was not called on any points yet, so there is nothing to aggregate."
            )
        return mistaken.nansum()
