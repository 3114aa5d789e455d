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


"""The loss with one sigma per landmark: equal to its base, independent of sigma, complete in its state."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.losses import (
    AdaptivePrecisionLoss,
    AdaptiveWingLoss,
    EWCLoss,
    GaussianTarget,
    HeatmapCrossEntropyLoss,
    HeatmapL2Loss,
    SCNLoss,
)

BASES = [
    HeatmapL2Loss,
    lambda **kwargs: HeatmapL2Loss(GaussianTarget(normalize="mass", amplitude=100.0), **kwargs),
    lambda **kwargs: HeatmapL2Loss(foreground_weight=20.0, **kwargs),
    EWCLoss,
    AdaptiveWingLoss,
    HeatmapCrossEntropyLoss,
]
SHAPE = {2: (12, 14), 3: (8, 9, 10)}


def example(dims, device="cpu"):
    torch.manual_seed(0)
    points = 1 + torch.rand(2, 3, dims, device=device) * 6
    points[1, 2] = float("nan")
    return torch.randn(2, 3, *SHAPE[dims], device=device), points


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("base", BASES)
def test_first_sigmas_give_the_base_loss(base, dims, device):
    logits, points = example(dims, device)
    loss = AdaptivePrecisionLoss(3, dims, base(), sigma=2.0).to(device)
    plain = base(reduction="none").to(device)
    plain.target.raw_sigma.fill_(2.0)
    expected = plain(logits, points)
    torch.testing.assert_close(loss(logits, points[:, None]), expected.sum() / 5)
    torch.testing.assert_close(loss.landmark_loss, expected.sum(0) / torch.tensor([2, 2, 1], device=device))
    for reduction, value in (("none", expected), ("sum", expected.sum())):
        loss.reduction = reduction
        torch.testing.assert_close(loss(logits, points), value)


@pytest.mark.parametrize("base", BASES)
def test_each_landmark_has_its_own_sigma(base):
    logits, points = example(2)
    sigma = [1.0, 2.0, 4.0]
    loss = AdaptivePrecisionLoss(3, 2, base(), reduction="none", weight_range=(1.0, 1.0))
    loss.set_sigma(sigma)
    for n, value in enumerate(sigma):
        alone = base(reduction="none")
        alone.target.raw_sigma.fill_(value)
        expected = alone(logits[:, n : n + 1], points[:, n : n + 1])
        torch.testing.assert_close(loss(logits, points)[:, n : n + 1], expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("base", BASES[:-1])
def test_a_change_of_sigma_is_not_rewarded(base, dims):
    """The loss of an empty map is the same for every sigma. Without the weight it is proportional to the volume."""
    loss = AdaptivePrecisionLoss(3, dims, base(), sigma=2.0, reduction="none", weight_range=(0.0, 1e9))
    size = 31
    empty, points = torch.zeros(1, 3, *(size,) * dims), torch.full((1, 3, dims), 15.0)
    before = loss(empty, points)
    loss.set_sigma([1.0, 2.0, 3.5])
    torch.testing.assert_close(loss(empty, points), before, rtol=2e-3, atol=0)
    assert loss.weight[1] == pytest.approx(1.0, rel=1e-5)
    unweighted = before / loss.weight
    assert unweighted.max() > 3 * unweighted.min()


def test_weights_of_the_square_error_go_with_the_volume():
    for dims in (2, 3):
        loss = AdaptivePrecisionLoss(3, dims, HeatmapL2Loss(), sigma=2.0, weight_range=(0.25, 5.0))
        loss.set_sigma([1.5, 2.0, 8.0])
        expected = torch.tensor([(2 / 1.5) ** dims, 1.0, 0.25])
        torch.testing.assert_close(loss.weight, expected, rtol=1e-3, atol=0)
        # the weight of a volume of less than a fifth is limited
        loss.set_sigma([0.8, 2.0, 2.0])
        torch.testing.assert_close(loss.weight, torch.tensor([5.0, 1.0, 1.0]), rtol=1e-3, atol=0)


def test_millimeters():
    logits, points = example(2)
    in_mm = AdaptivePrecisionLoss(3, 2, HeatmapL2Loss(), sigma=[1.0, 2.0, 3.0], spacing=0.5)
    in_voxels = AdaptivePrecisionLoss(3, 2, HeatmapL2Loss(), sigma=[2.0, 4.0, 6.0])
    torch.testing.assert_close(in_mm(logits, points), in_voxels(logits, points))
    assert in_mm.sigma.tolist() == [1.0, 2.0, 3.0]
    # voxels that are longer along the second axis: the target is narrower there, in voxels
    uneven = AdaptivePrecisionLoss(3, 2, HeatmapL2Loss(), sigma=2.0, spacing=[0.5, 2.0], reduction="none")
    plain = HeatmapL2Loss(GaussianTarget(sigma=[[4.0, 1.0]]), reduction="none")
    torch.testing.assert_close(uneven(logits, points), plain(logits, points))


@pytest.mark.parametrize("base", BASES)
def test_state_is_whole(base):
    logits, points = example(2)
    loss = AdaptivePrecisionLoss(3, 2, base(), sigma=[2.0, 3.0, 4.0])
    loss.set_sigma([1.0, 2.0, 3.0])
    other = AdaptivePrecisionLoss(3, 2, base(), sigma=5.0)
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(logits, points), loss(logits, points), rtol=0, atol=0)
    # and what comes after: the reference is that of the first sigmas
    for one in (loss, other):
        one.set_sigma(2.5)
    torch.testing.assert_close(other(logits, points), loss(logits, points), rtol=0, atol=0)


def test_absent_landmarks_count_where_the_base_says_so():
    logits, points = example(2)
    loss = AdaptivePrecisionLoss(3, 2, HeatmapL2Loss(missing="absent"), sigma=2.0)
    expected = HeatmapL2Loss(GaussianTarget(2.0), missing="absent", reduction="none")(logits, points)
    torch.testing.assert_close(loss(logits, points), expected.mean())


def test_a_landmark_that_the_batch_has_not_has_no_loss():
    logits, points = example(2)
    loss = AdaptivePrecisionLoss(3, 2)
    loss(logits[1:], points[1:])
    assert loss.landmark_loss.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize("base", BASES)
def test_the_base_that_is_given_stays_as_it_is(base):
    """One base in two losses: neither loss changes it or the other loss."""
    logits, points = example(2)
    given = base()
    target, sigma, before = given.target, given.target.sigma.clone(), given(logits, points)
    losses = [AdaptivePrecisionLoss(3, 2, given, sigma=s, reduction="none") for s in (2.0, 5.0)]
    losses[0].set_sigma([1.0, 2.0, 4.0])
    losses[0](logits, points)
    assert given.reduction == "mean" and given.target is target
    assert torch.equal(given.target.sigma, sigma) and torch.equal(given(logits, points), before)
    alone = base(reduction="none")
    alone.target.raw_sigma.fill_(5.0)
    torch.testing.assert_close(losses[1](logits, points), alone(logits, points))
    # a change of the object that was given comes too late
    given.target.raw_sigma.fill_(9.0)
    torch.testing.assert_close(losses[1](logits, points), alone(logits, points))


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: AdaptivePrecisionLoss(3, 4), "spatial_dims"),
        (lambda: AdaptivePrecisionLoss(3, 2, sigma=[1.0, 2.0]), "3 of them"),
        (lambda: AdaptivePrecisionLoss(3, 2, sigma=0.0), "positive"),
        (lambda: AdaptivePrecisionLoss(3, 2, spacing=-1.0), "spacing"),
        (lambda: AdaptivePrecisionLoss(3, 2, SCNLoss(3, 2)), "not learned"),
        (lambda: AdaptivePrecisionLoss(3, 2, SCNLoss(3, 2, learn_sigma=False)), "loss of maps"),
        (lambda: AdaptivePrecisionLoss(3, 2, torch.nn.MSELoss()), "not learned"),
        (lambda: AdaptivePrecisionLoss(3, 2).set_sigma(float("nan")), "positive"),
        (lambda: AdaptivePrecisionLoss(1, 2)(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)), "index points"),
        (lambda: AdaptivePrecisionLoss(1, 2)(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3)), "do not match"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_landmarks_outside_the_map_count_as_the_base_says():
    """Cross-entropy has no target for them; a squared error has that of the part of the Gaussian in the map."""
    logits = torch.randn(2, 2, 24, 24)
    points = torch.tensor([[[5.0, 6.0], [30.0, 4.0]], [[7.0, 8.0], [9.0, 9.0]]])
    loss = AdaptivePrecisionLoss(2, 2, sigma=4.0)
    torch.testing.assert_close(loss(logits, points), HeatmapCrossEntropyLoss(GaussianTarget(4.0))(logits, points))
    alone = HeatmapCrossEntropyLoss(GaussianTarget(4.0), reduction="none")(logits, points)
    torch.testing.assert_close(loss.landmark_loss, torch.stack([alone[:, 0].mean(), alone[1, 1]]))
    loss = AdaptivePrecisionLoss(1, 2, HeatmapL2Loss(missing="absent"), sigma=3.0)
    loss(torch.ones(2, 1, 16, 16), torch.tensor([[[8.0, 8.0]], [[float("nan")] * 2]]))
    expected = HeatmapL2Loss(GaussianTarget(3.0), missing="absent", reduction="none")(
        torch.ones(2, 1, 16, 16), torch.tensor([[[8.0, 8.0]], [[float("nan")] * 2]])
    )
    torch.testing.assert_close(loss.landmark_loss, expected.mean(dim=0))


def test_different_first_sigmas_are_weighted_as_later_ones():
    first = AdaptivePrecisionLoss(2, 2, HeatmapL2Loss(), sigma=[2.0, 4.0])
    later = AdaptivePrecisionLoss(2, 2, HeatmapL2Loss(), sigma=[2.0, 4.0])
    later.set_sigma([2.0, 4.0])
    torch.testing.assert_close(first.weight, later.weight)
    # a flat map costs the same for both: the area of the target is four times as large
    torch.testing.assert_close(first.weight[0] / first.weight[1], torch.tensor(4.0), rtol=1e-2, atol=0)
