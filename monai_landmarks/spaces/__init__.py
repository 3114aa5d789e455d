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

from __future__ import annotations

from .affines import (
    RAS_TO_LPS,
    affine_4x4,
    affine_of,
    affine_spacing,
    file_affine,
    in_xy_plane,
    off_plane,
    picture_affine,
    plane_z,
    slice_affine,
    spacing_of,
)
from .arrays import (
    NdarrayTensor,
    array_functions,
    array_like,
    is_meta_tensor,
    is_tensor,
    plain_tensor,
    to_array,
    vector_lengths,
)
from .index_world import (
    covariances_to_index,
    covariances_to_world,
    has_affine,
    points_as_index,
    points_to_index,
    points_to_world,
    world_points,
)
from .patch_affines import patch_affines
from .points import points_as_rows, points_of_batch, points_of_image

__all__ = [
    "NdarrayTensor",
    "RAS_TO_LPS",
    "affine_4x4",
    "affine_of",
    "affine_spacing",
    "array_functions",
    "array_like",
    "covariances_to_index",
    "covariances_to_world",
    "file_affine",
    "has_affine",
    "in_xy_plane",
    "is_meta_tensor",
    "is_tensor",
    "off_plane",
    "patch_affines",
    "picture_affine",
    "plain_tensor",
    "plane_z",
    "points_as_index",
    "points_as_rows",
    "points_of_batch",
    "points_of_image",
    "points_to_index",
    "points_to_world",
    "slice_affine",
    "spacing_of",
    "to_array",
    "vector_lengths",
    "world_points",
]
