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

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from torch import nn

from monai_landmarks.inferers import DropoutEnsembleInferer, FlipEnsembleInferer, LandmarkInferer
from monai_landmarks.networks.nets import SCN
from monai_landmarks.transforms import HeatmapToLandmarksd, RandLandmarkFlip

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
    with pytest.raises(ValueError, match="'x', which is not among"):
        FlipEnsembleInferer(0, [("x", "left")], NAMES)


def test_points_are_no_heatmaps():
    net, images = make_net(2, "cpu"), torch.rand(1, 1, *SIZES[2])
    with pytest.raises(ValueError, match="an ensemble is of heatmaps, but its inferer gives dict"):
        FlipEnsembleInferer(0, inferer=LandmarkInferer())(images, net)
    item = {"pred": {name: value[0] for name, value in LandmarkInferer()(images, net).items()}, "image": images[0]}
    with pytest.raises(ValueError, match="covariance='mixture' needs heatmaps"):
        HeatmapToLandmarksd("pred", ref_image_keys="image", space="index", covariance="mixture")(item)


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
    from monai_landmarks.heatmaps import gaussian_heatmaps

    size = (24,) * dims
    points = torch.tensor([[11.0] * dims, [13.0] + [11.0] * (dims - 1)])
    maps = gaussian_heatmaps(points[:, None], size, 2.0)
    image = MetaTensor(torch.zeros(1, *size), affine=torch.diag(torch.tensor([-0.5, -0.5, 0.5, 1.0])))
    spread, mixture = (
        HeatmapToLandmarksd("pred", ref_image_keys="image", covariance=kind)({"pred": maps, "image": image})
        for kind in ("spread", "mixture")
    )
    expected = torch.zeros(1, dims, dims)
    expected[0, 0, 0] = 0.5
    torch.testing.assert_close(spread["pred_covariance"].float(), expected, atol=1e-3, rtol=0)
    own = torch.eye(dims)[None] * 0.25 * 4
    torch.testing.assert_close(mixture["pred_covariance"].float(), expected + own, atol=2e-3, rtol=0)
    where = torch.full((1, 1, dims), 5.5) * torch.tensor([-1.0, -1.0, 1.0])[:dims]
    where[..., 0] = -6.0
    torch.testing.assert_close(spread["pred_points"].as_tensor().float(), where, atol=1e-2, rtol=0)
