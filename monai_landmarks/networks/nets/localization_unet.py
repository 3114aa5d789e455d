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

"""A plain U-Net that predicts one heatmap per landmark."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from monai.networks.nets import BasicUNet

from monai_landmarks.networks.layers.fast_layers import use_fast_layers
from monai_landmarks.networks.layers.supervised_up_cat import SupervisedUpCat
from monai_landmarks.networks.learned_weights import LandmarkAxis

__all__ = ["ENCODER", "LocalizationUNet"]

ENCODER = ("conv_0", "down_1", "down_2", "down_3", "down_4")  # of MONAI's BasicUNet


class _Halving(nn.Conv2d):
    """A convolution that halves an image, and refuses a size that is not a multiple of ``multiple``."""

    def __init__(self, in_channels: int, out_channels: int, multiple: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)
        self.multiple = multiple

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image at half the size."""
        height, width = image.shape[-2], image.shape[-1]
        if height % self.multiple or width % self.multiple:
            raise ValueError(
                f"the image has {height} x {width} pixels; expected multiples of {self.multiple}, the stride of the network."
            )
        return self._conv_forward(image, self.weight, self.bias)


class LocalizationUNet(BasicUNet):
    """
    MONAI's ``BasicUNet`` with one output channel per landmark, a baseline of landmark localization.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        num_landmarks: N.
        features: six numbers of channels, as for ``BasicUNet``.
        stride: number of pixels of the image per pixel of the U-Net, a power of two. With 2 or 4, strided convolutions
            reduce the image first, and the output has the size of the image again (sub-pixel convolution, Shi et al.
            2016). It computes the same size of map at a fraction of the cost. Only in 2-D.
        deep_supervision: number of coarser grids, 0 to 3, on which the network also makes heatmaps in training: at 1/2,
            1/4 and 1/8 of the resolution of the U-Net. A :class:`~monai_landmarks.losses.CoarseToFineLoss` per grid
            supervises those of the layers ``"upcat_2.coarse"``, ``"upcat_3.coarse"`` and ``"upcat_4.coarse"``. The loss
            of the first grid is the ``fine`` of that of the second, whose ``coarse`` must then be given.
        **kwargs: other arguments of ``BasicUNet`` (``act``, ``norm``, ``dropout``, ``upsample``, ...).

    Shape:
        (B, in_channels, *spatial) to (B, num_landmarks, *spatial). Each axis has at least 32 * stride voxels and, with
        a stride, a multiple of it.

    Raises:
        ValueError: for a stride that is not a power of two, or one in 3-D; for a number of coarser grids that is not 0 to
            3; and in the forward pass for an image whose size is not a multiple of the stride.

    Example:
        >>> import torch
        >>> LocalizationUNet(2, 1, num_landmarks=5)(torch.zeros(1, 1, 40, 48)).shape
        torch.Size([1, 5, 40, 48])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_landmarks: int,
        features: Sequence[int] = (32, 32, 64, 128, 256, 32),
        stride: int = 1,
        deep_supervision: int = 0,
        **kwargs,
    ) -> None:
        if stride < 1 or stride & (stride - 1):
            raise ValueError(f"stride must be a power of two, got {stride}.")
        if stride > 1 and spatial_dims != 2:
            raise ValueError(f"a stride is supported in 2-D only, got {spatial_dims} dimensions.")
        if not 0 <= deep_supervision <= 3:
            raise ValueError(f"deep_supervision must be 0 to 3 coarser grids, got {deep_supervision}.")
        halvings = stride.bit_length() - 1
        super().__init__(
            spatial_dims=spatial_dims,
            in_channels=features[0] if halvings else in_channels,
            out_channels=num_landmarks * stride**2,
            features=features,
            **kwargs,
        )
        use_fast_layers(self)
        self.reduction = stride
        self.supervised = tuple(f"upcat_{level + 2}" for level in range(deep_supervision))
        for step, channels in zip(self.supervised, features[1:]):
            SupervisedUpCat.supervise(self.get_submodule(step), spatial_dims, channels, num_landmarks)
        if halvings == 0:
            return
        stem: list[nn.Module] = []
        channels = in_channels
        for left in range(halvings, 0, -1):
            reduced = max(1, features[0] // 2 ** (left - 1))
            stem.append(_Halving(channels, reduced, multiple=2**left))
            if left > 1:  # the U-Net begins with a convolution and its own activation
                stem.append(nn.LeakyReLU(0.1))
            channels = reduced
        # the forward pass stays that of BasicUNet, since TorchScript cannot call it from a subclass
        self.conv_0 = nn.Sequential(*stem, self.conv_0)  # type: ignore[assignment]
        self.final_conv = nn.Sequential(self.final_conv, nn.PixelShuffle(stride))

    def landmark_axes(self) -> dict[str, tuple[LandmarkAxis, ...]]:
        """Return the parameters that belong to landmarks; see :class:`~monai_landmarks.networks.LandmarkNetwork`."""
        head = "final_conv" if self.reduction == 1 else "final_conv.0"
        blocks = {head: self.reduction**2, **{f"{step}.head": 1 for step in self.supervised}}
        return {
            f"{name}.{part}": (LandmarkAxis(0, block=block),)
            for name, block in blocks.items()
            for part in ("weight", "bias")
        }

    def first_layers(self) -> tuple[str, ...]:
        """Return the submodules of the downward path."""
        return ENCODER
