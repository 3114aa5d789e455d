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

"""Refusal of images with voxels that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, TransformBackends, convert_to_tensor

__all__ = ["RequireFinite", "RequireFiniteD", "RequireFiniteDict", "RequireFinited"]


class RequireFinite(Transform):
    """Raise an error for an image with voxels that are NaN or infinite.

    A single such voxel makes all voxels of a normalized image NaN, and no landmark is found in it. The voxels are not
    replaced, because the right value is not known.

    Example:
        >>> RequireFinite()(torch.tensor([[1.0, float("nan")]]))
        Traceback (most recent call last):
            ...
        ValueError: the image: 1 of 2 voxels are NaN or infinite. Replace them, for example by the value of air.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """Return the image as it is.

        Args:
            img: image of any shape. The message names the file of a ``MetaTensor``.

        Raises:
            ValueError: if a voxel is NaN or infinite.
        """
        values = convert_to_tensor(img, track_meta=False)
        if not values.is_floating_point() or bool(torch.isfinite(values.sum(dtype=torch.float64))):
            return img  # a sum of finite float32 values is finite in float64
        count = int((~torch.isfinite(values)).sum())
        if count:
            name = getattr(img, "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "the image")
            raise ValueError(
                f"{name}: {count} of {values.numel()} voxels are NaN or infinite. Replace them, for example by the value of "
                "air."
            )
        return img


class RequireFinited(MapTransform):
    """Dictionary-based version of :class:`RequireFinite`.

    Args:
        keys: images.
        allow_missing_keys: do not raise if an image is missing.
    """

    backend = RequireFinite.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.check = RequireFinite()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.check(d[key])
        return d


RequireFiniteD = RequireFiniteDict = RequireFinited
