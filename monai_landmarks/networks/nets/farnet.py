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


"""FARNet: multi-scale feature aggregation with a pre-trained backbone, and refinement at full resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Literal

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv

from monai_landmarks.networks.encoders import make_encoder
from monai_landmarks.networks.layers.batch_statistics_norm import BatchStatisticsNorm
from monai_landmarks.networks.layers.fast_layers import use_fast_layers
from monai_landmarks.networks.layers.output_tap import OutputTap
from monai_landmarks.networks.learned_weights import LandmarkAxis

__all__ = ["FARNet"]

# means and standard deviations of the images with which pre-trained backbones were trained, for images in [0, 1]
_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "efficientnet_lite": ((127 / 255,) * 3, (128 / 255,) * 3),
}


def _affine(norm: str | tuple) -> str | tuple:
    """Give instance normalization that is set by its name a learned scale and shift, as batch normalization has."""
    return ("instance", {"affine": True}) if isinstance(norm, str) and norm.lower() == "instance" else norm


def _upsample(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    return F.interpolate(x, size=like.shape[2:], mode=mode, align_corners=False)


class _InputStatistics(nn.Module):
    """Expand gray images to three channels, and normalize them as pre-trained weights require."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


def _input_statistics(name: str | None, spatial_dims: int, in_channels: int, backbone: str | Sequence) -> nn.Module:
    possible = spatial_dims == 2 and in_channels in (1, 3)
    if name is None or (name == "auto" and not possible):
        return nn.Identity()
    if name == "auto":
        encoder = backbone if isinstance(backbone, str) else backbone[0]
        name = "efficientnet_lite" if encoder.startswith("efficientnet_lite") else "imagenet"
    if name not in _STATISTICS:
        raise ValueError(f"input_statistics must be 'auto', {', '.join(map(repr, _STATISTICS))} or None, got {name!r}.")
    if not possible:
        raise ValueError(
            f"input_statistics={name!r} is for 2-D images of 1 or 3 channels, not for {spatial_dims}-D images of "
            f"{in_channels}: set it to None."
        )
    return _InputStatistics(*_STATISTICS[name])


class _Aggregation(nn.Module):
    """
    Multi-scale feature aggregation: up from the deepest features of the backbone, down, and up again.

    Args:
        conv: makes convolution, normalization and activation from (in_channels, out_channels, kernel size, stride).
        channels: channels of the features of the backbone, finest first.
        widths: widths of the downward path, from a quarter of the resolution to the deepest grid.
        last: widths of the last two convolutions, at a quarter and at half of the resolution.
    """

    def __init__(
        self,
        conv: Callable[[int, int, int, int], nn.Module],
        channels: Sequence[int],
        widths: Sequence[int],
        last: Sequence[int],
    ) -> None:
        super().__init__()
        width = widths[0]
        self.squeeze = nn.Sequential(conv(channels[-1], widths[1], 3, 1), conv(widths[1], width, 1, 1))
        # the modules of each list are in the order of forward
        self.up = nn.ModuleList(conv(width + skip, width, 1, 1) for skip in channels[-2:0:-1])
        self.down = nn.ModuleList(conv(i, o, 3, 2) for i, o in zip(widths, widths[1:]))
        self.merge = nn.ModuleList(conv(o + width, o, 1, 1) for o in widths[1:-1])
        self.merge.append(nn.Sequential(conv(widths[-1] + width, widths[-2], 3, 1), conv(widths[-2], width, 1, 1)))
        outputs = [width] * (len(widths) - 2) + list(last)
        inputs = [width, *outputs]
        skips = [*widths[-2::-1], channels[0]]
        self.up_again = nn.ModuleList(conv(i + skip, o, 1, 1) for i, skip, o in zip(inputs, skips, outputs))

    def forward(self, taps: list[torch.Tensor]) -> torch.Tensor:
        """Aggregate the features of the backbone, finest first, at the resolution of the finest."""
        x = self.squeeze(taps[-1])
        going_up = [x]
        for level, conv in enumerate(self.up):
            skip = taps[len(taps) - 2 - level]
            x = conv(torch.cat([_upsample(x, skip), skip], dim=1))
            going_up.append(x)
        # the last upward path uses these in reverse order, so it ends with the finest features
        going_down = [taps[0], x]
        for level, (down, merge) in enumerate(zip(self.down, self.merge)):
            x = merge(torch.cat([down(x), going_up[len(going_up) - 2 - level]], dim=1))
            going_down.append(x)
        for level, conv in enumerate(self.up_again):
            skip = going_down[len(going_down) - 2 - level]
            x = conv(torch.cat([_upsample(x, skip), skip], dim=1))
        return x


