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


"""Losses from points, whose targets are never stored, against the same losses with stored target maps."""

from __future__ import annotations

import sys

import pytest
import torch
from measure import peak_memory

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.losses import AdaptiveWingLoss, EWCLoss, GaussianTarget, HeatmapL2Loss, SCNLoss, voxel_sum
from monai_landmarks.losses.voxel_sum import VoxelTerm

SHAPE = {2: (23, 14), 3: (19, 9, 10)}
LOSSES = {
    "L2": HeatmapL2Loss,
    "L2, foreground": lambda target, **options: HeatmapL2Loss(target, foreground_weight=3.0, **options),
    "EWC": EWCLoss,
    "AdaptiveWing": AdaptiveWingLoss,
    "AdaptiveWing, foreground": lambda target, **options: AdaptiveWingLoss(target, foreground_weight=10.0, **options),
}
QUICK = ["L2", "L2, foreground", "EWC"]  # with derivatives of their own


@pytest.fixture(params=[10, 60, 700], ids="parts of {}".format)
def many_parts(request, monkeypatch):
    """A part is one row, some rows, or some maps. Distant rows have no target."""
    monkeypatch.setattr(voxel_sum, "_LEAST_VOXELS", {"cpu": request.param, "cuda": request.param})
    monkeypatch.setattr(voxel_sum, "_NUM_PARTS", 10**9)


def example(dims, device="cpu", dtype=torch.float32):
    torch.manual_seed(0)
    points = torch.rand(2, 3, dims, device=device, dtype=torch.float64) * 8
    points[1, 2] = float("nan")
    points[0, 1, 0] = -2.5  # outside
    return torch.randn(2, 3, *SHAPE[dims], device=device).to(dtype).requires_grad_(), points


def values_and_gradients(value, prediction, *parameters):
    weights = torch.linspace(0.5, 2, value.numel()).view_as(value).to(value)
    return [value.detach(), *torch.autograd.grad((value * weights).sum(), (prediction, *parameters))]


