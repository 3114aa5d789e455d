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
"""Resample images to a given voxel size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, Resize, Transform
from monai.utils import TransformBackends, convert_to_tensor

from monai_landmarks.spaces import spacing_of

from .lost_affine import mark_moved

__all__ = ["ResampleToSpacing", "ResampleToSpacingD", "ResampleToSpacingDict", "ResampleToSpacingd", "resample_to_size"]


def resample_to_size(img: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resample a channel-first image to another size of the same extent, and smooth it first if it gets coarser."""
    if tuple(size) == tuple(img.shape[1:]):
        return img
    resize = Resize(list(size), mode="bilinear" if len(size) == 2 else "trilinear", anti_aliasing=True)
    # no trace: points find their way back through the affine, so that MONAI need not invert this
    with resize.trace_transform(False):
        return mark_moved(resize(img))


class ResampleToSpacing(Transform):
    """Resample an image to a given voxel size, as closely as a whole number of voxels fills the extent of the image.

    The affine is updated exactly, so that landmarks in the world stay as they are. The image is smoothed before it gets
    coarser, which MONAI's ``Spacing`` does not do.

    Args:
        spacing: voxel size in mm, one number or one per axis of the image (orient it first). None: do not resample.

    Raises:
        ValueError: for a spacing that is not positive.

    Example:
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.zeros(1, 100, 60, 31), affine=torch.diag(torch.tensor([0.5, 1.0, 1.0, 1.0])))
        >>> resampled = ResampleToSpacing(spacing=2.0)(image)
        >>> resampled.shape, resampled.affine.diagonal()[:3].tolist()
        (torch.Size([1, 25, 30, 16]), [2.0, 2.0, 1.9375])
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, spacing: Sequence[float] | float | None) -> None:
        self.spacing = None if spacing is None else np.atleast_1d(np.asarray(spacing, dtype=float))
        if self.spacing is not None and not (self.spacing > 0).all():
            raise ValueError(f"spacing must be positive, got {spacing}.")

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Resample an image.

        Args:
            img: channel-first image (C, n_1, ..., n_D). Its affine gives the spacing, 1 mm without one.

        Returns:
            The resampled image with its affine.

        Raises:
            ValueError: if the spacing has another number of axes than the image.
        """
        image = convert_to_tensor(img, track_meta=True)
        if self.spacing is None:
            return image
        dims = image.ndim - 1
        if len(self.spacing) not in (1, dims):
            raise ValueError(f"spacing has {len(self.spacing)} values, but the image has {dims} axes.")
        extent = np.array(image.shape[1:]) * spacing_of(img, dims)
        return resample_to_size(image, np.rint(extent / self.spacing).clip(1).astype(int).tolist())


class ResampleToSpacingd(MapTransform):
    """Dictionary-based version of :class:`ResampleToSpacing`.

    Args:
        keys: images.
        spacing: see :class:`ResampleToSpacing`.
        allow_missing_keys: do not raise if an image is missing.
    """

    backend = ResampleToSpacing.backend

    def __init__(
        self, keys: KeysCollection, spacing: Sequence[float] | float | None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resample = ResampleToSpacing(spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images resampled."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.resample(d[key])
        return d


ResampleToSpacingD = ResampleToSpacingDict = ResampleToSpacingd
