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

"""3D Slicer's markups JSON (``.mrk.json``, schema 1.0.3): point lists."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_landmarks.data.files.json_values import load_json, read_position, short
from monai_landmarks.data.files.safe_files import atomic_write, read_text
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import require_world
from .point_description import describe_points, parse_descriptions

__all__ = [
    "SCHEMA_URL",
    "add_markup_nodes",
    "is_markups",
    "markup_node",
    "markups_content",
    "other_nodes",
    "read_markups",
    "write_markups",
]

SCHEMA_URL = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)

# the node type of a point list; the second is its name on Slicer's screen
_POINT_LIST_TYPES = ("Fiducial", "PointList")
_MISSING_STATUS = ("undefined", "preview", "missing")
_UNITS_IN_MM = {"mm": 1.0, "um": 1e-3}


def is_markups(content: Any) -> bool:
    """Return whether JSON is a markups file."""
    return isinstance(content, dict) and isinstance(content.get("markups"), list)


def read_markups(path: Path) -> LandmarkSet:
    """Read the point lists of a markups file as one landmark set.

    Points are 3-D; :meth:`LandmarkSet.with_spatial_dims` converts them to 2-D. A point whose ``positionStatus`` is not
    ``defined`` is missing, and so is one whose position is blank, null or NaN. Several point lists are joined. Points
    of other nodes (lines, curves, ROIs) are ignored. A point list without points gives a landmark set without
    landmarks.

    Raises:
        ValueError: if the file is malformed, holds nodes but no point list, or uses a label twice.
    """
    content = load_json(read_text(path))
    if not is_markups(content) or not all(isinstance(node, dict) for node in content["markups"]):
        raise ValueError("no list 'markups'; expected a markups file of 3D Slicer.")
    nodes = content["markups"]
    lists = [(i, node) for i, node in enumerate(nodes) if node.get("type") in _POINT_LIST_TYPES]
    if nodes and not lists:
        types = sorted({str(node.get("type")) for node in nodes})
        raise ValueError(f"holds markups of type {types}, but no point list; expected type 'Fiducial'.")
    systems = [_coordinate_system(node, f"markups[{i}]") for i, node in lists]
    system = systems[0] if systems else CoordinateSystem.LPS
    names, points, signs_of_points, descriptions = [], [], [], []
    for (i, node), node_system in zip(lists, systems):
        node_points = node.get("controlPoints") or []
        if not isinstance(node_points, list):
            raise ValueError(f"markups[{i}]: controlPoints is not a list; expected a list of points.")
        scale = _unit_in_mm(node, f"markups[{i}]")
        signs = np.array([1.0, 1.0, 1.0] if node_system == system else [-1.0, -1.0, 1.0])
        for j, point in enumerate(node_points):
            label, position, description = _read_point(point, f"markups[{i}].controlPoints[{j}]")
            names.append(label)
            points.append(position * scale * signs)
            signs_of_points.append(signs)
            descriptions.append(description)
    beside = parse_descriptions(descriptions)
    for key in {"covariances", "regions"} & set(beside):
        beside[key] = beside[key] * np.array([np.outer(signs, signs) for signs in signs_of_points])
    return LandmarkSet(tuple(names), np.reshape(points, (-1, 3)), system, **beside)


def markups_content(landmark_set: LandmarkSet) -> dict[str, Any]:
    """Return the content of a markups file with one point list, in the coordinate system of the landmarks, RAS or LPS.

    2-D points lie in the plane z = 0. A missing landmark is a control point without position, so that it can be placed
    in Slicer. Score, covariance and region are kept in the description of the point; see
    :mod:`~monai_landmarks.data.landmarks.formats.point_description`. Slicer has no left-right pairs; they are not
    written.

    Args:
        landmark_set: the landmarks.

    Raises:
        ValueError: if the points are pixel index.
    """
    require_world(landmark_set, "3D Slicer's files")
    points = landmark_set.with_spatial_dims(3).points
    control_points = []
    for i, (name, point, text) in enumerate(zip(landmark_set.names, points.tolist(), describe_points(landmark_set))):
        missing = math.isnan(point[0])
        control_points.append(
            {
                "id": str(i + 1),
                "label": name,
                "description": text,
                "associatedNodeID": "",
                **({} if missing else {"position": point}),
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "undefined" if missing else "defined",
            }
        )
    node = {
        "type": "Fiducial",
        "coordinateSystem": landmark_set.coordinate_system.value,
        "coordinateUnits": "mm",
        "locked": False,
        "labelFormat": "%N-%d",
        "controlPoints": control_points,
    }
    return {"@schema": SCHEMA_URL, "markups": [node]}


def write_markups(path: Path, landmark_set: LandmarkSet) -> None:
    """Write a landmark set as one point list; see :func:`markups_content`.

    Raises:
        ValueError: if the points are pixel index.
    """
    _write(path, markups_content(landmark_set))


def markup_node(
    kind: Literal["Line", "Angle"], name: str, points: np.ndarray, system: CoordinateSystem, description: str = ""
) -> dict[str, Any]:
    """Return the node of a line or an angle, as 3D Slicer writes it.

    Args:
        kind: ``"Line"`` for two points, ``"Angle"`` for three, the second of which is the vertex.
        name: name of the node, which 3D Slicer shows.
        points: (2 or 3, 3), in mm.
        system: coordinate system of the points, RAS or LPS.
        description: description of the first point.
    """
    count = {"Line": 2, "Angle": 3}[kind]
    if points.shape != (count, 3):
        raise ValueError(f"{kind} {name!r}: points have the shape {points.shape}; expected ({count}, 3).")
    control_points = [
        {
            "id": str(i + 1),
            "label": f"{name}-{i + 1}",
            "description": description if i == 0 else "",
            "associatedNodeID": "",
            "position": point,
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for i, point in enumerate(points.tolist())
    ]
    return {
        "type": kind,
        "name": name,
        "coordinateSystem": system.value,
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": True,
        "labelFormat": "%N-%d",
        "controlPoints": control_points,
    }


def other_nodes(path: Path) -> list[dict[str, Any]]:
    """Return the nodes of a markups file that are no point lists, such as lines and angles."""
    nodes: list[dict[str, Any]] = load_json(read_text(path))["markups"]
    return [node for node in nodes if node.get("type") not in _POINT_LIST_TYPES]


def add_markup_nodes(path: Path, nodes: Sequence[dict[str, Any]]) -> None:
    """Add nodes to a markups file.

    Raises:
        ValueError: if the file is no markups file.
    """
    content = load_json(read_text(path))
    if not is_markups(content):
        raise ValueError(f"{path}: no list 'markups'; expected a markups file of 3D Slicer.")
    content["markups"] = [*content["markups"], *nodes]
    with atomic_write(path) as temporary:
        _write(temporary, content)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _coordinate_system(node: dict[str, Any], where: str) -> CoordinateSystem:
    system = str(node.get("coordinateSystem") or "LPS").upper()
    if system not in ("RAS", "LPS"):
        raise ValueError(f"{where}: coordinateSystem is {system!r}; expected 'LPS' or 'RAS'.")
    return CoordinateSystem(system)


def _unit_in_mm(node: dict[str, Any], where: str) -> float:
    units = node.get("coordinateUnits") or "mm"
    code = units[0] if isinstance(units, list) else units
    if not isinstance(code, str) or code not in _UNITS_IN_MM:
        raise ValueError(f"{where}: coordinateUnits is {short(units)}; expected one of {list(_UNITS_IN_MM)}.")
    return _UNITS_IN_MM[code]


def _read_point(point: Any, where: str) -> tuple[str, np.ndarray, str]:
    label = point.get("label") if isinstance(point, dict) else None
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{where}: no label; expected the name of the landmark.")
    description = str(point.get("description") or "")
    status = point.get("positionStatus", "defined")
    # Slicer writes an empty string for an undefined position, and reads a missing one as undefined
    if status in _MISSING_STATUS or "position" not in point:
        return label, np.full(3, np.nan), description
    if status != "defined":
        raise ValueError(f"{where} ({label!r}): positionStatus is {short(status)}; expected 'defined' or 'undefined'.")
    return label, np.array(read_position(point["position"], 3, f"{where} ({label!r}): position")), description
