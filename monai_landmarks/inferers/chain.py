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

"""Inference that ends in the points of chains, such as the vertebrae of a spine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer

from monai_landmarks.spaces import plain_tensor
from monai_landmarks.transforms import HeatmapToChainLandmarks

from .heatmap_size import require_size_of

__all__ = ["ChainLandmarkInferer"]


class ChainLandmarkInferer(Inferer):
    """Run the network on the whole image, and return the points that fit together in chains.

    Unlike :class:`LandmarkInferer` with ``num_peaks``, it chooses the candidates itself and returns one point per
    landmark. So it can be the coarse part of a :class:`CloseLookInferer`. Distances are measured in voxels, not in mm:
    the grid of a network often shows the whole image, whatever its size.

    Args:
        chain: chooses the candidates. Its offsets are in voxels of the network's grid.
        inferer: computes the heatmaps. None: MONAI's ``SimpleInferer``.
        softmax: whether the network returns logits, see :class:`~monai_landmarks.losses.HeatmapCrossEntropyLoss`. The
            scores are then the largest probability of a voxel.
        mirror: rows of the landmarks in a mirrored image, or None. The heatmaps are then the mean of those of the image
            and of its mirror image along the first axis. For a spine, whose vertebrae are their own partners, these are
            all rows in their order.

    Example:
        >>> chain = HeatmapToChainLandmarks([[0, 1]], choose_by="evidence", offsets=[[[0.0, 10.0]]])
        >>> network = torch.nn.Conv2d(1, 2, 3, padding=1)
        >>> found = ChainLandmarkInferer(chain, softmax=True)(torch.rand(3, 1, 32, 48), network)
        >>> {name: tuple(values.shape) for name, values in found.items()}
        {'points': (3, 2, 2), 'scores': (3, 2), 'covariances': (3, 2, 2, 2)}
    """

    def __init__(
        self,
        chain: HeatmapToChainLandmarks,
        inferer: Inferer | None = None,
        softmax: bool = False,
        mirror: list[int] | None = None,
    ) -> None:
        super().__init__()
        self.chain = chain
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.softmax = softmax
        self.mirror = mirror

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Run the network, decode its heatmaps and choose the candidates.

        Args:
            inputs: (B, C, *spatial).
            network: returns heatmaps (B, N, *spatial).
            args: further arguments of the network.
            kwargs: further arguments of the network.

        Returns:
            ``points`` (B, N, D), index coordinates in the image; ``scores`` (B, N); and ``covariances`` (B, N, D, D)
            in square voxels.

        Raises:
            ValueError: if the heatmaps have another size than the image.
        """
        heatmaps = self._heatmaps(inputs, network, *args, **kwargs)
        if self.mirror is not None:
            mirrored = self._heatmaps(plain_tensor(inputs).flip(2), network, *args, **kwargs)
            heatmaps = (heatmaps + mirrored.flip(2)[:, self.mirror]) / 2
        found = [self.chain(maps)._asdict() for maps in heatmaps]
        return {name: torch.stack([values[name] for values in found]) for name in found[0]}

    def _heatmaps(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        heatmaps = plain_tensor(self.inferer(inputs, network, *args, **kwargs))
        require_size_of(inputs, heatmaps)
        if self.softmax:
            heatmaps = heatmaps.float().flatten(2).softmax(dim=2).reshape(heatmaps.shape)
        return heatmaps