def assert_same(found, expected, tolerance=1e-5):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("missing", ["ignore", "absent"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", LOSSES)
def test_value_and_gradients_are_those_of_stored_targets(kind, dims, missing, many_parts, device):
    prediction, points = example(dims, device)
    target = GaussianTarget(sigma=[[0.6], [0.8], [1.1]], learnable=True).to(device)
    loss = LOSSES[kind](target, missing=missing, reduction="none")
    maps = target(points, SHAPE[dims])
    if missing == "ignore":
        maps = torch.where(points.isnan().any(-1).view(2, 3, *[1] * dims), float("nan"), maps)
    expected = values_and_gradients(loss(prediction, maps), prediction, target.raw_sigma)
    assert_same(values_and_gradients(loss(prediction, points), prediction, target.raw_sigma), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_scn_is_its_formula_with_stored_targets(dims, many_parts, device):
    prediction, points = example(dims, device)
    loss = SCNLoss(3, dims, sigma=[0.6, 0.8, 1.1], amplitude=20.0, sigma_weight=3.0, reduction="none").to(device)
    maps = gaussian_heatmaps(points, SHAPE[dims], loss.target.sigma, "mass", 20.0)
    present = ~points.isnan().any(-1)
    formula = 0.5 * (((prediction - maps) ** 2).flatten(2).sum(-1) + 3.0 * loss.sigma**2) * present
    expected = values_and_gradients(formula, prediction, loss.target.raw_sigma)
    assert_same(values_and_gradients(loss(prediction, points), prediction, loss.target.raw_sigma), expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kind", [*LOSSES, "SCN"])
def test_gradcheck_with_learned_sigma(kind, dims, monkeypatch):
    monkeypatch.setattr(voxel_sum, "_LEAST_VOXELS", {"cpu": 10, "cuda": 10})
    monkeypatch.setattr(voxel_sum, "_NUM_PARTS", 10**9)
    torch.manual_seed(0)
    prediction = torch.randn(1, 2, 8, *(3,) * (dims - 1), dtype=torch.float64, requires_grad=True)
    points = torch.rand(1, 2, dims, dtype=torch.float64) * 3
    if kind == "SCN":
        loss = SCNLoss(2, dims, sigma=[0.6, 0.7], amplitude=5.0).double()
    else:
        loss = LOSSES[kind](GaussianTarget(sigma=[[0.6], [0.7]], learnable=True)).double()

    def value(p, sigma):
        return torch.func.functional_call(loss, {"target.raw_sigma": sigma}, (p, points))

    assert torch.autograd.gradcheck(value, (prediction, loss.target.raw_sigma), fast_mode=True)


@pytest.mark.parametrize("kind", QUICK)
def test_quick_derivatives_are_those_of_the_formula(kind):
    torch.manual_seed(0)
    loss = LOSSES[kind](GaussianTarget())
    heatmaps, maps = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.rand(2, 3, 4, 5, dtype=torch.float64)
    peak = maps.amax(dim=(2, 3), keepdim=True) * 1.1
    for one, other in zip(
        loss.voxel_slopes(heatmaps, maps, peak, True), VoxelTerm.voxel_slopes(loss, heatmaps, maps, peak, True)
    ):
        assert torch.allclose(torch.zeros(()).double() if one is None else one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [*QUICK, "AdaptiveWing"])
def test_half_precision_is_that_of_stored_targets(kind, dtype, device):
    prediction, points = example(3, device, dtype)
    loss = LOSSES[kind](GaussianTarget(sigma=1.5).to(device))
    found, expected = (
        values_and_gradients(loss(prediction, t), prediction) for t in (points, loss.target(points, SHAPE[3]))
    )
    expected[0] *= 6 / 5  # a map of zeros is not missing
    assert found[1].dtype == dtype
    points_are_known = ~points.isnan().any(-1)
    eps = torch.finfo(dtype).eps
    assert torch.allclose(found[1][points_are_known] * (5 / 6), expected[1][points_are_known], rtol=4 * eps, atol=1e-7)


@pytest.mark.parametrize("dims", [2, 3])
def test_memory_formats(dims, many_parts, device):
    prediction, points = example(dims, device)
    loss = EWCLoss(GaussianTarget(sigma=1.5).to(device))
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    other = prediction.detach().to(memory_format=layout).requires_grad_()
    found = values_and_gradients(loss(other, points), other)
    assert_same(found, values_and_gradients(loss(prediction, points), prediction))
    assert found[1].is_contiguous(memory_format=layout)


def test_expanded_predictions_and_no_landmarks():
    """An expanded prediction shares its memory between cases; an empty one has no memory."""
    _, points = example(2)
    flat = torch.zeros(1, 1, *SHAPE[2], requires_grad=True)
    loss = HeatmapL2Loss(GaussianTarget(sigma=1.5), reduction="sum")
    loss(flat.expand(2, 3, -1, -1), points).backward()
    assert torch.allclose(flat.grad[0, 0], -2 * loss.target(points, SHAPE[2]).sum((0, 1)), atol=1e-6)
    assert loss(torch.zeros(2, 0, 8, 8), torch.zeros(2, 0, 2)) == 0


def test_gradients_are_asked_for_where_needed():
    prediction, points = example(2)
    loss = EWCLoss(GaussianTarget(sigma=1.5, learnable=True))
    loss(prediction.detach(), points).backward()
    assert float(loss.target.raw_sigma.grad.abs()) > 0
    points.requires_grad_()
    (moved,) = torch.autograd.grad(loss(prediction, points), points)
    assert float(moved.nan_to_num().abs().sum()) > 0


def test_a_second_derivative_is_refused():
    prediction, points = example(2)
    loss = HeatmapL2Loss(GaussianTarget(sigma=1.5), reduction="sum")
    value = loss(prediction, points)
    with pytest.raises(RuntimeError, match="no second derivatives.*call it with target heatmaps"):
        torch.autograd.grad(value, prediction, create_graph=True)
    value = loss(prediction, loss.target(points, SHAPE[2]))
    (gradient,) = torch.autograd.grad(value, prediction, create_graph=True)
    assert torch.equal(torch.autograd.grad(gradient.sum(), prediction)[0], torch.full_like(prediction, 2))


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of the CPU is asked from Linux")
def test_memory_does_not_grow_with_landmarks():
    """Memory of the process in addition to the gradient of the prediction. Stored targets would be as large as that."""
    loss = EWCLoss(GaussianTarget(sigma=3.0, learnable=True))
    points = torch.rand(1, 160, 3) * 60
    prediction = torch.zeros(1, 160, 64, 64, 64, requires_grad=True)
    size = 4 * prediction.numel()
    # the smallest of three: the first warms up, and what else the process does is no part of it
    memory = min(peak_memory(lambda: torch.autograd.grad(loss(prediction, points), prediction)) for _ in range(3))
    assert size <= memory < 1.05 * size
