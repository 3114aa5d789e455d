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
"""Ensembles against what their members are by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import nn

from monai_landmarks.heatmaps import gaussian_heatmaps
from monai_landmarks.inferers import (
    DropoutEnsembleInferer,
    FlipEnsembleInferer,
    LandmarkInferer,
    SlidingWindowLandmarkInferer,
)
from monai_landmarks.networks.nets import SCN
from monai_landmarks.transforms import HeatmapToLandmarksd, RandLandmarkFlip
from monai_landmarks.uncertainty import ensemble_covariance

NAMES = ["left", "middle", "right"]
PAIRS = [("left", "right")]
SIZES = {2: (9, 12), 3: (7, 9, 8)}


def make_net(dims, device):
    torch.manual_seed(dims)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    return nn.Sequential(conv(1, 4, 3, padding=1), nn.ReLU(), conv(4, 3, 3, padding=1)).to(device).eval()


@pytest.mark.parametrize("dims, axis", [(2, 0), (2, 1), (2, (0, 1)), (3, 0), (3, 2), (3, (0, 2)), (3, (0, 1, 2))])
def test_flip_members_by_hand(dims, axis, device):
    """The second member, mirrored and exchanged again, is the network's answer to the image that the transform mirrors."""
    net, images = make_net(dims, device), torch.rand(2, 1, *SIZES[dims], device=device)
    inferer = FlipEnsembleInferer(axis, PAIRS, NAMES, stack=True)
    with torch.no_grad():
        found = inferer(images, net)
        mean = FlipEnsembleInferer(axis, PAIRS, NAMES)(images, net)
        assert found.shape == (2, 2, 3, *SIZES[dims])
        torch.testing.assert_close(found[:, 0], net(images))
        flip = RandLandmarkFlip(axis, PAIRS, NAMES, prob=1.0)
        odd = isinstance(axis, int) or len(axis) % 2 == 1
        for b in range(2):
            mirrored = net(flip(images[b])[0][None])[0]
            exchanged = mirrored[[2, 1, 0]] if odd else mirrored
            torch.testing.assert_close(flip(found[b, 1])[0], exchanged)
    torch.testing.assert_close(mean, found.mean(dim=1))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_that_follows_the_mirror_gains_nothing(dims):
    """Where every member says the same the mean is exact: left and right by where they are, middle by brightness."""
    x = torch.arange(SIZES[dims][0]).float().reshape(-1, *[1] * (dims - 1))

    def net(images):
        first = images[:, 0] * (len(x) - 1 - x)  # high where x is small: what a mirrored image has at large x
        return torch.stack([first, images[:, 0], images[:, 0] * x], dim=1)

    images = torch.rand(2, 1, *SIZES[dims])
    torch.testing.assert_close(FlipEnsembleInferer(0, PAIRS, NAMES)(images, net), net(images))
    unpaired = FlipEnsembleInferer(0)(images, net)
    assert (unpaired - net(images)).abs().max() > 0.1


@pytest.mark.parametrize("points", [False, True])
def test_the_mirror_image_says_nothing_of_what_is_on_one_side_only(points):
    images, net = torch.rand(2, 1, *SIZES[2]), make_net(2, "cpu")
    inner = LandmarkInferer() if points else None
    with torch.no_grad():
        one, both = (
            FlipEnsembleInferer(0, PAIRS, NAMES, inner, one_sided=one_sided)(images, net)
            for one_sided in (["middle"], ())
        )
        alone = LandmarkInferer()(images, net) if points else {"maps": net(images)}
    one, both = (found if points else {"maps": found} for found in (one, both))
    for name, values in alone.items():
        torch.testing.assert_close(one[name][:, 1], values[:, 1], equal_nan=True)
        torch.testing.assert_close(one[name][:, [0, 2]], both[name][:, [0, 2]], equal_nan=True)
        assert name == "covariances" or not torch.allclose(both[name][:, 1], values[:, 1])


def test_the_covariance_of_what_is_on_one_side_only_is_that_of_the_image():
    image = torch.zeros(1, 1, 8, 6)
    image[..., 0, :] = 1

    def inferer(images, network):
        variance = 4.0 if images[0, 0, 0, 0] == 1 else 9.0
        covariances = variance * torch.eye(2).expand(1, 3, 2, 2)
        return {"points": torch.full((1, 3, 2), 3.0), "scores": torch.ones(1, 3), "covariances": covariances}

    found = FlipEnsembleInferer(0, PAIRS, NAMES, inferer, one_sided=["middle"])(image, None)["covariances"][0]
    torch.testing.assert_close(found[1], 4 * torch.eye(2))
    # the mean of both, and the spread of points that are one voxel apart along the first axis
    torch.testing.assert_close(found[0], torch.diag(torch.tensor([6.5 + 0.5, 6.5])))


def test_nested_flips_are_four_members():
    net, images = make_net(2, "cpu"), torch.rand(1, 1, *SIZES[2])
    with torch.no_grad():
        found = FlipEnsembleInferer(0, inferer=FlipEnsembleInferer(1))(images, net)
        four = [torch.flip(net(torch.flip(images, axes)), axes) for axes in ([], [2], [3], [2, 3])]
    torch.testing.assert_close(found, torch.stack(four).mean(dim=0))


