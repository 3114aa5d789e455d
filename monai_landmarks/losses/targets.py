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

"""Target heatmaps that are made from points on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn as nn

from monai_landmarks.heatmaps import expand_sigma, gaussian_factors, outer_product
from monai_landmarks.spaces import plain_tensor, points_of_batch

__all__ = ["GaussianTarget", "TargetSigma", "ensure_batch_points"]


def ensure_batch_points(target: torch.Tensor, heatmaps: torch.Tensor) -> torch.Tensor:
    """
    Convert a batch of index points to (B, N, D), and check that it matches the heatmaps.

    Args:
        target: (B, N, D), or (B, 1, N, D) as a MONAI data loader collates points.
        heatmaps: predicted heatmaps (B, N, *spatial) of these points.

    Returns:
        Points (B, N, D) as a plain tensor on the device of the heatmaps.

    Raises:
        ValueError: if batch size, number of landmarks or dimensions are not those of the heatmaps.
    """
    expected = (heatmaps.shape[0], heatmaps.shape[1], heatmaps.ndim - 2)
    collated = (expected[0], 1, *expected[1:])
    if tuple(target.shape) not in (expected, collated):
        raise ValueError(
            f"points of shape {tuple(target.shape)} do not match heatmaps of shape {tuple(heatmaps.shape)}: "
            f"expected {expected} or {collated}, or target heatmaps with the shape of the heatmaps."
        )
    return points_of_batch(plain_tensor(target)).to(heatmaps.device)


class GaussianTarget(nn.Module):
    """
    Gaussian target heatmaps with fixed or learned sigma.

    Args:
        sigma: standard deviation in voxels of the heatmap, in any form that
            :func:`~monai_landmarks.heatmaps.expand_sigma` accepts.
        normalize: ``"peak"`` or ``"mass"``, see :func:`~monai_landmarks.heatmaps.gaussian_heatmaps`.
        amplitude: height (``"peak"``) or integral (``"mass"``, the gamma of SCN) of the Gaussian.
        learnable: make sigma a parameter, whose gradient flows through the target.
        min_sigma: lower limit of a learned sigma, in voxels. The gradient also passes below the limit, so that sigma
            can grow again.

    Raises:
        ValueError: for a sigma or amplitude that is not positive.

    Example:
        >>> target = GaussianTarget(sigma=2.0, amplitude=10.0)
        >>> target(torch.tensor([[[4.0, 5.0]]]), (16, 16)).amax()
        tensor(10.)
    """

    def __init__(
        self,
        sigma: float | Sequence[float] | Sequence[Sequence[float]] | torch.Tensor = 3.0,
        normalize: Literal["peak", "mass"] = "peak",
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
        """Sigma, limited to ``min_sigma`` if it is learned, in the form in which it was given."""
        raw = self.raw_sigma
        # the value plus a zero that has the gradient: clamp - raw would lose digits for a very negative raw
        return raw.detach().clamp(min=self.min_sigma) + (raw - raw.detach()) if raw.requires_grad else raw

    def sigma_table(self, num_landmarks: int, spatial_dims: int) -> torch.Tensor:
        """Return sigma per landmark and axis, (N, D)."""
        return expand_sigma(self.sigma, num_landmarks, spatial_dims)

    def factors(
        self, points: torch.Tensor, spatial_shape: torch.Size | tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> list[torch.Tensor]:
        """
        Return the targets as one factor per axis, for losses that store no target maps.

        Args:
            points: (..., N, D) index points, NaN where missing.
            spatial_shape: D sizes of the heatmaps.
            dtype: floating-point type of the factors.

        Returns:
            D tensors (..., N, size of the axis).
        """
        # the sigma was checked when it was set, and min_sigma limits it while it is learned
        return gaussian_factors(
            points, spatial_shape, self.sigma, self.normalize, self.amplitude, dtype, check_sigma=False
        )

    def forward(self, points: torch.Tensor, spatial_shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        """
        Make target heatmaps.

        Args:
            points: (..., N, D) index points. A NaN point gives a zero map.
            spatial_shape: D sizes of the heatmaps.

        Returns:
            (..., N, *spatial_shape), float32.
        """
        return outer_product(self.factors(points, spatial_shape))


class TargetSigma:
    """
    The sigma of a loss's targets, in a form that a ``CheckpointSaver`` can save next to the weights of the network.

    Predicted covariances use the saved sigma. Use a second ``CheckpointSaver`` with the key metric of the one that
    saves the network, so that both files are of the same epoch. The file contains tensors only;
    :func:`monai_landmarks.uncertainty.load_sigma` reads it.

    Args:
        loss: a loss with a :class:`GaussianTarget` as ``target``, such as :class:`SCNLoss`, or with a ``base`` that has
            one, such as :class:`AdaptivePrecisionLoss`. It may be wrapped in ``DistributedDataParallel``.

    Raises:
        ValueError: if the loss has no such target.

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
            raise ValueError(f"{type(plain).__name__} has no GaussianTarget, so there is no sigma to save.")
        self.target = target

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return sigma in voxels of the heatmaps, in the form of :attr:`GaussianTarget.sigma`."""
        return {"sigma": self.target.sigma.detach().cpu().clone()}
