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


"""Random patches that hold landmarks, and patches that hold none, for training in parts of large images."""

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

__all__ = ["RandCropByLandmarks", "RandCropByLandmarksD", "RandCropByLandmarksDict", "RandCropByLandmarksd"]

# so many random places are looked at for a patch that holds no landmark
_TRIES = 100


class RandCropByLandmarks(Randomizable, Transform, MultiSampleTrait):
    """
    Crop random patches of an image, some of which hold a landmark, some none.

    Beside a landmark at a random place of the patch, a patch may hold others. A patch without any is looked for at random
    places; where each of them holds one, the last of these is taken. An image without landmarks gives random patches.

    The points are not needed afterwards to be in the patch: a landmark whose place outside of it is known has a target there,
    and its map shall be flat inside.

    Args:
        spatial_size: of the patches, one number or one an axis; -1 for the whole axis. Where the image is smaller, so is the
            patch: pad before with ``SpatialPadd``.
        num_samples: patches of each image.
        pos: how many patches hold landmarks, in comparison with ``neg``.
        neg: how many hold none.
        margin: a landmark is at least so many voxels away from the border of its patch, where the image allows it.

    Raises:
        ValueError: for negative ``pos`` or ``neg`` or both zero, fewer than one sample, or a margin that is negative.

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
            raise ValueError(f"pos and neg must not be negative, nor both zero, got {pos} and {neg}.")
        if num_samples < 1 or margin < 0:
            raise ValueError(f"num_samples must be at least 1 and margin not negative, got {num_samples} and {margin}.")
        self.spatial_size = spatial_size
        self.num_samples = num_samples
        self.ratio = pos / (pos + neg)
        self.margin = margin
        self.starts: list[np.ndarray] = []
        self.size = np.zeros(0, dtype=int)

    def randomize(self, data: tuple[np.ndarray, Sequence[int]]) -> None:
        """Draw where the patches begin, from index points (N, D) and the size of the image."""
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
        """Begin of a patch that holds a landmark."""
        place = inside[self.R.randint(len(inside))]
        margin = np.minimum(self.margin, (self.size - 1) // 2)
        # the voxel that holds the landmark
        voxel = np.floor(place + 0.5).astype(int)
        low = np.clip(voxel - (self.size - 1) + margin, 0, room)
        high = np.clip(voxel - margin, 0, room)
        return low + self.R.randint(high - low + 1)

    def _apart(self, inside: np.ndarray, room: np.ndarray) -> np.ndarray:
        """Begin of a patch that holds none."""
        for _ in range(_TRIES):
            start = self.R.randint(room + 1)
            if not any(np.all((place >= start - 0.5) & (place < start + self.size - 0.5)) for place in inside):
                break
        return start

    def __call__(
        self, img: NdarrayOrTensor, points: NdarrayOrTensor | None = None, randomize: bool = True
    ) -> list[torch.Tensor]:
        """
        Args:
            img: channel-first image (C, n_1, ..., n_D), array or tensor on any device.
            points: (N, D) or (1, N, D), in the space its affine tells (index without one); NaN rows are missing. None takes
                those of the last time.
            randomize: draw anew; False cuts where the last time was cut.

        Returns:
            ``num_samples`` patches, with their affines.

        Raises:
            ValueError: when no points are given and none were before, or for points of a wrong shape.
        """
        if randomize:
            if points is None:
                raise ValueError("points are needed to draw patches around them.")
            index, _ = points_as_index(points, img)
            self.randomize((index[np.isfinite(index).all(axis=1)], img.shape[1:]))
        image = convert_to_tensor(img, track_meta=get_track_meta())
        return [SpatialCrop(roi_start=start, roi_end=start + self.size)(image) for start in self.starts]


class RandCropByLandmarksd(Randomizable, MapTransform, MultiSampleTrait):
    """
    Dictionary form of :class:`RandCropByLandmarks`: one dictionary a patch, as ``RandCropByPosNegLabeld`` gives them.

    Points that tell their space by an affine, as all of ``LoadLandmarksd``, need nothing, since the patch has an affine of its
    own; index points without one are moved.

    Args:
        keys: images of the same size, all cropped alike.
        points_keys: landmarks, (N, D) or (1, N, D), of the first of the images. Patches are drawn around those of the first
            key.
        spatial_size: see :class:`RandCropByLandmarks`.
        num_samples: see :class:`RandCropByLandmarks`.
        pos: see :class:`RandCropByLandmarks`.
        neg: see :class:`RandCropByLandmarks`.
        margin: see :class:`RandCropByLandmarks`.
        allow_missing_keys: do not raise when a key is missing.

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
        """As every random transform of MONAI."""
        super().set_random_state(seed, state)
        self.cropper.set_random_state(seed, state)
        return self

    def randomize(self, data: Any = None) -> None:
        """Nothing is drawn here: the array form does it."""

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """A dictionary for each patch; what is neither image nor points is copied."""
        present = list(self.key_iterator(dict(data)))
        sizes = {tuple(data[key].shape[1:]) for key in present}
        if len(sizes) != 1:
            raise ValueError(f"the images {present} must be of one size, got {sorted(sizes)}.")
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
