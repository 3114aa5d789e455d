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
"""How coarse the grid of SCN's spatial configuration is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .choice import Choice

__all__ = ["KERNEL", "SMALLEST_FACTOR", "choose_spatial_factor", "field_of_view"]

KERNEL = {2: 11, 3: 7}  # of the spatial configuration, the defaults of the network
_CONVOLUTIONS = 4
SMALLEST_FACTOR = {2: 8, 3: 4}


def field_of_view(spatial_dims: int) -> int:
    """How many cells of the coarse grid its four convolutions see, along an axis."""
    return _CONVOLUTIONS * (KERNEL[spatial_dims] - 1) + 1


def choose_spatial_factor(spatial_size: Sequence[int]) -> Choice:
    """The smallest power of two with which the convolutions, from the middle of the image, see all of it."""
    dims, seen = len(spatial_size), field_of_view(len(spatial_size))
    factor = SMALLEST_FACTOR[dims]
    while math.ceil(max(spatial_size) / factor) > seen:
        factor *= 2
    cells = math.ceil(max(spatial_size) / factor)
    return Choice(factor, f"the longest side is {cells} cells then, of which the spatial configuration sees {seen}")