def test_flip_over_sliding_windows_and_with_meta():
    net, images = make_net(2, "cpu"), MetaTensor(torch.rand(1, 1, *SIZES[2]))
    whole = SlidingWindowInferer(SIZES[2], sw_batch_size=1)
    with torch.no_grad():
        expected = FlipEnsembleInferer(0, PAIRS, NAMES)(images.as_tensor(), net)
        found = FlipEnsembleInferer(0, PAIRS, NAMES, inferer=whole)(images, net)
    torch.testing.assert_close(torch.as_tensor(found.numpy()), expected)


def test_flip_errors():
    net, images = make_net(2, "cpu"), torch.zeros(1, 1, *SIZES[2])
    with pytest.raises(ValueError, match="spatial_axis .2,. is not an axis of images with 2"):
        FlipEnsembleInferer(2)(images, net)
    with pytest.raises(ValueError, match="3 landmarks, but names and pairs are for 2"):
        FlipEnsembleInferer(0, names=["a", "b"])(images, net)
    with pytest.raises(ValueError, match="'x' is not among"):
        FlipEnsembleInferer(0, [("x", "left")], NAMES)


class LeftAndRight(nn.Module):
    """Gaussians as wide as the landmarks are uncertain, seen a little elsewhere in the mirror image."""

    def __init__(self, points, size, axis, shift, sigma):
        super().__init__()
        flip = RandLandmarkFlip(axis, PAIRS, NAMES, prob=1.0)
        mirrored = flip.flip_points(points, torch.zeros(1, *size)) + shift
        self.maps = [gaussian_heatmaps(p, size, sigma) for p in (points, mirrored)]

    def forward(self, images):
        seen = [self.maps[int(image.flatten()[0])] for image in images]  # the first voxel of the mirror image is 1
        return torch.stack(seen).to(images)


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("dims, axis", [(2, 0), (2, (0, 1)), (3, 0), (3, 2)])
def test_points_of_both_images(dims, axis, windows, device):
    """Seen a voxel further in the mirror image, along every axis: the point is between, its covariance that of a mixture."""
    size, shift, sigma = (
        (40, 36, 32)[:dims],
        torch.tensor([1.0, 0.5, -0.5][:dims]),
        torch.tensor([[2.0, 1.5, 1.8][:dims]]),
    )
    torch.manual_seed(0)
    points = 10 + 12 * torch.rand(3, dims)
    images = torch.zeros(1, 1, *size, device=device)
    images[(0, 0, *[-1 if d in np.atleast_1d(axis) else 0 for d in range(dims)])] = 1
    # one window: the images are told apart by their first voxel
    inner = SlidingWindowLandmarkInferer(roi_size=size) if windows else LandmarkInferer()
    net = LeftAndRight(points, size, axis, shift, sigma)
    found = FlipEnsembleInferer(axis, PAIRS, NAMES, inferer=inner)(images, net)
    back = torch.tensor([-1.0 if d in np.atleast_1d(axis) else 1.0 for d in range(dims)]) * shift
    both = torch.stack([points, points + back]).double()
    own = torch.diag_embed(sigma.square()).expand(2, 3, dims, dims).double()
    torch.testing.assert_close(found["points"][0].cpu().double(), both.mean(dim=0), atol=2e-2, rtol=0)
    torch.testing.assert_close(
        found["covariances"][0].cpu().double(), ensemble_covariance(both, own), atol=5e-2, rtol=0
    )
    of_mean = LandmarkInferer(FlipEnsembleInferer(axis, PAIRS, NAMES))(images, net)
    torch.testing.assert_close(found["points"], of_mean["points"], atol=0.05, rtol=0)
    # scores are values of voxels, up to half a voxel from the peak along each axis
    torch.testing.assert_close(found["scores"], of_mean["scores"], atol=0.12, rtol=0)


def test_a_point_that_jumped_in_the_mirror_image():
    """As with mean heatmaps, the higher peak wins; an average would lie where nothing is."""
    size = (48, 40)
    high, low = gaussian_heatmaps(torch.tensor([[10.0, 10.0], [40.0, 30.0]]), size, 2.0)

    def net(images):
        return (0.8 * low if images[0, 0, 0, 0] else high)[None, None]

    images = torch.zeros(1, 1, *size)
    images[0, 0, -1, 0] = 1
    found = FlipEnsembleInferer(0, inferer=LandmarkInferer())(images, net)
    torch.testing.assert_close(found["points"], torch.tensor([[[10.0, 10.0]]]), atol=1e-2, rtol=0)
    assert found["scores"].item() == pytest.approx(0.5, abs=0.01) and found["covariances"][0, 0, 1, 1] > 100


