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
"""The mathematics of heatmaps: exact targets from points, sub-pixel points from heatmaps."""

from __future__ import annotations

from .decode import DecodedLandmarks, decode_heatmaps
from .encode import expand_sigma, gaussian_factors, gaussian_heatmaps, outer_product

__all__ = [
    "DecodedLandmarks",
    "decode_heatmaps",
    "expand_sigma",
    "gaussian_factors",
    "gaussian_heatmaps",
    "outer_product",
]
