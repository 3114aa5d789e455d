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

"""Vertebra centroids of VerSe (``.json``, one file per image).

::

    [{"direction": ["P", "I", "R"]}, {"label": 20, "X": 63.2, "Y": 141.9, "Z": 31.8}]

X, Y and Z are voxels along the stated directions. These may differ from the axes of the image's array in order and
sign; only the image determines how.

References:
    Sekuboyina et al., VerSe: A Vertebrae labelling and segmentation benchmark for multi-detector CT images, Medical
    Image Analysis 73 (2021), https://doi.org/10.1016/j.media.2021.102166; https://github.com/anjany/verse
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import load_json, read_coordinates, short
from monai_landmarks.data.files.safe_files import read_text
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.landmarks.formats.common import CONVERT_FIRST, ensure_image, require_index, require_names
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["VERSE_LANDMARKS", "is_verse", "read_verse", "write_verse"]

# in the order of their labels, 1 to 28
VERSE_LANDMARKS = (
    *(f"C{i}" for i in range(1, 8)),
    *(f"T{i}" for i in range(1, 13)),
    *(f"L{i}" for i in range(1, 7)),
    "sacrum",
    "coccyx",
    "T13",
)

_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I"}


def is_verse(content: Any) -> bool:
    """Return whether JSON is a list of centroids."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(entry, dict) and ("direction" in entry or {"label", "X"} <= set(entry)) for entry in content)
    )


def read_verse(path: Path, image: str | os.PathLike | None = None) -> LandmarkSet:
    """Read centroids as pixel index of their image, in the order of its array's axes.

    Args:
        path: a file of the release by subject (``..._ctd.json``). Those of the MICCAI challenge (``..._iso-ctd.json``)
            are in mm without directions, and are refused.
        image: image of the centroids, for its shape and orientation.

    Raises:
        ValueError: if the file is malformed, states no directions, has a label that is not a vertebra or occurs twice,
            or there is no image.
    """
    content = load_json(read_text(path))
    if not is_verse(content):
        raise ValueError("no list of centroids; expected a file of VerSe.")
    directions = [entry for entry in content if "direction" in entry]
    if len(directions) != 1 or path.name.lower().endswith("iso-ctd.json"):
        raise ValueError(
            f"{len(directions)} entries 'direction' in a file named {path.name!r}; expected one, and a file of VerSe's release"
            " by subject. Files of the MICCAI challenge (iso-ctd) are in mm along other axes."
        )
    direction = _read_direction(directions[0]["direction"])
    points: dict[str, list[float]] = {}
    for i, entry in enumerate(content):
        if "direction" in entry:
            continue
        label = entry["label"]
        if type(label) is not int or not 1 <= label <= len(VERSE_LANDMARKS):
            raise ValueError(f"[{i}]: label is {short(label)}; expected a vertebra, 1 to {len(VERSE_LANDMARKS)}.")
        name = VERSE_LANDMARKS[label - 1]
        if name in points:
            raise ValueError(f"[{i}]: label {label} ({name}) is in the file already; expected distinct labels.")
        points[name] = _read_centroid(entry, f"[{i}] ({name})")
    why = "VerSe's centroids are voxels along directions that only the image defines"
    image = ensure_image(image, why, CONVERT_FIRST)
    shape, affine = read_header(image)
    if len(shape) != 3:
        raise ValueError(f"the image {os.fspath(image)} has the shape {shape}; expected a volume.")
    array = np.reshape(list(points.values()), (-1, 3))
    return LandmarkSet(tuple(points), _to_array_order(array, direction, shape, affine), CoordinateSystem.INDEX)


def write_verse(path: Path, landmark_set: LandmarkSet, image: str | os.PathLike | None = None) -> None:
    """Write centroids in the order of their image's array. VerSe has no missing vertebrae; they are left out.

    Args:
        path: the file.
        landmark_set: pixel index of vertebrae, named C1 to C7, T1 to T13, L1 to L6, sacrum, coccyx.
        image: the image, for its directions.

    Raises:
        ValueError: if the points are not 3-D pixel index, a landmark is not a vertebra, or there is no image.
    """
    require_index(landmark_set, "VerSe's files")
    require_names(landmark_set, VERSE_LANDMARKS, "vertebrae")
    if landmark_set.spatial_dims != 3:
        raise ValueError("the points are 2-D; expected 3-D points of a volume.")
    image = ensure_image(image, "VerSe's files state the directions of the image")
    import nibabel as nib

    entries: list[dict[str, Any]] = [{"direction": list(nib.aff2axcodes(read_header(image)[1]))}]
    for name, point, missing in zip(landmark_set.names, landmark_set.points.tolist(), landmark_set.missing):
        if not missing:
            entries.append({"label": VERSE_LANDMARKS.index(name) + 1, **dict(zip("XYZ", point))})
    path.write_text(json.dumps(entries, allow_nan=False) + "\n", encoding="utf-8")


def _read_direction(value: Any) -> tuple[str, ...]:
    letters = value if isinstance(value, list) else []
    known = [letter for letter in letters if isinstance(letter, str) and letter in _OPPOSITE]
    if len(letters) != 3 or len({*known, *(_OPPOSITE[letter] for letter in known)}) != 6:
        raise ValueError(f"direction is {short(value)}; expected three letters such as ['P', 'I', 'R'].")
    return tuple(known)


def _read_centroid(entry: dict[str, Any], where: str) -> list[float]:
    values = [entry.get(axis) for axis in "XYZ"]
    if all(isinstance(value, float) and np.isnan(value) for value in values):
        return [np.nan] * 3
    return read_coordinates(values, 3, f"{where}: X, Y, Z")


def _to_array_order(
    points: np.ndarray, direction: tuple[str, ...], shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray:
    """Convert points along ``direction`` to the axes of the array, mirrored if an axis has the opposite direction."""
    import nibabel as nib

    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt(direction), nib.io_orientation(affine))
    result = np.empty_like(points)
    for axis, (target, sign) in enumerate(turn.astype(int)):
        result[:, target] = points[:, axis] if sign > 0 else shape[target] - 1 - points[:, axis]
    return result
