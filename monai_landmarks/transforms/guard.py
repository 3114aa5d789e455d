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
"""Refuse chains in which the image is moved and its points cannot know.

World points need nothing when MONAI moves an image, because MONAI writes every affine-type move into ``image.affine``. Some
transforms move content and leave no trace at all: neither the affine nor ``applied_operations`` change, so that nothing can
be seen on the image afterwards. The only place where it shows is the chain of transforms itself. The chain is therefore read
before it does harm: a landmark transform, when it runs, finds the ``Compose`` that is running it.
"""

from __future__ import annotations

import inspect
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from monai import transforms as mt
from monai.config import KeysCollection
from monai.utils import ensure_tuple

__all__ = ["check_running_chain", "refuse_unfollowed_warps"]

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
    """All transforms in nested compositions (Compose, OneOf, SomeOf, RandomOrder) and sequences."""
    if isinstance(transforms, mt.Compose):
        transforms = transforms.transforms
    elif not isinstance(transforms, (list, tuple)):
        yield transforms
        return
    for transform in transforms:
        yield from _members(transform)


def refuse_unfollowed_warps(
    transforms: Callable | Sequence[Callable], image_keys: KeysCollection | None = "image"
) -> None:
    """Raise an error if a chain holds a transform that moves an image's content without a trace for its points.

    Args:
        transforms: a transform or a nested composition of transforms.
        image_keys: the images that have points; dictionary transforms of other keys are fine. None: all of them matter.

    Raises:
        ValueError: naming the transform and what to use in its place.

    Warns:
        UserWarning: for Resize and Zoom in mode "area", MONAI's default, which is followed but shifts the content by 0.13
            to 0.19 voxel against the affine it writes.

    Example:

        >>> from monai.transforms import Compose, Rand2DElasticd
        >>> refuse_unfollowed_warps(Compose([Rand2DElasticd("image", (20, 20), (1, 2))]))
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
                f"{name} moves the content of {touched} without a trace in the affine, so that landmarks cannot follow and "
                f"would be silently wrong. Use {use}."
            )
        if isinstance(transform, _AREA) and _uses_area(transform):
            warnings.warn(
                f'{name} resamples {touched} in mode "area", which shifts the content by up to 0.19 voxel against the landmarks; '
                'pass mode="bilinear" or "trilinear".',
                stacklevel=2,
            )


def _uses_area(transform: Any) -> bool:
    return any(str(getattr(mode, "value", mode)) == "area" for mode in ensure_tuple(transform.mode))


def check_running_chain(transform: Any, image_keys: KeysCollection) -> None:
    """Check the outermost ``Compose`` that is running ``transform`` at this moment, once per transform.

    The chain is found on the call stack. That way it works wherever MONAI runs a chain (CacheDataset, DataLoader workers,
    lazy mode) and a user has nothing to call. Two things are kept on the transform: a mark by which its copies are known,
    because MONAI copies and pickles transforms for threads and workers, and whether a chain was found to be in order.

    Args:
        transform: the landmark transform that is being called.
        image_keys: the images its points belong to.

    Raises:
        ValueError: see :func:`refuse_unfollowed_warps`.
    """
    if getattr(transform, "_chain_checked", False):
        return
    mark = transform.__dict__.setdefault("_chain_mark", uuid.uuid4().hex)
    chain = None
    frame = inspect.currentframe()
    while frame is not None:
        running = frame.f_locals.get("self") if frame.f_code.co_name == "__call__" else None
        if isinstance(running, mt.Compose) and any(getattr(t, "_chain_mark", None) == mark for t in _members(running)):
            chain = running
        frame = frame.f_back
    if chain is not None:
        refuse_unfollowed_warps(chain, image_keys)
        transform._chain_checked = True
