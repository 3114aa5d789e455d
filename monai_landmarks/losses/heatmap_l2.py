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

"""The squared difference between predicted and target heatmaps."""

from __future__ import annotations

import torch
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from .targets import GaussianTarget, as_batch_points, plain_tensor

__all__ = ["HeatmapL2Loss", "squared_error_per_map", "target_and_weight"]

_MISSING = ("ignore", "absent")


def check_missing(missing: str) -> str:
    """Return ``missing`` if it is one of the two meanings, else raise ValueError."""
    if missing not in _MISSING:
        raise ValueError(f"missing must be 'ignore' or 'absent', got {missing!r}.")
    return missing


def target_and_weight(
    heatmaps: torch.Tensor, target: torch.Tensor, make_target: GaussianTarget, missing: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The target maps, and which maps the loss counts.

    Args:
        heatmaps: predictions (B, N, *spatial).
        target: index points (B, N, D) or (B, 1, N, D), NaN where missing; or maps of the shape of ``heatmaps``, where a
            map with a NaN is missing.
        make_target: turns points into maps.
        missing: ``"ignore"``: the position is unknown, the map counts not at all. ``"absent"``: the landmark is known
            not to be in the image, its target is flat zero.

    Returns:
        target maps (B, N, *spatial) without NaN, and weights (B, N), 0 or 1.
    """
    if target.shape == heatmaps.shape:
        unknown = target.flatten(2).isnan().any(dim=-1)
        maps = torch.nan_to_num(target) * ~unknown.view(*unknown.shape, *[1] * (target.ndim - 2))
        maps = maps.to(heatmaps.device, torch.float32)
    else:
        points = as_batch_points(target, heatmaps)
        unknown = points.isnan().any(dim=-1)
        maps = make_target(points, heatmaps.shape[2:])
    weight = torch.ones_like(unknown, dtype=torch.float32) if missing == "absent" else (~unknown).float()
    return maps, weight.to(heatmaps.device)


def squared_error_per_map(
    heatmaps: torch.Tensor, maps: torch.Tensor, voxel_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum over the voxels of each map, (B, N), in float32 at least: a sum over a million voxels is too much for half."""
    squared = ((heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()) - maps).square()
    if voxel_weight is not None:
        squared = squared * voxel_weight
    return squared.flatten(2).sum(dim=-1)


class HeatmapL2Loss(_Loss):
    r"""
    Squared error between heatmaps, :math:`\sum_x w_n(x) (h_n(x) - t_n(x))^2`.

    Args:
        target: makes the target maps when the loss is called with points. Default: sigma 3 voxels, peak 1. A peak of
            1 on a large image is easily drowned by the background; 10 to 100 trains better.
        missing: what a NaN landmark means. ``"ignore"``: its position is unknown, it adds nothing to the loss.
            ``"absent"``: it is known not to be in the image, its target is a flat zero map.
        foreground_weight: f in :math:`w_n(x) = 1 + f\, t_n(x) / a` with the target's peak a: how much more a voxel at
            the landmark counts than one in the background. At 0 all count alike, and a network may stay flat for long,
            because a flat map is almost right almost everywhere.
        reduction: ``"mean"`` over all voxels of the maps that count (weights are not divided out), ``"sum"``, or
            ``"none"``: (B, N) sums per map, zero for maps that do not count.

    Example:
        >>> loss = HeatmapL2Loss(GaussianTarget(sigma=2.0, amplitude=10.0))
        >>> points = torch.tensor([[[8.0, 9.5], [float("nan"), float("nan")]]])
        >>> prediction = GaussianTarget(sigma=2.0, amplitude=10.0)(points, (24, 24))
        >>> loss(prediction, points)
        tensor(0.)
    """

    def __init__(
        self,
        target: GaussianTarget | None = None,
        missing: str = "ignore",
        foreground_weight: float = 0.0,
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if foreground_weight < 0:
            raise ValueError(f"foreground_weight must not be negative, got {foreground_weight}.")
        self.foreground_weight = foreground_weight
        self.target = target or GaussianTarget()
        self.missing = check_missing(missing)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: predicted heatmaps (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D), or target heatmaps of the shape of ``input``.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``.
        """
        input, target = plain_tensor(input), plain_tensor(target)
        maps, weight = target_and_weight(input, target, self.target, self.missing)
        voxel_weight = None
        if self.foreground_weight > 0:
            peak = maps.flatten(2).amax(dim=-1).clamp(min=torch.finfo(maps.dtype).tiny)
            voxel_weight = 1 + self.foreground_weight * maps / peak.view(*peak.shape, *[1] * (maps.ndim - 2))
        per_map = squared_error_per_map(input, maps, voxel_weight) * weight
        if self.reduction == LossReduction.SUM.value:
            return per_map.sum()
        if self.reduction == LossReduction.MEAN.value:
            return per_map.sum() / (weight.sum() * maps[0, 0].numel()).clamp(min=1)
        return per_map
