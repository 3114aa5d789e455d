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
"""Marks that show whether an image or its landmarks lost their affine after the landmarks were loaded.

MONAI's datasets that cache on disk store plain tensors by default, and some transforms return plain tensors. The next
spatial transform of MONAI makes a ``MetaTensor`` of such an image again, with an affine that starts at the identity.
World points would then pass for index points, or would be taken to the wrong index.

So loading leaves two marks. An entry of the item, ``"<key>_loaded"``, is a plain tensor that every cache keeps: it
states that points and image have an affine. An entry in the metadata of both disappears together with the affine.
"""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import GDSDataset, LMDBDataset, MetaTensor, PersistentDataset
from monai.utils import ImageMetaKey, MetaKeys

__all__ = [
    "is_moved",
    "mark_loaded",
    "mark_moved",
    "require_affines",
    "require_cache_of_affines",
    "require_index_points",
    "require_known_origin",
]

_MARK = "landmarks_loaded"
_MOVED_MARK = "moved_without_trace"
_CACHES = (
    "A dataset that caches on disk stores plain tensors by default. Use CacheDataset, or PersistentDataset with "
    "track_meta=True, weights_only=False and an empty cache_dir. CacheNTransDataset has no such arguments: set its "
    "attributes track_meta=True and weights_only=False before the first item. LMDBDataset and GDSDataset cannot store "
    "affines."
)


def _mark_of(points_key: Hashable) -> str:
    return f"{points_key}_loaded"


def mark_loaded(data: dict[Hashable, Any], points_keys: Iterable[Hashable]) -> None:
    """Mark the landmarks of an item and all its images as loaded.

    Args:
        data: item with landmarks (1, N, D), which is changed. Marked images are new objects that share their values.
        points_keys: landmarks. The mark of each is ``"<key>_loaded"``, a boolean tensor (N,), True where the landmark
            was not missing. Its length differs between images with different numbers of landmarks, which MONAI's
            collation with padding must not bring to one size: it would shift rows and add landmarks at 0.
    """
    for key in points_keys:
        data[_mark_of(key)] = ~torch.isnan(data[key].as_tensor()[0]).any(dim=-1)
    for key, value in data.items():
        if isinstance(value, MetaTensor) and not value.meta.get(_MARK):
            marked: Any = value[...]  # the metadata of the caller's image stay as they are
            marked.meta[_MARK] = True
            data[key] = marked


def require_affines(data: Mapping[Hashable, Any], points_key: Hashable, refer_key: Hashable | None) -> None:
    """Raise an error if landmarks or their image have lost their affine.

    Args:
        data: item with or without these landmarks.
        points_key: landmarks.
        refer_key: the image that they are used with. None: no image is used.

    Raises:
        ValueError: if loaded landmarks or their image have lost their affine, with the likely reasons; if landmarks are
            still a path or rows of numbers; or if landmarks that ``LoadLandmarksd`` has not loaded have no affine, and
            a transform of MONAI has moved their image.
    """
    if points_key not in data:
        return
    points, image = data[points_key], None if refer_key is None else data[refer_key]
    if not isinstance(points, (np.ndarray, torch.Tensor)):
        raise ValueError(f"The landmarks {points_key!r} are not loaded yet. Load them first, with LoadLandmarksd.")
    # the mark of the points remains where the entry of the item was removed, as by SelectItemsd
    if _mark_of(points_key) in data or _is_tracked(points):
        lost = [f"landmarks {points_key!r}"] if not _is_tracked(points) else []
        if refer_key is not None and not _is_tracked(image):
            lost.append(f"image {refer_key!r}")
        if lost:
            raise ValueError(
                f"The {' and the '.join(lost)} lost the affine after the landmarks were loaded, so that the landmarks "
                f"would be at wrong places. {_CACHES} Transforms that return plain tensors, such as ToTensord, "
                "ToNumpyd, EnsureTyped(track_meta=False) or a function in Lambdad, must come after the last transform "
                "of landmarks, or keep the metadata: MetaTensor(values, meta=before.meta)."
            )
    elif not isinstance(points, MetaTensor) and is_moved(image):
        raise ValueError(
            f"The landmarks {points_key!r} have no affine, but a transform of MONAI has moved the image {refer_key!r}, "
            "so that it is unknown if they are pixels from before or after. Load landmarks with LoadLandmarksd, or "
            "give them the affine of their image before it is moved: MetaTensor(points, affine=image.affine). "
            f"{_CACHES}"
        )


