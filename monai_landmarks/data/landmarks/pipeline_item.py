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
"""The points of a pipeline's item as a landmark set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_landmarks.spaces import points_as_rows, to_array, world_points

from .landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["landmark_set_of"]


def landmark_set_of(
    points: Any,
    image: Any = None,
    names: Sequence[str] | None = None,
    scores: Any = None,
    covariances: Any = None,
    what: str = "points",
    strict: bool = False,
) -> LandmarkSet:
    """Return the points of an item as a landmark set in RAS mm.

    Args:
        points: (N, D) or (1, N, D), array or tensor on any device. A ``MetaTensor`` goes through its own affine to the
            world.
        image: the image of the points. Its affine is used for points that are no ``MetaTensor``; without it, they are
            taken as world points.
        names: of the N landmarks. None: 1, 2, ...
        scores: (N,) or (1, N). None if there are none.
        covariances: (N, D, D) or (1, N, D, D) in mm^2. None if there are none.
        what: name of the points for error messages.
        strict: raise an error for a point with a coordinate that is not finite, unless all of them are NaN. False: such
            a landmark was not found, and is missing.

    Returns:
        Landmark set in RAS, (N, D).

    Raises:
        ValueError: if the number of names is not that of the points, or for a wrong shape.

    Example:
        >>> landmark_set_of([[1.0, 2.0], [float("inf"), 0.0]], scores=[0.5, 0.0]).points.tolist()
        [[1.0, 2.0], [nan, nan]]
    """
    rows = points_as_rows(world_points(points, image), what)
    names = tuple(str(i + 1) for i in range(len(rows))) if names is None else tuple(names)
    if len(names) != len(rows):
        raise ValueError(f"{what}: there are {len(rows)} points, but {len(names)} landmark names.")
    if not strict:
        rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, np.nan)
    return LandmarkSet(
        names,
        rows,
        CoordinateSystem.RAS,
        scores=None if scores is None else to_array(scores).reshape(-1),
        covariances=None if covariances is None else to_array(covariances).reshape(*rows.shape, rows.shape[1]),
    )
