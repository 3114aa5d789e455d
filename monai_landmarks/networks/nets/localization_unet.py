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

from monai.networks.nets import BasicUNet

from monai_landmarks.networks.layers.fast_layers import use_fast_layers

__all__ = ["LocalizationUNet"]


class LocalizationUNet(BasicUNet):
    """
    MONAI's ``BasicUNet`` with one output channel per landmark, a baseline of landmark localization.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        num_landmarks: N.
        features: six numbers of channels, as for ``BasicUNet``.
        **kwargs: other arguments of ``BasicUNet`` (``act``, ``norm``, ``dropout``, ``upsample``, ...).

    Shape:
        (B, in_channels, *spatial) to (B, num_landmarks, *spatial). Each axis has at least 32 voxels.

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
        **kwargs,
    ) -> None:
        super().__init__(
            spatial_dims=spatial_dims, in_channels=in_channels, out_channels=num_landmarks, features=features, **kwargs
        )
        use_fast_layers(self)
