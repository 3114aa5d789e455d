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

"""Adaptive Wing against the formula as published, its limits, and its smoothness where the pieces meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import grey_dilation

from monai_landmarks.losses import AdaptiveWingLoss, GaussianTarget

PUBLISHED = {"omega": 14.0, "epsilon": 1.0, "alpha": 2.1, "theta": 0.5}
SETTINGS = [
    PUBLISHED,
    {"omega": 5.0, "epsilon": 0.5, "alpha": 2.1, "theta": 0.5},
    {**PUBLISHED, "theta": 1.3, "alpha": 3.0},
]
TARGETS = [0.0, 0.25, 0.5, 1.0]


def published(error, y, omega, epsilon, alpha, theta):
    """Equation 3 of the paper, with A and C."""
    power = alpha - y
    a = omega * (1 / (1 + (theta / epsilon) ** power)) * power * (theta / epsilon) ** (power - 1) / epsilon
    c = theta * a - omega * np.log(1 + (theta / epsilon) ** power)
    return np.where(error < theta, omega * np.log(1 + (error / epsilon) ** power), a * error - c)


def value_and_slope(error, y, **settings):
    """Of one voxel, in float64."""
    maps = torch.full((1, 1, 1, 1), y, dtype=torch.float64)
    prediction = (maps + error).requires_grad_()
    value = AdaptiveWingLoss(**settings, reduction="sum")(prediction, maps)
    value.backward()
    return float(value), float(prediction.grad)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("dims", [2, 3])
def test_equals_the_published_formula(dims, settings, device):
    torch.manual_seed(0)
    shape = {2: (12, 14), 3: (8, 9, 10)}[dims]
    prediction, points = torch.randn(2, 3, *shape), torch.rand(2, 3, dims) * 7
    loss = AdaptiveWingLoss(GaussianTarget(sigma=1.5), **settings, reduction="none").to(device)
    value = loss(prediction.to(device), points.to(device)).cpu()
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    for b in range(2):
        for n in range(3):
            y = np.exp(-((grid - points[b, n].numpy().astype(float)) ** 2).sum(-1) / (2 * 1.5**2))
            error = np.abs(prediction[b, n].numpy().astype(float) - y)
            assert float(value[b, n]) == pytest.approx(published(error, y, **settings).sum(), rel=1e-5)


def test_values_by_hand():
    # at the peak the exponent is 1.1, so r = 0.5 ** 1.1; an error of theta costs 14 ln(1 + r)
    r = 0.5**1.1
    slope = 14 * r / (1 + r) * 1.1 / 0.5
    assert value_and_slope(0.5, 1.0)[0] == pytest.approx(14 * math.log(1 + r))
    for error in (1.5, -1.5):
        assert value_and_slope(error, 1.0) == pytest.approx((14 * math.log(1 + r) + slope, math.copysign(slope, error)))


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("y", TARGETS)
@pytest.mark.parametrize("sign", [1, -1])
def test_value_and_slope_are_continuous_at_theta(y, settings, sign):
    below, at, above = (value_and_slope(sign * (settings["theta"] + step), y, **settings) for step in (-1e-9, 0, 1e-9))
    assert below == pytest.approx(above, rel=1e-6)
    assert at == pytest.approx(above, rel=1e-6)
    assert below[0] < above[0]


@pytest.mark.parametrize("y", TARGETS)
def test_small_errors(y):
    # ln(1 + x) goes to x: a power law with exponent 2.1 in the background and 1.1 at the peak
    power = 2.1 - y
    for error in (1e-4, -1e-4):
        value, slope = value_and_slope(error, y)
        assert value == pytest.approx(14 * 1e-4**power, rel=1e-4)
        assert slope == pytest.approx(math.copysign(14 * power * 1e-4 ** (power - 1), error), rel=1e-4)
    assert value_and_slope(0.0, y) == (0.0, 0.0)


def test_the_peak_counts_more_than_the_background():
    for error in (0.01, 0.1, 0.4):
        values = [value_and_slope(error, y)[0] for y in TARGETS]
        assert values == sorted(values) and values[0] < values[-1]


def test_large_errors_stay_finite():
    prediction = torch.full((1, 1, 1, 1), 1e30, requires_grad=True)
    value = AdaptiveWingLoss()(prediction, torch.ones(1, 1, 1, 1))
    value.backward()
    assert value.isfinite() and prediction.grad.isfinite().all()


@pytest.mark.parametrize("dims", [2, 3])
def test_foreground_weight_covers_the_dilated_landmark(dims):
    # one off everywhere in the background costs the same everywhere, but for the weight
    shape = (16,) * dims
    maps = GaussianTarget(sigma=1.5)(torch.full((1, 1, dims), 2.25), shape)
    prediction = torch.randn_like(maps)
    plain = published((prediction - maps).abs().numpy(), maps.numpy(), **PUBLISHED)[0, 0]
    mask = grey_dilation(maps[0, 0].numpy(), size=(3,) * dims) >= 0.2
    assert mask.sum() > (maps >= 0.2).sum()
    value = AdaptiveWingLoss(foreground_weight=10.0, reduction="sum")(prediction, maps)
    assert float(value) == pytest.approx(float((plain * (1 + 10 * mask)).sum()), rel=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [{"alpha": 2.0}, {"alpha": 0.9}, {"omega": 0.0}, {"epsilon": -1.0}, {"theta": 0.0}, {"foreground_weight": -1.0}],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        AdaptiveWingLoss(**arguments)
