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

"""The localization U-Net."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.losses import CoarseToFineLoss, GaussianTarget, HeatmapCrossEntropyLoss
from monai_landmarks.networks.nets import LocalizationUNet


@pytest.mark.parametrize("shape", [(2, 1, 48, 40), (1, 1, 35, 51), (1, 2, 32, 40, 33)])
def test_one_map_per_landmark_at_the_size_of_the_image(shape):
    net = LocalizationUNet(len(shape) - 2, shape[1], num_landmarks=7).eval()
    assert net(torch.zeros(shape)).shape == (shape[0], 7, *shape[2:])


def test_two_million_parameters():
    # MONAI's BasicUNet with these channels and 19 outputs, the baseline of the cephalometric study
    count = sum(p.numel() for p in LocalizationUNet(2, 1, 19).parameters())
    assert round(count / 1e6) == 2


@pytest.mark.parametrize("stride", [2, 4])
def test_a_stride_keeps_the_size_and_saves_time(stride):
    features = (8, 8, 8, 8, 8, 8)
    net = LocalizationUNet(2, 1, 5, features, stride=stride).eval()
    x = torch.rand(2, 1, 32 * stride, 40 * stride)
    maps = net(x)
    assert maps.shape == (2, 5, *x.shape[2:])
    torch.testing.assert_close(torch.jit.script(net)(x), maps)
    # the U-Net itself sees an image that is smaller by the stride
    seen = []
    net.conv_0[-1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    net(x)
    assert seen == [(2, 8, 32, 40)]


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("stride,size", [(2, (65, 64)), (4, (128, 130))])
def test_an_image_whose_size_is_not_a_multiple_of_the_stride(stride, size, scripted):
    """Its heatmaps would be smaller than the image, and their points at other places."""
    net = LocalizationUNet(2, 1, 5, (4, 4, 4, 4, 4, 4), stride=stride)
    net = torch.jit.script(net) if scripted else net
    with pytest.raises(Exception, match=f"{size[0]} x {size[1]} pixels; expected multiples of {stride}"):
        net(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("dims,stride,message", [(2, 3, "power of two"), (2, 0, "power of two"), (3, 2, "2-D only")])
def test_a_stride_that_is_impossible(dims, stride, message):
    with pytest.raises(ValueError, match=message):
        LocalizationUNet(dims, 1, 5, stride=stride)


class Receiver:
    def receive(self, output):
        self.maps = output


@pytest.mark.parametrize("shape", [(2, 1, 48, 64), (1, 1, 37, 51), (1, 1, 32, 33, 48)])
def test_coarser_grids_have_heatmaps_in_training(shape):
    dims, features = len(shape) - 2, (3, 4, 5, 6, 7, 3)
    net = LocalizationUNet(dims, 1, 2, features, deep_supervision=3)
    plain = LocalizationUNet(dims, 1, 2, features)
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if ".head." not in name})
    steps = [net.get_submodule(f"upcat_{number}") for number in (2, 3, 4)]
    receivers, seen, hooks = [Receiver() for _ in steps], {}, []
    for step, receiver in zip(steps, receivers):
        step.coarse.connect(receiver)
        hooks.append(step.register_forward_hook(lambda module, inputs, output: seen.__setitem__(module, output)))
    image = torch.rand(shape)
    torch.testing.assert_close(net(image), plain(image))
    for step, receiver, stride in zip(steps, receivers, (2, 4, 8)):
        assert receiver.maps.shape == (shape[0], 2, *(n // stride for n in shape[2:]))
        weight, bias = step.head.weight.flatten(1), step.head.bias
        expected = torch.tensordot(weight, seen[step], dims=([1], [1])).transpose(0, 1)
        torch.testing.assert_close(receiver.maps, expected + bias.view(-1, *[1] * dims))
        del receiver.maps
    for hook in hooks:  # TorchScript cannot compile them
        hook.remove()
    net.eval()
    torch.testing.assert_close(torch.jit.script(net)(image), net(image))
    assert not any(hasattr(receiver, "maps") for receiver in receivers)


@pytest.mark.parametrize("dims,size", [(2, (32, 48)), (3, (32, 32, 48))])
def test_one_loss_per_grid(dims, size):
    """The loss is the weighted sum of those of the grids, and every parameter learns from it."""
    net = LocalizationUNet(dims, 1, 2, (4,) * 6, deep_supervision=2)
    receivers = [Receiver(), Receiver()]
    one = HeatmapCrossEntropyLoss(GaussianTarget(sigma=1.0))
    half = CoarseToFineLoss(one, net, layer="upcat_2.coarse", weights=(1.0, 0.5))
    both = CoarseToFineLoss(half, net, one, layer="upcat_3.coarse", weights=(1.0, 0.25), coarse_stride=4)
    for receiver, step in zip(receivers, ("upcat_2", "upcat_3")):
        net.get_submodule(f"{step}.coarse").connect(receiver)
    points = torch.rand(1, 2, dims) * 24 + 4
    maps = net(torch.rand(1, 1, *size))
    loss = both(maps, points)
    terms = [one(receiver.maps, (points + 0.5) / stride - 0.5) for receiver, stride in zip(receivers, (2, 4))]
    torch.testing.assert_close(loss, one(maps, points) + 0.5 * terms[0] + 0.25 * terms[1])
    loss.backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("grids", [-1, 4])
def test_grids_that_the_network_does_not_have(grids):
    with pytest.raises(ValueError, match="0 to 3 coarser grids"):
        LocalizationUNet(2, 1, 5, deep_supervision=grids)
