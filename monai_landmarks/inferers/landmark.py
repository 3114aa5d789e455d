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


"""Inference that ends in points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SimpleInferer

from monai_landmarks.heatmaps import check_decoding, decode_heatmaps, find_peaks

__all__ = ["LandmarkInferer"]


class LandmarkInferer(Inferer):
    """
    Run the network on the whole image, and keep the points only.

    The heatmaps are let go as soon as they are decoded, so that no engine keeps them, and no collective of them.
    ``HeatmapToLandmarksd`` takes the result in the place of heatmaps, applies its threshold, and goes to the world.

    Args:
        inferer: how the heatmaps are made; MONAI's ``SimpleInferer`` if None.
        method: see :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        radius: how far around the maximum the refinement looks, in voxels.
        num_peaks: K, give the K highest peaks of each landmark in place of the highest voxel, for
            ``HeatmapToChainLandmarksd``; see :func:`monai_landmarks.heatmaps.find_peaks`.
        min_distance: of peaks of one landmark, in voxels.
        threshold: a peak that is not above it does not count. Only for ``num_peaks``: otherwise ``HeatmapToLandmarksd`` has
            one.

    Raises:
        ValueError: for an unknown method.

    Example:
        >>> found = LandmarkInferer()(torch.rand(1, 1, 32, 24), torch.nn.Conv2d(1, 3, 3, padding=1))
        >>> {name: tuple(values.shape) for name, values in found.items()}
        {'points': (1, 3, 2), 'scores': (1, 3), 'covariances': (1, 3, 2, 2)}
    """

    def __init__(
        self,
        inferer: Inferer | None = None,
        method: str = "gaussian",
        radius: int | None = None,
        num_peaks: int | None = None,
        min_distance: float = 7.0,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.method = check_decoding(method)
        self.radius = radius
        self.num_peaks, self.min_distance, self.threshold = num_peaks, min_distance, threshold

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            inputs: (B, C, *spatial).
            network: gives heatmaps (B, N, *spatial).
            args: for the network.
            kwargs: for the network.

        Returns:
            ``points`` (B, N, D), index coordinates in the image; ``scores`` (B, N), the maximum of each map; and
            ``covariances`` (B, N, D, D) of each peak in square voxels. With ``num_peaks`` (B, N, K, D), (B, N, K) and
            (B, N, K, D, D), the highest first, NaN from where there are no more.
        """
        heatmaps = self.inferer(inputs, network, *args, **kwargs)
        if isinstance(heatmaps, MetaTensor):
            heatmaps = heatmaps.as_tensor()
        dims = inputs.ndim - 2
        if self.num_peaks is None:
            return decode_heatmaps(heatmaps, dims, self.method, None, self.radius)._asdict()
        how = {"threshold": self.threshold, "method": self.method, "radius": self.radius}
        return find_peaks(heatmaps, dims, self.num_peaks, self.min_distance, **how)._asdict()