def test_mirrored_covariances_turn_over():
    """One member alone, brought back: the correlation of two axes changes its sign when one of them is mirrored."""
    inferer = FlipEnsembleInferer(1, PAIRS, NAMES)
    root = torch.randn(2, 3, 3, 3)
    own = {"points": torch.rand(2, 3, 3), "scores": torch.rand(2, 3), "covariances": root @ root.transpose(-1, -2)}
    back = inferer._points_back(own, (5, 7, 9))
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0]))
    rows = [2, 1, 0]
    torch.testing.assert_close(back["points"], own["points"][:, rows] @ mirror + torch.tensor([0.0, 6.0, 0.0]))
    torch.testing.assert_close(back["covariances"], mirror @ own["covariances"][:, rows] @ mirror)
    torch.testing.assert_close(back["scores"], own["scores"][:, rows])


def test_points_of_ensembles_in_a_dictionary():
    net, images = make_net(2, "cpu"), torch.rand(1, 1, *SIZES[2])
    with pytest.raises(ValueError, match="one point per landmark"):
        FlipEnsembleInferer(0, inferer=LandmarkInferer(), stack=True)(images, net)
    dropout = nn.Sequential(nn.Dropout(0.3), *net)
    found = DropoutEnsembleInferer(members=3, inferer=LandmarkInferer())(images, dropout)
    assert {name: values.shape for name, values in found.items()} == {
        "points": (1, 3, 2),
        "scores": (1, 3),
        "covariances": (1, 3, 2, 2),
    }
    nested = FlipEnsembleInferer(0, inferer=FlipEnsembleInferer(1, inferer=LandmarkInferer()))(images, net)
    item = {"pred": {name: value[0] for name, value in nested.items()}, "image": images[0]}
    result = HeatmapToLandmarksd("pred", space="index", threshold=None)(item)
    assert result["pred_points"].shape == (1, 3, 2)
    with pytest.raises(ValueError, match="covariance='mixture' needs heatmaps"):
        HeatmapToLandmarksd("pred", space="index", covariance="mixture")(item)


def test_dropout_members_and_modes(device):
    """With p = 1/2 on a constant each value is 0 or 2, evenly; batch norm stays as it was, and so do all modes after."""
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Identity()).to(device).eval()
    images = torch.ones(2, 1, 16, 16, device=device)
    torch.manual_seed(0)
    with torch.no_grad():
        found = DropoutEnsembleInferer(members=20, stack=True)(images, net)
    assert found.shape == (2, 20, 1, 16, 16)
    values = found.unique()
    assert values[0] == 0 and values[1].item() == pytest.approx(2, abs=1e-4) and len(values) == 2
    assert abs(found.mean().item() - 1) < 4 / (20 * 512) ** 0.5
    assert not any(module.training for module in net.modules()) and net[0].num_batches_tracked == 0
    net.train()
    DropoutEnsembleInferer(members=2)(images, net)
    assert all(module.training for module in net.modules())


def test_dropout_modes_are_restored_after_an_error():
    net = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(2, 1, 1)).eval()
    with pytest.raises(RuntimeError):
        DropoutEnsembleInferer(members=2)(torch.ones(1, 1, 4, 4), net)
    assert not net[0].training


def test_dropout_of_a_published_network():
    net = SCN(2, 1, 3, features=4, spatial_kernel=3, dropout=0.5).eval()
    found = DropoutEnsembleInferer(members=3, stack=True)(torch.rand(1, 1, 32, 32), net)
    assert (found[:, 0] - found[:, 1]).abs().max() > 0


def test_dropout_errors():
    with pytest.raises(ValueError, match="at least 2"):
        DropoutEnsembleInferer(members=1)
    for net in (make_net(2, "cpu"), nn.Dropout(0.0), lambda images: images):
        with pytest.raises(ValueError, match="no dropout layer"):
            DropoutEnsembleInferer()(torch.zeros(1, 1, 4, 4), net)


@pytest.mark.parametrize("dims", [2, 3])
def test_from_members_to_a_covariance_in_mm(dims):
    """Two members that see the landmark 2 voxels apart along x: variance 2 voxels^2, at 0.5 mm 0.5 mm^2."""
    size = (24,) * dims
    points = torch.tensor([[11.0] * dims, [13.0] + [11.0] * (dims - 1)])
    maps = gaussian_heatmaps(points[:, None], size, 2.0)
    image = MetaTensor(torch.zeros(1, *size), affine=torch.diag(torch.tensor([-0.5, -0.5, 0.5, 1.0])))
    spread, mixture = (
        HeatmapToLandmarksd("pred", covariance=kind)({"pred": maps, "image": image}) for kind in ("spread", "mixture")
    )
    expected = torch.zeros(1, dims, dims)
    expected[0, 0, 0] = 0.5
    torch.testing.assert_close(spread["pred_covariances"].float(), expected, atol=1e-3, rtol=0)
    own = torch.eye(dims)[None] * 0.25 * 4
    torch.testing.assert_close(mixture["pred_covariances"].float(), expected + own, atol=2e-3, rtol=0)
    where = torch.full((1, 1, dims), 5.5) * torch.tensor([-1.0, -1.0, 1.0])[:dims]
    where[..., 0] = -6.0
    torch.testing.assert_close(spread["pred_points"].as_tensor().float(), where, atol=1e-2, rtol=0)
