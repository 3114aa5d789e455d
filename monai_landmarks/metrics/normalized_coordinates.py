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
"""Comparison of coordinates that are divided by the size of the image, as the AASCE data are compared in print."""

from __future__ import annotations

import torch

from monai_landmarks.spaces import plain_tensor

__all__ = ["coordinate_correlation", "normalized_mse"]


def normalized_mse(pred: torch.Tensor, target: torch.Tensor, spatial_size: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of coordinates that are divided by the size of the image.

    This is how the points of the AASCE data are compared in print (Wu et al., MICCAI 2017), where all coordinates are
    between 0 and 1.

    Args:
        pred: (..., N, D) predicted index points.
        target: true points of the same shape.
        spatial_size: (D,) or (..., D) number of voxels of the image along each axis.

    Returns:
        (...), the mean over the coordinates of all landmarks with both points. NaN if there is none.

    Example:
        >>> normalized_mse(torch.tensor([[10.0, 40.0]]), torch.tensor([[20.0, 40.0]]), torch.tensor([100, 200]))
        tensor(0.0050)
    """
    pred, target = plain_tensor(pred), plain_tensor(target)
    error = (pred - target) / torch.as_tensor(spatial_size, device=pred.device)[..., None, :]
    known = torch.isfinite(error).all(dim=-1)
    return error.square().mean(dim=-1).masked_fill(~known, torch.nan).nanmean(dim=-1)


def coordinate_correlation(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the Pearson correlation between predicted and true coordinates, all landmarks and axes together.

    This is the second measure of the AASCE data in print (Wu et al., MICCAI 2017). Coordinates vary much between
    landmarks, so it is close to 1 even for inaccurate points. Divide the coordinates by the size of the image along
    each axis, so that both axes and all images have the same scale. Whether the axes are taken together in print is not
    known here.

    Args:
        pred: (..., D) predicted points.
        target: true points of the same shape.

    Returns:
        A scalar in float64 over all points with both coordinates. NaN for fewer than two different coordinates.

    Example:
        >>> target = torch.tensor([[0.1, 0.1], [0.2, 0.5], [0.1, 0.9]])
        >>> round(float(coordinate_correlation(target + 0.05, target)), 6)
        1.0
    """
    pred, target = plain_tensor(pred).double(), plain_tensor(target).double()
    known = torch.isfinite(pred).all(dim=-1) & torch.isfinite(target).all(dim=-1)
    pred, target = pred[known].flatten(), target[known].flatten()
    pred, target = pred - pred.mean(), target - target.mean()
    return (pred * target).sum() / (pred.square().sum() * target.square().sum()).sqrt()
