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


"""A coarse network that sees the whole image, and a fine one that looks at patches of it."""

from __future__ import annotations

import torch
import torch.nn as nn

__all__ = ["CloseLookNet"]


class CloseLookNet(nn.Module):
    """The two networks of :class:`~monai_landmarks.inferers.CloseLookInferer` in one module.

    They are trained one after the other, and saved, loaded and exported together. The forward pass is that of the fine
    network, which is the one that is trained. The weights of the coarse network are frozen.

    Args:
        coarse: finds the landmarks in the whole image, or the middle of each group of landmarks.
        fine: returns the heatmaps of a patch, one channel per landmark, or per role in a group; see
            :class:`~monai_landmarks.transforms.LandmarkGroups`.

    Shape:
        (B, C, *patch) to (B, K, *patch). ``network.coarse`` has the shapes of its own.

    Example:
        >>> network = CloseLookNet(nn.Conv2d(1, 5, 3), nn.Conv2d(1, 5, 3, padding=1))
        >>> network(torch.zeros(4, 1, 16, 16)).shape
        torch.Size([4, 5, 16, 16])
    """

    def __init__(self, coarse: nn.Module, fine: nn.Module) -> None:
        super().__init__()
        self.coarse = coarse.requires_grad_(False)
        self.fine = fine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the heatmaps of patches."""
        return self.fine(x)

    def first_layers(self) -> tuple[str, ...]:
        """Return the first layers of the fine network, the only one that is trained."""
        layers = getattr(self.fine, "first_layers", tuple)()
        return tuple(f"fine.{layer}" for layer in layers)
