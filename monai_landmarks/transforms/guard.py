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
"""A check that refuses MONAI's transforms that landmarks cannot follow.

World points stay as they are when MONAI moves an image, because MONAI writes every affine move into ``image.affine``.
Some transforms move the content of an image and change neither its affine nor ``applied_operations``. Afterwards
nothing on the image shows the move, and its landmarks would be silently wrong. Only the chain of transforms shows it.
So a landmark transform, when it runs, looks at the ``Compose`` that is running it.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from monai import transforms as mt
from monai.config import KeysCollection
from monai.utils import ensure_tuple

__all__ = ["require_followable_chain", "require_followable_transforms"]

_OURS = "monai_landmarks.transforms.RandLandmarkWarpd, which moves the points with the image"
_BY_AFFINE = "Orientationd, Flipd or Rotate90d, which update the affine"
_CROPS = "RandSpatialCropSamplesd or SpatialCropd, which update the affine"
_BLUR = "RandGaussianSmoothd, which blurs without moving"

_UNFOLLOWED = {
    "Rand2DElastic": _OURS,
    "Rand3DElastic": _OURS,
    "GridDistortion": _OURS,
    "RandGridDistortion": _OURS,
    "RandSmoothDeform": _OURS,
    "RandSimulateLowResolution": _BLUR,
    "Transpose": _BY_AFFINE,
    "GridSplit": _CROPS,
    "GridPatch": _CROPS,
    "RandGridPatch": _CROPS,
}
_TYPES = {
    getattr(mt, name + end): use for name, use in _UNFOLLOWED.items() for end in ("", "d") if hasattr(mt, name + end)
}
_AREA = (mt.Resized, mt.Zoomd, mt.RandZoomd, mt.Resize, mt.Zoom, mt.RandZoom)


def _members(transforms: Any) -> Iterator[Any]:
    """Yield all transforms of nested compositions (Compose, OneOf, SomeOf, RandomOrder) and sequences."""
    if isinstance(transforms, mt.Compose):
        transforms = transforms.transforms
    elif not isinstance(transforms, (list, tuple)):
        yield transforms
        return
    for transform in transforms:
        yield from _members(transform)


def require_followable_transforms(
    transforms: Callable | Sequence[Callable], image_keys: KeysCollection | None = "image"
) -> None:
    """Raise an error if a chain has a transform that moves the content of an image without changing its affine.

    Args:
        transforms: a transform or a nested composition of transforms.
        image_keys: images that have landmarks. Dictionary transforms of other keys are accepted. None: all images.

    Raises:
        ValueError: for such a transform, with its name and what to use instead.

    Warns:
        UserWarning: for ``Resize`` and ``Zoom`` in mode "area", MONAI's default, which shifts the content by 0.13 to
            0.19 voxel against the affine.

    Example:
        >>> from monai.transforms import Compose, Rand2DElasticd
        >>> require_followable_transforms(Compose([Rand2DElasticd("image", (20, 20), (1, 2))]))
        Traceback (most recent call last):
        ...
        ValueError: Rand2DElasticd moves the content of 'image' ... Use monai_landmarks.transforms.RandLandmarkWarpd...
    """
    watched = None if image_keys is None else set(ensure_tuple(image_keys))
    for transform in _members(transforms):
        keys = set(ensure_tuple(transform.keys)) if isinstance(transform, mt.MapTransform) else None
        if watched is not None and keys is not None and not keys & watched:
            continue
        touched = (
            ", ".join(repr(key) for key in sorted(map(str, keys & watched if keys and watched else keys or ())))
            or "images"
        )
        name = type(transform).__name__
        use = next((use for kind, use in _TYPES.items() if isinstance(transform, kind)), None)
        if use is not None:
            raise ValueError(
                f"{name} moves the content of {touched} without changing the affine, so that landmarks cannot follow "
                f"and would be silently wrong. Use {use}."
            )
        if isinstance(transform, _AREA) and _uses_area(transform):
            warnings.warn(
                f'{name} resamples {touched} in mode "area", which shifts the content by up to 0.19 voxel '
                'against the landmarks; pass mode="bilinear" or "trilinear".',
                stacklevel=2,
            )


def _uses_area(transform: Any) -> bool:
    return any(str(getattr(mode, "value", mode)) == "area" for mode in ensure_tuple(transform.mode))


def require_followable_chain(transform: Any, image_keys: KeysCollection) -> None:
    """Apply :func:`require_followable_transforms` to the chain that is running a transform, once per transform.

    The chain is the outermost ``Compose`` that is running.

    Args:
        transform: the landmark transform that is being called.
        image_keys: images that the landmarks belong to.

    Raises:
        ValueError: see :func:`require_followable_transforms`.
    """
    if getattr(transform, "_chain_checked", False):
        return
    # The call stack is the only way from a transform to its chain. MONAI gives a transform no reference to the Compose
    # that holds it: Compose.__call__ passes only the data on, and its constructor calls nothing on transforms that
    # are not random. A Compose of our own would not see chains in users' scripts and bundles.
    callers = [
        frame.f_locals.get("self") for frame, _ in traceback.walk_stack(None) if frame.f_code.co_name == "__call__"
    ]
    chains = [caller for caller in callers if isinstance(caller, mt.Compose)]
    if chains:
        require_followable_transforms(chains[-1], image_keys)
        transform._chain_checked = True
