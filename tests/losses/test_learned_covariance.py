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

"""Targets with a learned covariance: the density of a normal distribution, and closed forms of what is learned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from monai_landmarks.losses import GaussianTarget, LearnedCovarianceLoss, LearnedCovarianceTarget, SCNLoss, TargetSigma
from monai_landmarks.uncertainty import load_sigma

SIZES = {2: (24, 20), 3: (18, 20, 16)}


def set_covariance(target: LearnedCovarianceTarget, covariance: torch.Tensor) -> None:
    """Give a target this covariance, (N, D, D)."""
    factor = torch.linalg.cholesky(covariance)
    rows, columns = torch.tril_indices(factor.shape[-1], factor.shape[-1], -1)
    with torch.no_grad():
        target.raw_diagonal.copy_(factor.diagonal(dim1=-2, dim2=-1))
        target.lower.copy_(factor[:, rows, columns])


def covariances(dims: int, count: int = 3, seed: int = 0) -> torch.Tensor:
    """Turned covariances with standard deviations of 1.2 to 3 voxels, (N, D, D)."""
    random = np.random.default_rng(seed)
    turns = [np.linalg.qr(random.normal(size=(dims, dims)))[0] for _ in range(count)]
    return torch.tensor(
        np.array([turn @ np.diag(random.uniform(1.2, 3, dims) ** 2) @ turn.T for turn in turns]), dtype=torch.float32
    )


def middles(dims: int, count: int = 3) -> torch.Tensor:
    """Points near the middle, (2, N, D)."""
    random = torch.Generator().manual_seed(1)
    return torch.tensor(SIZES[dims]) / 2 + torch.rand(2, count, dims, generator=random)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_target_is_the_density_of_a_normal_distribution(dims: int, dtype: torch.dtype) -> None:
    target = LearnedCovarianceTarget(3, dims, amplitude=50.0)
    set_covariance(target, covariances(dims))
    torch.testing.assert_close(target.covariance, covariances(dims))
    points = middles(dims).to(dtype)
    maps = target(points, SIZES[dims])
    assert maps.dtype == dtype
    grid = np.stack(np.meshgrid(*map(np.arange, SIZES[dims]), indexing="ij"), axis=-1)
    for b in range(2):
        for n in range(3):
            density = multivariate_normal(points[b, n].numpy(), covariances(dims)[n].numpy()).pdf(grid)
            np.testing.assert_allclose(maps[b, n].detach().numpy(), 50 * density, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_equal_widths_are_the_usual_target(dims: int) -> None:
    plain = GaussianTarget(sigma=[[1.5], [2.0], [2.5]], normalize="mass", amplitude=7.0)
    target = LearnedCovarianceTarget(3, dims, sigma=[1.5, 2.0, 2.5], amplitude=7.0)
    torch.testing.assert_close(target(middles(dims), SIZES[dims]), plain(middles(dims), SIZES[dims]))
    torch.testing.assert_close(target.sigma, plain.sigma_table(3, dims))


@pytest.mark.parametrize("exponent", [0.5, 1.0])
@pytest.mark.parametrize("dims", [2, 3])
def test_loss_of_a_network_that_finds_nothing(dims: int, exponent: float) -> None:
    """Half of the integral of the squared Gaussian, and the penalty."""
    loss = LearnedCovarianceLoss(3, dims, amplitude=90.0, covariance_weight=4.0, exponent=exponent, reduction="none")
    set_covariance(loss.target, covariances(dims))
    found = loss(torch.zeros(2, 3, *SIZES[dims]), middles(dims))
    determinant = torch.linalg.det(covariances(dims))
    energy = 0.5 * 90.0**2 / ((4 * math.pi) ** (dims / 2) * determinant.sqrt())
    torch.testing.assert_close(found, (energy + 4 * determinant**exponent).expand(2, 3), rtol=1e-3, atol=0)
    loss.reduction = "sum"
    total = loss(torch.zeros(2, 3, *SIZES[dims]), middles(dims))
    torch.testing.assert_close(total, found.sum() / 2)
    loss.reduction = "mean"
    mean = loss(torch.zeros(2, 3, *SIZES[dims]), middles(dims)[:, None])  # as a loader collates points
    torch.testing.assert_close(mean, found.sum() / (2 * 3 * math.prod(SIZES[dims])))


@pytest.mark.parametrize("dims", [2, 3])
def test_equal_widths_without_penalties_are_the_loss_of_scn(dims: int) -> None:
    own = LearnedCovarianceLoss(3, dims, sigma=2.0, covariance_weight=0.0)
    scn = SCNLoss(3, dims, sigma=2.0, sigma_weight=0.0)
    heatmaps = torch.rand(2, 3, *SIZES[dims], generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(own(heatmaps, middles(dims)), scn(heatmaps, middles(dims)), rtol=1e-5, atol=0)


def fitted(loss: LearnedCovarianceLoss, heatmaps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The covariance that the loss learns while the network stays as it is."""
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(heatmaps, points)
        value.backward()
        return value

    optimizer.step(step)
    return loss.covariance.detach()


@pytest.mark.parametrize("dims", [2, 3])
def test_ceiling_of_a_landmark_that_cannot_be_located(dims: int) -> None:
    loss = LearnedCovarianceLoss(3, dims)
    set_covariance(loss.target, covariances(dims, seed=3))
    determinant = torch.linalg.det(fitted(loss, torch.zeros(2, 3, *SIZES[dims]), middles(dims)))
    torch.testing.assert_close(determinant, torch.full((3,), loss.determinant_ceiling()), rtol=0.01, atol=0)


