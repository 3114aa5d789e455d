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

"""Targets made from points, on the device, at the moment the loss needs them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn

from monai_landmarks.heatmaps import expand_sigma, gaussian_factors, outer_product
from monai_landmarks.spaces import plain_tensor, points_of_batch

__all__ = ["GaussianTarget", "TargetSigma", "as_batch_points"]


def as_batch_points(target: torch.Tensor, heatmaps: torch.Tensor) -> torch.Tensor:
    """
    Bring a batch of index points to (B, N, D).

    Args:
        target: (B, N, D), or (B, 1, N, D) as a MONAI data loader collates points.
        heatmaps: the predicted heatmaps (B, N, *spatial) that the points belong to.

    Returns:
        Points (B, N, D) as a plain tensor on the device of the heatmaps.

    Raises:
        ValueError: when batch, number of landmarks or dimensions do not agree.
    """
    expected = (heatmaps.shape[0], heatmaps.shape[1], heatmaps.ndim - 2)
    collated = (expected[0], 1, *expected[1:])
    if tuple(target.shape) not in (expected, collated):
        raise ValueError(
            f"points of shape {tuple(target.shape)} do not belong to heatmaps of shape {tuple(heatmaps.shape)}: "
            f"expected {expected} or {collated}, or a target of the heatmaps' shape."
        )
    return points_of_batch(plain_tensor(target)).to(heatmaps.device)


class GaussianTarget(nn.Module):
    """
    Gaussian target heatmaps with fixed or learned sigma.

    Args:
        sigma: in voxels of the heatmap, in any form that :func:`monai_landmarks.heatmaps.expand_sigma` takes.
        normalize: ``"peak"`` or ``"mass"``, see :func:`monai_landmarks.heatmaps.gaussian_heatmaps`.
        amplitude: height (``"peak"``) or integral (``"mass"``, SCN's gamma).
        learnable: make sigma a parameter. Its gradient flows through the target.
        min_sigma: sigma is never used smaller than this, in voxels. Below it the gradient still passes, so that a
            learned sigma can grow again.

    Raises:
        ValueError: for a sigma or amplitude that is not positive.

    Example:
        >>> target = GaussianTarget(sigma=2.0, amplitude=10.0)
        >>> target(torch.tensor([[[4.0, 5.0]]]), (16, 16)).amax()
        tensor(10.)
    """

    def __init__(
        self,
        sigma: Any = 3.0,
        normalize: str = "peak",
        amplitude: float = 1.0,
        learnable: bool = False,
        min_sigma: float = 0.5,
    ) -> None:
        super().__init__()
        value = torch.as_tensor(sigma, dtype=torch.float32).clone()
        if not bool((value > 0).all()):
            raise ValueError(f"sigma must be positive, got {sigma}.")
        if amplitude <= 0:
            raise ValueError(f"amplitude must be positive, got {amplitude}.")
        self.normalize, self.amplitude, self.min_sigma = normalize, amplitude, min_sigma
        if learnable:
            self.raw_sigma = nn.Parameter(value)
        else:
            self.register_buffer("raw_sigma", value)

    @property
    def sigma(self) -> torch.Tensor:
        """Sigma as it is used, in the form in which it was given."""
        raw = self.raw_sigma
        # the value first: added to a very negative number it would be rounded away
        return raw.detach().clamp(min=self.min_sigma) + (raw - raw.detach()) if raw.requires_grad else raw

    def sigma_table(self, num_landmarks: int, spatial_dims: int) -> torch.Tensor:
        """Sigma per landmark and axis, (N, D)."""
        return expand_sigma(self.sigma, num_landmarks, spatial_dims)

    def factors(
        self, points: torch.Tensor, spatial_shape: torch.Size | tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> list[torch.Tensor]:
        """The targets as factors along each axis, D tensors (..., N, size); for losses that store no targets."""
        return gaussian_factors(points, spatial_shape, self.sigma, self.normalize, self.amplitude, dtype)

    def forward(self, points: torch.Tensor, spatial_shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        """(..., N, D) index points to (..., N, *spatial_shape) targets, float32; NaN points give zero maps."""
        return outer_product(self.factors(points, spatial_shape))


class TargetSigma:
    """
    The sigma of a loss's targets as something to save: beside the weights, for the covariance of predictions.

    Give it to a ``CheckpointSaver`` of its own, with the key metric of the one that saves the network, so that both belong to
    the same epoch. The file is tensors alone, and :func:`monai_landmarks.uncertainty.load_sigma` reads it.

    Args:
        loss: with a :class:`GaussianTarget` as ``target``, such as ``SCNLoss``, or with a ``base`` that has one, such as
            ``AdaptivePrecisionLoss``; also inside of ``DistributedDataParallel``.

    Raises:
        ValueError: for a loss without.

    Example:
        >>> loss = torch.nn.Module()
        >>> loss.target = GaussianTarget(sigma=[[2.0], [3.0]])
        >>> TargetSigma(loss).state_dict()
        {'sigma': tensor([[2.],
                [3.]])}
    """

    def __init__(self, loss: nn.Module) -> None:
        plain: Any = getattr(loss, "module", loss)
        target = getattr(getattr(plain, "base", plain), "target", None)
        if not isinstance(target, GaussianTarget):
            raise ValueError(f"{type(plain).__name__} has no GaussianTarget whose sigma could be saved.")
        self.target = target

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Sigma in voxels of the heatmaps, as it is used, in the form in which the target has it."""
        return {"sigma": self.target.sigma.detach().cpu().clone()}
