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
"""Combination of the predictions of an ensemble, and covariances from its spread or from a learned sigma."""

from __future__ import annotations

import torch

__all__ = ["ensemble_covariance", "ensemble_landmarks", "sigma_covariance"]

# fixed-point iterations; for members one standard deviation apart, each reduces the error by a quarter
_STEPS = 50


def ensemble_covariance(points: torch.Tensor, covariances: torch.Tensor | None = None) -> torch.Tensor:
    """Return the covariance of landmarks over several predictions of the same image.

    Without ``covariances`` it is the sample covariance of the points, divided by M - 1. With ``covariances`` it is that
    of a mixture of M Gaussians: the sample covariance plus the mean of the members' own covariances (Lakshminarayanan
    et al., *Simple and scalable predictive uncertainty estimation using deep ensembles*, NeurIPS 2017, section 2.4).
    Use the mixture with few members: two members may agree by chance, and M members spread in at most M - 1 directions.

    Args:
        points: (M, ..., N, D), M members first; NaN where a member does not find the landmark.
        covariances: (M, ..., N, D, D), in the squared unit of the points.

    Returns:
        Covariances (..., N, D, D); NaN where fewer than two members find the landmark.

    Example:
        >>> ensemble_covariance(torch.tensor([[[1.0, 4.0]], [[3.0, 4.0]]])).tolist()
        [[[2.0, 0.0], [0.0, 0.0]]]
    """
    found = points.isfinite().all(dim=-1)
    if covariances is not None:
        found = found & covariances.isfinite().all(dim=-1).all(dim=-1)
    count = found.sum(dim=0)[..., None, None]
    known = torch.where(found[..., None], points, torch.zeros_like(points))
    mean = known.sum(dim=0) / count[..., 0].clamp(min=1)
    deviation = torch.where(found[..., None], points - mean, torch.zeros_like(points))
    result = torch.einsum("m...i,m...j->...ij", deviation, deviation) / (count - 1).clamp(min=1)
    if covariances is not None:
        own = torch.where(found[..., None, None], covariances, torch.zeros_like(covariances))
        result = result + own.sum(dim=0) / count.clamp(min=1)
    return torch.where(count >= 2, result, torch.nan)


def ensemble_landmarks(
    points: torch.Tensor, scores: torch.Tensor, covariances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Combine several predictions of the same image, as if the mean of their heatmaps were decoded.

    Each member stands for a Gaussian peak with its height :math:`s_i`, center :math:`p_i` and covariance
    :math:`\Sigma_i`. The combined point is the maximum of the mean of the peaks,

    .. math::
        f(x) = \frac{1}{M} \sum_i s_i \exp\left(-\tfrac12 (x - p_i)^T \Sigma_i^{-1} (x - p_i)\right)

    If the members agree, it lies between them. If one member is far from the others, it lies at the higher peak. It is
    found by mean shift from each member (Carreira-Perpiñán, *Mode-finding for mixtures of Gaussian distributions*, IEEE
    PAMI 22, 2000). The covariance is that of the mixture, see :func:`ensemble_covariance`, and includes members that
    are far away.

    Args:
        points: (M, ..., N, D), M members first; NaN where a member does not find the landmark.
        scores: (M, ..., N), height of each peak.
        covariances: (M, ..., N, D, D), in the squared unit of the points.

    Returns:
        Points (..., N, D); scores (..., N), the value of f at the point; covariances (..., N, D, D), NaN where fewer
        than two members find the landmark. If no member has a peak above zero, the point is that of the highest score.

    Example:
        >>> points, scores = torch.tensor([[[3.0, 4.0]], [[5.0, 4.0]]]), torch.ones(2, 1)
        >>> ensemble_landmarks(points, scores, torch.eye(2).mul(9).expand(2, 1, 2, 2))[0].round(decimals=3).tolist()
        [[4.0, 4.0]]
    """
    work = torch.float32 if points.device.type == "mps" else torch.float64
    usable = points.isfinite().all(dim=-1) & covariances.isfinite().all(dim=-1).all(dim=-1) & (scores > 0)
    place = torch.where(usable[..., None], points.to(work), 0.0)
    height = torch.where(usable, scores.to(work), 0.0)
    unit = torch.eye(points.shape[-1], dtype=work, device=points.device)
    width = torch.where(usable[..., None, None], covariances.to(work), unit)
    # a peak of a single voxel has no width and could not be inverted
    least = 1e-6 * width.diagonal(dim1=-2, dim2=-1).mean(dim=-1) + 1e-12
    precision = torch.linalg.inv(width + least[..., None, None] * unit)

    def heights(at: torch.Tensor) -> torch.Tensor:
        """Height of each member's peak (second axis) at the points ``at`` (M, ..., N, D): (M, M, ..., N)."""
        away = at[:, None] - place
        return height * torch.exp(-0.5 * torch.einsum("sm...i,m...ij,sm...j->sm...", away, precision, away))

    found, unused = place, torch.where(usable[..., None, None], 0.0, unit)
    for _ in range(_STEPS):
        weight = heights(found)[..., None, None] * precision
        pulled = torch.einsum("sm...ij,m...j->s...i", weight, place)
        found = torch.linalg.solve(weight.sum(dim=1) + unused, pulled)
    peak = torch.where(usable, heights(found).mean(dim=1), 0.0)
    # without any peak, the member with the highest score
    anyone = usable.any(dim=0)
    peak = torch.where(anyone, peak, scores.to(work).nan_to_num(nan=-torch.inf))
    best, chosen = peak.max(dim=0, keepdim=True)
    found = torch.where(anyone[..., None], found, points.to(work))
    found = found.gather(0, chosen[..., None].expand(1, *found.shape[1:]))[0]
    return found.to(points), best[0].to(scores), ensemble_covariance(points, covariances)


def sigma_covariance(sigma: torch.Tensor) -> torch.Tensor:
    """Return the covariance of landmarks from the sigma that a loss has learned, which is the same in every image.

    Args:
        sigma: (N, D) in voxels or mm, such as the result of :meth:`monai_landmarks.losses.GaussianTarget.sigma_table`.

    Returns:
        Covariances (N, D, D), in the squared unit of sigma.

    Example:
        >>> sigma_covariance(torch.tensor([[2.0, 3.0]])).tolist()
        [[[4.0, 0.0], [0.0, 9.0]]]
    """
    return torch.diag_embed(sigma.detach().square())
