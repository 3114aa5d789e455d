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

"""Cobb angles of a spine from the corners of its vertebrae, and how far predicted ones are off."""

from __future__ import annotations

from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric

from monai_landmarks.spaces import plain_tensor, points_of_batch

from .functional import known_mean

__all__ = ["CobbAngleMetric", "angle_smape", "cobb_angles"]


def cobb_angles(points: torch.Tensor, height: float | torch.Tensor | None = None) -> torch.Tensor:
    """The three Cobb angles of a spine in a frontal radiograph, as the AASCE 2019 challenge defines them.

    A vertebra's tilt is that of the line from the middle of its left side to the middle of its right side.

    1. The first angle is the greatest between any two vertebrae, the upper end *i* and the lower end *j* of the main curve.
    2. The second one is above it, the greatest between *i* and a vertebra above, say *k*.
    3. The third one is below it, the greatest between *j* and a vertebra below. But where the main curve is in the lower
       half of the image, it is the greatest between *k* and a vertebra above *k*.

    That holds for an S-shaped spine, whose end plates have their middles on both sides of the line from the first to the
    last of them. Otherwise the second and third angle are those of *i* with the first vertebra and of *j* with the last.

    This is the rule of the routine that comes with the challenge's data, and reproduces the angles of its tables. It jumps
    where a spine changes from S-shaped to not: a shift of a fraction of a pixel may change the second and third angle much.

    Args:
        points: (..., 4 V, 2), four corners of each of V vertebrae from top to bottom: top left, top right, bottom left,
            bottom right in the image; x to the right. A `MetaTensor` is taken as it stands.
        height: rows of the image, one number or one for each spine (...); ``points`` are then pixel index, y downward. Without
            it the points' own middle takes the place of the image's, and pixels, mm and points turned by 180 degrees, such
            as world points (RAS) of a picture, give the same angles.

    Returns:
        (..., 3) degrees in [0, 180]. NaN for a spine of which a corner is missing.

    Raises:
        ValueError: when the shape is another.

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
    """Symmetric mean absolute percentage error of the angles of each image, the score of the AASCE 2019 challenge.

    For an image it is the sum of the differences of its angles divided by the sum of its angles, predicted and true ones; the
    challenge's score is its mean over the images (Wang et al., Med. Image Anal. 2021).

    Args:
        pred: (..., K) angles.
        target: true angles of the same shape.

    Returns:
        (...) in percent. NaN where an angle is.

    Example:
        >>> angle_smape(torch.tensor([30.0, 10.0, 0.0]), torch.tensor([40.0, 10.0, 10.0]))
        tensor(20.)
    """
    return 100 * (pred - target).abs().sum(-1) / (pred + target).sum(-1)


class CobbAngleMetric(CumulativeIterationMetric):
    """Error of the Cobb angles of predicted vertebra corners.

    Call it with points (B, 4 V, 2) or (B, 1, 4 V, 2), see `cobb_angles`, or with angles (B, 3), for prediction and truth
    each. An image with a missing corner, or an angle that is not known (NaN), does not count.

    Args:
        reduction: ``"mae"``: mean absolute error of all angles, in degrees; ``"mae_batch"``: of each of the three; ``"smape"``:
            mean over the images of `angle_smape`, in percent.
        height: rows of the images, see `cobb_angles`. Without it the third angle of an S-shaped spine can be another than
            that of the challenge's table.

    Example:
        >>> metric = CobbAngleMetric()
        >>> _ = metric(torch.tensor([[30.0, 10.0, 0.0]]), torch.tensor([[40.0, 10.0, float("nan")]]))
        >>> metric.aggregate(), metric.aggregate("mae_batch")
        (tensor(5.), tensor([10.,  0., nan]))
    """

    def __init__(self, reduction: str = "mae", height: float | None = None) -> None:
        super().__init__()
        self.reduction = reduction
        self.height = height

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None:
            raise ValueError("CobbAngleMetric needs the truth y: points or angles.")
        height = kwargs.get("height", self.height)
        pred, target = (_as_angles(values, height) for values in (y_pred, y))
        return torch.stack([pred, target.to(pred)], dim=1)

    def aggregate(self, reduction: str | None = None) -> torch.Tensor:
        """The error over all iterations and ranks. ``reduction`` as in the constructor, in its place."""
        angles = self.get_buffer()
        if angles is None:
            raise ValueError("CobbAngleMetric was not called on any points yet: there is nothing to aggregate.")
        reduction, (pred, target) = reduction or self.reduction, angles.unbind(1)
        if reduction == "mae":
            return known_mean((pred - target).abs())
        if reduction == "mae_batch":
            return torch.nanmean((pred - target).abs(), dim=0)
        if reduction == "smape":
            return known_mean(angle_smape(pred, target))
        raise ValueError(f"reduction must be one of mae, mae_batch, smape, got {reduction!r}.")


def _angles_between(vectors: torch.Tensor) -> torch.Tensor:
    """Angles in radians between any two of V vectors (..., V, 2): (..., V, V)."""
    dot = vectors @ vectors.mT
    x, y = vectors.unbind(-1)
    cross = x[..., :, None] * y[..., None, :] - y[..., :, None] * x[..., None, :]
    return torch.atan2(cross.abs(), dot)  # exact for small angles, where the arc cosine is not


def _take(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return values.gather(-1, at[..., None]).squeeze(-1)


def _row(matrix: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    return matrix.take_along_dim(at[..., None, None], dim=-2).squeeze(-2)


def _is_above(y: torch.Tensor, rows: torch.Tensor, height: float | torch.Tensor | None) -> torch.Tensor:
    """Whether y (...) is in the upper half of the image, or else of the corners' rows (..., V, 4)."""
    if height is not None:
        return y < (torch.as_tensor(height, device=y.device) - 1) / 2  # whole numbers are pixel centers
    rows = rows.flatten(-2)
    downward = torch.sign(rows[..., -1] - rows[..., 0])
    return downward * y < downward * (rows.amax(-1) + rows.amin(-1)) / 2


def _on_both_sides(line: torch.Tensor) -> torch.Tensor:
    """Whether points (..., M, 2) lie on both sides of the straight line from the first to the last."""
    chord, offset = line[..., :1, :] - line[..., -1:, :], line - line[..., -1:, :]
    side = offset[..., 1] * chord[..., 0] - offset[..., 0] * chord[..., 1]
    side = side[..., 1:-2]  # the challenge's routine leaves out the last but one
    return (side > 0).any(-1) & (side < 0).any(-1)


def _as_angles(values: torch.Tensor, height: float | torch.Tensor | None) -> torch.Tensor:
    if values.ndim == 2 and values.shape[-1] == 3:
        return plain_tensor(values)
    return cobb_angles(points_of_batch(values), height)
