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


"""Cross-entropy between the softmax of a heatmap and a Gaussian of mass 1."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from monai.utils import LossReduction
from torch.nn.modules.loss import _Loss

from monai_landmarks.spaces import plain_tensor

from .targets import GaussianTarget, ensure_batch_points
from .voxelwise import in_loss_precision

__all__ = ["HeatmapCrossEntropyLoss"]


class HeatmapCrossEntropyLoss(_Loss):
    r"""
    Cross-entropy between the softmax of a heatmap and a Gaussian of mass 1, as distributions over the voxels of the
    map.

    .. math::
        L_n = \sum_x t_n(x) \left(\ln t_n(x) - \ln p_n(x)\right), \quad p_n = \mathrm{softmax}_x\, h_n, \quad
        \sum_x t_n(x) = 1

    The entropy of the target is subtracted, so the value is the Kullback-Leibler divergence. The gradient is that of
    the cross-entropy. The loss is 0 for a perfect prediction at every sigma, so neither wide nor narrow targets have an
    advantage. The target is separable and is never stored as a map.

    A network that is trained with this loss returns logits. Decode them with ``HeatmapToLandmarks(softmax=True)``.

    Args:
        target: its sigma is used; ``normalize`` and ``amplitude`` have no effect. Default: sigma 3 voxels.
        reduction: ``"mean"`` over the maps that count, ``"sum"``, or ``"none"``: (B, N) terms, zero for maps that do
            not count. Landmarks that are missing (NaN) or outside the map do not count, because no distribution over
            the map describes their position.

    Example:
        >>> loss = HeatmapCrossEntropyLoss(GaussianTarget(sigma=2.0))
        >>> points = torch.tensor([[[8.0, 9.5], [float("nan"), float("nan")]]])
        >>> logits = GaussianTarget(sigma=2.0)(points, (24, 24)).log().clamp(min=-80.0)
        >>> bool(loss(logits, points) < 1e-5)
        True
    """

    def __init__(
        self, target: GaussianTarget | None = None, reduction: LossReduction | str = LossReduction.MEAN
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        self.target = target or GaussianTarget()

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Compute the loss.

        Args:
            input: predicted logits (B, N, *spatial).
            target: index points (B, N, D) or (B, 1, N, D). NaN is missing.

        Returns:
            A scalar, or (B, N) for ``reduction="none"``.

        Raises:
            ValueError: for points that do not match the heatmaps, and for target heatmaps.
        """
        logits, target = plain_tensor(input), plain_tensor(target)
        if target.shape == logits.shape:
            raise ValueError(
                "HeatmapCrossEntropyLoss makes its targets from points: pass index points (B, N, D), not heatmaps."
            )
        points = ensure_batch_points(target, logits)
        counts = self.counted_maps(points, logits.shape[2:])
        points = torch.where(counts[..., None], points, torch.zeros_like(points))
        # autocast, where the device has it, would compute the products in half precision
        kind = logits.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            per_map = self._divergence(in_loss_precision(logits), points) * counts
        if self.reduction == LossReduction.SUM.value:
            return per_map.sum()
        if self.reduction == LossReduction.MEAN.value:
            return per_map.sum() / counts.sum().clamp(min=1)
        return per_map

    def counted_maps(self, points: torch.Tensor, spatial_shape: Sequence[int]) -> torch.Tensor:
        """
        Find the maps that count: those whose landmark is in the map.

        Args:
            points: index points (B, N, D).
            spatial_shape: of the heatmaps.

        Returns:
            (B, N) bool.
        """
        size = torch.tensor(spatial_shape, device=points.device)
        return ((points > -0.5) & (points < size - 0.5)).all(dim=-1)

    def _divergence(self, logits: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Divergence of each map, (B, N). The sum over the map is computed axis by axis."""
        sigma = self.target.sigma_table(points.shape[1], points.shape[2]).to(logits)
        expected, entropy = logits, logits.new_zeros(points.shape[:2])
        for axis in reversed(range(points.shape[2])):
            grid = torch.arange(logits.shape[2 + axis], dtype=logits.dtype, device=logits.device)
            distance = (grid - points[..., axis, None].to(logits)) / sigma[:, axis, None]
            log_factor = (-0.5 * distance.square()).log_softmax(dim=-1)
            factor = log_factor.exp()
            entropy = entropy - (factor * log_factor).sum(dim=-1)
            rows = expected.reshape(len(points) * points.shape[1], -1, len(grid))
            expected = torch.bmm(rows, factor.reshape(-1, len(grid), 1)).reshape(expected.shape[:-1])
        return logits.flatten(2).logsumexp(dim=-1) - expected - entropy