def test_published_ceiling() -> None:
    """A variance of 3.41, a standard deviation of 1.85 pixels."""
    assert LearnedCovarianceLoss(1, 2).determinant_ceiling() ** 0.5 == pytest.approx(3.41, abs=0.005)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_covariance_of_the_heatmaps_is_learned(dims: int) -> None:
    """From equal widths, if nothing is penalized."""
    truth = LearnedCovarianceTarget(3, dims, amplitude=100.0)
    set_covariance(truth, covariances(dims))
    heatmaps = truth(middles(dims), SIZES[dims]).detach()
    found = fitted(LearnedCovarianceLoss(3, dims, amplitude=100.0, covariance_weight=0.0), heatmaps, middles(dims))
    torch.testing.assert_close(found, covariances(dims), rtol=0.01, atol=0.02)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients(dims: int) -> None:
    loss = LearnedCovarianceLoss(2, dims).double()
    set_covariance(loss.target, covariances(dims, 2).double())
    size = (6, 5, 4)[:dims]
    heatmaps = torch.rand(1, 2, *size, dtype=torch.float64, requires_grad=True)
    points = torch.tensor(size, dtype=torch.float64).expand(1, 2, dims) / 2.1

    def value(maps: torch.Tensor, diagonal: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(
            loss, {"target.raw_diagonal": diagonal, "target.lower": lower}, (maps, points)
        )

    assert torch.autograd.gradcheck(value, (heatmaps, loss.target.raw_diagonal, loss.target.lower))


@pytest.mark.parametrize(("missing", "counts"), [("ignore", 0.0), ("absent", 1.0)])
def test_missing_landmarks(missing: str, counts: float) -> None:
    loss = LearnedCovarianceLoss(3, 2, missing=missing, reduction="none")
    points = middles(2)
    complete = loss(torch.ones(2, 3, *SIZES[2]), points)
    points[0, 1, 0] = torch.nan
    heatmaps = torch.ones(2, 3, *SIZES[2], requires_grad=True)
    found = loss(heatmaps, points)
    expected = complete.detach().clone()
    expected[0, 1] = counts * 0.5 * math.prod(SIZES[2])  # a zero map is expected, and no penalty
    torch.testing.assert_close(found.detach(), expected)
    found.sum().backward()
    assert all(value.grad.isfinite().all() for value in (heatmaps, *loss.parameters()))
    assert bool(heatmaps.grad[0, 1].any()) == bool(counts)


def test_a_width_below_the_limit_can_grow_again() -> None:
    loss = LearnedCovarianceLoss(1, 2)
    with torch.no_grad():
        loss.target.raw_diagonal.fill_(-0.2)
    assert loss.target.sigma.tolist() == [[0.5, 0.5]]
    loss(torch.zeros(1, 1, 9, 9), torch.tensor([[[4.0, 4.0]]])).backward()
    assert (loss.target.raw_diagonal.grad < 0).all()


def test_half_precision_is_summed_in_single(tmp_path) -> None:
    heatmaps = torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    points, loss = torch.full((1, 2, 2), 30.0), LearnedCovarianceLoss(2, 2)
    assert loss(heatmaps, points).dtype == torch.float32
    assert torch.equal(loss(heatmaps, points), loss(heatmaps.float(), points))
    torch.save(TargetSigma(loss).state_dict(), tmp_path / "sigma.pt")
    torch.testing.assert_close(load_sigma(tmp_path / "sigma.pt"), torch.full((2, 2), 1.73))


def test_autocast_does_not_round_the_target() -> None:
    target = LearnedCovarianceTarget(1, 2)
    set_covariance(target, torch.tensor([[[64.0, 62.0], [62.0, 64.0]]]))
    points = torch.tensor([[[40.0, 40.0]]])
    expected = target(points, (80, 80)), target.covariance
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = target(points, (80, 80)), target.covariance
    assert all(torch.equal(one, other) for one, other in zip(found, expected))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims must be 2 or 3"),
        ({"sigma": [1.0, -1.0]}, "sigma must be positive"),
        ({"sigma": [1.0, 1.0, 1.0]}, "expected one number or 2"),
        ({"sigma": [[1.0], [1.0]]}, "expected one number or 2"),
        ({"amplitude": 0.0}, "amplitude must be positive"),
        ({"missing": "maybe"}, "missing must be one of"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LearnedCovarianceLoss(**{"num_landmarks": 2, "spatial_dims": 2, **arguments})


def test_wrong_points() -> None:
    heatmaps, loss = torch.zeros(1, 2, 8, 8), LearnedCovarianceLoss(2, 2)
    with pytest.raises(ValueError, match="pass index points"):
        loss(heatmaps, heatmaps)
    with pytest.raises(ValueError, match="do not match heatmaps"):
        loss(heatmaps, torch.zeros(1, 3, 2))
    for shape in ((1, 5, 8, 8), (1, 2, 8, 8, 8)):
        with pytest.raises(ValueError, match=r"but the loss is for 2 in 2-D"):
            loss(torch.zeros(shape), torch.zeros(1, shape[1], len(shape) - 2))
