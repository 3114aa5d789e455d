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
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from monai import transforms as mt
from monai.config import KeysCollection
from monai.utils import ensure_tuple, ensure_tuple_rep

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


def _array_and_dictionary(*names: str) -> tuple[type, ...]:
    return tuple(getattr(mt, name + end) for name in names for end in ("", "d"))


_AFFINE = _array_and_dictionary("Affine")
# a number as mode is the order of a spline in these, and with align_corners=True their affine is another
_TO_GRID = _array_and_dictionary("Spacing", "SpatialResample", "ResampleToMatch")
_RESAMPLING = (
    *_AFFINE,
    *_TO_GRID,
    *_array_and_dictionary("Resize", "Zoom", "RandZoom", "Rotate", "RandRotate", "RandAffine"),
)
_MOVING_MODULES = ("monai.transforms.spatial", "monai.transforms.croppad")
# transforms of this package that move an image and leave index points as they are
_OURS_MOVING = ("ResampleToSpacingd", "FitToGridd", "CropToForegroundd", "RandCropByLandmarksd", "RandLandmarkPatchesd")
_MAKING = {"LandmarksToIndexd": True, "LandmarksToWorldd": False}  # whether the points become index points
# which transforms have looked at a chain
_CHECKED: weakref.WeakKeyDictionary[mt.Compose, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()
_OTHER_LIBRARIES = _array_and_dictionary(
    "TorchVision", "RandTorchVision", "TorchIO", "RandTorchIO", "CuCIM", "RandCuCIM"
)


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
        UserWarning: for options that shift the content by more than 0.05 voxel against the affine: mode "area", which
            is the default of ``Resize`` and ``Zoom``, mode "nearest", and ``align_corners=True`` of ``Affine`` and,
            with splines, of ``Spacing``; and for transforms of torchvision, TorchIO and cuCIM, which may move the
            content. ``monai_landmarks/transforms/README.md`` has the measured shifts of all transforms.

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
        if isinstance(transform, mt.Affine) and not transform.norm_coord:
            raise ValueError(
                f"{name} with normalized=True writes an affine that does not belong to the content of {touched}, so that "
                "landmarks would be silently wrong. Use normalized=False."
            )
        if _repeats_affine(transform) and not getattr(transforms, "lazy", False):
            raise ValueError(
                f"{name} with prob below 1 writes the affine of an earlier draw whenever it only resizes {touched}, so "
                "that landmarks would be silently wrong. Use RandAffined with prob=1.0, or with spatial_size=None and "
                "ResizeWithPadOrCropd after it."
            )
        if isinstance(transform, _OTHER_LIBRARIES):
            warnings.warn(
                f"{name} may move the content of {touched} without changing the affine. Landmarks cannot follow a "
                "spatial transform of another library; use one of MONAI.",
                stacklevel=2,
            )
        for shift in _shifts(transform, watched):
            warnings.warn(f"{name} resamples {touched} {shift}.", stacklevel=2)


def _repeats_affine(transform: Any) -> bool:
    """Return whether a transform may write the affine of an earlier draw, as ``RandAffine`` of MONAI 1.6 does."""
    if not isinstance(transform, (mt.RandAffine, mt.RandAffined)) or transform.prob >= 1 or transform.lazy:
        return False
    if isinstance(transform, mt.RandAffine):
        return True  # the array transform does so for any size
    size = transform.rand_affine.spatial_size
    return size is not None and any(n is not None and n > 0 for n in ensure_tuple(size))


def _shifts(transform: Any, watched: set | None) -> list[str]:
    """Describe how the options of a transform shift the content of watched images against the landmarks."""
    if not isinstance(transform, _RESAMPLING):
        return []
    found = []
    for mode, corners in _resamplings(transform, watched):
        if mode == "area":
            found.append(
                'in mode "area", which shifts the content by up to 0.19 voxel against the landmarks; pass '
                'mode="bilinear" or "trilinear"'
            )
        elif mode in ("nearest", "nearest-exact", "0"):
            found.append(
                f'in mode "{mode}", which shifts the content by up to a voxel against the landmarks; pass '
                'mode="bilinear" or "trilinear"'
            )
        if corners is True and (isinstance(transform, _AFFINE) or isinstance(transform, _TO_GRID) and mode.isdigit()):
            found.append(
                "with align_corners=True, which shifts the content by up to 0.9 voxel against the landmarks; pass "
                "align_corners=False"
            )
    return sorted(set(found))


def _resamplings(transform: Any, watched: set | None) -> Iterator[tuple[str, Any]]:
    """Yield mode and ``align_corners`` for each watched image of a resampling transform."""
    array = getattr(transform, "affine", transform)  # Affined keeps align_corners in the array transform
    holder = getattr(transform, "sp_resample", None) or getattr(array, "resampler", None) or transform
    modes = getattr(transform, "mode", None) or holder.mode
    corners = getattr(transform, "align_corners", getattr(holder, "align_corners", None))
    keys = transform.keys if isinstance(transform, mt.MapTransform) else (None,)
    for key, mode, corner in zip(keys, ensure_tuple_rep(modes, len(keys)), ensure_tuple_rep(corners, len(keys))):
        if watched is None or key is None or key in watched:
            yield str(getattr(mode, "value", mode)), corner


def _moved_later(chain: mt.Compose, transform: Any, image_keys: KeysCollection) -> list[str]:
    """Return the transforms that move an image after a chain has made index points for the last time.

    A chain that computes heatmaps from the points may move the heatmaps with the image.
    """
    members = list(_members(chain))
    names = [type(member).__name__ for member in members]
    if transform not in members or "LandmarksToHeatmapd" in names:
        return []
    conversions = [place for place, name in enumerate(names) if name in _MAKING or members[place] is transform]
    if not _MAKING.get(names[conversions[-1]], True):
        return []
    watched = set(ensure_tuple(image_keys))
    return [
        type(member).__name__
        for member in members[conversions[-1] + 1 :]
        if isinstance(member, mt.MapTransform) and _moves(member) and watched & set(ensure_tuple(member.keys))
    ]


def _moves(transform: mt.MapTransform) -> bool:
    """Return whether a transform moves images and leaves index points as they are."""
    if type(transform).__module__.startswith(_MOVING_MODULES):
        return not isinstance(transform, mt.BoundingRectd)
    return type(transform).__name__ in _OURS_MOVING


def require_followable_chain(transform: Any, image_keys: KeysCollection, to_index: bool = False) -> None:
    """Apply :func:`require_followable_transforms` to the chain that is running a transform, once per chain.

    The chain is the outermost ``Compose`` that is running.

    Args:
        transform: the landmark transform that is being called.
        image_keys: images that the landmarks belong to.
        to_index: whether the transform makes index points, which do not follow an image that MONAI moves afterwards.

    Raises:
        ValueError: see :func:`require_followable_transforms`.

    Warns:
        UserWarning: see :func:`require_followable_transforms`; and for transforms that move an image after its points
            have become index points.
    """
    # The call stack is the only way from a transform to its chain. MONAI gives a transform no reference to the Compose
    # that holds it: Compose.__call__ passes only the data on, and its constructor calls nothing on transforms that
    # are not random. A Compose of our own would not see chains in users' scripts and bundles.
    callers = [
        frame.f_locals.get("self") for frame, _ in traceback.walk_stack(None) if frame.f_code.co_name == "__call__"
    ]
    chains = [caller for caller in callers if isinstance(caller, mt.Compose)]
    if chains and transform not in _CHECKED.get(chains[-1], ()):
        require_followable_transforms(chains[-1], image_keys)
        later = _moved_later(chains[-1], transform, image_keys) if to_index else []
        if later:
            warnings.warn(
                f"{', '.join(later)} may move the image after {type(transform).__name__} has made index points of its "
                "landmarks, which do not follow. Put it before.",
                stacklevel=2,
            )
        _CHECKED.setdefault(chains[-1], weakref.WeakSet()).add(transform)
