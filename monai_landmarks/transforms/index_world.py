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
"""Landmarks between the world and the index of their image, as MONAI does it, with the 2-D traps closed.

MONAI's own ``TransformPointsWorldToImaged`` fails on 3x3 affines, which 2-D images have after some readers and after any
spatial transform in lazy mode. These take 3x3 and 4x4, and points with and without MONAI's leading axis.
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


def _image_affine(img: Any) -> torch.Tensor:
    affine = affine_of(img)
    if affine is None:
        raise ValueError(
            "The image of the landmarks has no affine. Load it as a MetaTensor, see EnsureWorldAffined; a PersistentDataset "
            "keeps affines only with track_meta=True, weights_only=False."
        )
    return torch.from_numpy(affine)


def _with_affine(points: NdarrayOrTensor, img: Any) -> MetaTensor:
    """Points as a MetaTensor; those without an affine are index points of the image."""
    if isinstance(points, MetaTensor):
        return points
    return MetaTensor(convert_to_tensor(points, track_meta=False), affine=_image_affine(img))


def _on_cpu(convert: Callable[..., torch.Tensor], points: MetaTensor, *args: torch.Tensor) -> MetaTensor:
    """MONAI's point transforms want a leading axis and work on the CPU only."""
    moved = convert((points if points.ndim == 3 else points[None]).cpu(), *args)
    result: Any = moved if points.ndim == 3 else moved[0]
    return result.to(points.device)


class LandmarksToIndex(Transform):
    """Points in whatever space their affine tells, as index points of an image.

    World points are (affine ``eye(4)``, RAS mm) transformed; index points, also those without an affine, stay.

    Args:
        dtype: of the result; float32 resolves 1e-4 voxel in an image of 2000.

    Example:

        >>> image = MetaTensor(torch.zeros(1, 60, 40), affine=torch.diag(torch.tensor([-0.1, -0.1, 1.0])))
        >>> world = MetaTensor(torch.tensor([[[-3.0, -2.0]]]))
        >>> [round(c, 4) for c in LandmarksToIndex()(world, image).flatten().tolist()]
        [30.0, 20.0]
    """

    def __init__(self, dtype: DtypeLike | torch.dtype = torch.float32) -> None:
        self.converter = ApplyTransformToPoints(dtype=dtype, invert_affine=True)

    def __call__(self, points: NdarrayOrTensor, img: MetaTensor) -> MetaTensor:
        """
        Args:
            points: (1, N, D) or (N, D).
            img: channel-first image with an affine.

        Returns:
            MetaTensor of the same shape with the image's affine; MONAI's inverse takes it back.

        Raises:
            ValueError: the image has no affine.
        """
        return _on_cpu(self.converter, _with_affine(points, img), _image_affine(img))


class LandmarksToWorld(Transform):
    """Points in whatever space their affine tells, as world points (RAS mm, affine ``eye(4)``).

    Args:
        dtype: of the result.
    """

    def __init__(self, dtype: DtypeLike | torch.dtype = torch.float64) -> None:
        self.converter = ApplyTransformToPoints(dtype=dtype, invert_affine=False)

    def __call__(self, points: NdarrayOrTensor, img: MetaTensor) -> MetaTensor:
        """
        Args:
            points: (1, N, D) or (N, D).
            img: channel-first image; its affine is used for points that have none.

        Returns:
            MetaTensor of the same shape with affine ``eye(4)``; MONAI's inverse takes it back.
        """
        tracked = _with_affine(points, img)
        world = _on_cpu(self.converter, tracked, torch.from_numpy(affine_4x4(tracked.affine)))
        world.affine = torch.eye(4, dtype=torch.float64)  # the product of inverses that it is, without its rounding
        return world


class _Convertd(MapTransform, InvertibleTransform):
    """What both directions share as dictionary transforms."""

    transform: LandmarksToIndex | LandmarksToWorld

    def __init__(self, keys: KeysCollection, refer_keys: KeysCollection, allow_missing_keys: bool) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: item with landmarks and the image they refer to.

        Returns:
            a copy of the item with the landmarks in the other space.

        Raises:
            KeyError: the image is missing.
            ValueError: the running chain holds a transform that the landmarks cannot follow.
        """
        require_followable_chain(self, self.refer_keys)
        d = dict(data)
        for key, refer_key in self.key_iterator(d, self.refer_keys):
            if refer_key not in d:
                raise KeyError(f"The image {refer_key!r} of the landmarks {key!r} is not in the item.")
            d[key] = self.transform(d[key], d[refer_key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The landmarks back in the space they came from."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = _on_cpu(self.transform.converter.inverse, d[key])
        return d


class LandmarksToIndexd(_Convertd):
    """Dictionary-based version of :class:`LandmarksToIndex`; use it once, after the last spatial transform of the image.

    Args:
        keys: landmarks.
        refer_keys: the image of the landmarks, one or one per key.
        dtype: of the result.
        allow_missing_keys: do not raise an error where landmarks are missing.
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
        dtype: of the result.
        allow_missing_keys: do not raise an error where landmarks are missing.
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
