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
"""What the landmark metrics share: points in, errors of shape (B, N) in a buffer that is gathered from all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.spaces import has_affine, plain_tensor, points_of_batch, world_points

from .functional import point_error

__all__ = ["LandmarkMetric", "error_is_lower", "points_error_batch"]


def error_is_lower(current: float, best: float) -> bool:
    """Whether an error improved on the best one so far: the ``metric_cmp_fn`` of a MONAI evaluator whose key metric is an error.

    MONAI takes a metric to be better when it is greater; with an error as key metric give the evaluator
    ``metric_cmp_fn=error_is_lower`` and its `CheckpointSaver` ``key_metric_negative_sign=True``.

    Example:
        >>> error_is_lower(1.2, 1.3), error_is_lower(float("nan"), 1.3), error_is_lower(1.2, float("nan"))
        (True, False, True)
    """
    return current < best or (best != best and current == current)


def points_error_batch(
    y_pred: torch.Tensor, y: torch.Tensor, spacing: float | Sequence[float] | None = None, space: str = "world"
) -> torch.Tensor:
    """Point errors of a batch, wherever the points live.

    Args:
        y_pred: predicted points, (B, N, D) or (B, 1, N, D).
        y: true points, likewise.
        spacing: as in `point_error`; the coordinates are then taken as they stand.
        space: ``"world"`` sends `MetaTensor` points through their affine, so that the error is in mm whichever space
            each of the two is in; ``"index"`` takes the coordinates as they stand: pixels for index points.

    Returns:
        (B, N) errors.

    Raises:
        ValueError: when one is plain points and the other is index points with an affine, when ``space="index"`` gets
            points of two different spaces, or on a wrong shape.
    """
    if space not in ("world", "index"):
        raise ValueError(f'space must be "world" or "index", got {space!r}.')
    pred, target = points_of_batch(y_pred, "y_pred"), points_of_batch(y, "y")
    pred_moved, target_moved = has_affine(pred), has_affine(target)
    if isinstance(pred, MetaTensor) != isinstance(target, MetaTensor) and (pred_moved or target_moved):
        raise ValueError(
            "one of y_pred and y is a MetaTensor of index points with an affine, the other a plain tensor, whose space is "
            "not known: make both MetaTensors, or both plain tensors of one space."
        )
    if spacing is None and space == "world":
        pred, target = world_points(pred), world_points(target)
    else:
        if pred_moved != target_moved or (pred_moved and not torch.allclose(pred.affine, target.affine)):  # type: ignore
            raise ValueError(
                'space="index" and spacing= take coordinates as they stand, but the affines say that y_pred and y are points '
                "of two different spaces."
            )
        pred, target = plain_tensor(pred), plain_tensor(target)
    return point_error(pred, target, spacing)


class LandmarkMetric(CumulativeIterationMetric):
    """Base of the landmark metrics: collects point errors over the iterations, and over the ranks when aggregating.

    Call it with predicted and true points, each a batch (B, N, D) or (B, 1, N, D), or a list of (N, D) or (1, N, D).
    The buffer holds (B, N) errors: NaN without truth, inf where a landmark that is there was not predicted.

    Args:
        spacing: size of a pixel (one number, or one an axis): turns index points into mm.
        space: ``"world"`` (the default) sends `MetaTensor` points through their affine: errors in mm. ``"index"`` takes
            coordinates as they stand: errors in pixels for index points. Plain tensors are always taken as they stand.
    """

    def __init__(self, spacing: float | Sequence[float] | None = None, space: str = "world") -> None:
        super().__init__()
        self.spacing = spacing
        self.space = space

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("a landmark metric needs the true points y.")
        return points_error_batch(y_pred, y, kwargs.get("spacing", self.spacing), self.space)

    def errors(self) -> torch.Tensor:
        """The errors (B, N) of all iterations and ranks.

        Raises:
            ValueError: when the metric has not been called since the last reset.
        """
        errors = self.get_buffer()
        if errors is None:
            raise ValueError(f"{type(self).__name__} was not called on any points yet: there is nothing to aggregate.")
        return errors
