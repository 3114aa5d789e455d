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

"""An upward step of MONAI's U-Net that also makes heatmaps in training."""

from __future__ import annotations

import torch
import torch.nn as nn
from monai.networks.layers import Conv

from .lean_up_cat import LeanUpCat
from .output_tap import OutputTap

__all__ = ["SupervisedUpCat"]


class SupervisedUpCat(LeanUpCat):
    """
    An upward step of a U-Net whose features a loss can supervise (deep supervision).

    In training mode, a convolution of one voxel makes heatmaps from the features, and they leave the network through
    the layer ``coarse``, an :class:`~monai_landmarks.networks.layers.OutputTap`. In evaluation mode, no heatmaps are
    made. The result is always that of ``UpCat``. Use :meth:`supervise`.
    """

    def forward(self, x: torch.Tensor, x_e: torch.Tensor | None) -> torch.Tensor:
        """Upsample ``x``, concatenate it with the skip connection ``x_e``, and convolve."""
        x = self.up(x, x_e)
        if self.training:
            self.coarse(self.head(x))  # type: ignore[not-callable]
        return x

    @classmethod
    def supervise(cls, step: nn.Module, spatial_dims: int, channels: int, num_landmarks: int) -> None:
        """
        Add heatmaps to an upward step, in place. Its parameters keep their names.

        Args:
            step: the upward step, a :class:`LeanUpCat`.
            spatial_dims: 2 or 3.
            channels: of its result.
            num_landmarks: number of heatmaps.
        """
        step.__class__ = cls
        step.head = Conv[Conv.CONV, spatial_dims](channels, num_landmarks, kernel_size=1)
        step.coarse = OutputTap()
