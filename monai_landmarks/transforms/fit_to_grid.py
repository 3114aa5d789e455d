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

"""Fit an image of any size and spacing into a grid of fixed size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, ResizeWithPadOrCrop, Transform
from monai.utils import NumpyPadMode, TransformBackends, convert_to_tensor

from monai_landmarks.spaces import spacing_of

from .lost_affine import mark_moved
from .resample import resample_to_size

__all__ = ["FitToGrid", "FitToGridD", "FitToGridDict", "FitToGridd"]


class FitToGrid(Transform):
    """Resample an image to cubic voxels, and pad it to a grid of fixed size.

    The image is not cropped: one that is larger than the grid gets larger voxels. The affine is updated, so that
    landmarks in the world stay as they are. The image is smoothed before it gets coarser, which MONAI's ``Spacing``
    does not do.

    Args:
        spatial_size: number of voxels of the grid along each axis.
        spacing: voxel size in mm. None: the smallest one for which the image fits, so that it fills the grid along at
            least one axis.
        padding_mode: values beside the image, a mode of ``numpy.pad``.

    Example:
        >>> import torch
        >>> from monai.data import MetaTensor
        >>> image = MetaTensor(torch.zeros(1, 100, 60), affine=torch.diag(torch.tensor([0.5, 1.0, 1.0, 1.0])))
        >>> fitted = FitToGrid(spatial_size=(32, 64))(image)  # 50 x 60 mm: 32 voxels along the first axis
        >>> fitted.shape, fitted.affine.diagonal()[:2].tolist()
        (torch.Size([1, 32, 64]), [1.5625, 1.5789473684210527])
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        spatial_size: Sequence[int],
        spacing: float | None = None,
        padding_mode: NumpyPadMode | str = NumpyPadMode.EDGE,
    ) -> None:
        self.spatial_size = tuple(int(size) for size in spatial_size)
        self.spacing = spacing
        if min(self.spatial_size) < 1:
            raise ValueError(f"spatial_size must be positive, got {self.spatial_size}.")
        if spacing is not None and not spacing > 0:
            raise ValueError(f"spacing must be positive, got {spacing}.")
        self.pad = ResizeWithPadOrCrop(self.spatial_size, mode=padding_mode)

    def __call__(self, img: NdarrayOrTensor) -> torch.Tensor:
        """Fit an image into the grid.

        Args:
            img: channel-first image (C, n_1, ..., n_D). Its affine gives the spacing, 1 mm without one.

        Returns:
            The image (C, *spatial_size) with its affine.

        Raises:
            ValueError: if the grid has another number of axes than the image.
        """
        dims = img.ndim - 1
        if dims != len(self.spatial_size):
            raise ValueError(f"The image has {dims} axes, but the grid has the size {self.spatial_size}.")
        extent = np.array(img.shape[1:]) * spacing_of(img, dims)
        step = max(self.spacing or 0.0, float((extent / self.spatial_size).max()))
        size = np.clip(np.rint(extent / step), 1, self.spatial_size).astype(int).tolist()
        # no trace: points find their way back through the affine, so that MONAI need not invert this
        with self.pad.trace_transform(False):
            return mark_moved(self.pad(resample_to_size(convert_to_tensor(img, track_meta=True), size)))


class FitToGridd(MapTransform):
    """Dictionary-based version of :class:`FitToGrid`.

    Args:
        keys: images.
        spatial_size: see :class:`FitToGrid`.
        spacing: see :class:`FitToGrid`.
        padding_mode: see :class:`FitToGrid`.
        allow_missing_keys: do not raise if an image is missing.
    """

    backend = FitToGrid.backend

    def __init__(
        self,
        keys: KeysCollection,
        spatial_size: Sequence[int],
        spacing: float | None = None,
        padding_mode: NumpyPadMode | str = NumpyPadMode.EDGE,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fit = FitToGrid(spatial_size, spacing, padding_mode)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its images fitted into the grid."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.fit(d[key])
        return d


FitToGridD = FitToGridDict = FitToGridd
