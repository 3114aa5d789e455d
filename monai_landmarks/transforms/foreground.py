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
"""The part of an image that holds something."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, SpatialCrop, Transform, generate_spatial_bounding_box
from monai.utils import TransformBackends, convert_to_tensor

from monai_landmarks.spaces import spacing_of

__all__ = ["CropToForeground", "CropToForegroundD", "CropToForegroundDict", "CropToForegroundd"]


class CropToForeground(Transform):
    """Crop an image to the box of what is brighter than a threshold, such as the body or the bone of a CT.

    MONAI's ``CropForeground`` takes a function for this, and its margin in voxels; here it is mm, whatever the spacing. The
    affine follows, so that landmarks in the world are where they were.

    Args:
        threshold: values above it are foreground. None leaves the image as it is.
        margin: around the box, in mm, within the image.

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
        """
        Args:
            img: channel-first image (C, n_1, ..., n_D); its affine tells its spacing, 1 mm without one.

        Returns:
            the box with its affine; the whole image where nothing in it is foreground.
        """
        image = convert_to_tensor(img, track_meta=True)
        if self.threshold is None:
            return image
        margin = np.ceil(self.margin / spacing_of(image, image.ndim - 1) - 1e-6).astype(int).tolist()
        # margins are cut off at the border of the image
        start, end = generate_spatial_bounding_box(image, self._is_foreground, margin=margin, allow_smaller=True)
        if not all(high > low for low, high in zip(start, end)):
            return image
        crop = SpatialCrop(roi_start=start, roi_end=end)
        # nothing is to be undone: points come back through the affine
        with crop.trace_transform(False):
            return crop(image)

    def _is_foreground(self, image: torch.Tensor) -> torch.Tensor:
        assert self.threshold is not None
        return image > self.threshold


class CropToForegroundd(MapTransform):
    """Dictionary-based version of :class:`CropToForeground`; each image is cropped to its own foreground.

    Args:
        keys: images.
        threshold: see :class:`CropToForeground`.
        margin: see :class:`CropToForeground`.
        allow_missing_keys: do not raise an error where an image is missing.
    """

    backend = CropToForeground.backend

    def __init__(
        self, keys: KeysCollection, threshold: float | None, margin: float = 0.0, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.crop = CropToForeground(threshold, margin)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A copy of the item with its images cropped."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.crop(d[key])
        return d


CropToForegroundD = CropToForegroundDict = CropToForegroundd
