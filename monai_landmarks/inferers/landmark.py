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

from monai_landmarks.heatmaps import DecodingMethod, decode_heatmaps, find_peaks, require_decoding_method

from .heatmap_size import require_size_of

__all__ = ["LandmarkInferer"]


class LandmarkInferer(Inferer):
    """Run the network on the whole image, and return points instead of heatmaps.

    The heatmaps are freed as soon as they are decoded. The output of an engine then holds a few numbers per image,
    which handlers can keep and gather from all processes. ``HeatmapToLandmarksd`` accepts the result in place of
    heatmaps, applies its threshold and transforms the points to the world.

    Args:
        inferer: computes the heatmaps. None: MONAI's ``SimpleInferer``.
        method: see :func:`monai_landmarks.heatmaps.decode_heatmaps`.
        radius: of the neighborhood that the refinement uses, in voxels. Default: 8 in 2-D and 6 in 3-D.
        num_peaks: K, return the K highest peaks of each map instead of its maximum, for ``HeatmapToChainLandmarksd``;
            see :func:`monai_landmarks.heatmaps.find_peaks`.
        min_distance: smallest distance of the peaks of one map, in voxels. Only for ``num_peaks``.
        threshold: a peak that is not above it does not count. Only for ``num_peaks``; without it, the threshold is that
            of ``HeatmapToLandmarksd``.

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
        method: DecodingMethod = "gaussian",
        radius: int | None = None,
        num_peaks: int | None = None,
        min_distance: float = 7.0,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.inferer = SimpleInferer() if inferer is None else inferer
        require_decoding_method(method)
        self.method = method
        self.radius = radius
        self.num_peaks, self.min_distance, self.threshold = num_peaks, min_distance, threshold

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Run the network and decode its heatmaps.

        Args:
            inputs: (B, C, *spatial).
            network: returns heatmaps (B, N, *spatial).
            args: further arguments of the network.
            kwargs: further arguments of the network.

        Returns:
            ``points`` (B, N, D), index coordinates in the image; ``scores`` (B, N), the maximum of each map; and
            ``covariances`` (B, N, D, D) of each peak in square voxels. With ``num_peaks`` their shapes are (B, N, K,
            D), (B, N, K) and (B, N, K, D, D), the highest peak first, NaN where a map has fewer peaks.

        Raises:
            ValueError: if the heatmaps have another size than the image.
        """
        heatmaps = self.inferer(inputs, network, *args, **kwargs)
        if isinstance(heatmaps, MetaTensor):
            heatmaps = heatmaps.as_tensor()
        require_size_of(inputs, heatmaps)
        dims = inputs.ndim - 2
        if self.num_peaks is None:
            return decode_heatmaps(heatmaps, dims, self.method, None, self.radius)._asdict()
        how = {"threshold": self.threshold, "method": self.method, "radius": self.radius}
        return find_peaks(heatmaps, dims, self.num_peaks, self.min_distance, **how)._asdict()
