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


"""Encoders against their papers' layer tables, written down a second time."""

from __future__ import annotations

import sys
import types

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.utils import OptionalImportError

from monai_landmarks.networks import make_encoder

SMALL_DENSENET = ("densenet", {"init_features": 6, "growth_rate": 4, "block_config": (2, 3, 1, 2)})
SMALL_RESNET = {"layers": [2, 1, 2, 1], "block_inplanes": [4, 6, 8, 10]}
# convolutions between the poolings
VGG_TABLE = {"vgg16": [2, 2, 3, 3, 3], "vgg19": [2, 2, 4, 4, 4]}
VGG_WIDTHS = (4, 8, 16, 32, 32)  # a sixteenth


class Reference:
    """The operations of an encoder, with weights by their names in the published networks."""

    def __init__(self, encoder, dims):
        self.weights = {name.split(".", 2)[2]: value for name, value in encoder.state_dict().items()}
        self.conv_nd = F.conv2d if dims == 2 else F.conv3d
        self.max_pool = F.max_pool2d if dims == 2 else F.max_pool3d
        self.avg_pool = F.avg_pool2d if dims == 2 else F.avg_pool3d

    def conv(self, x, name, stride=1, padding=0):
        return self.conv_nd(x, self.weights[f"{name}.weight"], None, stride, padding)

    def norm(self, x, name, eps=1e-5):
        mean, var, weight, bias = (
            self.weights[f"{name}.{part}"].view(-1, *[1] * (x.dim() - 2))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + eps).sqrt() * weight + bias

    def densenet(self, image, layers):
        x = self.conv(image, "conv0", stride=2, padding=3)
        taps = [x]
        x = self.max_pool(F.relu(self.norm(x, "norm0")), 3, 2, 1)
        for block, number in enumerate(layers, start=1):
            for layer in range(1, number + 1):
                name = f"denseblock{block}.denselayer{layer}.layers"
                new = self.conv(F.relu(self.norm(x, f"{name}.norm1")), f"{name}.conv1")
                new = self.conv(F.relu(self.norm(new, f"{name}.norm2")), f"{name}.conv2", padding=1)
                x = torch.cat([x, new], dim=1)
            if block < len(layers):
                taps.append(x)
                x = self.conv(F.relu(self.norm(x, f"transition{block}.norm")), f"transition{block}.conv")
                x = self.avg_pool(x, 2)
        return [*taps, self.norm(x, "norm5")]

    def resnet(self, image, layers, convs):
        """``convs``: 2 in a basic block, 3 in a bottleneck, where the second has the stride and the only 3x3 kernel."""
        x = self.conv(image, "conv1", stride=2, padding=3)
        taps = [x]
        x = self.max_pool(F.relu(self.norm(x, "bn1")), 3, 2, 1)
        for stage, number in enumerate(layers, start=1):
            for block in range(number):
                name = f"layer{stage}.{block}"
                stride = 2 if stage > 1 and block == 0 else 1
                y = x
                for c in range(1, convs + 1):
                    strided = c == (1 if convs == 2 else 2)
                    y = self.conv(y, f"{name}.conv{c}", stride if strided else 1, int(convs == 2 or c == 2))
                    y = self.norm(y, f"{name}.bn{c}")
                    y = F.relu(y) if c < convs else y
                if f"{name}.downsample.0.weight" in self.weights:
                    x = self.norm(self.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
                x = F.relu(x + y)
            taps.append(x)
        return taps

    def same(self, x, name, stride=1, groups=1):
        """A convolution with TensorFlow's padding "same"."""
        kernel = self.weights[f"{name}.weight"]
        missing = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(x.shape[2:], kernel.shape[2:])]
        pads = [pad for total in missing[::-1] for pad in (total // 2, total - total // 2)]
        return self.conv_nd(F.pad(x, pads), kernel, None, stride, 0, 1, groups)

    def efficientnet_lite(self, image, rows):
        """``rows``: stack, block, stride of each block in order."""
        x = F.relu6(self.norm(self.same(image, "_conv_stem", 2), "_bn0", 1e-3))
        taps = []
        for number, (stack, stride) in enumerate(rows):
            name = f"_blocks.{stack}.{number}"
            if stride == 2:
                taps.append(x)
            y = x
            if f"{name}._expand_conv.weight" in self.weights:
                y = F.relu6(self.norm(self.same(y, f"{name}._expand_conv"), f"{name}._bn0", 1e-3))
            y = self.same(y, f"{name}._depthwise_conv", stride, y.shape[1])
            y = F.relu6(self.norm(y, f"{name}._bn1", 1e-3))
            y = self.norm(self.same(y, f"{name}._project_conv"), f"{name}._bn2", 1e-3)
            x = x + y if x.shape == y.shape else y
        return [*taps, x]


def randomize(encoder):
    """Weights and running statistics other than one and zero, so that each has an effect."""
    torch.manual_seed(0)
    for value in encoder.state_dict().values():
        if value.is_floating_point() and value.dim() == 1:
            nn.init.uniform_(value, 0.5, 1.5)
    return encoder.double().eval()


@pytest.mark.parametrize("dims,size", [(2, (64, 96)), (3, (32, 64, 32))])
@pytest.mark.parametrize("kind", ["densenet", "basic", "bottleneck"])
def test_taps_are_the_published_layers(kind, dims, size):
    backbone = SMALL_DENSENET if kind == "densenet" else ("resnet18", {**SMALL_RESNET, "block": kind})
    encoder = randomize(make_encoder(backbone, dims, in_channels=2))
    image = torch.randn(1, 2, *size, dtype=torch.float64)
    reference = Reference(encoder, dims)
    if kind == "densenet":
        expected = reference.densenet(image, (2, 3, 1, 2))
    else:
        expected = reference.resnet(image, (2, 1, 2, 1), 2 if kind == "basic" else 3)
    taps = encoder(image)
    for level, (tap, right) in enumerate(zip(taps, expected, strict=True)):
        assert tap.shape == (1, encoder.channels[level], *[s // 2 ** (level + 1) for s in size])
        assert torch.allclose(tap, right)
    # fewer stages are the same stages
    fewer = make_encoder(backbone, dims, in_channels=2, num_stages=3).double().eval()
    fewer.load_state_dict({k: v for k, v in encoder.state_dict().items() if k in fewer.state_dict()})
    assert all(torch.equal(a, b) for a, b in zip(fewer(image), taps[:3], strict=True))


@pytest.mark.parametrize(
    "name,repeats,channels,size",
    [
        ("efficientnet_lite0", (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 112, 320), (64, 96)),
        ("efficientnet_lite0", (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 112, 320), (32, 64, 32)),
        ("efficientnet_lite2", (1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 120, 352), (64, 96)),
    ],
)
def test_efficientnet_lite_taps(name, repeats, channels, size):
    dims = len(size)
    encoder = randomize(make_encoder(name, dims, in_channels=1))
    image = torch.randn(1, 1, *size, dtype=torch.float64)
    strides = (1, 2, 2, 2, 1, 2, 1)
    rows = [
        (stack, strides[stack] if block == 0 else 1) for stack, count in enumerate(repeats) for block in range(count)
    ]
    expected = Reference(encoder, dims).efficientnet_lite(image, rows)
    assert encoder.channels == channels
    for level, (tap, right) in enumerate(zip(encoder(image), expected, strict=True)):
        assert tap.shape == (1, channels[level], *[s // 2 ** (level + 1) for s in size])
        assert torch.allclose(tap, right)


# published sizes in millions (TensorFlow's page of EfficientNet-Lite), with the head and the classifier
@pytest.mark.parametrize(
    "name,millions", [("efficientnet_lite0", 4.7), ("efficientnet_lite1", 5.4), ("efficientnet_lite2", 6.1)]
)
def test_sizes_of_efficientnet_lite(name, millions):
    with torch.device("meta"):
        encoder = make_encoder(name, 2, in_channels=3)
    head = encoder.channels[-1] * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert round((sum(p.numel() for p in encoder.parameters()) + head) / 1e6, 1) == millions


@pytest.mark.parametrize(
    "name,parameters,classifier_inputs,channels",
    [
        ("densenet121", 7_978_856, 1024, (64, 256, 512, 1024, 1024)),
        ("densenet169", 14_149_480, 1664, (64, 256, 512, 1280, 1664)),
        ("densenet201", 20_013_928, 1920, (64, 256, 512, 1792, 1920)),
        ("resnet18", 11_689_512, 512, (64, 64, 128, 256, 512)),
        ("resnet34", 21_797_672, 512, (64, 64, 128, 256, 512)),
        ("resnet50", 25_557_032, 2048, (64, 256, 512, 1024, 2048)),
        ("resnet101", 44_549_160, 2048, (64, 256, 512, 1024, 2048)),
        ("resnet152", 60_192_808, 2048, (64, 256, 512, 1024, 2048)),
    ],
)
def test_published_encoders_without_their_classifier(name, parameters, classifier_inputs, channels):
    with torch.device("meta"):
        encoder = make_encoder(name, 2, in_channels=3)
    assert sum(p.numel() for p in encoder.parameters()) == parameters - 1000 * (classifier_inputs + 1)
    assert encoder.channels == channels


@pytest.fixture
def torchvision_models(monkeypatch):
    """The required part of torchvision, written from VGG's table, with or without torchvision."""

    def vgg(blocks):
        layers, inputs = [], 3
        for number, width in zip(blocks, VGG_WIDTHS):
            for _ in range(number):
                layers += [nn.Conv2d(inputs, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        return types.SimpleNamespace(features=nn.Sequential(*layers))

    package, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    package.__file__ = models.__file__ = __file__
    for name, blocks in VGG_TABLE.items():
        setattr(models, name, lambda weights, blocks=blocks: vgg(blocks))
    package.models = models
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


@pytest.mark.parametrize("name", VGG_TABLE)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_vgg_taps(name, in_channels, torchvision_models):
    encoder = make_encoder(name, 2, in_channels)
    assert encoder.channels == (8, 16, 32, 32, 32)
    image = torch.randn(1, in_channels, 32, 64)
    weights = {key.split(".", 2)[2]: value for key, value in encoder.state_dict().items()}
    x, index, expected = image, 0, []
    for number in VGG_TABLE[name]:
        for _ in range(number):
            x = F.relu(F.conv2d(x, weights[f"{index}.weight"], weights[f"{index}.bias"], padding=1))
            index += 2
        expected.append(x)
        x = F.max_pool2d(x, 2)
        index += 1
    # what is at full resolution is no tap
    for tap, right in zip(encoder(image), [*expected[1:], x], strict=True):
        assert torch.allclose(tap, right, atol=1e-5)


def test_vgg_without_torchvision_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(OptionalImportError, match="torchvision"):
        make_encoder("vgg16", 2, in_channels=3)


@pytest.mark.parametrize("backbone", [SMALL_DENSENET, ("resnet18", SMALL_RESNET), ("resnet50", SMALL_RESNET)])
@pytest.mark.parametrize("norm", ["instance", ("group", {"num_groups": 1})])
def test_normalization_is_replaced_everywhere(backbone, norm):
    batch, other = make_encoder(backbone, 2, 1), make_encoder(backbone, 2, 1, norm=norm)
    wanted = nn.InstanceNorm2d if norm == "instance" else nn.GroupNorm

    def norms(encoder):
        return {name: type(m) for name, m in encoder.named_modules() if "Norm" in type(m).__name__}

    assert norms(other) == dict.fromkeys(norms(batch), wanted)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"backbone": "densenet122"}, "densenet122.*densenet121"),
        ({"backbone": "vgg16", "spatial_dims": 3}, "vgg16.*3-D"),
        ({"num_stages": 6}, "5 stages"),
        ({"weights": "imagenet", "spatial_dims": 3}, "2-D"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(**{"backbone": "resnet18", "spatial_dims": 2, "in_channels": 1, **arguments})
