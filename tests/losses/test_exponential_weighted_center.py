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

"""The exponential weighted center loss against the sum written out, and its weights against integrals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expi

from monai_landmarks.losses import EWCLoss, ExponentialWeightedCenterLoss, GaussianTarget, HeatmapL2Loss

SHAPE = {2: (12, 14), 3: (8, 9, 10)}


@pytest.mark.parametrize("alpha", [1.0, 40.0, 300.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_equals_the_sum_written_out(dims, alpha, device):
    torch.manual_seed(0)
    prediction, points = torch.randn(2, 3, *SHAPE[dims]), torch.rand(2, 3, dims) * 7
    loss = ExponentialWeightedCenterLoss(GaussianTarget(sigma=1.5), alpha=alpha, reduction="none").to(device)
    value = loss(prediction.to(device), points.to(device)).cpu()
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE[dims]], indexing="ij"), axis=-1)
    for b in range(2):
        for n in range(3):
            y = np.exp(-((grid - points[b, n].numpy().astype(float)) ** 2).sum(-1) / (2 * 1.5**2))
            expected = (alpha**y * (prediction[b, n].numpy().astype(float) - y) ** 2).sum()
            assert float(value[b, n]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target,weight", [(0.0, 1.0), (0.5, math.sqrt(40)), (1.0, 40.0)])
def test_weight_of_a_voxel(target, weight):
    maps = torch.full((1, 1, 1, 1), target)
    prediction = (maps + 2.0).requires_grad_()
    value = EWCLoss()(prediction, maps)
    value.backward()
    assert float(value) == pytest.approx(4 * weight)
    assert float(prediction.grad) == pytest.approx(2 * 2 * weight)


def test_alpha_of_one_is_the_squared_error():
    torch.manual_seed(0)
    prediction, points = torch.randn(2, 3, 12, 14), torch.rand(2, 3, 2) * 7
    assert torch.allclose(EWCLoss(alpha=1.0)(prediction, points), HeatmapL2Loss()(prediction, points))


def share_by_integral(shape, sigma, alpha):
    """
    The share of the weight above a target of 0.05, for a Gaussian that lies inside the map.

    Substituting y for the radius, r dr = sigma^2 dy / y. In the plane the integral is an exponential integral; in space
    a factor r = sigma sqrt(-2 ln y) is left, and a sphere's area in place of a circle's.
    """
    total = math.prod(shape)
    c = math.log(alpha)
    if len(shape) == 2:
        area = 2 * math.pi * sigma**2
        inside = area * (expi(c) - expi(0.05 * c) if alpha > 1 else math.log(20))
        # what the weight of the tail exceeds 1 by: the integral of (exp(c y) - 1) / y from 0 to 0.05
        excess = area * quad(lambda y: math.expm1(c * y) / y, 0, 0.05)[0]
        disk = area * math.log(20)
    else:
        area = 4 * math.pi * sigma**3
        inside = area * quad(lambda y: alpha**y * math.sqrt(-2 * math.log(y)) / y, 0.05, 1)[0]
        excess = area * quad(lambda y: math.expm1(c * y) * math.sqrt(-2 * math.log(y)) / y, 0, 0.05)[0]
        disk = 4 / 3 * math.pi * (sigma * math.sqrt(2 * math.log(20))) ** 3
    return inside / (inside + total - disk + excess)


@pytest.mark.parametrize(
    "shape,sigma,alpha,percent",
    [
        ((800, 640), 10, 1, "0.37"),
        ((800, 640), 10, 40, "2.0"),
        ((400, 320), 10, 1, "1.47"),
        ((400, 320), 10, 40, "7.7"),
        ((96, 96, 192), 4, 1, "0.22"),
        ((96, 96, 192), 4, 40, "0.74"),
        ((96, 96, 192), 4, 100, "1.2"),
        ((96, 96, 192), 4, 300, "2.1"),
        ((96, 96, 192), 4, 400, "2.6"),
        ((96, 96, 192), 4, 1000, "4.6"),
        ((96, 96, 192), 2, 40, "0.09"),
        ((96, 96, 192), 2, 1000, "0.60"),
    ],
)
def test_share_of_the_weight_at_the_landmark(shape, sigma, alpha, percent):
    share = EWCLoss(GaussianTarget(sigma=sigma), alpha=alpha).weight_share(shape)
    # the sphere's border cuts through voxels: at sigma 2 its volume is off by a percent
    assert share == pytest.approx(share_by_integral(shape, sigma, alpha), rel=0.02)
    assert f"{100 * share:.{len(percent.partition('.')[2])}f}" == percent


def test_share_of_the_weight_with_a_sigma_per_landmark():
    both = EWCLoss(GaussianTarget(sigma=[[2.0], [6.0]])).weight_share((64, 48), num_landmarks=2)
    narrow, wide = (EWCLoss(GaussianTarget(sigma=s)).weight_share((64, 48)) for s in (2.0, 6.0))
    assert narrow < both < wide


@pytest.mark.parametrize("alpha", [0.5, 0.0, -1.0, float("nan")])
def test_alpha_below_one_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        EWCLoss(alpha=alpha)
