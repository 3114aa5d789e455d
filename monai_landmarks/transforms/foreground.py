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
"""Crop an image to its foreground."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, SpatialCrop, Transform, generate_spatial_bounding_box
from monai.utils import TransformBackends, convert_to_tensor

from monai_landmarks.spaces import spacing_of

from .lost_affine import mark_moved

__all__ = ["CropToForeground", "CropToForegroundD", "CropToForegroundDict", "CropToForegroundd"]


class CropToForeground(Transform):
    """Crop an image to the box of its foreground, for example the body or the bone in CT.

    The foreground is where values are above a threshold. The margin is in mm; that of MONAI's ``CropForeground`` is in
    voxels. The affine is updated, so that landmarks in the world stay as they are.

    Args:
        threshold: values above it are foreground. None: do not crop.
        margin: around the box in mm, cut off at the border of the image.

    Raises:
        ValueError: for a negative margin.

    Example:
        >>> image = torch.zeros(1, 40, 30)
        >>> image[:, 10:20, 5:9] = 200
        >>> CropToForeground(threshold=100, margin=2)(image).shape
        torch.Size([1, 14, 8])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, threshold: float | None, margin: float = 0.0) -> None:
        if margin < 0:
            raise ValueError(f"margin must not be negative, got {margin}.")
        self.threshold, self.margin = threshold, margin

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Crop an image.

        Args:
            img: channel-first image (C, n_1, ..., n_D). Its affine gives the spacing, 1 mm without one.

        Returns:
            The cropped image with its affine; the whole image if it has no foreground.
        """
        image = convert_to_tensor(img, track_meta=True)
        if self.threshold is None:
            return image
        margin = np.ceil(self.margin / spacing_of(img, image.ndim - 1) - 1e-6).astype(int).tolist()
        start, end = generate_spatial_bounding_box(image, self._is_foreground, margin=margin, allow_smaller=True)
        if not all(high > low for low, high in zip(start, end)):
            return image
        crop = SpatialCrop(roi_start=start, roi_end=end)
        # no trace: points find their way back through the affine, so that MONAI need not invert this
        with crop.trace_transform(False):
            return mark_moved(crop(image))

    def _is_foreground(self, image: torch.Tensor) -> torch.Tensor:
        assert self.threshold is not None
        return image > self.threshold


class CropToForegroundd(MapTransform):
    """Dictionary-based version of :class:`CropToForeground`. Each image is cropped to its own foreground.

    Args:
        keys: images.
        threshold: see :class:`CropToForeground`.
        margin: see :class:`CropToForeground`.
        allow_missing_keys: do not raise if an image is missing.
    """

    backend = CropToForeground.backend

    def __init__(
        self, keys: KeysCollection, threshold: float | None, margin: float = 0.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.crop = CropToForeground(threshold, margin)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images cropped."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.crop(d[key])
        return d


CropToForegroundD = CropToForegroundDict = CropToForegroundd
