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
"""Plain tensors and arrays from whatever a pipeline holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

__all__ = ["plain_tensor", "to_array"]


def plain_tensor(data: torch.Tensor) -> torch.Tensor:
    """Return the tensor inside a ``MetaTensor``, without a copy; other tensors as they are."""
    return data.as_tensor() if isinstance(data, MetaTensor) else data


def to_array(values: Any) -> np.ndarray:
    """Convert a tensor on any device, an array or nested sequences of numbers to a float64 array.

    A float64 array is returned as it is, not copied.
    """
    if isinstance(values, torch.Tensor):
        # numpy has no bfloat16, and some devices have no float64
        values = plain_tensor(values).detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
