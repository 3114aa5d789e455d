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


"""Encoders of DenseNet, ResNet and VGG, divided into stages so that the features at each resolution can be used."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
import torch.nn as nn
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets import DenseNet, EfficientNet, ResNet
from monai.utils import optional_import

from .pretrained import load_pretrained

__all__ = ["Encoder", "make_encoder"]

_DENSENETS: dict[str, dict[str, Any]] = {
    "densenet": {},
    "densenet121": {"block_config": (6, 12, 24, 16)},
    "densenet169": {"block_config": (6, 12, 32, 32)},
    "densenet201": {"block_config": (6, 12, 48, 32)},
}
_RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"block": "basic", "layers": [2, 2, 2, 2]},
    "resnet34": {"block": "basic", "layers": [3, 4, 6, 3]},
    "resnet50": {"block": "bottleneck", "layers": [3, 4, 6, 3]},
    "resnet101": {"block": "bottleneck", "layers": [3, 4, 23, 3]},
    "resnet152": {"block": "bottleneck", "layers": [3, 8, 36, 3]},
}
_VGGS = ("vgg16", "vgg19")
# stacks of blocks of EfficientNet-Lite: repeats, kernel size, stride, expansion, channels
_LITE_STACKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LITE_STEM = 32
# layers of squeeze and excitation, which EfficientNet-Lite does not have
_SQUEEZE = ("_se_adaptpool", "_se_reduce", "_se_reduce_padding", "_se_expand", "_se_expand_padding")
_LITE_SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
# numbers of the stacks at each resolution
_LITE_STAGES = ((0,), (1,), (2,), (3, 4), (5, 6))


class Encoder(nn.Module):
    """
    A sequence of stages that each halve the resolution. The outputs of all stages are returned.

    Args:
        stages: the stages, in the order of forward. The names of their parameters are those of the original network,
            with the prefix ``stages.<number>.``.
        channels: number of output channels of each stage.

    Shape:
        (B, C, *spatial) to a list with one tensor (B, channels[i], *ceil(spatial / 2**(i+1))) per stage.
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


def _part(network: nn.Module, *names: str) -> nn.Module:
    """Some children of a network, in this order and with their own names."""
    return nn.Sequential(OrderedDict((name, network.get_submodule(name)) for name in names))


def _densenet(spatial_dims: int, in_channels: int, **options: Any) -> tuple[list[nn.Module], list[int]]:
    network: Any = DenseNet(spatial_dims=spatial_dims, in_channels=in_channels, out_channels=1, **options).features
    blocks = [name for name, _ in network.named_children() if name.startswith("denseblock")]
    stages, channels = [_part(network, "conv0")], [network.conv0.out_channels]
    width = channels[0]
    for number, name in enumerate(blocks):
        before = ("norm0", "relu0", "pool0") if number == 0 else (f"transition{number}",)
        last = ("norm5",) if number == len(blocks) - 1 else ()
        stages.append(_part(network, *before, name, *last))
        width += sum(layer.layers.conv2.out_channels for layer in network.get_submodule(name))
        channels.append(width)
        width //= 2  # the next transition halves the channels
    return stages, channels


def _resnet(spatial_dims: int, in_channels: int, **options: Any) -> tuple[list[nn.Module], list[int]]:
    # as in torchvision, for its weights: the stride of the first convolution, and no bias in the shortcuts
    options = {"block_inplanes": [64, 128, 256, 512], "conv1_t_stride": 2, "bias_downsample": False, **options}
    network: Any = ResNet(spatial_dims=spatial_dims, n_input_channels=in_channels, feed_forward=False, **options)
    layers = ("layer1", "layer2", "layer3", "layer4")
    stages = [_part(network, "conv1"), _part(network, "bn1", "act", "maxpool", layers[0])]
    stages += [_part(network, name) for name in layers[1:]]
    blocks = [network.get_submodule(name)[-1] for name in layers]
    last = [getattr(block, "conv3", block.conv2) for block in blocks]
    return stages, [network.conv1.out_channels, *[conv.out_channels for conv in last]]


def _vgg(name: str, in_channels: int) -> tuple[list[nn.Module], list[int]]:
    models, _ = optional_import("torchvision.models")
    network = getattr(models, name)(weights=None).features
    if in_channels != 3:
        network[0] = nn.Conv2d(in_channels, network[0].out_channels, kernel_size=3, padding=1)
    # a stage ends before the next pooling; the first stage has two levels, at full and at half of the resolution
    groups: list[list[str]] = [[]]
    for key, layer in network.named_children():
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
        groups[-1].append(key)
    groups[:2] = [groups[0] + groups[1]]
    channels: list[int] = []
    for group in groups:
        convs = [layer for layer in map(network.get_submodule, group) if isinstance(layer, nn.Conv2d)]
        channels.append(convs[-1].out_channels if convs else channels[-1])
    return [_part(network, *group) for group in groups], channels


