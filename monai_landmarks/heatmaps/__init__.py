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
"""Mathematics of heatmaps: exact targets from points, and points to a fraction of a voxel from heatmaps."""

from __future__ import annotations

from .chains import chain_offsets, choose_by_evidence, choose_by_graph, choose_by_sequence, with_neighbors
from .decode import (
    DecodedLandmarks,
    DecodingMethod,
    Neighborhoods,
    cut_neighborhoods,
    decode_heatmaps,
    decode_neighborhoods,
    find_maxima,
    neighborhood_radius,
    require_decoding_method,
)
from .encode import Normalization, expand_sigma, gaussian_factors, gaussian_heatmaps, outer_product
from .peaks import find_peaks, local_maxima, peak_reach, suppress_peaks

__all__ = [
    "DecodedLandmarks",
    "DecodingMethod",
    "Neighborhoods",
    "Normalization",
    "chain_offsets",
    "choose_by_evidence",
    "choose_by_graph",
    "choose_by_sequence",
    "cut_neighborhoods",
    "decode_heatmaps",
    "decode_neighborhoods",
    "expand_sigma",
    "find_maxima",
    "find_peaks",
    "gaussian_factors",
    "gaussian_heatmaps",
    "local_maxima",
    "neighborhood_radius",
    "outer_product",
    "peak_reach",
    "require_decoding_method",
    "suppress_peaks",
    "with_neighbors",
]
