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

"""Doubtful films that are usual when they are turned or mirrored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor

from monai_landmarks.spaces import affine_4x4, affine_spacing

__all__ = ["resolving_turn", "turned_image"]

# words, quarter turns clockwise as the picture is shown, and whether it is mirrored before
_TURNS = (
    ("turned by 180 degrees", 2, False),
    ("mirrored left to right", 0, True),
    ("turned by 90 degrees clockwise", 1, False),
    ("turned by 90 degrees counterclockwise", 3, False),
    ("mirrored top to bottom", 2, True),
    ("mirrored left to right and turned by 90 degrees clockwise", 1, True),
    ("mirrored left to right and turned by 90 degrees counterclockwise", 3, True),
)
_PLACED = "EnsureWorldAffined"


def resolving_turn(
    item: Mapping[str, Any], preprocessing: Any, predict: Callable[[dict[Any, Any]], Any], image_key: str = "image"
) -> str:
    """Return how a 2-D image has to be turned or mirrored so that its prediction is not in doubt.

    Args:
        item: item of the image, before any transform.
        preprocessing: ``Compose`` of the bundle. The image is turned after it was read and placed in the world.
        predict: returns the doubt about a preprocessed item.
        image_key: key of the image.

    Returns:
        For example ``"turned by 180 degrees"``. Empty if nothing helps, or if the image is a volume.
    """
    transforms = list(preprocessing.flatten().transforms)
    kinds = [type(transform).__name__ for transform in transforms]
    start = kinds.index(_PLACED) + 1 if _PLACED in kinds else 1
    read: Any = dict(item)
    for transform in transforms[:start]:
        read = transform(read)
    image = read[image_key]
    if image.ndim != 3:
        return ""
    for words, quarters, mirrored in _TURNS:
        turned = {**read, image_key: turned_image(image, quarters, mirrored)}
        for transform in transforms[start:]:
            turned = transform(turned)
        if not predict(turned):
            return words
    return ""


def turned_image(image: Any, quarters: int, mirrored: bool = False) -> MetaTensor:
    """Return the image (C, X, Y) that a reader would return for a file of the turned film.

    Args:
        image: image with an affine.
        quarters: number of quarter turns clockwise, as the picture is shown with x to the right and y down.
        mirrored: whether to exchange left and right before.

    Returns:
        The image. Its affine has the directions of the old one; the pixel sizes follow the axes.
    """
    pixels = torch.as_tensor(image).as_subclass(torch.Tensor)
    if mirrored:
        pixels = pixels.flip(1)
    affine = affine_4x4(image.affine).copy()
    if quarters % 2:
        lengths = affine_spacing(affine, 2)
        affine[:3, :2] *= lengths[::-1] / lengths
    result = MetaTensor(torch.rot90(pixels, quarters, (1, 2)).contiguous(), affine=torch.from_numpy(affine))
    result.meta.update({key: value for key, value in image.meta.items() if key not in ("affine", "spatial_shape")})
    result.affine = torch.from_numpy(affine)
    return result
