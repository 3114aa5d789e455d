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

"""Heatmap L2 against the sum written out."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.losses import GaussianTarget, HeatmapL2Loss

SHAPE = {2: (12, 14), 3: (8, 9, 10)}


def example(dims, device="cpu", dtype=torch.float32):
    torch.manual_seed(0)
    points = torch.rand(2, 3, dims, device=device) * 7
    points[1, 2] = float("nan")
    return torch.randn(2, 3, *SHAPE[dims], device=device, dtype=dtype), points


@pytest.mark.parametrize("missing", ["ignore", "absent"])
@pytest.mark.parametrize("dims", [2, 3])
def test_equals_the_sum_written_out(dims, missing, device):
    prediction, points = example(dims, device)
    target = GaussianTarget(sigma=1.5, amplitude=10.0)
    expected, voxels = torch.zeros(2, 3), 0
    for b in range(2):
        for n in range(3):
            known = not points[b, n].isnan().any()
            if known or missing == "absent":
                map_ = (
                    target(points[b, n : n + 1], SHAPE[dims])[0] if known else torch.zeros(SHAPE[dims], device=device)
                )
                expected[b, n] = ((prediction[b, n] - map_) ** 2).sum()
                voxels += map_.numel()
    losses = {r: HeatmapL2Loss(target, missing, reduction=r)(prediction, points).cpu() for r in ("none", "sum", "mean")}
    assert torch.allclose(losses["none"], expected, rtol=1e-5)
    assert torch.allclose(losses["sum"], expected.sum(), rtol=1e-5)
    assert torch.allclose(losses["mean"], expected.sum() / voxels, rtol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_foreground_weight(dims):
    # everywhere 1 off: the sum is that of the weights, voxels plus f times the target's mass over its peak
    point = torch.full((1, 1, dims), 4.0)
    target = GaussianTarget(sigma=1.0, amplitude=5.0)
    maps = target(point, (9,) * dims)
    for f in (0.0, 3.0):
        loss = HeatmapL2Loss(target, foreground_weight=f, reduction="sum")(maps + 1, point)
        assert loss == pytest.approx(float(maps.numel() + f * maps.sum() / 5.0), rel=1e-5)


def test_negative_foreground_weight_is_refused():
    with pytest.raises(ValueError, match="foreground_weight"):
        HeatmapL2Loss(foreground_weight=-1.0)
