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

"""Points drawn in LabelMe (``.json``, one file per image).

LabelMe measures from the top left corner of the image: the center of the first pixel is at (0.5, 0.5). Half a pixel is
subtracted on reading and added on writing, so that points are pixel index.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import load_json, read_position
from monai_landmarks.data.files.safe_files import read_text
from monai_landmarks.data.images.image_files import read_header, relative_path
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import require_index, stated_size

__all__ = ["is_labelme", "read_labelme", "write_labelme"]

_PIXEL_CENTER = 0.5
_VERSION = "5.5.0"  # of the file's layout; LabelMe warns if the major version differs from its own


def is_labelme(content: Any) -> bool:
    """Return whether JSON is a LabelMe file."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(path: Path) -> LandmarkSet:
    """Read the points of a LabelMe file. Polygons and other shapes are ignored. A point without position is missing.

    The name of a landmark is the label of its shape. If the shape is in a group, ``_`` and the group follow; thus equal
    labels on several vertebrae become distinct.

    Raises:
        ValueError: if the file is malformed, holds shapes but no point, or has two points with the same label and
            group.
    """
    content = load_json(read_text(path))
    if not is_labelme(content):
        raise ValueError("no list 'shapes'; expected a LabelMe file.")
    points: dict[str, list[float]] = {}
    for i, shape in enumerate(content["shapes"]):
        if not isinstance(shape, dict):
            raise ValueError(f"shapes[{i}] is not an object; expected a shape with 'label' and 'points'.")
        drawn = shape.get("points")
        # old versions write no type; LabelMe then draws a polygon, which has more than one point
        has_one = isinstance(drawn, list) and len(drawn) == 1
        if shape.get("shape_type") != "point" and not (shape.get("shape_type") is None and has_one):
            continue
        name = _read_name(shape, f"shapes[{i}]")
        if name in points:
            raise ValueError(
                f"shapes[{i}]: landmark {name!r} is in the file already; expected distinct labels or groups."
            )
        if drawn is not None and (not isinstance(drawn, list) or len(drawn) > 1):
            raise ValueError(f"shapes[{i}] ({name!r}): expected 'points' to hold one point.")
        points[name] = read_position(drawn[0] if drawn else None, 2, f"shapes[{i}] ({name!r}): the point")
    if content["shapes"] and not points:
        types = sorted({str(shape.get("shape_type"))[:20] for shape in content["shapes"]})
        raise ValueError(f"holds shapes of type {types}, but no point; expected shape_type 'point'.")
    image = content.get("imagePath")
    return LandmarkSet(
        names=tuple(points),
        points=np.reshape(list(points.values()), (-1, 2)) - _PIXEL_CENTER,
        coordinate_system=CoordinateSystem.INDEX,
        image=image if isinstance(image, str) and image else None,
        image_size=stated_size(content, "imageWidth", "imageHeight", "the image"),
    )


def write_labelme(path: Path, landmark_set: LandmarkSet, image: str | os.PathLike | None = None) -> None:
    """Write landmarks as points of a LabelMe file. LabelMe has no missing points; missing landmarks are left out.

    Args:
        path: the file.
        landmark_set: 2-D pixel index.
        image: the image, for its size and for its path, with which LabelMe opens it. By default they are those of
            the set.

    Raises:
        ValueError: if the points are not 2-D pixel index.
    """
    require_index(landmark_set, "LabelMe's files")
    landmark_set = landmark_set.with_spatial_dims(2)
    width, height = (landmark_set.image_size or (None, None)) if image is None else read_header(image)[0][:2]
    shapes = [
        {
            "label": name,
            "points": [(point + _PIXEL_CENTER).tolist()],
            "group_id": None,
            "description": "",
            "shape_type": "point",
            "flags": {},
            "mask": None,
        }
        for name, point, missing in zip(landmark_set.names, landmark_set.points, landmark_set.missing)
        if not missing
    ]
    content = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": (landmark_set.image or "") if image is None else relative_path(image, path.parent),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _read_name(shape: dict[str, Any], where: str) -> str:
    label, group = shape.get("label"), shape.get("group_id")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{where}: no label; expected the name of the landmark.")
    if group is not None and type(group) not in (int, str):
        raise ValueError(f"{where} ({label!r}): group_id is not a number; expected a whole number or null.")
    return label if group is None else f"{label}_{group}"
