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


"""How unsure a model is of the landmarks of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_landmarks.data import LandmarkSet

__all__ = ["image_uncertainty"]


def image_uncertainty(landmarks: LandmarkSet, extent: Sequence[float]) -> float:
    """Mean over the landmarks of how far off they may be, in mm.

    For a landmark that was found this is the root mean square distance by its covariance. Of one that was not found, or has a
    peak so flat that it has no covariance, nothing is known but that it may be anywhere: it counts as a point that is uniformly
    distributed over the image.

    Args:
        landmarks: predicted, in world mm, with covariances.
        extent: size of the image along its axes in mm.

    Returns:
        mm; NaN if nothing is known: there are landmarks, but no covariance of any.

    Example:
        >>> found = LandmarkSet(("a", "b"), [[1.0, 2.0], [np.nan, np.nan]], covariances=[np.eye(2) * 8, np.full((2, 2), np.nan)])
        >>> round(image_uncertainty(found, (60.0, 60.0)), 2)  # sqrt(8 + 8) and sqrt(2 * 60^2 / 12)
        14.25
    """
    anywhere = float(np.sqrt(np.sum(np.square(extent)) / 12))
    unknown = np.isnan(landmarks.uncertainty)
    if unknown.all() and not landmarks.missing.all():
        return float("nan")
    each = np.where(landmarks.missing | unknown, anywhere, landmarks.uncertainty)
    return float(each.mean()) if len(each) else float("nan")
