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

"""Functions that several formats share: requirements on landmark sets, and names of points."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import short
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

__all__ = [
    "CONVERT_FIRST",
    "OtherSystemError",
    "assumed_system",
    "common_set",
    "ensure_image",
    "names_or_numbers",
    "present_points",
    "require_index",
    "require_names",
    "require_world",
    "sets_of_images",
    "stated_size",
]


class OtherSystemError(ValueError):
    """A file states another coordinate system than the one that was asked for."""


def assumed_system(system: CoordinateSystem | str, more: str = "") -> str:
    """Say that 3-D points are read in a coordinate system that nobody stated, and how to state another one.

    Args:
        system: the coordinate system.
        more: another way to state it, than to give it.
    """
    return (
        f"states no coordinate system, and its 3-D points are read as {system} in mm. If this is wrong, give the right one"
        f" (--coordinate-system LPS, RAS or index){more}."
    )


# every command reads the result, and not all of them pass images to the reader of a format
CONVERT_FIRST = (
    "convert the file with its images, and use the result: 'monai-landmarks convert FILE points.csv --images IMAGES'"
)


def common_set(sets: Iterable[LandmarkSet]) -> LandmarkSet:
    """Return what the sets of a table share.

    Args:
        sets: landmark sets of a table.

    Returns:
        a set with all names, missing points, the coordinate system, all pairs, and NaN for the scores, covariances and
        regions that any set has.

    Raises:
        ValueError: if there is no set, or the sets differ in coordinate system, dimension or coverage.
    """
    systems: dict[CoordinateSystem, None] = {}
    names: dict[str, None] = {}
    pairs: dict[tuple[str, str], None] = {}
    dims, coverages, beside = set(), set(), set()
    for landmark_set in sets:  # one pass: a long table is read from the disk
        systems[landmark_set.coordinate_system] = None
        names |= dict.fromkeys(landmark_set.names)
        pairs |= dict.fromkeys(landmark_set.pairs)
        dims.add(landmark_set.spatial_dims)
        coverages |= {landmark_set.coverage} - {None}
        beside |= {key for key in ("scores", "covariances", "regions") if getattr(landmark_set, key) is not None}
    if not systems:
        raise ValueError("no landmark sets to write; expected at least one.")
    if len(systems) > 1:
        found = sorted(system.value for system in systems)
        raise ValueError(f"the landmark sets are in {found}; expected one coordinate system. Use .to(...).")
    if len(dims) > 1:
        raise ValueError("some landmark sets are 2-D and some 3-D; expected one dimension.")
    if len(coverages) > 1:
        raise ValueError(f"the regions of the landmark sets state the coverages {sorted(coverages)}; expected one.")
    points = np.full((len(names), dims.pop()), np.nan)
    matrices = np.full((*points.shape, points.shape[1]), np.nan)
    unknown: dict[str, Any] = {"scores": points[:, 0], "covariances": matrices, "regions": matrices}
    return LandmarkSet(
        tuple(names),
        points,
        next(iter(systems)),
        tuple(pairs),
        coverage=next(iter(coverages), None),
        **{key: values for key, values in unknown.items() if key in beside},
    )


def names_or_numbers(count: int, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the given names of points, or the numbers 1 to ``count``.

    Raises:
        ValueError: if the number of names differs from ``count``.
    """
    if names is None:
        return tuple(str(number) for number in range(1, count + 1))
    if len(names) != count:
        raise ValueError(f"holds {count} points, but {len(names)} names were given.")
    return tuple(names)


def sets_of_images(
    points: Mapping[str, Mapping[str, Sequence[float]]], dims: int, names: Sequence[str] | None = None
) -> dict[str, LandmarkSet]:
    """Make the landmark sets of a table, all with the same names, from named points of each image as pixel index."""
    names = tuple(dict.fromkeys(name for named in points.values() for name in named)) if names is None else tuple(names)
    missing = [np.nan] * dims
    return {
        image: LandmarkSet(
            names,
            np.reshape([named.get(name, missing) for name in names], (len(names), dims)),
            CoordinateSystem.INDEX,
            image=image,
        )
        for image, named in points.items()
    }


def stated_size(holder: Mapping[str, Any], width: str, height: str, where: str) -> tuple[int, int] | None:
    """Return the size of the image that a file states; None if it states none.

    Args:
        holder: object of a JSON file.
        width: key of the width.
        height: key of the height.
        where: place in the file, for error messages.

    Raises:
        ValueError: if it states only one of both, or other values than positive whole numbers.
    """
    size = [holder.get(width), holder.get(height)]
    if size == [None, None]:
        return None
    numbers = [value for value in size if isinstance(value, (int, float)) and not isinstance(value, bool)]
    whole = [int(number) for number in numbers if 0 < number < math.inf and number == int(number)]
    if len(whole) != 2:
        raise ValueError(f"{where}: {width} and {height} are {short(size)}; expected positive whole numbers.")
    return whole[0], whole[1]


def require_names(landmark_set: LandmarkSet, allowed: Sequence[str], what: str) -> None:
    """Raise ValueError if a landmark is not among those that a format can hold."""
    unknown = [name for name in landmark_set.names if name not in allowed]
    if unknown:
        raise ValueError(f"landmarks {unknown[:5]} are no {what}; expected names among {list(allowed)}.")


def require_index(landmark_set: LandmarkSet, files: str) -> None:
    """Raise ValueError if the points are not pixel index."""
    if landmark_set.coordinate_system != CoordinateSystem.INDEX:
        raise ValueError(
            f"the points are {landmark_set.coordinate_system} in mm, and {files} hold pixel index; use to_index(affine)"
            " first."
        )


def require_world(landmark_set: LandmarkSet, files: str) -> None:
    """Raise ValueError if the points are not in the world."""
    if landmark_set.coordinate_system == CoordinateSystem.INDEX:
        raise ValueError(
            f"the points are pixel index, and {files} hold world points in mm; use to_world(affine) first."
        )


def present_points(landmark_set: LandmarkSet, files: str) -> np.ndarray:
    """Return all points (N, D) for a file that identifies points by their order, so that none can be left out.

    Raises:
        ValueError: if a landmark is missing.
    """
    missing = [name for name, absent in zip(landmark_set.names, landmark_set.missing) if absent]
    if missing:
        raise ValueError(f"landmarks {missing[:5]} are missing, and {files} cannot leave a point out.")
    return landmark_set.points


def ensure_image(
    image: str | os.PathLike | None, why: str, otherwise: str = "give --images to 'monai-landmarks convert'"
) -> str | os.PathLike:
    """Return the image that a format requires.

    Raises:
        ValueError: if it is not given, with the reason ``why`` it is required, and what to do instead of giving it.
    """
    if image is None:
        raise ValueError(f"{why}; give image=, the image that the points belong to, or {otherwise}.")
    return image
