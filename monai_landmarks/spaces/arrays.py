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
"""Arrays and tensors: plain ones from whatever a pipeline holds, and functions that accept both.

Nothing here imports torch. Data can only be a tensor if torch was imported before.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = [
    "NdarrayTensor",
    "array_functions",
    "array_like",
    "is_meta_tensor",
    "is_tensor",
    "plain_tensor",
    "to_array",
    "vector_lengths",
]

NdarrayTensor = TypeVar("NdarrayTensor", np.ndarray, "torch.Tensor")
"""An array or a tensor. MONAI's type of this name requires torch."""


def is_tensor(data: Any) -> bool:
    """Return whether data is a tensor."""
    return isinstance(data, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_meta_tensor(data: Any) -> bool:
    """Return whether data is a ``MetaTensor``."""
    return isinstance(data, getattr(sys.modules.get("monai.data.meta_tensor"), "MetaTensor", ()))


def plain_tensor(data: Any) -> torch.Tensor:
    """Return the tensor inside a ``MetaTensor``, without a copy; other tensors as they are."""
    return data.as_tensor() if is_meta_tensor(data) else data


def to_array(values: Any) -> np.ndarray:
    """Convert a tensor on any device, an array or nested sequences of numbers to a float64 array.

    A float64 array is returned as it is, not copied.
    """
    if is_tensor(values):
        # numpy has no bfloat16, and some devices have no float64
        values = plain_tensor(values).detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def array_functions(data: Any) -> Any:
    """Return the module with the functions for data: torch for a tensor, numpy otherwise.

    Many functions have the same name and meaning in both, so that one implementation serves both.

    Example:
        >>> array_functions(np.zeros(2)).__name__
        'numpy'
    """
    if is_tensor(data):
        import torch

        return torch
    return np


def array_like(values: Any, like: Any, dtype: Any = None) -> Any:
    """Convert numbers, an array or a tensor to the type, dtype and device of another array or tensor.

    Args:
        values: the values.
        like: array or tensor.
        dtype: dtype of the result. None: that of ``like``.

    Example:
        >>> array_like([1, 2], np.zeros(3, dtype=np.float32)).dtype
        dtype('float32')
    """
    dtype = like.dtype if dtype is None else dtype
    if is_tensor(like):
        import torch

        return torch.as_tensor(values, dtype=dtype, device=like.device)
    return np.asarray(values, dtype=dtype)


def vector_lengths(vectors: Any) -> Any:
    """Return the Euclidean lengths (...) of vectors (..., D), array or tensor."""
    if is_tensor(vectors):
        import torch

        return torch.linalg.vector_norm(vectors, dim=-1)
    return np.linalg.norm(vectors, axis=-1)
