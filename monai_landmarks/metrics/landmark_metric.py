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
"""Base of the landmark metrics: from points to errors (B, N), which are gathered from all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.spaces import has_affine, plain_tensor, points_of_batch, world_points

from .functional import point_error

__all__ = ["LandmarkMetric", "Space", "error_is_lower", "points_error_batch"]

Space = Literal["world", "index"]
"""In which space errors are measured."""


def error_is_lower(current: float, best: float) -> bool:
    """Return whether an error is lower than the best one so far, for a MONAI evaluator with an error as key metric.

    For MONAI, a greater metric is better. If the key metric is an error, use ``metric_cmp_fn=error_is_lower`` in the
    evaluator and ``key_metric_negative_sign=True`` in its ``CheckpointSaver``.

    Args:
        current: the new error.
        best: the best error so far. NaN is worse than any number.

    Returns:
        Whether ``current`` is better.

    Example:
        >>> error_is_lower(1.2, 1.3), error_is_lower(float("nan"), 1.3), error_is_lower(1.2, float("nan"))
        (True, False, True)
    """
    return current < best or (best != best and current == current)


def points_error_batch(
    y_pred: torch.Tensor, y: torch.Tensor, spacing: float | Sequence[float] | None = None, space: Space = "world"
) -> torch.Tensor:
    """Return the point errors of a batch of points in any space.

    Args:
        y_pred: predicted points, (B, N, D) or (B, 1, N, D).
        y: true points, (B, N, D) or (B, 1, N, D).
        spacing: as in :func:`point_error`; the coordinates are then used without conversion.
        space: ``"world"`` converts ``MetaTensor`` points with their affine, so that the error is in mm even if the two
            are in different spaces. ``"index"`` uses the coordinates without conversion: errors of index points are in
            pixels.

    Returns:
        Errors (B, N).

    Raises:
        ValueError: if one is a plain tensor and the other one index points with an affine, if the points are in
            different spaces and ``space="index"`` or ``spacing`` is given, or if a shape is wrong.
    """
    if space not in get_args(Space):
        raise ValueError(f'space must be "world" or "index", got {space!r}.')
    pred, target = points_of_batch(y_pred, "y_pred"), points_of_batch(y, "y")
    pred_moved, target_moved = has_affine(pred), has_affine(target)
    if isinstance(pred, MetaTensor) != isinstance(target, MetaTensor) and (pred_moved or target_moved):
        raise ValueError(
            "one of y_pred and y is a MetaTensor of index points with an affine, and the other one a plain tensor, "
            "whose space is not known. Use two MetaTensors, or two plain tensors of the same space."
        )
    if spacing is None and space == "world":
        pred, target = world_points(pred), world_points(target)
    else:
        if pred_moved != target_moved or (pred_moved and not torch.allclose(pred.affine, target.affine)):  # type: ignore
            raise ValueError(
                'space="index" and spacing= use coordinates without conversion, but by their affines y_pred and y are '
                "in two different spaces."
            )
        pred, target = plain_tensor(pred), plain_tensor(target)
    return point_error(pred, target, spacing)


class LandmarkMetric(CumulativeIterationMetric):
    """Base of the landmark metrics, which collects point errors over the iterations, and from all ranks for the result.

    Call it with predicted and true points, each a batch (B, N, D) or (B, 1, N, D), or a list of (N, D) or (1, N, D).
    The buffer contains errors (B, N): NaN without ground truth, inf for a missed landmark.

    Args:
        spacing: size of a pixel in mm, one number or one per axis, to convert index points.
        space: ``"world"`` converts ``MetaTensor`` points with their affine: errors in mm. ``"index"`` uses coordinates
            without conversion: errors of index points are in pixels. Plain tensors are never converted.
    """

    def __init__(self, spacing: float | Sequence[float] | None = None, space: Space = "world") -> None:
        super().__init__()
        self.spacing = spacing
        self.space = space

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("a landmark metric requires the true points y.")
        return points_error_batch(y_pred, y, kwargs.get("spacing", self.spacing), self.space)

    def errors(self) -> torch.Tensor:
        """Return the errors (B, N) of all iterations and ranks.

        Raises:
            ValueError: if the metric has not been called since the last reset.
        """
        errors = self.get_buffer()
        if errors is None:
            raise ValueError(
                f"{type(self).__name__} was not called on any points yet, so there is nothing to aggregate."
            )
        return errors
