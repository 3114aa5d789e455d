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
"""Covariances of predicted points that do not come from the shape of one heatmap."""

from __future__ import annotations

import torch

__all__ = ["ensemble_covariance", "sigma_covariance"]


def ensemble_covariance(points: torch.Tensor, covariances: torch.Tensor | None = None) -> torch.Tensor:
    """
    Covariance of a landmark that several predictions of the same image give.

    Without ``covariances`` it is the spread of the points, divided by M - 1. With them it is that of a mixture of M
    Gaussians: the spread and the mean of the members' own covariances (Lakshminarayanan et al., *Simple and scalable
    predictive uncertainty estimation using deep ensembles*, NeurIPS 2017, section 2.4). Two members that agree by chance have
    no spread, and M of them have none outside of M - 1 directions: with few members take the mixture.

    Args:
        points: (M, ..., N, D), those of M members in front; NaN where a member does not find the landmark.
        covariances: (M, ..., N, D, D), in the square of the points' unit.

    Returns:
        (..., N, D, D); NaN where fewer than two members find the landmark.

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


def sigma_covariance(sigma: torch.Tensor) -> torch.Tensor:
    """
    Covariance of landmarks from the sigma that a loss has learned for them: the same in every image.

    Args:
        sigma: (N, D) in voxels or mm, such as `GaussianTarget.sigma_table`.

    Returns:
        (N, D, D), in the square of that unit.

    Example:
        >>> sigma_covariance(torch.tensor([[2.0, 3.0]])).tolist()
        [[[4.0, 0.0], [0.0, 9.0]]]
    """
    return torch.diag_embed(sigma.detach().square())
