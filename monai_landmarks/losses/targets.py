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

__all__ = ["GaussianTarget", "LearnedCovarianceTarget", "TargetSigma", "ensure_batch_points"]


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
        return _at_least(self.raw_sigma, self.min_sigma) if isinstance(self.raw_sigma, nn.Parameter) else self.raw_sigma

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


class LearnedCovarianceTarget(nn.Module):
    r"""
    Gaussian target heatmaps with a learned covariance for each landmark, as in Thaler et al. 2021.

    The Gaussian of a landmark may be long in any direction, for example along an edge on which annotators place it at
    different points. Its integral is ``amplitude``. The covariance is :math:`\Sigma = F F^T`, where the parameters are
    the diagonal and the other entries of the lower triangular matrix :math:`F`. The published form, two variances and an
    angle, describes the same matrices in 2-D.

    Args:
        num_landmarks: N.
        spatial_dims: 2 or 3.
        sigma: initial standard deviation in voxels, the same along all axes, one number or N.
        amplitude: integral of a target.
        min_sigma: lower limit of the diagonal of :math:`F`, in voxels. The gradient also passes below the limit.

    Raises:
        ValueError: for a sigma or amplitude that is not positive, or a wrong number of sigmas.

    Example:
        >>> target = LearnedCovarianceTarget(num_landmarks=1, spatial_dims=2, sigma=2.0, amplitude=100.0)
        >>> target(torch.tensor([[[15.0, 16.0]]]), (32, 32)).sum().round()
        tensor(100., grad_fn=<RoundBackward0>)
        >>> target.covariance.tolist()
        [[[4.0, 0.0], [0.0, 4.0]]]
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma: float | Sequence[float] | torch.Tensor = 3.0,
        amplitude: float = 1.0,
        min_sigma: float = 0.5,
    ) -> None:
        super().__init__()
        value = torch.as_tensor(sigma, dtype=torch.float32)
        if tuple(value.shape) not in ((), (1,), (num_landmarks,)):
            raise ValueError(f"sigma has the shape {tuple(value.shape)}; expected one number or {num_landmarks}.")
        value = value.flatten().expand(num_landmarks)
        if not bool((value > 0).all()):
            raise ValueError(f"sigma must be positive, got {sigma}.")
        if amplitude <= 0:
            raise ValueError(f"amplitude must be positive, got {amplitude}.")
        self.amplitude, self.min_sigma, self.spatial_dims = amplitude, min_sigma, spatial_dims
        self.raw_diagonal = nn.Parameter(value[:, None].repeat(1, spatial_dims))
        self.lower = nn.Parameter(torch.zeros(num_landmarks, spatial_dims * (spatial_dims - 1) // 2))

    @property
    def diagonal(self) -> torch.Tensor:
        """Diagonal of F in voxels, (N, D). Its product is the square root of the determinant of the covariance."""
        return _at_least(self.raw_diagonal, self.min_sigma)

    @property
    def factor(self) -> torch.Tensor:
        """F in voxels, (N, D, D), lower triangular."""
        rows, columns = torch.tril_indices(self.spatial_dims, self.spatial_dims, -1)
        factor = torch.diag_embed(self.diagonal)
        factor[:, rows, columns] = self.lower
        return factor

    @property
    def covariance(self) -> torch.Tensor:
        """Covariance of each landmark's target in squared voxels, (N, D, D)."""
        with _full_precision(self.lower):
            return self.factor @ self.factor.mT

    @property
    def sigma(self) -> torch.Tensor:
        """Standard deviation along each axis in voxels, (N, D)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()

    def forward(self, points: torch.Tensor, spatial_shape: torch.Size | tuple[int, ...]) -> torch.Tensor:
        """
        Make target heatmaps.

        Args:
            points: (B, N, D) index points. A NaN point gives a zero map.
            spatial_shape: D sizes of the heatmaps.

        Returns:
            (B, N, *spatial_shape), float64 for points of float64, else float32.
        """
        dims = self.spatial_dims
        dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
        known = ~points.isnan().any(dim=-1)
        # a zero instead of NaN, which would also be in the gradient of what is multiplied by zero
        places = torch.where(known[..., None], points, 0).to(dtype)
        with _full_precision(points):
            inverse = torch.linalg.inv(self.factor.to(dtype))
            precision = (inverse.mT @ inverse)[None]
        offsets = []
        for axis, size in enumerate(spatial_shape):
            offset = torch.arange(size, device=points.device, dtype=dtype) - places[..., axis, None]
            offsets.append(offset.view(*offset.shape[:2], *(size if a == axis else 1 for a in range(dims))))
        weight = precision.view(1, -1, dims, dims, *[1] * dims)
        # the Mahalanobis distance squared, whose matrix is symmetric
        distance = torch.zeros((), device=points.device, dtype=dtype)
        for a in range(dims):
            distance = distance + weight[:, :, a, a] * offsets[a].square()
            for b in range(a):
                distance = distance + 2 * weight[:, :, a, b] * offsets[a] * offsets[b]
        height = self.amplitude / ((2 * torch.pi) ** (dims / 2) * self.diagonal.to(dtype).prod(dim=-1))
        scale = known * height
        return scale.view(*scale.shape, *[1] * dims) * torch.exp(-0.5 * distance)


def _full_precision(like: torch.Tensor) -> torch.autocast:
    """Return a block in which autocast does not compute products of matrices in half precision."""
    return torch.autocast(like.device.type, enabled=False)


def _at_least(raw: torch.Tensor, limit: float) -> torch.Tensor:
    """Return a parameter, limited from below; its gradient passes below the limit, too."""
    # the value plus a zero that has the gradient: clamp - raw would lose digits for a very negative raw
    return raw.detach().clamp(min=limit) + (raw - raw.detach())


class TargetSigma:
    """
    The sigma of a loss's targets, in a form that a ``CheckpointSaver`` can save next to the weights of the network.

    Predicted covariances use the saved sigma. Use a second ``CheckpointSaver`` with the key metric of the one that
    saves the network, so that both files are of the same epoch. The file contains tensors only;
    :func:`monai_landmarks.uncertainty.load_sigma` reads it.

    Args:
        loss: a loss with a :class:`GaussianTarget` or :class:`LearnedCovarianceTarget` as ``target``, such as
            :class:`SCNLoss`, or a loss that contains such a loss: :class:`AdaptivePrecisionLoss` as its ``base``,
            :class:`CoarseToFineLoss` as its ``fine``. It may be wrapped in ``DistributedDataParallel``.

    Raises:
        ValueError: if the loss has no such target.

    Example:
        >>> loss = torch.nn.Module()
        >>> loss.target = GaussianTarget(sigma=[[2.0], [3.0]], learnable=True)
        >>> TargetSigma(loss).state_dict()
        {'sigma': tensor([[2.],
                [3.]]), 'learned': tensor(True)}
    """

    def __init__(self, loss: nn.Module) -> None:
        plain: Any = getattr(loss, "module", loss)
        inner = plain
        while (wrapped := getattr(inner, "base", None) or getattr(inner, "fine", None)) is not None:
            inner = wrapped
        target = getattr(inner, "target", None)
        if not isinstance(target, (GaussianTarget, LearnedCovarianceTarget)):
            raise ValueError(f"{type(plain).__name__} has no GaussianTarget, so there is no sigma to save.")
        self.target = target
        # a sigma that is searched or follows a rule is no parameter, but it is a result of the training, too
        self.learned = (
            isinstance(target, LearnedCovarianceTarget) or target.raw_sigma.requires_grad or hasattr(plain, "set_sigma")
        )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return sigma in voxels of the heatmaps, in the form of :attr:`GaussianTarget.sigma`, and if it is learned."""
        return {"sigma": self.target.sigma.detach().cpu().clone(), "learned": torch.tensor(self.learned)}
