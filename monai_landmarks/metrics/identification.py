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

import numpy as np

from monai_landmarks.spaces import NdarrayTensor, array_functions, array_like, vector_lengths

__all__ = ["identification"]


def identification(pred: NdarrayTensor, target: NdarrayTensor, limit: float | None = 20.0) -> NdarrayTensor:
    """Return which landmarks were identified.

    A landmark is identified if, of all true positions in its image, its own is the closest to the predicted point, and
    the distance is less than ``limit``. This is the definition of the VerSe challenges (Sekuboyina et al., Med. Image
    Anal. 73, 2021), after Glocker et al. (MICCAI 2012), with 20 mm for vertebrae. The mean of the result without NaN is
    the identification rate. If the predicted point is equally close to its own position and another one, the landmark
    is identified.

    Args:
        pred: (..., N, D) predicted points in mm, array or tensor; a non-finite coordinate means that there is no
            prediction.
        target: true points of the same shape; a NaN coordinate means that there is no ground truth.
        limit: largest distance, in the unit of the points. None: no limit.

    Returns:
        (..., N), of the type of the points: 1 for an identified landmark, 0 for one that is not identified or missed,
        NaN without ground truth.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> truth = np.array([[0.0, 0.0], [10.0, 0.0], [40.0, 0.0]])
        >>> identification(np.array([[6.0, 0.0], [12.0, 0.0], [62.0, 0.0]]), truth)
        array([0., 1., 0.])
    """
    if pred.shape != target.shape or pred.ndim < 2:
        raise ValueError(
            f"predicted and true points must have the same shape (..., N, D), got {tuple(pred.shape)} and "
            f"{tuple(target.shape)}."
        )
    xp = array_functions(pred)
    unknown, found = xp.isnan(target).any(-1), xp.isfinite(pred).all(-1)
    with np.errstate(invalid="ignore"):  # infinite coordinates
        # not torch.cdist, which loses digits for points far from the origin
        distance = vector_lengths(pred[..., :, None, :] - target[..., None, :, :])
    distance = xp.where(found[..., :, None] & ~unknown[..., None, :], distance, xp.inf)
    own = distance.diagonal(0, -2, -1)
    identified = (own <= xp.amin(distance, -1)) & (own < (xp.inf if limit is None else limit))
    return xp.where(unknown, xp.nan, array_like(identified, own))
