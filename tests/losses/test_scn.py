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

"""The SCN loss: its formula, and the sigma that it learns, against the closed form."""

from __future__ import annotations

import math

import pytest
import torch

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses import SCNLoss


def optimal_sigma(dims, gamma, alpha, tau):
    """
    The minimum of the remaining loss by a fine search.

    A network that cannot localize better than with a standard deviation tau predicts the mean target, a Gaussian of
    variance sigma^2 + tau^2. What remains is the target's energy less the energy of that mean, plus the penalty.
    """
    sigma = torch.linspace(0.5, 6.0, 55001, dtype=torch.float64)
    energy = 0.5 * gamma**2 * (4 * math.pi) ** (-dims / 2)
    blurred = (sigma**2 + tau**2) ** (-dims / 2) if math.isfinite(tau) else 0.0
    remaining = energy * (sigma ** (-dims) - blurred) + 0.5 * alpha * sigma**2
    return float(sigma[remaining.argmin()])


TABLE = [
    (2, 100, 20, [1.29, 1.61, 1.96, 2.28, 2.41, 2.49, 2.51]),
    (2, 100, 5, [1.64, 2.04, 2.52, 3.01, 3.26, 3.46, 3.55]),
    (3, 1000, 100, [1.75, 2.12, 2.53, 2.91, 3.07, 3.17, 3.20]),
]
TAUS = [0.25, 0.5, 1.0, 2.0, 3.0, 5.0, math.inf]


@pytest.mark.parametrize("dims,gamma,alpha,sigmas", TABLE)
def test_table_of_learned_sigmas(dims, gamma, alpha, sigmas):
    assert [round(optimal_sigma(dims, gamma, alpha, tau), 2) for tau in TAUS] == sigmas


@pytest.mark.parametrize("dims,gamma,alpha,sigmas", TABLE)
def test_ceiling(dims, gamma, alpha, sigmas):
    loss = SCNLoss(4, dims, amplitude=gamma, sigma_weight=alpha)
    assert round(loss.sigma_ceiling(), 2) == sigmas[-1]


@pytest.mark.parametrize("dims,tau", [(2, 0.5), (2, 2.0), (3, 1.0), (2, math.inf)])
def test_gradient_of_sigma_vanishes_at_the_optimum(dims, tau):
    # The best prediction under jitter tau is the Gaussian of variance sigma^2 + tau^2. Averaged over the jitter, the
    # cross term of the loss is that Gaussian against itself, so its gradient follows from a deterministic sum in which
    # the prediction is blurred once more by tau.
    gamma, alpha = (100.0, 20.0) if dims == 2 else (1000.0, 100.0)
    best = optimal_sigma(dims, gamma, alpha, tau)
    size = 25
    center = torch.full((1, 1, dims), size // 2, dtype=torch.float64)

    def slope(value):
        loss = SCNLoss(1, dims, sigma=value, amplitude=gamma, sigma_weight=alpha)
        if math.isfinite(tau):
            # E_jitter[t * p] over voxels equals sum t0 * (p blurred by tau)
            width = math.sqrt(value**2 + 2 * tau**2)
            blurred = gaussian_heatmaps(center, (size,) * dims, width, "mass", gamma)
        else:
            blurred = torch.zeros(1, 1, *(size,) * dims)
        loss(blurred, center).backward()
        return float(loss.target.raw_sigma.grad)

    scale = gamma**2 / best ** (dims + 1)
    assert slope(best * 0.8) < 0 < slope(best * 1.25)
    assert abs(slope(best)) < 0.01 * scale


@pytest.mark.parametrize("dims", [2, 3])
def test_formula(dims):
    torch.manual_seed(0)
    shape = (10,) * dims
    points = torch.rand(2, 3, dims) * 8
    points[1, 0] = float("nan")
    prediction = torch.randn(2, 3, *shape)
    sigma, gamma, alpha = torch.tensor([1.0, 2.0, 3.0]), 70.0, 7.0
    for missing in ("ignore", "absent"):
        loss = SCNLoss(3, dims, sigma=sigma.tolist(), amplitude=gamma, sigma_weight=alpha, missing=missing)
        total = 0.0
        for b in range(2):
            for n in range(3):
                known = not points[b, n].isnan().any()
                if known:
                    grid = torch.stack(torch.meshgrid(*[torch.arange(10.0)] * dims, indexing="ij"), -1)
                    squared = ((grid - points[b, n]) ** 2).sum(-1)
                    target = (
                        gamma / (math.sqrt(2 * math.pi) * sigma[n]) ** dims * torch.exp(-squared / (2 * sigma[n] ** 2))
                    )
                    total += 0.5 * ((prediction[b, n] - target) ** 2).sum() + 0.5 * alpha * sigma[n] ** 2
                elif missing == "absent":
                    total += 0.5 * (prediction[b, n] ** 2).sum()
        assert torch.allclose(loss(prediction, points), total / 2, rtol=1e-5)
        assert torch.allclose(loss(prediction, points[:, None]), total / 2, rtol=1e-5)


def test_reductions_agree():
    torch.manual_seed(0)
    prediction, points = torch.randn(2, 3, 8, 9), torch.rand(2, 3, 2) * 7
    value = {r: SCNLoss(3, 2, reduction=r)(prediction, points) for r in ("none", "sum", "mean")}
    assert value["none"].shape == (2, 3)
    assert torch.allclose(value["none"].sum() / 2, value["sum"])
    assert torch.allclose(value["sum"] / (3 * 8 * 9), value["mean"])


@pytest.mark.parametrize("dims", [2, 3])
def test_gradcheck_with_respect_to_prediction_and_sigma(dims):
    torch.manual_seed(0)
    loss = SCNLoss(2, dims, sigma=1.5).double()
    prediction = torch.randn(1, 2, *(5,) * dims, dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 2, dims, dtype=torch.float64) * 4
    sigma = loss.target.raw_sigma

    def value(p, s):
        return torch.func.functional_call(loss, {"target.raw_sigma": s}, (p, points))

    assert torch.autograd.gradcheck(value, (prediction, sigma), eps=1e-3, atol=2e-2, rtol=1e-3)


def test_learning_sigma_recovers_the_table():
    # labels that jitter with tau = 2 px, a prediction free to be the best there is: sigma must go to 2.28
    torch.manual_seed(0)
    loss = SCNLoss(1, 2, sigma=2.0)
    # 4000 draws stand for the jitter; the best prediction for them is the mean of their targets
    points = torch.tensor([16.0, 16.0]) + 2.0 * torch.randn(4000, 1, 2)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    for _ in range(60):
        targets = loss.target(points, (33, 33))
        mean = targets.mean(0, keepdim=True).detach()
        value = loss(mean.expand_as(targets), points)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(loss.sigma) == pytest.approx(2.28, abs=0.08)


def test_fixed_sigma_has_no_penalty_and_no_parameter():
    loss = SCNLoss(2, 2, learn_sigma=False)
    points = torch.tensor([[[4.0, 5.0], [6.0, 3.0]]])
    assert list(loss.parameters()) == []
    assert loss(loss.target(points, (9, 9)), points) == 0


@pytest.mark.parametrize(
    "call", [lambda: SCNLoss(2, 4), lambda: SCNLoss(2, 2)(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))]
)
def test_bad_arguments(call):
    with pytest.raises(ValueError):
        call()
