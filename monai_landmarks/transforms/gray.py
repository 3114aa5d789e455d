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

"""Color images, such as radiographs exported as RGB, to one channel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, TransformBackends, convert_to_dst_type, convert_to_tensor

from monai_landmarks.data.images.image_files import channel_fault

__all__ = ["ToGray", "ToGrayD", "ToGrayDict", "ToGrayd"]

# luma weights of ITU-R BT.601, those of Pillow's "L" mode
_LUMA = (0.299, 0.587, 0.114)
# Modes of pictures whose values are not brightness: numbers of colors, or amounts of ink. PILReader does not convert
# them.
_NO_LIGHT = ("P", "PA", "CMYK")


class ToGray(Transform):
    """Convert a gray image (1 channel), gray with alpha (2), RGB (3) or RGB with alpha (4) to one channel.

    The alpha channel is dropped. Color becomes luma (ITU-R BT.601). An image with one channel is returned as it is.

    Raises:
        ValueError: for any other number of channels; for volumes with several, which are contrasts or time points, not
            colors; and for palette and CMYK pictures that were not loaded with
            :class:`~monai_landmarks.data.ImageFileReader`, because their values are not brightness.

    Example:
        >>> ToGray()(torch.ones(3, 4, 5)).shape
        torch.Size([1, 4, 5])
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __call__(self, image: NdarrayOrTensor) -> NdarrayOrTensor:
        """Convert an image.

        Args:
            image: (C, *spatial).

        Returns:
            (1, *spatial); float32 for color images, else the type of the input.
        """
        channels = image.shape[0]
        meta = image.meta if isinstance(image, MetaTensor) else {}
        name = meta.get(ImageMetaKey.FILENAME_OR_OBJ, "the image")
        if meta.get("mode") in _NO_LIGHT:
            raise ValueError(
                f"{name}: the pixels of a picture of mode {meta['mode']} "
                "are not brightness. Use LoadImaged with reader='monai_landmarks.data.ImageFileReader', which converts them."
            )
        if fault := channel_fault(channels, image.shape[1:]):
            raise ValueError(f"{name}: {fault}")
        if channels == 1:
            return image
        if channels == 2:
            return image[:1]
        color = convert_to_tensor(image, track_meta=False)[:3].to(torch.float32)
        luma = torch.tensor(_LUMA, device=color.device).view(3, *[1] * (color.ndim - 1))
        gray = (color * luma).sum(dim=0, keepdim=True)
        return convert_to_dst_type(gray, image, dtype=torch.float32)[0]


class ToGrayd(MapTransform):
    """Dictionary-based version of :class:`ToGray`.

    Args:
        keys: images.
        allow_missing_keys: do not raise if an image is missing.
    """

    backend = ToGray.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.converter = ToGray()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images in gray."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.converter(d[key])
        return d


ToGrayD = ToGrayDict = ToGrayd
