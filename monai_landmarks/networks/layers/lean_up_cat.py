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


"""The upward step of MONAI's U-Net without needless copies."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.nets.basic_unet import UpCat

__all__ = ["LeanUpCat"]


class LeanUpCat(UpCat):
    """
    MONAI's ``UpCat``, which pads the upsampled features only if their size is not that of the skip connection.

    MONAI's layer also pads by zero voxels, which copies the features, and their gradient in the backward pass.
    Parameters and state dictionary are those of ``UpCat``. Use :meth:`convert`.
    """

    def forward(self, x: torch.Tensor, x_e: torch.Tensor | None) -> torch.Tensor:
        """Upsample ``x``, concatenate it with the skip connection ``x_e``, and convolve."""
        return self.up(x, x_e)

    def up(self, x: torch.Tensor, x_e: torch.Tensor | None) -> torch.Tensor:
        """Compute the result of :meth:`forward`, for subclasses: TorchScript cannot call ``super().forward``."""
        x = self.upsample(x)
        if x_e is None:
            return self.convs(x)
        padding: list[int] = []
        for axis in range(x.dim() - 1, 1, -1):
            padding += [0, int(x_e.shape[axis] != x.shape[axis])]  # an odd size, halved and doubled
        if self.is_pad and sum(padding) > 0:
            x = F.pad(x, padding, "replicate")
        return self.convs(torch.cat([x_e, x], dim=1))

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """
        Replace the ``UpCat`` layers of a network, in place.

        Args:
            module: the network.

        Returns:
            The network.
        """
        for child in module.modules():
            if type(child) is UpCat:
                child.__class__ = cls
        return module
