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


"""FARNet: multi-scale feature aggregation on a pre-trained backbone, and refinement at full resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv

from monai_landmarks.networks.encoders import make_encoder

__all__ = ["FARNet"]

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


def _affine(norm: str | tuple) -> str | tuple:
    """Instance normalization by name alone has no parameters in torch; here it has, as batch normalization."""
    return ("instance", {"affine": True}) if isinstance(norm, str) and norm.lower() == "instance" else norm


def _upsample(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    return F.interpolate(x, size=like.shape[2:], mode=mode, align_corners=False)


class _ImageStatistics(nn.Module):
    """Gray images to three equal channels; from each channel its mean is subtracted, and what is left divided."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


class _Aggregation(nn.Module):
    """
    Multi-scale feature aggregation: up from the deepest tap, down, and up again; merges are concatenations.

    Args:
        conv: (in_channels, out_channels, kernel size, stride) to convolution, normalization, activation.
        channels: of the taps, finest first.
        widths: of what goes down, from a quarter of the resolution to the deepest grid.
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
        # each list in the order in which forward meets it
        self.up = nn.ModuleList(conv(width + skip, width, 1, 1) for skip in channels[-2:0:-1])
        self.down = nn.ModuleList(conv(i, o, 3, 2) for i, o in zip(widths, widths[1:]))
        self.merge = nn.ModuleList(conv(o + width, o, 1, 1) for o in widths[1:-1])
        self.merge.append(nn.Sequential(conv(widths[-1] + width, widths[-2], 3, 1), conv(widths[-2], width, 1, 1)))
        outputs = [width] * (len(widths) - 2) + list(last)
        inputs = [width, *outputs]
        skips = [*widths[-2::-1], channels[0]]
        self.up_again = nn.ModuleList(conv(i + skip, o, 1, 1) for i, skip, o in zip(inputs, skips, outputs))

    def forward(self, taps: list[torch.Tensor]) -> torch.Tensor:
        """Taps, finest first, to features at the resolution of the first."""
        x = self.squeeze(taps[-1])
        going_up = [x]
        for level, conv in enumerate(self.up):
            skip = taps[len(taps) - 2 - level]
            x = conv(torch.cat([_upsample(x, skip), skip], dim=1))
            going_up.append(x)
        going_down = [taps[0], x]
        for level, (down, merge) in enumerate(zip(self.down, self.merge)):
            x = merge(torch.cat([down(x), going_up[len(going_up) - 2 - level]], dim=1))
            going_down.append(x)
        for level, conv in enumerate(self.up_again):
            skip = going_down[len(going_down) - 2 - level]
            x = conv(torch.cat([_upsample(x, skip), skip], dim=1))
        return x


class _Refinement(nn.Module):
    """The image, the features and the coarse heatmaps together, at full resolution."""

    def __init__(self, stem: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.head = head

    def forward(self, image: torch.Tensor, features: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([_upsample(features, image), self.stem(image), _upsample(coarse, image)], dim=1))


class FARNet(nn.Module):
    """
    Feature Aggregation and Refinement Network of Ao and Wu (Journal of Digital Imaging 36, 2023).

    A backbone gives features at five resolutions. Three paths aggregate them, up, down and up again, into features and
    coarse heatmaps at half of the resolution. The refinement sees both, and the image, at full resolution and gives the
    heatmaps. Both are supervised in training; ``forward`` gives the fine heatmaps only, and the coarse ones are the
    output of the submodule ``coarse``, where a loss can tap them with a forward hook.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        num_landmarks: N.
        backbone: name of an encoder, or name and arguments, as :func:`~monai_landmarks.networks.make_encoder` takes it.
        features: width of the aggregation; all others are in proportion to it.
        max_features: none is wider than this. No limit in 2-D, 256 in 3-D.
        num_stages: 5, or 4 without the deepest stage of the backbone.
        norm: normalization outside the backbone, in MONAI's notation: batch in 2-D, instance in 3-D. Instance
            normalization has scale and shift unless the notation says otherwise.
        backbone_norm: that of the backbone, likewise.
        act: activation outside the backbone, in MONAI's notation: ReLU in 2-D, leaky ReLU in 3-D.
        stem_kernel: kernel size of the convolution that sees the image in the refinement. 3 as drawn in the paper; the
            authors' code has 1.
        input_statistics: ``"imagenet"`` takes images in [0, 1], gray (expanded to three channels) or RGB, and applies
            the means and standard deviations of ImageNet inside the network. None gives the image to the backbone as it
            is. ``"auto"`` is ``"imagenet"`` in 2-D for images of one or three channels, else None.
        head_init_std: standard deviation of the initial weights of both heads; None is torch's default.

    Shape:
        (B, in_channels, *spatial) to (B, num_landmarks, *spatial). A size that the stride does not divide is padded
        with the border value at its far end, and the result is cropped. Coarse maps: (B, num_landmarks, *ceil(spatial /
        2)); their index i lies at index 2i + 0.5 of the image.

    Raises:
        ValueError: for an unknown option, and for images of another channel count or too small for the deepest stage.

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
        backbone: str | tuple[str, dict] = "densenet121",
        weights: str | None = None,
        features: int = 256,
        max_features: int | None = None,
        num_stages: int = 5,
        norm: str | tuple | None = None,
        backbone_norm: str | tuple | None = None,
        act: str | tuple | None = None,
        stem_kernel: int = 3,
        input_statistics: str | None = "auto",
        head_init_std: float | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if num_stages not in (4, 5):
            raise ValueError(f"num_stages must be 4 or 5, got {num_stages}.")
        if features % 8 != 0:
            raise ValueError(f"features must be a multiple of 8, got {features}.")
        norm = _affine(norm or ("batch" if spatial_dims == 2 else "instance"))
        backbone_norm = _affine(backbone_norm or ("batch" if spatial_dims == 2 else "instance"))
        act = act or ("relu" if spatial_dims == 2 else "leakyrelu")
        max_features = max_features or (256 if spatial_dims == 3 else 8 * features)
        if input_statistics == "auto":
            input_statistics = "imagenet" if spatial_dims == 2 and in_channels in (1, 3) else None
        if weights is not None:
            raise NotImplementedError("weights")
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.stride = 2**num_stages
        self.statistics: nn.Module = nn.Identity()
        if input_statistics == "imagenet":
            self.statistics = _ImageStatistics()
            in_channels = 3

        def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
            return Convolution(
                spatial_dims, inputs, outputs, stride, kernel, adn_ordering="NA", act=act, norm=norm, bias=False
            )

        def head(inputs: int) -> nn.Sequential:
            conv_type = Conv[Conv.CONV, spatial_dims]
            layers = [conv_type(inputs, inputs, 3, padding=1), conv_type(inputs, num_landmarks, 1)]
            if head_init_std is not None:
                for layer in layers:
                    nn.init.normal_(layer.weight, std=head_init_std)
                    nn.init.zeros_(layer.bias)
            return nn.Sequential(*layers)

        self.backbone = make_encoder(backbone, spatial_dims, in_channels, num_stages, backbone_norm)
        widths = [min(features << level, max_features) for level in range(num_stages - 1)]
        half, quarter = widths[0] // 2, widths[0] // 4
        self.aggregation = _Aggregation(conv, self.backbone.channels, widths, (half, quarter))
        self.coarse_head = head(quarter)
        self.coarse = nn.Identity()
        stem = conv(in_channels, quarter // 2, stem_kernel)
        self.refinement = _Refinement(stem, head(quarter + quarter // 2 + num_landmarks))

    def _padding(self, x: torch.Tensor) -> list[int]:
        """What the image lacks to a multiple of the stride, in the order of ``F.pad``."""
        if x.dim() != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"the image has shape {list(x.shape)}, but the network was made for {self.in_channels} channels and "
                f"{self.spatial_dims} spatial axes (batch and channel come first). Change in_channels or spatial_dims "
                "of the network, or the image."
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
            raise ValueError(
                f"the image size {list(x.shape[2:])} is too small: the deepest stage is {self.stride} times coarser, each "
                "axis must be that long and one longer. Use a larger image, or num_stages=4 to drop the deepest stage."
            )
        return padding

    def forward_maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        The heatmaps and the coarse ones that they refine, for viewing.

        Args:
            x: (B, in_channels, *spatial).

        Returns:
            heatmaps (B, N, *spatial) and coarse heatmaps (B, N, *ceil(spatial / 2)).
        """
        size = x.shape[2:]
        padding = self._padding(x)
        x = self.statistics(x)
        if sum(padding) > 0:
            x = F.pad(x, padding, mode="replicate")
        features = self.aggregation(self.backbone(x))
        coarse = self.coarse_head(features)
        fine = self.refinement(x, features, coarse)
        for axis, length in enumerate(size):
            fine = fine.narrow(axis + 2, 0, length)
            coarse = coarse.narrow(axis + 2, 0, (length + 1) // 2)
        return fine, self.coarse(coarse)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, *spatial) to heatmaps (B, N, *spatial)."""
        return self.forward_maps(x)[0]
