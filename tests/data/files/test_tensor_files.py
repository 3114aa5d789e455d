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
"""Weights with NaN are found wherever they are, and what has no NaN is passed over."""

from __future__ import annotations

import torch

from monai_landmarks.data.files.tensor_files import non_finite_weights


def test_a_state_of_tensors_and_other_values() -> None:
    weights = torch.tensor([1.0, torch.nan, torch.inf])
    state = {"epoch": 7, "count": torch.tensor(3), "network": {"mask": torch.tensor([-torch.inf]), "weights": weights}}
    assert non_finite_weights(state) == "1 of the 3 values of 'network.weights' are NaN or infinite"
    weights[1] = 0
    assert non_finite_weights(state) is None
    state["spectrum"] = torch.tensor([complex(0, torch.nan), 0])
    assert non_finite_weights(state) == "1 of the 2 values of 'spectrum' are NaN or infinite"
