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

"""Points of the items of a datalist in world coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.images.image_files import is_picture, read_header
from monai_landmarks.spaces import picture_affine

from .datalist import read_item_landmarks

__all__ = ["item_world_points"]


def item_world_points(items: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
    """Return the landmarks of the items of a datalist in world coordinates.

    Only the headers of the images are read, as far as their format allows it. Items without a label are left out.

    Args:
        items: items that :func:`load_landmark_datalist` returns.
        names: names of the N landmarks.

    Returns:
        Array (K, N, D) in RAS mm, NaN where missing. D is the dimension of the points, 2 if they lie in a plane; (0, N,
        2) without items.

    Raises:
        ValueError: if a file is malformed or cannot be read.
    """
    rows = []
    for item in items:
        landmarks = read_item_landmarks(item)
        if landmarks is None:
            continue
        if is_picture(item["image"]):
            shape, affine = (1, 1), picture_affine(item.get("spacing"))
        else:
            shape, affine = read_header(Path(item["image"]), item.get("spacing"))
        dims = 2 if len(shape) < 3 or all(size == 1 for size in shape[2:]) else 3
        rows.append(landmarks.reorder(names).to_world(affine).points[:, :dims])
    return np.stack(rows) if rows else np.zeros((0, len(names), 2))
