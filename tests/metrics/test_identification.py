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

import numpy as np
import pytest
import torch

from monai_landmarks.metrics import identification

NAN = float("nan")


@pytest.mark.parametrize("dims", [2, 3])
def test_against_a_loop(dims, device):
    generator = torch.Generator().manual_seed(dims)
    target = torch.rand(6, 7, dims, generator=generator, dtype=torch.float64) * 60
    pred = target + torch.randn(target.shape, generator=generator, dtype=torch.float64) * 12
    pred[0, 1], target[1, 2] = NAN, NAN
    result = identification(pred.to(device), target.to(device)).cpu()
    seen = set()
    for b in range(6):
        for n in range(7):
            distances = np.linalg.norm(pred[b, n].numpy() - target[b].numpy(), axis=1)
            if np.isnan(target[b, n].numpy()).any():
                assert result[b, n].isnan()
            elif np.isnan(distances).all():
                assert result[b, n] == 0
            else:
                expected = np.nanargmin(distances) == n and distances[n] < 20
                assert result[b, n] == expected
                seen.add((np.nanargmin(distances) == n, distances[n] < 20))
    assert len(seen) == 4  # near and far, the closest and not


def test_limits_and_ties():
    target = torch.tensor([[0.0, 0.0], [40.0, 0.0]])
    pred = torch.tensor([[20.0, 0.0], [40.0, 19.5]])  # the first is as near to both, and exactly at the limit
    assert identification(pred, target).tolist() == [0, 1]
    assert identification(pred, target, limit=None).tolist() == [1, 1]
    assert identification(pred, target, limit=19.5).tolist() == [0, 0]
    assert identification(pred[:1], target[:1], limit=20.5).tolist() == [1]
    with pytest.raises(ValueError, match="same shape"):
        identification(pred, target[:1])


def test_a_missing_neighbor_takes_no_landmark_away():
    target = torch.tensor([[0.0, 0.0], [NAN, NAN]])
    assert identification(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), target)[0] == 1
