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

"""The size that heatmaps must have so that their points are those of the image."""

from __future__ import annotations

import torch

__all__ = ["require_size_of"]


def require_size_of(inputs: torch.Tensor, heatmaps: torch.Tensor) -> None:
    """Raise an error for heatmaps of another size than the input of the network, whose points would be wrong.

    Args:
        inputs: (B, C, *spatial).
        heatmaps: (..., *spatial).

    Raises:
        ValueError: as described.
    """
    size, found = tuple(inputs.shape[2:]), tuple(heatmaps.shape[2 - inputs.ndim :])
    if found != size:
        raise ValueError(
            f"The network returned heatmaps of size {found} for an input of size {size}; their points would be at wrong"
            " places. Let the network end with a layer that makes the size of its input."
        )
