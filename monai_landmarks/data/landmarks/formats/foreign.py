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


"""Files of other programs that hold landmarks, or shapes, and are not read: what they are, and what to do."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["foreign_file"]

_TABLE = "write its points as a CSV with the columns image,landmark,x,y"
# beginning of the text, what it is, what to do
_TEXTS = (
    (
        r"Version\s+\d[\d.]*\s*\n\s*\d+\s*\n",
        "points of IDAV Landmark Editor",
        "write them as a CSV with landmark,x,y,z",
    ),
    (r"version:\s*\d+\s*\n\s*n_points:", "points in the layout of iBUG (300-W)", _TABLE),
    (r"(<\?xml[^>]*>\s*)?<annotations>", "annotations of CVAT", "export them as 'COCO Keypoints'"),
    (r"(<\?xml[^>]*>\s*)?(<\?xml-stylesheet[^>]*>\s*)?<dataset>", "a dataset of dlib", _TABLE),
    (r"(<\?xml[^>]*>\s*)?<annotation[\s>]", "boxes in the layout of Pascal VOC", "export keypoints instead, as COCO"),
    (r"<!DOCTYPE PickedPoints", "picked points of MeshLab", "write them as a CSV with landmark,x,y,z"),
    (r"scorer,", "a table of DeepLabCut", _TABLE),
    (r"# vtk DataFile", "a file of VTK", "export the points as .mrk.json or .csv"),
    (r"# (AmiraMesh|Avizo|HyperMesh)", "a file of Amira or Avizo", "export the points as a CSV with landmark,x,y,z"),
    (r'"?#?filename"?,.*region_shape_attributes', "annotations of VIA (VGG Image Annotator)", _TABLE),
)


def foreign_file(content: Any) -> str:
    """Return what a file is and what to do with it, as one sentence; empty if it is not recognized.

    Args:
        content: the parsed JSON of a ``.json`` file, or the text of any other file.

    Example:
        >>> foreign_file("version: 1\\nn_points: 68\\n{\\n")[:48]
        'holds points in the layout of iBUG (300-W), whic'
    """
    if isinstance(content, str):
        found = [row[1:] for row in _TEXTS if re.match(row[0], content.lstrip(), flags=re.IGNORECASE)]
    else:
        found = _json_kinds(content)
    return f"holds {found[0][0]}, which this package does not read; {found[0][1]}." if found else ""


def _json_kinds(content: Any) -> list[tuple[str, str]]:
    if not isinstance(content, (dict, list)) or not content:
        return []
    first = content[0] if isinstance(content, list) else next(iter(content.values()))
    keys = set(content) if isinstance(content, dict) else set()
    of_first = set(first) if isinstance(first, dict) else set()
    if "_via_settings" in keys or {"filename", "regions"} <= of_first:
        return [("annotations of VIA (VGG Image Annotator)", _TABLE)]
    if "categories" in keys and "items" in keys or {"annotations", "type"} <= of_first:
        return [("annotations of CVAT in the format of Datumaro", "export them as 'COCO Keypoints'")]
    if "markups" not in keys and "images" in keys and "annotations" not in keys:
        return [("images of COCO without annotations", "export the annotations, too")]
    return []