def _efficientnet_lite(name: str, spatial_dims: int, in_channels: int) -> tuple[list[nn.Module], list[int]]:
    """EfficientNet-Lite: EfficientNet without squeeze and excitation, with ReLU6, and with a stem of fixed width."""
    width, depth = _LITE_SCALES[name]
    inputs, rows = _LITE_STEM, []
    for number, (repeats, kernel, stride, expansion, channels) in enumerate(_LITE_STACKS):
        # the first and the last stack are not repeated more often
        repeats = repeats if number in (0, len(_LITE_STACKS) - 1) else math.ceil(depth * repeats)
        outputs = int(width * channels + 4) // 8 * 8
        rows.append(f"r{repeats}_k{kernel}_s{stride}{stride}_e{expansion}_i{inputs}_o{outputs}")
        inputs = outputs
    network: Any = EfficientNet(rows, spatial_dims, in_channels, num_classes=1, drop_connect_rate=0.0)
    for block in (block for stack in network._blocks for block in stack):
        block._swish = nn.ReLU6(inplace=True)
        for part in _SQUEEZE:  # TorchScript compiles the call of each, although none is called
            setattr(block, part, nn.Identity())
    stages: list[nn.Module] = []
    for number, stacks in enumerate(_LITE_STAGES):
        parts = OrderedDict[str, nn.Module](
            _blocks=nn.Sequential(OrderedDict((str(i), network._blocks[i]) for i in stacks))
        )
        if number == 0:
            stem = OrderedDict(
                (part, network.get_submodule(part)) for part in ("_conv_stem_padding", "_conv_stem", "_bn0")
            )
            parts = OrderedDict(**stem, _relu=nn.ReLU6(inplace=True), **parts)
        stages.append(nn.Sequential(parts))
    return stages, [network._blocks[stacks[-1]][-1].out_channels for stacks in _LITE_STAGES]


def _replace_batch_norm(module: nn.Module, norm: str | tuple, spatial_dims: int) -> None:
    """Replace batch normalization afterwards: MONAI's ResNet does not pass its argument to the blocks."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, get_norm_layer(norm, spatial_dims, child.num_features))
        else:
            _replace_batch_norm(child, norm, spatial_dims)


def make_encoder(
    backbone: str | Sequence,
    spatial_dims: int,
    in_channels: int,
    num_stages: int = 5,
    norm: str | tuple = "batch",
    weights: str | PathLike | None = None,
) -> Encoder:
    """
    Make an encoder that returns its features at each resolution, from MONAI's DenseNet, ResNet or EfficientNet, or
    torchvision's VGG.

    The first output is that of the first convolution, before its normalization. The others are the outputs of the
    blocks of layers. The last output of DenseNet includes the normalization that follows, without activation. The
    outputs of VGG and EfficientNet-Lite are the last feature maps at each resolution. EfficientNet-Lite (Liu, 2020) is
    EfficientNet without squeeze and excitation and with ReLU6.

    Args:
        backbone: ``"densenet121"``, ``"densenet169"``, ``"densenet201"``, ``"resnet18"``, ``"resnet34"``,
            ``"resnet50"``, ``"resnet101"``, ``"resnet152"``, ``"vgg16"``, ``"vgg19"``, ``"efficientnet_lite0"``,
            ``"efficientnet_lite1"`` or ``"efficientnet_lite2"``. Or a name with arguments of MONAI's class, where the name may also be ``"densenet"``: ``("densenet", {"init_features": 32,
            "growth_rate": 16, "block_config": (3, 6, 12, 8)})``, ``("resnet18", {"widen_factor": 0.5})``.
        spatial_dims: 2 or 3; 2 for VGG.
        in_channels: channels of the image.
        num_stages: number of stages, from the finest. Each halves the resolution.
        norm: replaces batch normalization, in MONAI's notation. VGG has no normalization.
        weights: None, ``"imagenet"`` (2-D), or the path of a file, see :func:`load_pretrained`.

    Returns:
        The encoder.

    Raises:
        ValueError: for an unknown name, more stages than the network has, or ImageNet weights in 3-D.
        OptionalImportError: for VGG without torchvision.

    Example:
        >>> encoder = make_encoder("resnet18", spatial_dims=2, in_channels=1)
        >>> encoder.channels
        (64, 64, 128, 256, 512)
        >>> [tuple(tap.shape) for tap in encoder(torch.zeros(1, 1, 64, 96))][-1]
        (1, 512, 2, 3)
    """
    if weights == "imagenet" and spatial_dims != 2:
        raise ValueError("weights='imagenet' is for 2-D: set weights to None or to the path of a file.")
    name, options = (backbone, {}) if isinstance(backbone, str) else backbone
    if name in _DENSENETS:
        stages, channels = _densenet(spatial_dims, in_channels, **{**_DENSENETS[name], **options})
    elif name in _RESNETS:
        stages, channels = _resnet(spatial_dims, in_channels, **{**_RESNETS[name], **options})
    elif name in _VGGS and spatial_dims == 2:
        stages, channels = _vgg(name, in_channels, **options)
    elif name in _LITE_SCALES:
        stages, channels = _efficientnet_lite(name, spatial_dims, in_channels, **options)
    else:
        known = (*_DENSENETS, *_RESNETS, *_LITE_SCALES, *(_VGGS if spatial_dims == 2 else ()))
        raise ValueError(f"there is no backbone {name!r} in {spatial_dims}-D. Use one of {known}.")
    if not 1 <= num_stages <= len(stages):
        raise ValueError(
            f"num_stages must be between 1 and {len(stages)}, because {name} has {len(stages)} stages; "
            f"got {num_stages}."
        )
    encoder = Encoder(stages[:num_stages], channels[:num_stages])
    if norm != "batch":
        _replace_batch_norm(encoder, norm, spatial_dims)
    if weights is not None:
        dropped = [key for stage in stages[num_stages:] for key in stage.state_dict()]
        load_pretrained(encoder, weights, name, unneeded=dropped)
    return encoder