class _TopDown(nn.Module):
    """
    Features at half of the resolution in a single path up from the deepest features, as in a feature pyramid network.

    Args:
        conv: makes convolution, normalization and activation from (in_channels, out_channels, kernel size, stride).
        channels: channels of the features of the backbone, finest first.
        width: width of the path.
        last: widths of the last two convolutions, at a quarter and at half of the resolution.
    """

    def __init__(
        self, conv: Callable[[int, int, int, int], nn.Module], channels: Sequence[int], width: int, last: Sequence[int]
    ) -> None:
        super().__init__()
        self.squeeze = conv(channels[-1], width, 1, 1)
        outputs = [width] * (len(channels) - 3) + list(last)
        inputs = [width, *outputs]
        self.up = nn.ModuleList(conv(i + skip, o, 1, 1) for i, skip, o in zip(inputs, channels[-2::-1], outputs))

    def forward(self, taps: list[torch.Tensor]) -> torch.Tensor:
        """Return features at the resolution of the finest features of the backbone."""
        x = self.squeeze(taps[-1])
        for level, conv in enumerate(self.up):
            skip = taps[len(taps) - 2 - level]
            x = conv(torch.cat([_upsample(x, skip), skip], dim=1))
        return x


class _Head(nn.Module):
    """
    A 3x3 convolution with as many output as input channels, and a 1x1 convolution to the heatmaps.

    There is no activation in between, so both are equal to one 3x3 convolution to the heatmaps. Its weights are
    computed from the weights of both. Otherwise this would be the most expensive part of the network, at full
    resolution.
    """

    def __init__(self, spatial_dims: int, in_channels: int, num_landmarks: int, init_std: float | None) -> None:
        super().__init__()
        conv_type = Conv[Conv.CONV, spatial_dims]
        self.conv = conv_type(in_channels, in_channels, kernel_size=3, padding=1, bias=False)
        self.project = conv_type(in_channels, num_landmarks, kernel_size=1)
        if init_std is not None:
            nn.init.normal_(self.project.weight, std=init_std)
            nn.init.zeros_(self.project.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.project.weight.flatten(1).matmul(self.conv.weight.flatten(1))
        return self.conv._conv_forward(x, weight.unflatten(1, self.conv.weight.shape[1:]), self.project.bias)


class _Refinement(nn.Module):
    """Fine heatmaps from the image, the features and the coarse heatmaps, at full resolution."""

    def __init__(self, stem: nn.Module, head: _Head) -> None:
        super().__init__()
        self.stem = stem
        self.head = head

    def forward(self, image: torch.Tensor, features: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([_upsample(features, image), self.stem(image), _upsample(coarse, image)], dim=1))


class FARNet(nn.Module):
    """
    Feature Aggregation and Refinement Network of Ao and Wu (Journal of Digital Imaging 36, 2023).

    A backbone computes features at five resolutions. Three paths, up, down and up again, aggregate them into features
    and coarse heatmaps at half of the resolution. The refinement computes the fine heatmaps from both and from the
    image, at full resolution. ``forward`` returns the fine heatmaps. In training the coarse heatmaps are supervised as
    well: they pass through the submodule ``coarse``, an :class:`~monai_landmarks.networks.layers.OutputTap`, from which
    :class:`~monai_landmarks.losses.CoarseToFineLoss` receives them.

    In 2-D with ``densenet121`` the layers are those of the authors' code, except for unused layers and redundant
    biases. The network has 61.2 million parameters, 54.3 million of them outside the backbone. The paper is 2-D only.
    The 3-D form is an unpublished extension: MONAI's encoders in 3-D, a maximum width of 256, instance normalization,
    leaky ReLU.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        num_landmarks: N.
        backbone: name of an encoder, or name and arguments, as for :func:`~monai_landmarks.networks.make_encoder`.
            The paper compares densenet121, densenet169, resnet101, resnet152, vgg16 and vgg19.
        weights: weights of the backbone: None for a random initialization, ``"imagenet"`` for those of torchvision in
            2-D, or the path of a file. See :func:`~monai_landmarks.networks.load_pretrained`.
        features: width of the aggregation, a multiple of 8. All other widths are proportional to it, from one eighth
            for the image in the refinement to eight times as much on the deepest grid.
        max_features: upper limit of all widths. Default: none in 2-D, 256 in 3-D.
        num_stages: 5, or 4 without the deepest stage of the backbone, for smaller images.
        norm: normalization outside the backbone, in MONAI's notation. Default: batch in 2-D, instance in 3-D. Instance
            normalization that is given by its name has a learned scale and shift.
        backbone_norm: normalization of the backbone, likewise. Pre-trained weights require batch normalization.
        act: activation outside the backbone, in MONAI's notation. Default: ReLU in 2-D, leaky ReLU in 3-D.
        stem_kernel: kernel size of the convolution of the image in the refinement. It is 3 in the figure of the paper
            and 1 in the authors' code.
        input_statistics: ``"imagenet"`` is for 2-D images in [0, 1], gray or RGB. The network then expands gray images
            to three channels, and normalizes by the means and standard deviations of ImageNet, as pre-trained weights
            require. ``"efficientnet_lite"`` maps [0, 1] to about -1 to 1, for the weights of these backbones. With None the backbone receives the image itself; for images of one channel, the pre-trained
            weights of the first convolution are then summed over the channels. ``"auto"`` is what the backbone requires
            if possible, else None.
        aggregation: False replaces the three paths by one path up from the deepest features, as in a feature pyramid
            network: the comparison without aggregation in the paper.
        refinement: False returns the coarse heatmaps, interpolated to full resolution: the comparison without refinement.
        batch_statistics: in evaluation, batch normalization uses the statistics of the batch instead of the running
            ones. The authors' code has the same effect. It is for training with one image per batch, which gives poor
            running statistics.
        head_init_std: standard deviation of the initial weights of the last convolution of both heads, whose initial
            bias is then zero. None is torch's default.

    Shape:
        (B, in_channels, *spatial) to (B, num_landmarks, *spatial). If the stride (32, or 16 with 4 stages) does not
        divide a size, the image is padded with the border value at the end of that axis, and the result is cropped.
        Each axis must be at least as long as the stride, and at least one must be longer. Coarse heatmaps are (B,
        num_landmarks, *ceil(spatial / 2)). Their index i is at index 2i + 0.5 of the image.

    Raises:
        ValueError: for an unknown option, and for an image with another number of channels or too small for the deepest
            stage.

    Example:
        >>> net = FARNet(spatial_dims=2, in_channels=1, num_landmarks=4, backbone="resnet18", features=16)
        >>> net(torch.zeros(1, 1, 64, 80)).shape
        torch.Size([1, 4, 64, 80])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        backbone: str | Sequence = "densenet121",
        weights: str | PathLike | None = None,
        features: int = 256,
        max_features: int | None = None,
        num_stages: int = 5,
        norm: str | tuple | None = None,
        backbone_norm: str | tuple | None = None,
        act: str | tuple | None = None,
        stem_kernel: int = 3,
        input_statistics: Literal["auto", "imagenet", "efficientnet_lite"] | None = "auto",
        aggregation: bool = True,
        refinement: bool = True,
        batch_statistics: bool = False,
        head_init_std: float | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if num_stages not in (4, 5):
            raise ValueError(f"num_stages must be 4 or 5, got {num_stages}.")
        if stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel must be odd, got {stem_kernel}.")
        max_features = max_features or (8 * features if spatial_dims == 2 else 256)
        widths = [min(features << level, max_features) for level in range(num_stages - 1)]
        if widths[0] % 8 != 0:
            raise ValueError(f"features and max_features must be multiples of 8, got {features} and {max_features}.")
        default_norm = "batch" if spatial_dims == 2 else "instance"
        norm, backbone_norm = _affine(norm or default_norm), _affine(backbone_norm or default_norm)
        act = act or ("relu" if spatial_dims == 2 else "leakyrelu")

        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.stride = 2**num_stages
        self.statistics = _input_statistics(input_statistics, spatial_dims, in_channels, backbone)
        seen_channels = in_channels if isinstance(self.statistics, nn.Identity) else 3
        self.backbone = make_encoder(backbone, spatial_dims, seen_channels, num_stages, backbone_norm, weights)

        def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
            return Convolution(
                spatial_dims, inputs, outputs, stride, kernel, adn_ordering="NA", act=act, norm=norm, bias=False
            )

        half, quarter, eighth = (widths[0] // divisor for divisor in (2, 4, 8))
        channels, last = self.backbone.channels, (half, quarter)
        self.aggregation = (
            _Aggregation(conv, channels, widths, last) if aggregation else _TopDown(conv, channels, widths[0], last)
        )
        self.coarse_head = _Head(spatial_dims, quarter, num_landmarks, head_init_std)
        self.coarse = OutputTap()
        merged = quarter + eighth + num_landmarks
        self.refinement: _Refinement | None = None
        if refinement:
            self.refinement = _Refinement(
                conv(seen_channels, eighth, stem_kernel), _Head(spatial_dims, merged, num_landmarks, head_init_std)
            )
        use_fast_layers(self)
        if batch_statistics:
            BatchStatisticsNorm.convert(self)
            if not any(isinstance(module, BatchStatisticsNorm) for module in self.modules()):
                raise ValueError(
                    f"batch_statistics is for batch normalization, and this network has none: norm is {norm}, "
                    f"backbone_norm is {backbone_norm}. Remove batch_statistics, or set one of them to 'batch'."
                )

    def _padding(self, x: torch.Tensor) -> list[int]:
        """Padding to a multiple of the stride, in the order of ``F.pad``; raises for an image that does not fit."""
        if x.dim() != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"the image has shape {list(x.shape)}, but the network expects a batch axis, {self.in_channels} "
                f"channels and {self.spatial_dims} spatial axes. Change in_channels or spatial_dims of the network, or the image."
            )
        padding: list[int] = []
        cells = 1
        for length in x.shape[2:][::-1]:
            missing = (self.stride - length % self.stride) % self.stride
            cells *= (length + missing) // self.stride
            if length < self.stride:
                cells = 0
            padding += [0, missing]
        if cells < 2:
            advice = " or num_stages=4, which drops the deepest stage" if self.stride > 16 else ""
            raise ValueError(
                f"the image size {list(x.shape[2:])} is too small: the deepest stage is {self.stride} times coarser, so "
                f"each axis must be at least that long and one must be longer. Use a larger image{advice}."
            )
        return padding

    def forward_maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Predict fine and coarse heatmaps, for inspection.

        Args:
            x: images (B, in_channels, *spatial).

        Returns:
            Heatmaps (B, N, *spatial) and coarse heatmaps (B, N, *ceil(spatial / 2)).
        """
        size = x.shape[2:]
        padding = self._padding(x)
        x = self.statistics(x)
        if sum(padding) > 0:
            x = F.pad(x, padding, mode="replicate")
        features = self.aggregation(self.backbone(x))
        coarse = self.coarse_head(features)
        fine = _upsample(coarse, x) if self.refinement is None else self.refinement(x, features, coarse)
        for axis, length in enumerate(size):
            fine = fine.narrow(axis + 2, 0, length)
            coarse = coarse.narrow(axis + 2, 0, (length + 1) // 2)
        return fine, self.coarse(coarse)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict heatmaps (B, N, *spatial) from images (B, in_channels, *spatial)."""
        return self.forward_maps(x)[0]

    def landmark_axes(self) -> dict[str, tuple[LandmarkAxis, ...]]:
        """Return the parameters that belong to landmarks; see :class:`~monai_landmarks.networks.LandmarkNetwork`."""
        heads = ("coarse_head",) if self.refinement is None else ("coarse_head", "refinement.head")
        axes: dict[str, tuple[LandmarkAxis, ...]] = {
            f"{head}.project.{name}": (LandmarkAxis(0),) for head in heads for name in ("weight", "bias")
        }
        if self.refinement is None:
            return axes
        head = self.refinement.head
        start = head.conv.weight.shape[1] - head.project.weight.shape[0]  # the coarse heatmaps are the last inputs
        return {**axes, "refinement.head.conv.weight": (LandmarkAxis(1, start),)}

    def first_layers(self) -> tuple[str, ...]:
        """Return the backbone."""
        return ("backbone",)

    def resize_hidden(self, weights: Mapping[str, torch.Tensor], kept: Sequence[int | None]) -> dict[str, torch.Tensor]:
        """Return weights of another number of landmarks whose refinement has as many hidden channels as this network.

        The refinement's head has as many hidden channels as inputs, so their number depends on the number of landmarks.
        The heatmaps of kept landmarks do not change: additional hidden channels have no effect at first, and fewer are
        enough after a rotation, because there are more than landmarks.

        Args:
            weights: state dictionary of the other network.
            kept: see :func:`~monai_landmarks.networks.learned_weights`.

        Returns:
            A new state dictionary. Only the two layers of the head differ.
        """
        if self.refinement is None:
            return dict(weights)
        names = ("refinement.head.project.weight", "refinement.head.conv.weight")
        project, conv = (weights[name].float() for name in names)
        hidden, before = len(self.refinement.head.conv.weight), len(conv)
        if hidden > before:
            fresh = self.refinement.head.conv.weight.detach()[before:, : conv.shape[1]].to(conv)
            conv = torch.cat([conv, fresh])
            project = torch.cat([project, project.new_zeros(len(project), hidden - before, *project.shape[2:])], dim=1)
        elif hidden < before:
            rows = [row for row in kept if row is not None]
            rotation = torch.linalg.qr(project[rows].flatten(1).mT, mode="complete").Q[:, :hidden]
            project = torch.einsum("nh...,hk->nk...", project, rotation)
            conv = torch.einsum("hk,h...->k...", rotation, conv)
        return {**weights, names[0]: project, names[1]: conv}
