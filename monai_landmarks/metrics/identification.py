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
"""Identification: whether a predicted landmark is closest to its own true position among all landmarks."""

from __future__ import annotations

import torch

__all__ = ["identification"]


def identification(pred: torch.Tensor, target: torch.Tensor, limit: float | None = 20.0) -> torch.Tensor:
    """Return which landmarks were identified.

    A landmark is identified if, of all true positions in its image, its own is the closest to the predicted point, and
    the distance is less than ``limit``. This is the definition of the VerSe challenges (Sekuboyina et al., Med. Image
    Anal. 73, 2021), after Glocker et al. (MICCAI 2012), with 20 mm for vertebrae. The mean of the result without NaN is
    the identification rate. If the predicted point is equally close to its own position and another one, the landmark
    is identified.

    Args:
        pred: (..., N, D) predicted points in mm; a non-finite coordinate means that there is no prediction.
        target: true points of the same shape; a NaN coordinate means that there is no ground truth.
        limit: largest distance, in the unit of the points. None: no limit.

    Returns:
        (..., N): 1 for an identified landmark, 0 for one that is not identified or missed, NaN without ground truth.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> truth = torch.tensor([[0.0, 0.0], [10.0, 0.0], [40.0, 0.0]])
        >>> identification(torch.tensor([[6.0, 0.0], [12.0, 0.0], [62.0, 0.0]]), truth)
        tensor([0., 1., 0.])
    """
    if pred.shape != target.shape or pred.ndim < 2:
        raise ValueError(
            f"predicted and true points must have the same shape (..., N, D), got {tuple(pred.shape)} and "
            f"{tuple(target.shape)}."
        )
    unknown = torch.isnan(target).any(dim=-1)
    missed = ~torch.isfinite(pred).all(dim=-1)
    # not torch.cdist, which loses digits for points far from the origin
    distance = torch.linalg.vector_norm(pred[..., :, None, :] - target[..., None, :, :], dim=-1)
    distance = distance.masked_fill(unknown[..., None, :], torch.inf).masked_fill(missed[..., :, None], torch.inf)
    own = distance.diagonal(dim1=-2, dim2=-1)
    identified = (own <= distance.amin(dim=-1)) & (own < (torch.inf if limit is None else limit))
    return identified.to(own.dtype).masked_fill(unknown, torch.nan)
