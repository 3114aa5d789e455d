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


"""Cross-entropy to a Gaussian of mass 1, against the sum written out on a dense target."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses import GaussianTarget, HeatmapCrossEntropyLoss

SHAPE = {2: (12, 14), 3: (8, 9, 10)}


def example(dims, device="cpu"):
    torch.manual_seed(0)
    points = 1 + torch.rand(2, 3, dims, device=device) * 6
    points[1, 2] = float("nan")
    return torch.randn(2, 3, *SHAPE[dims], device=device), points


@pytest.mark.parametrize("sigma", [1.5, [[1.0], [2.0], [3.0]]])
@pytest.mark.parametrize("dims", [2, 3])
def test_formula(dims, sigma, device):
    logits, points = example(dims, device)
    loss = HeatmapCrossEntropyLoss(GaussianTarget(sigma), reduction="none").to(device)
    maps = gaussian_heatmaps(points.double(), SHAPE[dims], torch.as_tensor(sigma), dtype=torch.float64).flatten(2)
    maps = maps / maps.sum(dim=-1, keepdim=True)
    log_p = logits.double().flatten(2).log_softmax(dim=-1)
    expected = (torch.xlogy(maps, maps) - maps * log_p).sum(dim=-1)
    expected[1, 2] = 0
    torch.testing.assert_close(loss(logits, points), expected.float(), rtol=1e-4, atol=1e-4)
    for reduction, value in (("sum", expected.sum()), ("mean", expected.sum() / 5)):
        loss.reduction = reduction
        torch.testing.assert_close(loss(logits, points[:, None]), value.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_is_that_of_the_cross_entropy(dims):
    torch.manual_seed(0)
    logits = torch.randn(1, 2, *(4,) * dims, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 2, dims, dtype=torch.float64) * 3
    loss = HeatmapCrossEntropyLoss(GaussianTarget(1.5), reduction="sum")
    assert torch.autograd.gradcheck(lambda p: loss(p, points), (logits,))
    (gradient,) = torch.autograd.grad(loss(logits, points), logits)
    maps = gaussian_heatmaps(points, (4,) * dims, 1.5, dtype=torch.float64).flatten(2)
    difference = logits.detach().flatten(2).softmax(-1) - maps / maps.sum(-1, keepdim=True)
    torch.testing.assert_close(gradient.flatten(2), difference)


@pytest.mark.parametrize("sigma", [1.0, 3.0, 10.0])
def test_perfect_prediction_costs_nothing_at_any_sigma(sigma):
    points = torch.tensor([[[20.3, 25.0]]])
    logits = -0.5 * ((torch.stack(torch.meshgrid(torch.arange(48.0), torch.arange(50.0), indexing="ij"), -1)
                      - points[0, 0]) / sigma).square().sum(-1)[None, None]  # fmt: skip
    loss = HeatmapCrossEntropyLoss(GaussianTarget(sigma))
    assert abs(float(loss(logits + 7, points))) < 1e-5
    assert float(loss(logits.roll(2, -1), points)) > 1e-3


def test_unknown_and_outside_landmarks_give_no_gradient():
    logits, points = example(2)
    points[0, 0, 0] = 12.0  # beyond the last voxel, which ends at 11.5
    points[0, 1, 1] = -0.4  # within the first
    logits.requires_grad_()
    HeatmapCrossEntropyLoss()(logits, points).backward()
    moved = logits.grad.abs().sum((2, 3)) > 0
    assert logits.grad.isfinite().all()
    assert moved.tolist() == [[False, True, True], [True, True, False]]


def test_all_missing_is_zero_not_nan():
    logits, points = example(2)
    loss = HeatmapCrossEntropyLoss()(logits.requires_grad_(), torch.full_like(points, float("nan")))
    loss.backward()
    assert loss == 0 and logits.grad.abs().max() == 0


def test_autocast_and_meta_tensors_change_nothing(device):
    logits, points = example(2, device)
    expected = HeatmapCrossEntropyLoss()(logits, points)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert torch.equal(HeatmapCrossEntropyLoss()(MetaTensor(logits), MetaTensor(points)), expected)
    assert type(expected) is torch.Tensor
    assert HeatmapCrossEntropyLoss()(logits.bfloat16(), points).dtype == torch.float32


def test_maps_are_refused():
    with pytest.raises(ValueError, match="index points"):
        HeatmapCrossEntropyLoss()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
