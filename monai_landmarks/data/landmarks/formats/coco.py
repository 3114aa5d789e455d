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

"""COCO keypoints (``.json``, one file of many images).

Keypoints are read as pixel index, with whole numbers at pixel centers, as in COCO's own annotations. A keypoint with
visibility 0 is a missing landmark; 1 (labeled, hidden) and 2 (labeled, visible) are both present. In an annotation
whose list of keypoints is empty, all landmarks are missing. See
https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import load_json, read_position, short
from monai_landmarks.data.files.safe_files import read_text
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.landmarks.landmark_set import LandmarkSet

from .common import common_set, require_index, sets_of_images, stated_size

__all__ = ["is_coco", "read_coco", "write_coco"]

_ABSENT, _VISIBLE = 0, 2


def is_coco(content: Any) -> bool:
    """Return whether JSON holds COCO annotations."""
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))


def read_coco(path: Path) -> dict[str, LandmarkSet]:
    """Read the keypoints of many images.

    The names are those of the keypoints of all categories. If two categories share the name of a keypoint, all names
    are prefixed with the name of their category and ``_``. Annotations without keypoints are skipped, and so are images
    without keypoints.

    Args:
        path: the file.

    Returns:
        the landmark set of each image by its ``file_name``; all sets have the same names.

    Raises:
        ValueError: if the file is malformed, or an image has two annotations of the same category.
    """
    content = load_json(read_text(path))
    if not is_coco(content):
        raise ValueError("no lists 'images' and 'annotations'; expected a file of COCO keypoints.")
    images = {id_: _text(image, "file_name", where) for id_, image, where in _entries(content, "images")}
    twice = [name for name, count in Counter(images.values()).items() if count > 1]
    if twice:
        raise ValueError(f"images: file_name {twice[0]!r} is given more than once; expected distinct names.")
    keypoints = _read_categories(content)
    points: dict[str, dict[str, list[float]]] = {}
    annotations = [
        item for item in enumerate(content["annotations"]) if not isinstance(item[1], dict) or "keypoints" in item[1]
    ]
    for i, annotation in annotations:
        where = f"annotations[{i}]"
        names = _look_up(annotation, "category_id", keypoints, where, "a category with keypoints")
        image = _look_up(annotation, "image_id", images, where, "an image")
        of_image = points.setdefault(image, {})
        if not set(names).isdisjoint(of_image):
            raise ValueError(f"{where}: a second annotation of this category in image {image!r}; expected only one.")
        of_image.update(zip(names, _read_keypoints(annotation["keypoints"], names, f"{where} ({image!r})")))
    if content["annotations"] and not annotations:
        raise ValueError("holds annotations, but none with 'keypoints'.")
    sizes = {
        image["file_name"]: stated_size(image, "width", "height", f"images[{i}]")
        for i, image in enumerate(content["images"])
    }
    return {name: replace(found, image_size=sizes[name]) for name, found in sets_of_images(points, 2).items()}


def write_coco(
    path: Path, sets: Mapping[str, LandmarkSet], images: Mapping[str, str | os.PathLike] | None = None
) -> None:
    """Write the landmarks of many images as keypoints of one category, one annotation per image.

    Args:
        path: the file.
        sets: landmark set of each image, 2-D pixel index.
        images: image files, by the same keys, for width and height. By default they are those of the sets, if known.

    Raises:
        ValueError: if the points are not 2-D pixel index, or the sets contradict each other.
    """
    common = common_set(list(sets.values())).with_spatial_dims(2)
    require_index(common, "COCO's files")
    images = {} if images is None else images
    entries, annotations = [], []
    for number, (name, landmark_set) in enumerate(sets.items(), 1):
        size = read_header(images[name])[0][:2] if name in images else landmark_set.image_size or ()
        entries.append({"id": number, "file_name": name, **dict(zip(("width", "height"), size))})
        annotations.append(_annotation(number, landmark_set.with_spatial_dims(2).reorder(common.names)))
    category = {
        "id": 1,
        "name": "landmarks",
        "supercategory": "landmarks",
        "keypoints": list(common.names),
        "skeleton": [],
    }
    content = {"images": entries, "annotations": annotations, "categories": [category]}
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _annotation(number: int, landmark_set: LandmarkSet) -> dict[str, Any]:
    there = landmark_set.points[~landmark_set.missing]
    low, size = (there.min(axis=0), np.ptp(there, axis=0)) if len(there) else (np.zeros(2), np.zeros(2))
    visibility = np.where(landmark_set.missing, _ABSENT, _VISIBLE)
    keypoints = np.column_stack([np.nan_to_num(landmark_set.points), visibility])
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "keypoints": [int(value) if i % 3 == 2 else value for i, value in enumerate(keypoints.ravel().tolist())],
        "num_keypoints": len(there),
        "bbox": [*low.tolist(), *size.tolist()],
        "area": float(size.prod()),
        "iscrowd": 0,
    }


def _entries(content: dict[str, Any], section: str) -> list[tuple[int | str, dict[str, Any], str]]:
    """Return id, entry and place of all entries of a section, whose ids must be distinct."""
    entries = content.get(section)
    if not isinstance(entries, list):
        raise ValueError(f"no list {section!r}; expected a file of COCO keypoints.")
    result, seen = [], set()
    for i, entry in enumerate(entries):
        id_ = entry.get("id") if isinstance(entry, dict) else None
        if type(id_) not in (int, str) or id_ in seen:
            raise ValueError(f"{section}[{i}]: id is {short(id_)}; expected a number that no other entry has.")
        seen.add(id_)
        result.append((id_, entry, f"{section}[{i}]"))
    return result


def _read_categories(content: dict[str, Any]) -> dict[int | str, list[str]]:
    found = [entry for entry in _entries(content, "categories") if "keypoints" in entry[1]]
    for _, category, where in found:
        names = category["keypoints"]
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"{where}: keypoints is {short(names)}; expected a list of names.")
    counts = Counter(name for _, category, _ in found for name in category["keypoints"])
    if not counts or max(counts.values()) == 1:
        return {id_: category["keypoints"] for id_, category, _ in found}
    result = {
        id_: [f"{_text(category, 'name', where)}_{name}" for name in category["keypoints"]]
        for id_, category, where in found
    }
    twice = [name for name, count in Counter(name for names in result.values() for name in names).items() if count > 1]
    if twice:
        raise ValueError(f"categories: keypoint {twice[0]!r} is given more than once; expected distinct names.")
    return result


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key} is {short(value)}; expected a name.")
    return value


def _look_up(annotation: Any, key: str, table: Mapping[int | str, Any], where: str, what: str) -> Any:
    id_ = annotation.get(key) if isinstance(annotation, dict) else None
    if type(id_) not in (int, str) or id_ not in table:
        raise ValueError(f"{where}: {key} is {short(id_)}, which is not the id of {what}.")
    return table[id_]


def _read_keypoints(value: Any, names: list[str], where: str) -> list[list[float]]:
    if value in (None, []):
        return [[np.nan, np.nan] for _ in names]
    if not isinstance(value, list) or len(value) != 3 * len(names):
        raise ValueError(f"{where}: keypoints is {short(value)}; expected {3 * len(names)} numbers.")
    result = []
    for name, x, y, visibility in zip(names, value[::3], value[1::3], value[2::3]):
        if type(visibility) not in (int, float) or visibility not in (0, 1, 2):
            raise ValueError(f"{where}: the visibility of {name!r} is {short(visibility)}; expected 0, 1 or 2.")
        point = read_position([x, y], 2, f"{where}: keypoint {name!r}")
        result.append(point if visibility != _ABSENT else [np.nan, np.nan])
    return result
