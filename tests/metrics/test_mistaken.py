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

import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.metrics import MistakenLandmarksMetric

NAN = float("nan")


@pytest.mark.parametrize("dims", [2, 3])
def test_counts_what_lies_nearer_to_another(dims: int, device: torch.device) -> None:
    """A column of three, 10 apart: a prediction is mistaken from 5 away from its own place on."""
    truth = torch.zeros(2, 3, dims, device=device)
    truth[:, :, 0] = torch.tensor([0.0, 10.0, 20.0])
    truth[1, 2] = NAN
    pred = truth.clone()
    pred[0, :, 0] = torch.tensor([4.9, 15.1, 100.0])  # the last is far away, but nearest to its own place
    pred[1, :, 0] = torch.tensor([5.1, NAN, 0.0])  # the second is missed, the third has no truth
    metric = MistakenLandmarksMetric()
    metric(pred, truth)
    assert metric.aggregate().item() == 2
    metric([points[None] for points in pred], [points[None] for points in truth])
    assert metric.aggregate().item() == 4
    metric.reset()
    with pytest.raises(ValueError, match="not called"):
        metric.aggregate()
    with pytest.raises(ValueError, match="requires the true points"):
        metric(pred)


def test_points_are_compared_in_the_world() -> None:
    affine = torch.diag(torch.tensor([10.0, 1.0, 1.0, 1.0]))
    truth = torch.tensor([[[0.0, 0.0], [4.0, 0.0]]])
    index = MetaTensor(torch.tensor([[[0.3, 0.0], [0.1, 0.0]]]), affine=affine)  # 3 and 1 mm
    metric = MistakenLandmarksMetric()
    metric(index, MetaTensor(truth, affine=torch.eye(4)))
    assert metric.aggregate().item() == 2
