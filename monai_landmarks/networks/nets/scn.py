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

"""SpatialConfiguration-Net: local appearance times spatial configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.blocks import ADN
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets import BasicUNet

from monai_landmarks.networks.layers.cubic_upsample import CubicUpsample
from monai_landmarks.networks.layers.fast_layers import use_fast_layers
from monai_landmarks.networks.learned_weights import LandmarkAxis

from .localization_unet import ENCODER

__all__ = ["SCN"]


_FormName = Literal["mia2019", "verse2019", "miccai2016"]
_LocalAppearance = Literal["additive", "concat", "plain", "unet"]
_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class _Form(NamedTuple):
    """The settings of a published form. A pair has the values in 2-D and 3-D."""

    features: tuple[int, int]
    local_appearance: _LocalAppearance
    dropout: float
    spatial_kernel: tuple[int, int]
    spatial_factor: tuple[int, int]
    padding_mode: tuple[_PaddingMode, _PaddingMode]


_FORMS = {
    "mia2019": _Form((128, 64), "additive", 0.5, (11, 7), (16, 8), ("zeros", "reflect")),
    "verse2019": _Form((128, 64), "concat", 0.5, (11, 7), (16, 4), ("zeros", "zeros")),
    "miccai2016": _Form((128, 64), "plain", 0.0, (15, 15), (8, 8), ("zeros", "zeros")),
}


def _truncated_normal_(weight: torch.Tensor, std: float | None = None) -> None:
    """Initialize with a normal distribution truncated at two standard deviations, by default He's for the fan-in."""
    if std is None:
        fan_in = weight[0].numel()
        # 0.8796 is the standard deviation of the standard normal distribution after truncation at 2
        std = math.sqrt(2.0 / fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def _conv(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    padding_mode: _PaddingMode,
    init_std: float | None = None,
) -> nn.Conv2d | nn.Conv3d:
    conv = Conv[Conv.CONV, spatial_dims](
        in_channels, out_channels, kernel_size=kernel, padding=kernel // 2, padding_mode=padding_mode
    )
    _truncated_normal_(conv.weight, init_std)
    nn.init.zeros_(conv.bias)
    return conv


def _conv_act(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    padding_mode: _PaddingMode,
    norm: str | tuple | None,
    dropout: float = 0.0,
    act: str | tuple = ("leakyrelu", {"negative_slope": 0.1}),
) -> nn.Sequential:
    """Convolution, optional normalization, activation and dropout."""
    adn = ADN(
        ordering="NAD",
        in_channels=out_channels,
        norm=norm,
        norm_dim=spatial_dims,
        act=act,
        # dropout_dim=1 is element-wise dropout for any number of spatial dimensions
        dropout=dropout or None,
        dropout_dim=1,
    )
    return nn.Sequential(_conv(spatial_dims, in_channels, out_channels, kernel, padding_mode), adn)


class _ConstantWidthUNet(nn.Module):
    """
    The local-appearance network: a U-Net with the same width on each level, average pooling and linear upsampling.

    ``merge="add"`` is the MedIA-2019 form: one convolution per skip connection, which is added to the upsampled
    features, and no other convolution in the expanding path. ``merge="concat"`` is the VerSe-2019 form: plain skip
    connections, two convolutions per level in the expanding path, and dropout after each convolution.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        features: int,
        levels: int,
        merge: Literal["add", "concat"],
        dropout: float,
        padding_mode: _PaddingMode,
        norm: str | tuple | None,
    ) -> None:
        super().__init__()
        self.concat = merge == "concat"
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.pool = Pool[Pool.AVG, spatial_dims](2)

        def block(channels: int, drop: float = 0.0) -> nn.Sequential:
            return _conv_act(spatial_dims, channels, features, 3, padding_mode, norm, drop)

        self.stem = block(in_channels)
        second = dropout if self.concat else 0.0
        self.contracting = nn.ModuleList(
            nn.Sequential(block(features, dropout), block(features, second)) for _ in range(levels)
        )
        self.skips = nn.ModuleList(nn.Identity() if self.concat else block(features) for _ in range(levels))
        # deepest first, in the order of forward
        self.expanding = nn.ModuleList(
            nn.Sequential(block(2 * features, dropout), block(features, dropout)) if self.concat else nn.Identity()
            for _ in range(levels - 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        lateral: list[torch.Tensor] = []
        for level, (contract, skip) in enumerate(zip(self.contracting, self.skips)):
            if level > 0:
                x = self.pool(x)
            x = contract(x)
            lateral.append(skip(x))
        x = lateral[-1]
        for level, expand in enumerate(self.expanding):
            skipped = lateral[len(lateral) - 2 - level]
            x = F.interpolate(x, size=skipped.shape[2:], mode=self.mode, align_corners=False)
            x = expand(torch.cat([skipped, x], dim=1)) if self.concat else skipped + x
        return x


class _OtherLandmarksConv(nn.Module):
    """
    A convolution from N maps to N maps, each from the other maps only: the MICCAI-2016 spatial configuration.

    Args:
        spatial_dims: 2 or 3.
        num_landmarks: N.
        kernel: kernel size.
        padding_mode: padding of the convolution.
        init_std: standard deviation of the initial weights.
    """

    def __init__(
        self, spatial_dims: int, num_landmarks: int, kernel: int, padding_mode: _PaddingMode, init_std: float
    ) -> None:
        super().__init__()
        self.conv = _conv(spatial_dims, num_landmarks, num_landmarks, kernel, padding_mode, init_std)
        self.others: torch.Tensor
        others = 1 - torch.eye(num_landmarks)
        self.register_buffer("others", others.view(num_landmarks, num_landmarks, *[1] * spatial_dims), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv._conv_forward(x, self.conv.weight * self.others, self.conv.bias)


class SCN(nn.Module):
    r"""
    SpatialConfiguration-Net of Payer et al.

    .. math::
        H = H^{LA} \odot H^{SC}

    The local-appearance network predicts one map per landmark, :math:`H^{LA}`, which is accurate but has several
    candidates. The input of the spatial-configuration network is these maps only, on a coarse grid and with large
    kernels. It predicts where each landmark can be, given the others, :math:`H^{SC}`. The product is the heatmap. Only
    the product is supervised.

    The defaults are the form of Medical Image Analysis 54:207-219, 2019: no normalization, leaky ReLU of slope 0.1, He
    initialization, dropout 0.5, heads that are initially almost zero, tanh before the cubic upsampling. This form
    trains slowly from few images; ``norm``, ``local_appearance="unet"``, ``head_init_std`` and ``spatial_bias`` make it
    faster. Linear upsampling inside the network repeats the border value, where the authors' code pads with zeros.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        num_landmarks: N.
        form: defaults of the other arguments. ``"mia2019"``; ``"verse2019"`` with concatenated skip connections and, in
            3-D, a spatial configuration at a quarter of the resolution (VISAPP 2020); ``"miccai2016"`` with three 5x5
            convolutions and one large linear kernel from the other landmarks to each landmark (MICCAI 2016).
        features: width of all hidden layers, 128 in 2-D and 64 in 3-D. With ``local_appearance="unet"``, width of the
            spatial configuration.
        levels: number of resolutions of the local-appearance network.
        local_appearance: ``"additive"``, ``"concat"``, ``"plain"`` (no pooling) or ``"unet"``, MONAI's ``BasicUNet``.
        unet_features: channels of the ``BasicUNet``.
        dropout: rate of the element-wise dropout in the local-appearance network.
        spatial_kernel: kernel size of the spatial configuration, 11 in 2-D and 7 in 3-D.
        spatial_factor: stride of the coarse grid, 16 in 2-D and 8 in 3-D. Four convolutions should cover the grid.
        padding_mode: padding of the convolutions, ``"zeros"`` in 2-D and ``"reflect"`` in 3-D.
        norm: normalization after each hidden convolution, in MONAI's notation (``"instance"``, ``("group",
            {"num_groups": 8})``, ...). None is the published form.
        head_init_std: standard deviation of the initial weights of both heads, 1e-4 in 2-D and 1e-3 in 3-D.
        spatial_bias: initial bias of the spatial-configuration head. With 0, the published value, both factors of the
            product are initially almost zero, and the loss hardly changes in the first few hundred steps. With 1 the
            product is initially 0.76 times the local appearance.

    Shape:
        (B, in_channels, *spatial) to (B, num_landmarks, *spatial). If the stride of the network does not divide a size,
        the image is padded with zeros at the end of that axis, and the result is cropped.

    Raises:
        ValueError: for an unknown option, and for an image that is too small for reflection padding on the coarse grid.

    Example:
        >>> net = SCN(spatial_dims=2, in_channels=1, num_landmarks=4, features=8)
        >>> net(torch.zeros(1, 1, 64, 80)).shape
        torch.Size([1, 4, 64, 80])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        form: _FormName = "mia2019",
        features: int | None = None,
        levels: int = 4,
        local_appearance: _LocalAppearance | None = None,
        unet_features: Sequence[int] = (32, 32, 64, 128, 256, 32),
        dropout: float | None = None,
        spatial_kernel: int | None = None,
        spatial_factor: int | None = None,
        padding_mode: _PaddingMode | None = None,
        norm: str | tuple | None = None,
        head_init_std: float | None = None,
        spatial_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}.")
        if form not in _FORMS:
            raise ValueError(f"form must be one of {tuple(_FORMS)}, got {form!r}.")
        defaults, choice = _FORMS[form], spatial_dims - 2
        features = features or defaults.features[choice]
        local_appearance = local_appearance or defaults.local_appearance
        dropout = defaults.dropout if dropout is None else dropout
        spatial_kernel = spatial_kernel or defaults.spatial_kernel[choice]
        self.spatial_factor = spatial_factor or defaults.spatial_factor[choice]
        padding_mode = padding_mode or defaults.padding_mode[choice]
        head_init_std = (1e-4 if spatial_dims == 2 else 1e-3) if head_init_std is None else head_init_std
        if local_appearance not in get_args(_LocalAppearance):
            raise ValueError(f"local_appearance must be one of {get_args(_LocalAppearance)}, got {local_appearance!r}.")
        if spatial_kernel % 2 == 0:
            raise ValueError(f"spatial_kernel must be odd, got {spatial_kernel}.")

        head_kernel, head_features, poolings = 3, features, levels - 1
        body: nn.Module
        if local_appearance == "plain":
            head_kernel, poolings = 5, 0
            widths = [in_channels, *[features] * 3]
            body = nn.Sequential(
                *[
                    _conv_act(spatial_dims, i, o, 5, padding_mode, norm, dropout, "relu")
                    for i, o in zip(widths, widths[1:])
                ]
            )
        elif local_appearance == "unet":
            head_features, poolings = unet_features[-1], 4
            body = BasicUNet(
                spatial_dims, in_channels, head_features, unet_features, norm=norm or ("instance", {"affine": True})
            )
        else:
            merge: Literal["add", "concat"] = "add" if local_appearance == "additive" else "concat"
            body = _ConstantWidthUNet(spatial_dims, in_channels, features, levels, merge, dropout, padding_mode, norm)
        self.local_appearance = nn.Sequential(
            body,
            _conv(
                spatial_dims, head_features, num_landmarks, head_kernel, padding_mode="zeros", init_std=head_init_std
            ),
        )

        self.coarsen = Pool[Pool.AVG, spatial_dims](self.spatial_factor)
        if form == "miccai2016":
            others = _OtherLandmarksConv(spatial_dims, num_landmarks, spatial_kernel, padding_mode, head_init_std)
            spatial_head = others.conv
            self.spatial_configuration = nn.Sequential(others)
            mode = "bilinear" if spatial_dims == 2 else "trilinear"
            self.refine: nn.Module = nn.Upsample(scale_factor=self.spatial_factor, mode=mode, align_corners=False)
        else:
            widths = [num_landmarks, *[features] * 3]
            spatial_head = _conv(spatial_dims, features, num_landmarks, spatial_kernel, padding_mode, head_init_std)
            self.spatial_configuration = nn.Sequential(
                *[
                    _conv_act(spatial_dims, i, o, spatial_kernel, padding_mode, norm)
                    for i, o in zip(widths, widths[1:])
                ],
                spatial_head,
                nn.Tanh(),
            )
            self.refine = CubicUpsample(spatial_dims, self.spatial_factor)
        assert spatial_head.bias is not None
        nn.init.constant_(spatial_head.bias, spatial_bias)
        self.stride = math.lcm(2**poolings, self.spatial_factor)
        self.smallest_coarse = 1 if padding_mode == "zeros" else spatial_kernel // 2 + 1
        use_fast_layers(self)

    def forward_maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Predict the heatmaps and their two factors, for inspection.

        Args:
            x: images (B, in_channels, *spatial).

        Returns:
            Heatmaps, local appearance and spatial configuration, each (B, N, *spatial).
        """
        size = x.shape[2:]
        padding: list[int] = []
        for length in size[::-1]:
            missing = (self.stride - length % self.stride) % self.stride
            if (length + missing) // self.spatial_factor < self.smallest_coarse:
                raise ValueError(
                    f"an axis of {length} voxels is too short: it must have at least {self.smallest_coarse} cells at "
                    f"1/{self.spatial_factor} of the resolution. Use a larger image, a smaller spatial_factor or "
                    "padding_mode='zeros'."
                )
            padding += [0, missing]
        if sum(padding) > 0:
            x = F.pad(x, padding)
        local = self.local_appearance(x)
        configuration = self.refine(self.spatial_configuration(self.coarsen(local)))
        for axis, length in enumerate(size):
            local = local.narrow(axis + 2, 0, length)
            configuration = configuration.narrow(axis + 2, 0, length)
        return local * configuration, local, configuration

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predict heatmaps (B, N, *spatial) from images (B, in_channels, *spatial)."""
        return self.forward_maps(x)[0]

    def landmark_axes(self) -> dict[str, tuple[LandmarkAxis, ...]]:
        """Return the parameters that belong to landmarks; see :class:`~monai_landmarks.networks.LandmarkNetwork`."""
        outputs, inputs = LandmarkAxis(0), LandmarkAxis(1)
        axes: dict[str, tuple[LandmarkAxis, ...]] = {
            f"local_appearance.1.{name}": (outputs,) for name in ("weight", "bias")
        }
        convolutions = [
            name
            for name, module in self.spatial_configuration.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Conv3d))
        ]
        first, last = (f"spatial_configuration.{name}" for name in (convolutions[0], convolutions[-1]))
        axes[f"{last}.bias"] = (outputs,)
        axes[f"{first}.weight"] = (inputs,)
        axes[f"{last}.weight"] = (*axes.get(f"{last}.weight", ()), outputs)
        return axes

    def first_layers(self) -> tuple[str, ...]:
        """Return the submodules of the local appearance up to its coarsest resolution."""
        body = self.local_appearance[0]
        if isinstance(body, BasicUNet):
            return tuple(f"local_appearance.0.{name}" for name in ENCODER)
        if isinstance(body, _ConstantWidthUNet):
            return "local_appearance.0.stem", "local_appearance.0.contracting"
        return ("local_appearance.0",)
