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
"""Plain tensors and arrays: what stays shared, and what becomes float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.spaces import plain_tensor, to_array


def test_plain_tensor_shares_its_memory(device: torch.device) -> None:
    inside = torch.arange(3.0, device=device)
    plain = plain_tensor(MetaTensor(inside))
    assert type(plain) is torch.Tensor and plain.data_ptr() == inside.data_ptr()
    assert plain_tensor(inside) is inside


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_become_float64(device: torch.device, dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1, 0], [0, 1]], device=device).to(dtype)
    values = to_array(MetaTensor(tensor))
    assert type(values) is np.ndarray and values.dtype == np.float64
    assert values.tolist() == [[1, 0], [0, 1]]


def test_a_tensor_with_gradient_and_lists() -> None:
    assert to_array(torch.ones(2, requires_grad=True)).tolist() == [1, 1]
    assert to_array([[1, 2], (3, 4)]).tolist() == [[1, 2], [3, 4]] and to_array([1]).dtype == np.float64
    known = np.array([1.5])
    assert to_array(known) is known
