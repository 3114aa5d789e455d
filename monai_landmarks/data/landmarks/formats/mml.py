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


"""Landmarks of the mandibular molar dataset (``*_label.npy``, next to ``*_volume.nrrd``).

An array (N, 3) of voxel index along the axes of the volume, x first. Landmarks of an absent molar have coordinates with
a mean of at most 0. See https://github.com/ithet1007/mmld_code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import names_or_numbers
from .npz import read_array

__all__ = ["read_mml"]


def read_mml(path: Path, names: Sequence[str] | None = None) -> LandmarkSet:
    """Read the landmarks of a volume as pixel index.

    Args:
        path: the file.
        names: names of the landmarks, which the file does not store. Default: 1, 2, ...

    Raises:
        ValueError: if the file is not an array of points.
    """
    points = read_array(path.read_bytes())
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise ValueError(f"an array of {points.dtype} of shape {points.shape}; expected numbers of shape (N, 3).")
    points = points.astype(np.float64)
    points[~(points.mean(axis=1) > 0)] = np.nan
    return LandmarkSet(names_or_numbers(len(points), names), points, CoordinateSystem.INDEX)
