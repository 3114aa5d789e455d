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


"""Random patches with and without landmarks, for training on parts of large images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.transforms import MapTransform, Randomizable, SpatialCrop, Transform
from monai.transforms.traits import MultiSampleTrait
from monai.utils import ImageMetaKey, TransformBackends, convert_to_tensor, ensure_tuple, fall_back_tuple

from monai_landmarks.spaces import affine_of, points_as_index

from .lost_affine import require_affines

__all__ = ["RandCropByLandmarks", "RandCropByLandmarksD", "RandCropByLandmarksDict", "RandCropByLandmarksd"]

# Largest number of random places that are tried for a patch without landmarks. In images full of landmarks there may be
# none.
_TRIES = 100


class RandCropByLandmarks(Randomizable, Transform, MultiSampleTrait):
    """Crop random patches of an image, some with landmarks and some without.

    A patch with landmarks is drawn around one of them, which is at a random place in it. It may contain others. For a
    patch without landmarks, random places are tried; if all of them contain landmarks, the last one is taken. Patches
    of an image without landmarks are at random places.

    Landmarks outside the patch keep their positions. Their target heatmap is flat inside the patch.

    Args:
        spatial_size: size of the patches, one number or one per axis, -1 for the whole axis. A patch is never larger
            than the image: pad small images first, with ``SpatialPadd``.
        num_samples: number of patches per image.
        pos: share of patches with landmarks, relative to ``neg``.
        neg: share of patches without landmarks, relative to ``pos``.
        margin: smallest distance of the landmark from the border of its patch in voxels, where the border of the image
            allows it.

    Raises:
        ValueError: if ``pos`` or ``neg`` is negative or both are zero, for fewer than one sample, or for a negative
            margin.

    Example:
        >>> crop = RandCropByLandmarks(spatial_size=16, num_samples=4, pos=1, neg=1)
        >>> patches = crop(torch.zeros(1, 64, 64), torch.tensor([[30.0, 30.0], [50.0, 12.0]]))
        >>> [tuple(patch.shape) for patch in patches]
        [(1, 16, 16), (1, 16, 16), (1, 16, 16), (1, 16, 16)]
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(
        self,
        spatial_size: Sequence[int] | int,
        num_samples: int = 1,
        pos: float = 1.0,
        neg: float = 1.0,
        margin: int = 0,
    ) -> None:
        if min(pos, neg) < 0 or pos + neg == 0:
            raise ValueError(f"pos and neg must not be negative or both zero, got {pos} and {neg}.")
        if num_samples < 1 or margin < 0:
            raise ValueError(f"num_samples must be at least 1 and margin not negative, got {num_samples} and {margin}.")
        self.spatial_size = spatial_size
        self.num_samples = num_samples
        self.ratio = pos / (pos + neg)
        self.margin = margin
        self.starts: list[np.ndarray] = []
        self.size = np.zeros(0, dtype=int)

    def randomize(self, data: tuple[np.ndarray, Sequence[int]]) -> None:
        """Draw the first voxels of the patches, for index points (N, D) and the size of the image."""
        index, shape = data
        size = np.array(fall_back_tuple(self.spatial_size, shape))
        self.size = np.minimum(size, shape)
        room = np.array(shape) - self.size
        inside = np.array([place for place in index if np.all(place >= -0.5) and np.all(place < np.array(shape) - 0.5)])
        self.starts = []
        for _ in range(self.num_samples):
            holds = self.R.random_sample() < self.ratio
            self.starts.append(self._around(inside, room) if holds and len(inside) else self._apart(inside, room))

    def _around(self, inside: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Return the first voxel of a patch with a landmark."""
        place = inside[self.R.randint(len(inside))]
        margin = np.minimum(self.margin, (self.size - 1) // 2)
        voxel = np.floor(place + 0.5).astype(int)
        low = np.clip(voxel - (self.size - 1) + margin, 0, room)
        high = np.clip(voxel - margin, 0, room)
        return low + self.R.randint(high - low + 1)

    def _apart(self, inside: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Return the first voxel of a patch without landmarks, if one is found."""
        for _ in range(_TRIES):
            start = self.R.randint(room + 1)
            if not any(np.all((place >= start - 0.5) & (place < start + self.size - 0.5)) for place in inside):
                break
        return start

    def __call__(
        self, img: NdarrayOrTensor, points: NdarrayOrTensor | None = None, randomize: bool = True
    ) -> list[torch.Tensor]:
        """Crop patches of an image.

        Args:
            img: channel-first image (C, n_1, ..., n_D), array or tensor on any device.
            points: (N, D) or (1, N, D), in the space of their affine (index without one), NaN where missing. Needed to
                draw patches.
            randomize: draw new patches. False: crop at the places of the last call.

        Returns:
            ``num_samples`` patches, with their affines.

        Raises:
            ValueError: if patches are to be drawn without points, or for points of a wrong shape.
        """
        if randomize:
            if points is None:
                raise ValueError("points are needed to draw patches around them; pass points, or randomize=False.")
            index, _ = points_as_index(points, img)
            self.randomize((index[np.isfinite(index).all(axis=1)], img.shape[1:]))
        image = convert_to_tensor(img, track_meta=get_track_meta())
        return [SpatialCrop(roi_start=start, roi_end=start + self.size)(image) for start in self.starts]


class RandCropByLandmarksd(Randomizable, MapTransform, MultiSampleTrait):
    """Dictionary-based version of :class:`RandCropByLandmarks`, which returns one dictionary per patch.

    Points with an affine, such as those of ``LoadLandmarksd``, stay as they are, since every patch has its own affine.
    Index points without an affine are moved.

    Args:
        keys: images of the same size. All are cropped at the same places.
        points_keys: landmarks, (N, D) or (1, N, D), of the first of the images. Patches are drawn around those of the
            first key.
        spatial_size: see :class:`RandCropByLandmarks`.
        num_samples: see :class:`RandCropByLandmarks`.
        pos: see :class:`RandCropByLandmarks`.
        neg: see :class:`RandCropByLandmarks`.
        margin: see :class:`RandCropByLandmarks`.
        allow_missing_keys: do not raise if an image is missing.

    Raises:
        ValueError: for images of different sizes.
    """

    backend = RandCropByLandmarks.backend

    def __init__(
        self,
        keys: KeysCollection,
        points_keys: KeysCollection,
        spatial_size: Sequence[int] | int,
        num_samples: int = 1,
        pos: float = 1.0,
        neg: float = 1.0,
        margin: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.points_keys = ensure_tuple(points_keys)
        self.cropper = RandCropByLandmarks(spatial_size, num_samples, pos, neg, margin)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandCropByLandmarksd:
        """Set the random state, also that of the array transform."""
        super().set_random_state(seed, state)
        self.cropper.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Do nothing: the array transform draws the patches."""

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """Crop the images of an item.

        Args:
            data: item with images and landmarks.

        Returns:
            One dictionary per patch. Entries other than images are copied.

        Raises:
            KeyError: if the landmarks are missing, or an image without ``allow_missing_keys``.
            ValueError: for images of different sizes.
        """
        present = list(self.key_iterator(dict(data)))
        if not present:
            return [dict(data)]
        missing = [key for key in self.points_keys if key not in data]
        if missing:
            raise KeyError(
                f"RandCropByLandmarksd: the landmarks {missing[0]!r} are not in the item, which has {sorted(map(str, data))}."
            )
        sizes = {tuple(data[key].shape[1:]) for key in present}
        if len(sizes) != 1:
            raise ValueError(f"The images {present} must have the same size, got {sorted(sizes)}.")
        for key in self.points_keys:
            require_affines(data, key, present[0])
        points = data[self.points_keys[0]]
        cropped = {key: self.cropper(data[key], points, randomize=i == 0) for i, key in enumerate(present)}
        copied = {key: value for key, value in data.items() if key not in cropped}
        patches = []
        for number, start in enumerate(self.cropper.starts):
            patch = deepcopy(copied)
            for key in self.points_keys:
                points = patch[key]
                if affine_of(points) is None:
                    patch[key] = points - (
                        torch.as_tensor(start).to(points) if isinstance(points, torch.Tensor) else start
                    )
            for key, images in cropped.items():
                patch[key] = image = images[number]
                if isinstance(image, MetaTensor):
                    image.meta[ImageMetaKey.PATCH_INDEX] = number
            patches.append(patch)
        return patches


RandCropByLandmarksD = RandCropByLandmarksDict = RandCropByLandmarksd
