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
"""Downsampling factor of the spatial configuration of SCN."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .choice import Choice

__all__ = ["KERNEL", "SMALLEST_FACTOR", "choose_spatial_factor", "field_of_view"]

KERNEL = {2: 11, 3: 7}  # kernel size of the spatial configuration by dimension, the defaults of the network
_CONVOLUTIONS = 4  # number of convolutions in the spatial configuration
SMALLEST_FACTOR = {2: 8, 3: 4}


def field_of_view(spatial_dims: int) -> int:
    """Return the receptive field of the four convolutions along one axis, in cells of the coarse grid."""
    return _CONVOLUTIONS * (KERNEL[spatial_dims] - 1) + 1


def choose_spatial_factor(spatial_size: Sequence[int]) -> Choice:
    """Choose the smallest power of two at which the receptive field of the central cell covers the whole image."""
    dims, seen = len(spatial_size), field_of_view(len(spatial_size))
    factor = SMALLEST_FACTOR[dims]
    while math.ceil(max(spatial_size) / factor) > seen:
        factor *= 2
    cells = math.ceil(max(spatial_size) / factor)
    return Choice(factor, f"the longest side then has {cells} cells; the spatial configuration covers {seen} cells")
