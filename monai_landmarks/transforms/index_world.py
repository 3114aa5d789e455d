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
"""Transform landmarks between the world and the index space of their image, also for 2-D images.

MONAI's own ``TransformPointsWorldToImaged`` fails for 3x3 affines, which 2-D images have after some readers and after
any spatial transform in lazy mode. The transforms of this module accept 3x3 and 4x4 affines, and points with and
without MONAI's leading axis.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import DtypeLike, KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import ApplyTransformToPoints, InvertibleTransform, MapTransform, Transform
from monai.utils import convert_to_tensor, ensure_tuple_rep

from monai_landmarks.spaces import affine_4x4, affine_of

from .guard import require_followable_chain
from .lost_affine import require_affines

__all__ = [
    "LandmarksToIndex",
    "LandmarksToIndexD",
    "LandmarksToIndexDict",
    "LandmarksToIndexd",
    "LandmarksToWorld",
    "LandmarksToWorldD",
    "LandmarksToWorldDict",
    "LandmarksToWorldd",
]


def _image_affine(img: Any, spatial_dims: int) -> torch.Tensor:
    """Return the 4x4 affine of an image for points of a dimension, or raise an error."""
    affine = affine_of(img)
    if affine is None:
        raise ValueError(
            "The image of the landmarks has no affine. Load it as a MetaTensor, see EnsureWorldAffined. A "
            "PersistentDataset keeps affines only with track_meta=True and weights_only=False."
        )
    if spatial_dims == 2:
        # MONAI inverts all four rows. A slice that is tilted or sheared along z would move its points by their z of 0.
        affine[2, :2] = affine[:2, 2] = 0
    return torch.from_numpy(affine)


def _with_affine(points: NdarrayOrTensor, img: Any) -> MetaTensor:
    """Return points as a MetaTensor. Points without an affine get that of the image."""
    if isinstance(points, MetaTensor):
        return points
    return MetaTensor(convert_to_tensor(points, track_meta=False), affine=_image_affine(img, points.shape[-1]))


def _on_cpu(convert: Callable[..., torch.Tensor], points: MetaTensor, *args: torch.Tensor) -> MetaTensor:
    """Apply one of MONAI's point transforms, which need a leading axis and work on the CPU only."""
    moved = convert((points if points.ndim == 3 else points[None]).cpu(), *args)
    result: Any = moved if points.ndim == 3 else moved[0]
    return result.to(points.device)


class LandmarksToIndex(Transform):
    """Transform points to the index space of an image.

    The affine of the points decides their space. World points (affine ``eye(4)``, RAS mm) are transformed. Index
    points, and points without an affine, stay as they are.

    Args:
        dtype: type of the result. float32 resolves 1e-4 voxel in an image of 2000 voxels.

    Example:
        >>> image = MetaTensor(torch.zeros(1, 60, 40), affine=torch.diag(torch.tensor([-0.1, -0.1, 1.0])))
        >>> world = MetaTensor(torch.tensor([[[-3.0, -2.0]]]))
        >>> [round(c, 4) for c in LandmarksToIndex()(world, image).flatten().tolist()]
        [30.0, 20.0]
    """

    def __init__(self, dtype: DtypeLike | torch.dtype = torch.float32) -> None:
        self.converter = ApplyTransformToPoints(dtype=dtype, invert_affine=True)

    def __call__(self, points: NdarrayOrTensor, img: MetaTensor) -> MetaTensor:
        """Transform points.

        Args:
            points: (1, N, D) or (N, D).
            img: channel-first image with an affine.

        Returns:
            MetaTensor of the same shape with the affine of the image. MONAI can invert the transform.

        Raises:
            ValueError: if the image has no affine.
        """
        return _on_cpu(self.converter, _with_affine(points, img), _image_affine(img, points.shape[-1]))


class LandmarksToWorld(Transform):
    """Transform points to the world (RAS mm, affine ``eye(4)``).

    Args:
        dtype: type of the result.
    """

    def __init__(self, dtype: DtypeLike | torch.dtype = torch.float64) -> None:
        self.converter = ApplyTransformToPoints(dtype=dtype, invert_affine=False)

    def __call__(self, points: NdarrayOrTensor, img: MetaTensor) -> MetaTensor:
        """Transform points.

        Args:
            points: (1, N, D) or (N, D).
            img: channel-first image. Its affine is used for points without one.

        Returns:
            MetaTensor of the same shape with affine ``eye(4)``. MONAI can invert the transform.
        """
        tracked = _with_affine(points, img)
        world = _on_cpu(self.converter, tracked, torch.from_numpy(affine_4x4(tracked.affine)))
        # MONAI computes the product of an affine and its inverse, which is the identity up to rounding
        world.affine = torch.eye(4, dtype=torch.float64)
        return world


class _Convertd(MapTransform, InvertibleTransform):
    """Base class of the dictionary transforms."""

    transform: LandmarksToIndex | LandmarksToWorld

    def __init__(self, keys: KeysCollection, refer_keys: KeysCollection, allow_missing_keys: bool) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform the landmarks of an item.

        Args:
            data: item with landmarks and the image they belong to.

        Returns:
            A copy of the item with the landmarks in the other space.

        Raises:
            KeyError: if the image is missing.
            ValueError: if the running chain has a transform that landmarks cannot follow, or if landmarks or image have
                lost their affine.
        """
        require_followable_chain(self, self.refer_keys, to_index=isinstance(self.transform, LandmarksToIndex))
        d = dict(data)
        for key, refer_key in self.key_iterator(d, self.refer_keys):
            if refer_key not in d:
                raise KeyError(f"The image {refer_key!r} of the landmarks {key!r} is not in the item.")
            require_affines(d, key, refer_key)
            d[key] = self.transform(d[key], d[refer_key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with the landmarks in the space they came from."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = _on_cpu(self.transform.converter.inverse, d[key])
        return d


class LandmarksToIndexd(_Convertd):
    """Dictionary-based version of :class:`LandmarksToIndex`.

    Use it once, after the last spatial transform of the image.

    Args:
        keys: landmarks.
        refer_keys: the image of the landmarks, one or one per key.
        dtype: type of the result.
        allow_missing_keys: do not raise if landmarks are missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection = "image",
        dtype: DtypeLike | torch.dtype = torch.float32,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, refer_keys, allow_missing_keys)
        self.transform = LandmarksToIndex(dtype)


class LandmarksToWorldd(_Convertd):
    """Dictionary-based version of :class:`LandmarksToWorld`.

    Args:
        keys: landmarks.
        refer_keys: the image of the landmarks, one or one per key.
        dtype: type of the result.
        allow_missing_keys: do not raise if landmarks are missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection = "image",
        dtype: DtypeLike | torch.dtype = torch.float64,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, refer_keys, allow_missing_keys)
        self.transform = LandmarksToWorld(dtype)


LandmarksToIndexD = LandmarksToIndexDict = LandmarksToIndexd
LandmarksToWorldD = LandmarksToWorldDict = LandmarksToWorldd
