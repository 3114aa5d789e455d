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


"""Encoders of other networks (DenseNet, ResNet, VGG), cut into stages so that each resolution can be tapped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn as nn
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets import DenseNet, ResNet
from monai.utils import optional_import

__all__ = ["Encoder", "make_encoder"]

models, _ = optional_import("torchvision.models")

_DENSENETS = {
    "densenet": {},
    "densenet121": {"block_config": (6, 12, 24, 16)},
    "densenet169": {"block_config": (6, 12, 32, 32)},
    "densenet201": {"block_config": (6, 12, 48, 32)},
}
_RESNETS = {
    "resnet18": {"block": "basic", "layers": [2, 2, 2, 2]},
    "resnet34": {"block": "basic", "layers": [3, 4, 6, 3]},
    "resnet50": {"block": "bottleneck", "layers": [3, 4, 6, 3]},
    "resnet101": {"block": "bottleneck", "layers": [3, 4, 23, 3]},
    "resnet152": {"block": "bottleneck", "layers": [3, 8, 36, 3]},
}
_VGGS = ("vgg16", "vgg19")


class Encoder(nn.Module):
    """
    Stages that each halve the resolution, and give what they computed.

    Args:
        stages: in the order in which they run. Their parameters are named as in the network that they come from, after
            ``stages.<number>.``.
        channels: what each stage gives.

    Shape:
        (B, C, *spatial) to a list, one (B, channels[i], *ceil(spatial / 2**(i+1))) per stage.
    """

    def __init__(self, stages: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        taps: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            taps.append(x)
        return taps


def _part(network: nn.Module, *names: str) -> nn.Sequential:
    """Some children of a network, in this order and under their own names."""
    return nn.Sequential(OrderedDict((name, network.get_submodule(name)) for name in names))


def _densenet(spatial_dims: int, in_channels: int, **options) -> tuple[list[nn.Module], list[int]]:
    network = DenseNet(spatial_dims=spatial_dims, in_channels=in_channels, out_channels=1, **options).features
    names = [name for name, _ in network.named_children() if name.startswith("denseblock")]
    channels = [network.get_submodule("conv0").out_channels]
    stages = [_part(network, "conv0")]
    for number, name in enumerate(names):
        before = ("norm0", "relu0", "pool0") if number == 0 else (f"transition{number}",)
        last = ("norm5",) if number == len(names) - 1 else ()
        stages.append(_part(network, *before, name, *last))
        width = channels[0] if number == 0 else channels[-1] // 2
        channels.append(width + sum(layer.layers.conv2.out_channels for layer in network.get_submodule(name)))
    return stages, channels


def _resnet(spatial_dims: int, in_channels: int, **options) -> tuple[list[nn.Module], list[int]]:
    options = {"block_inplanes": [64, 128, 256, 512], **options}
    # the stride of the first convolution and the shortcuts without bias are torchvision's, so that its weights fit
    network = ResNet(
        spatial_dims=spatial_dims,
        n_input_channels=in_channels,
        conv1_t_stride=2,
        bias_downsample=False,
        feed_forward=False,
        **options,
    )
    stages = [_part(network, "conv1"), _part(network, "bn1", "act", "maxpool", "layer1")]
    stages += [_part(network, name) for name in ("layer2", "layer3", "layer4")]
    channels = [network.conv1.out_channels]
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        channels.append((layer[-1].conv3 if hasattr(layer[-1], "conv3") else layer[-1].conv2).out_channels)
    return stages, channels


def _vgg(name: str, in_channels: int) -> tuple[list[nn.Module], list[int]]:
    network = getattr(models, name)(weights=None).features
    if in_channels != network[0].in_channels:
        network[0] = nn.Conv2d(in_channels, network[0].out_channels, kernel_size=3, padding=1)
    # each stage begins with the pooling that halves the resolution; what comes before the first is at full resolution
    groups: list[list[str]] = [[]]
    channels: list[int] = []
    width = in_channels
    for key, layer in network.named_children():
        if isinstance(layer, nn.MaxPool2d) and channels:
            groups.append([])
        if isinstance(layer, nn.MaxPool2d):
            channels.append(width)
        groups[-1].append(key)
        width = getattr(layer, "out_channels", width)
    channels = [*channels[1:], width]
    return [_part(network, *group) for group in groups], channels


def _replace_batch_norm(module: nn.Module, norm: str | tuple, spatial_dims: int) -> None:
    """MONAI's ResNet has no such argument for its blocks; replacing afterwards does the same for every encoder."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, get_norm_layer(norm, spatial_dims, child.num_features))
        else:
            _replace_batch_norm(child, norm, spatial_dims)


def make_encoder(
    backbone: str | tuple[str, dict],
    spatial_dims: int,
    in_channels: int,
    num_stages: int = 5,
    norm: str | tuple = "batch",
) -> Encoder:
    """
    An encoder from MONAI's networks, or torchvision's for VGG.

    Args:
        backbone: name of a network, or the name and arguments of MONAI's class: ``("densenet", {"init_features": 32,
            "growth_rate": 16, "block_config": (3, 6, 12, 8)})``.
        spatial_dims: 2 or 3; VGG only 2.
        in_channels: channels of the image.
        num_stages: how many stages, counted from the finest; each halves the resolution.
        norm: what stands in place of batch normalization, in MONAI's notation.

    Raises:
        ValueError: for an unknown name, or more stages than the network has.
        OptionalImportError: for VGG without torchvision.

    Example:
        >>> encoder = make_encoder("resnet18", spatial_dims=2, in_channels=1)
        >>> encoder.channels
        (64, 64, 128, 256, 512)
    """
    name, options = (backbone, {}) if isinstance(backbone, str) else backbone
    if name in _DENSENETS:
        stages, channels = _densenet(spatial_dims, in_channels, **{**_DENSENETS[name], **options})
    elif name in _RESNETS:
        stages, channels = _resnet(spatial_dims, in_channels, **{**_RESNETS[name], **options})
    elif name in _VGGS and spatial_dims == 2:
        stages, channels = _vgg(name, in_channels)
    else:
        known = (*_DENSENETS, *_RESNETS, *(_VGGS if spatial_dims == 2 else ()))
        raise ValueError(f"no backbone {name!r} in {spatial_dims}-D, choose one of {known}.")
    if num_stages > len(stages):
        raise ValueError(f"{name} has {len(stages)} stages, {num_stages} were asked for; choose a smaller num_stages.")
    encoder = Encoder(stages[:num_stages], channels[:num_stages])
    if norm != "batch":
        _replace_batch_norm(encoder, norm, spatial_dims)
    return encoder