def require_index_points(data: Mapping[Hashable, Any], points_key: Hashable) -> None:
    """Raise an error if loaded landmarks are world points of an image with another affine.

    Args:
        data: item with these landmarks.
        points_key: landmarks.

    Raises:
        ValueError: as described.
    """
    if _mark_of(points_key) not in data or not _is_identity(data[points_key]):
        return
    images = [key for key, value in data.items() if isinstance(value, MetaTensor) and not _is_identity(value)]
    if images:
        raise ValueError(
            f"The landmarks {points_key!r} are world points, which are no pixels of the image {images[0]!r}. Name it in"
            " refer_keys, or make index points of them, with LandmarksToIndexd."
        )


def _is_identity(data: Any) -> bool:
    return isinstance(data, MetaTensor) and torch.equal(data.affine, torch.eye(len(data.affine)).to(data.affine))


def require_known_origin(image: Any, refer_key: Hashable) -> None:
    """Raise an error for an image whose affine does not start at that of a file.

    Args:
        image: image to which landmarks are loaded.
        refer_key: its key, for the error message.

    Raises:
        ValueError: for an image without an affine; or for one without metadata of a file that a transform of MONAI has
            moved, since that may be an image that had lost its affine.
    """
    if not isinstance(image, MetaTensor):
        raise ValueError(
            f"The image {refer_key!r} has no affine, so that world points have no place in it. Load it with LoadImaged "
            f"and EnsureWorldAffined. {_CACHES}"
        )
    if is_moved(image) and not _is_tracked(image) and image.meta.get(MetaKeys.ORIGINAL_AFFINE) is None:
        raise ValueError(
            f"The image {refer_key!r} was transformed, and its metadata name no file, so that its affine may have been "
            f"lost before. Load landmarks right after the image. {_CACHES}"
        )


def _is_tracked(image: Any) -> bool:
    """Return whether an image or landmarks have metadata that a reader or :func:`mark_loaded` has written."""
    # an image that was loaded after the landmarks has no mark, but the name of its file
    return isinstance(image, MetaTensor) and bool(image.meta.get(_MARK) or image.meta.get(ImageMetaKey.FILENAME_OR_OBJ))


def mark_moved(image: torch.Tensor) -> torch.Tensor:
    """Mark an image as moved by a transform that leaves no trace for MONAI's inverse, and return it."""
    if isinstance(image, MetaTensor):
        image.meta[_MOVED_MARK] = True
    return image


def is_moved(image: Any) -> bool:
    """Return whether an image was moved or resampled since it was loaded."""
    return isinstance(image, MetaTensor) and bool(
        image.applied_operations or image.pending_operations or image.meta.get(_MOVED_MARK)
    )


def require_cache_of_affines() -> None:
    """Raise an error if the running dataset caches on disk without affines.

    The first epoch would see the loaded affines, and only later ones the cached tensors.

    Raises:
        ValueError: for such a dataset, with its name.
    """
    for frame, _ in traceback.walk_stack(None):
        runs = frame.f_code.co_name in ("_pre_transform", "_post_transform")
        dataset = frame.f_locals.get("self") if runs else None
        if not isinstance(dataset, PersistentDataset) or dataset.cache_dir is None:
            continue
        if isinstance(dataset, (LMDBDataset, GDSDataset)) or not dataset.track_meta:
            raise ValueError(f"{type(dataset).__name__} drops the affines of images and landmarks. {_CACHES}")
