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

"""Cobb angles of a spine from the corners of its vertebrae, and their errors."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.spaces import plain_tensor, points_of_batch

from .functional import known_mean

__all__ = ["CobbAngleMetric", "angle_smape", "cobb_angles"]

_Reduction = Literal["mae", "mae_batch", "smape"]


def cobb_angles(points: torch.Tensor, height: float | torch.Tensor | None = None) -> torch.Tensor:
    """Return the three Cobb angles of a spine in a frontal radiograph, as the AASCE 2019 challenge defines them.

    The tilt of a vertebra is that of the line from the middle of its left side to the middle of its right side.

    1. The first angle is the largest angle between any two vertebrae, the upper end *i* and the lower end *j* of the
       main curve.
    2. The second angle is the largest angle between *i* and a vertebra above *i*, called *k*.
    3. The third angle is the largest angle between *j* and a vertebra below *j*. If the main curve is in the lower half
       of the image, it is instead the largest angle between *k* and a vertebra above *k*.

    These rules are for an S-shaped spine: the middles of its end plates lie on both sides of the line from the first to
    the last of them. Otherwise, the second angle is that between *i* and the first vertebra, and the third angle is
    that between *j* and the last vertebra.

    This is the rule of the program that comes with the data of the challenge. It reproduces the angles in the tables.
    The rule is not continuous: if a shift by a fraction of a pixel makes a spine S-shaped, the second and third angle
    may change strongly.

    Args:
        points: (..., 4 V, 2), four corners of each of V vertebrae from top to bottom: top left, top right, bottom left,
            bottom right in the image, with x to the right. The affine of a ``MetaTensor`` is not used.
        height: number of rows of the image, one number or one per spine (...). The points must then be index points,
            with y downward. None: the middle of the points is used instead of the middle of the image. Pixels, mm, and
            points rotated by 180 degrees, such as world points (RAS) of a picture, then have the same angles.

    Returns:
        Angles (..., 3) in degrees, between 0 and 180. NaN for a spine with a missing corner.

    Raises:
        ValueError: if the shape is wrong.

    Example:
        >>> x = torch.tensor([0.0, 10.0, 0.0, 10.0]).expand(5, 4)
        >>> y = 20 * torch.arange(5.0)[:, None] + torch.tensor([0.0, 0.0, 5.0, 5.0])
        >>> y[1, 1::2] += 10  # the right side of the second vertebra hangs by 45 degrees
        >>> y[3, 1::2] -= 10
        >>> cobb_angles(torch.stack([x, y], dim=-1).reshape(20, 2)).round()
        tensor([90., 45., 45.])
    """
    points = plain_tensor(points)
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] % 4 or points.shape[-2] < 8:
        raise ValueError(
            f"points must have shape (..., 4 V, 2), four corners of each of V vertebrae, got {tuple(points.shape)}."
        )
    missing = ~torch.isfinite(points).flatten(-2).all(-1)
    corners = torch.nan_to_num(points.double(), posinf=0.0, neginf=0.0).unflatten(-2, (-1, 4))
    tilt = _angles_between(corners[..., 1::2, :].mean(-2) - corners[..., 0::2, :].mean(-2))
    count = tilt.shape[-1]
    top, bottom = corners[..., :2, :].mean(-2), corners[..., 2:, :].mean(-2)

    main, place = tilt.triu().flatten(-2).max(-1)
    upper, lower = place // count, place % count
    row = torch.arange(count, device=points.device)
    above, above_at = _row(tilt, upper).masked_fill(row > upper[..., None], -1).max(-1)
    below = _row(tilt, lower).masked_fill(row < lower[..., None], -1).amax(-1)
    above_that = _row(tilt, above_at).masked_fill(row > above_at[..., None], -1).amax(-1)

    y = bottom[..., 1]
    middle = (_take(y, upper) + _take(y, lower)) / 2
    in_upper_half = _is_above(middle, corners[..., 1], height)
    bent_twice = _on_both_sides(torch.stack([top, bottom], dim=-2).flatten(-3, -2))
    second = torch.where(bent_twice, above, _take(tilt[..., 0, :], upper))
    third = torch.where(in_upper_half, below, above_that)
    third = torch.where(bent_twice, third, _take(tilt[..., -1, :], lower))
    angles = torch.rad2deg(torch.stack([main, second, third], dim=-1)).masked_fill(missing[..., None], torch.nan)
    return angles.to(points.dtype if points.is_floating_point() else torch.get_default_dtype())


def angle_smape(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the symmetric mean absolute percentage error of the angles of each image.

    For one image, it is the sum of the absolute differences of the angles divided by the sum of all predicted and true
    angles. The score of the AASCE 2019 challenge is its mean over the images (Wang et al., Med. Image Anal. 2021).

    Args:
        pred: (..., K) predicted angles.
        target: true angles of the same shape.

    Returns:
        (...) in percent. NaN if an angle is NaN.

    Example:
        >>> angle_smape(torch.tensor([30.0, 10.0, 0.0]), torch.tensor([40.0, 10.0, 10.0]))
        tensor(20.)
    """
    return 100 * (pred - target).abs().sum(-1) / (pred + target).sum(-1)


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


def _angles_between(vectors: torch.Tensor) -> torch.Tensor:
    """Return the angles in radians between any two of V vectors (..., V, 2), as (..., V, V)."""
    dot = vectors @ vectors.mT
    x, y = vectors.unbind(-1)
    cross = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]
    return torch.atan2(cross.abs(), dot)  # unlike the arc cosine, accurate for small angles


def _take(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return values.gather(-1, at[..., None]).squeeze(-1)


def _row(matrix: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return matrix.take_along_dim(at[..., None, None], dim=-2).squeeze(-2)


def _is_above(y: torch.Tensor, rows: torch.Tensor, height: float | torch.Tensor | None) -> torch.Tensor:
    """Return whether y (...) is in the upper half of the image or, without a height, of the corners' ``rows``."""
    if height is not None:
        return y < (torch.as_tensor(height, device=y.device) - 1) / 2  # whole numbers are pixel centers
    rows = rows.flatten(-2)
    downward = torch.sign(rows[..., -1] - rows[..., 0])
    return downward * y < downward * (rows.amax(-1) + rows.amin(-1)) / 2


def _on_both_sides(line: torch.Tensor) -> torch.Tensor:
    """Return whether points (..., M, 2) lie on both sides of the straight line from the first to the last."""
    chord, offset = line[..., :1, :] - line[..., -1:, :], line - line[..., -1:, :]
    side = offset[..., 1] * chord[..., 0] - offset[..., 0] * chord[..., 1]
    side = side[..., 1:-2]  # as the program of the challenge, without the last but one
    return (side > 0).any(-1) & (side < 0).any(-1)


def _as_angles(values: torch.Tensor, height: float | torch.Tensor | None) -> torch.Tensor:
    if values.ndim == 2 and values.shape[-1] == 3:
        return plain_tensor(values)
    return cobb_angles(points_of_batch(values), height)
