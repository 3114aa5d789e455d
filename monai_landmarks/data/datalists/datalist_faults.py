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

"""Faults of a datalist, found before a training starts."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import naming_file, read_text
from monai_landmarks.data.images.image_files import has_spacing, read_geometry
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet
from monai_landmarks.data.landmarks.row_faults import read_past_faults
from monai_landmarks.spaces import in_xy_plane, off_plane, slice_affine

__all__ = [
    "DatalistError",
    "check_datalist",
    "first_line",
    "index_points",
    "is_positive",
    "is_spacing",
    "looks_of",
    "name_faults",
    "other_readings",
    "point_faults",
    "require_valid_datalist",
    "shape_faults",
]

_LONGEST_SIDE = 100  # in shortest sides
_RELATIVE = re.compile("[@%](?:#|::)")
_LIKE_LATIN = str.maketrans("асеіјорѕхуԁһ", "aceijopsxydh")
_LABELED_SECTIONS = ("training", "validation")


class DatalistError(ValueError):
    """Error of a datalist with faults.

    Args:
        name: the datalist, or the files it was to be made of.
        faults: all faults, one sentence each.
    """

    def __init__(self, name: str, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        lines = "\n".join(f"  - {fault}" for fault in self.faults)
        super().__init__(f"{name} has {len(self.faults)} fault(s):\n{lines}")


def require_valid_datalist(
    datalist: str | os.PathLike | Mapping[str, Any], base_dir: str | os.PathLike | None = None
) -> None:
    """Raise an error if a datalist has faults. Every image and landmark file is read.

    Args:
        datalist: a JSON file, or its content.
        base_dir: folder to which the paths are relative; by default that of the JSON file.

    Raises:
        DatalistError: if :func:`check_datalist` finds faults; it lists all of them.
    """
    faults = check_datalist(datalist, base_dir)
    if faults:
        raise DatalistError("The datalist" if isinstance(datalist, Mapping) else os.fspath(datalist), faults)


def check_datalist(
    datalist: str | os.PathLike | Mapping[str, Any], base_dir: str | os.PathLike | None = None
) -> list[str]:
    """Check a datalist. Every image and landmark file is read.

    A valid datalist declares names and left-right pairs and has at least one section. Every image is in one section,
    once, can be read with MONAI's ``LoadImage`` and has a spacing. Labels have the declared names, and all points are
    inside their image. The image ends at the outer edge of the border pixels, half a pixel from their centers.

    Args:
        datalist: a JSON file, or its content.
        base_dir: folder to which the paths are relative; by default that of the JSON file, or the working directory.

    Returns:
        one sentence per fault; empty if the datalist is valid.
    """
    from tqdm import tqdm

    if not isinstance(datalist, Mapping):
        base_dir = Path(datalist).parent if base_dir is None else base_dir
        with naming_file(datalist):
            datalist = load_json(read_text(datalist))
    if not isinstance(datalist, Mapping):
        return ["not a JSON object; expected one with 'landmarks' and sections such as 'training'."]
    folder = Path("." if base_dir is None else base_dir)
    faults: list[str] = []
    template = _read_definition(datalist.get("landmarks"), faults)
    entries = [
        (section, i, item)
        for section, items in datalist.items()
        if isinstance(items, list)
        for i, item in enumerate(items)
    ]
    if not entries:
        faults.append("no image in any section; expected lists such as 'training' and 'validation'.")
    seen: dict[str, str] = {}
    for section, i, item in tqdm(entries, desc="checking images", leave=False, disable=len(entries) < 50):
        where = f"{section}[{i}]"
        if not isinstance(item, Mapping) or not isinstance(item.get("image"), str):
            faults.append(f"{where}: no 'image'; expected the path of an image.")
            continue
        path = os.path.normpath(folder / item["image"])
        where = f"{where} ({item['image']})"
        if path in seen:
            faults.append(f"{where}: the image is in {seen[path]} already.")
        seen.setdefault(path, f"{section}[{i}]")
        faults += [f"{where}: {fault}" for fault in _item_faults(item, path, section, folder, template)]
    return faults


def _read_definition(definition: Any, faults: list[str]) -> LandmarkSet | None:
    """Return the declared landmarks as a set of missing points; None, with a new fault, if the declaration is wrong."""
    if not isinstance(definition, Mapping) or not isinstance(definition.get("names"), list):
        faults.append("no 'landmarks' with 'names'; expected the names of all landmarks.")
        return None
    names = definition["names"]
    faults += name_faults(names)
    try:
        return LandmarkSet(
            names=tuple(names),
            points=np.full((len(names), 3), np.nan),
            coordinate_system=definition.get("coordinate_system", "index"),
            pairs=tuple(definition.get("pairs", ())),
        )
    except (TypeError, ValueError) as error:
        faults.append(f"landmarks: {error}")
        return None


def _item_faults(
    item: Mapping[str, Any], path: str, section: str, folder: Path, template: LandmarkSet | None
) -> list[str]:
    faults = []
    spacing = item.get("spacing")
    if spacing is None and not has_spacing(path):
        faults.append(
            "pixel size not known: no 'spacing', and the file states none; expected [x, y] in mm (1, 1 to work in pixels)."
        )
    elif spacing is not None and not is_spacing(spacing):
        faults.append(f"spacing is {spacing!r}; expected positive numbers in mm, one per axis.")
        spacing = None
    landmarks = None
    if item.get("label") is None:
        if section in _LABELED_SECTIONS:
            faults.append("no 'label'; expected points or a landmark file.")
    elif template is not None:
        landmarks, label_faults = _read_label(item["label"], folder, template)
        faults += label_faults
    try:
        shape, affine = read_geometry(path, spacing)
    except Exception as error:  # readers raise exceptions of any type
        return [*faults, f"the image cannot be read: {first_line(error)}"]
    faults += shape_faults(shape)
    if landmarks is not None:
        faults += [fault for _, fault in point_faults(landmarks, shape, affine)]
    return faults


def is_spacing(spacing: Any) -> bool:
    """Return whether a value is a pixel size per axis."""
    return isinstance(spacing, Sequence) and len(spacing) in (2, 3) and all(is_positive(value) for value in spacing)


def is_positive(value: Any) -> bool:
    """Return whether a value is a positive, finite number."""
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and all(value is None or isinstance(value, (int, float)) for value in point)


def _read_label(label: Any, folder: Path, template: LandmarkSet) -> tuple[LandmarkSet | None, list[str]]:
    """Return the landmarks of a label and its faults. The landmarks are None if they cannot be determined."""
    if isinstance(label, str):
        sets, faults = read_past_faults(folder / label)
        if len(sets) != 1:
            return None, faults or [f"label {label}: holds {len(sets)} images; expected the landmarks of this one."]
        landmarks = next(iter(sets.values()))
        unknown = [name for name in landmarks.names if name not in template.names]
        if unknown:
            faults.append(f"label {label}: landmarks {unknown} are not among the names of the datalist.")
        return (None if faults else landmarks), faults
    if not isinstance(label, list) or len(label) != len(template):
        count = f"{len(label)} points" if isinstance(label, list) else repr(label)
        return None, [f"label is {count}; expected {len(template)} points, one per name."]
    dims = next((len(point) for point in label if _is_point(point)), 0)
    faults = [
        f"landmark {name!r} is {point!r}; expected [x, y] or [x, y, z], with null if missing."
        for name, point in zip(template.names, label)
        if not _is_point(point) or len(point) != dims
    ]
    if faults:
        return None, faults
    points = [[math.nan if value is None else value for value in point] for point in label]
    try:
        return LandmarkSet(template.names, np.array(points), template.coordinate_system), []
    except (TypeError, ValueError) as error:
        return None, [first_line(error)]


def index_points(landmarks: LandmarkSet, shape: tuple[int, ...], affine: np.ndarray) -> LandmarkSet:
    """Convert landmarks to the pixel index of an image, with the dimension of the image.

    Args:
        landmarks: landmarks in any coordinate system.
        shape: spatial shape of the image. A volume of one slice, such as a DICOM radiograph, is a 2-D image, as in the
            bundles.
        affine: affine of the image, 4x4.

    Raises:
        ValueError: if image and points differ in dimension, a slice does not lie in the x-y plane of the world, or a
            3-D point lies off the plane of a 2-D image.
    """
    dims = len(shape)
    if dims == 3 and shape[2] == 1:
        if not in_xy_plane(affine):
            raise ValueError(
                "the slice does not lie in the x-y plane of the world, as 2-D points do; save it as PNG, and give the points in"
                " pixels."
            )
        dims, affine = 2, slice_affine(affine)
    if dims == 2 and landmarks.spatial_dims == 3:
        off = off_plane(landmarks.to_world(affine).points, affine[2, 3])
        if off.any():
            raise ValueError(
                f"landmark {landmarks.names[off.argmax()]!r} lies {off.max():.3f} mm off the plane of the 2-D image; move it"
                " there, or give only x and y."
            )
        landmarks = landmarks.with_spatial_dims(2, plane=None)
    if landmarks.spatial_dims != dims:
        raise ValueError(f"the points are {landmarks.spatial_dims}-D, but the image is {dims}-D with shape {shape}.")
    return landmarks.to_index(affine)


def point_faults(landmarks: LandmarkSet, shape: tuple[int, ...], affine: np.ndarray) -> list[tuple[str | None, str]]:
    """Return the faults of points in their image, each with the name of the landmark, or None for all landmarks."""
    try:
        landmarks.require_image_size(shape)
        points = index_points(landmarks, shape, affine).points
    except ValueError as error:
        return [(None, str(error))]
    outside = _are_outside(points, shape)
    others = " or ".join(map(str, other_readings(landmarks, shape, affine))) if outside.any() else ""
    hint = f"; read as {others} instead of {landmarks.coordinate_system}, all points are inside" if others else ""
    return [
        (
            name,
            f"landmark {name!r} is at index {np.round(point, 2).tolist()}, outside the image of shape {tuple(shape)}{hint}.",
        )
        for name, point, is_outside in zip(landmarks.names, points, outside)
        if is_outside
    ]


def other_readings(landmarks: LandmarkSet, shape: tuple[int, ...], affine: np.ndarray) -> list[CoordinateSystem]:
    """Return the coordinate systems in which all points of a volume lie inside it, if they do not in their own.

    Args:
        landmarks: 3-D landmarks in any coordinate system. In 2-D, none is returned: a picture has no place in a world.
        shape: spatial shape of the image.
        affine: affine of the image, 4x4.
    """
    if landmarks.spatial_dims != 3 or len(shape) != 3:
        return []
    inside = []
    for system in CoordinateSystem:
        try:
            points = index_points(replace(landmarks, coordinate_system=system), shape, affine).points
        except ValueError:
            continue
        if not _are_outside(points, shape).any():
            inside.append(system)
    return [] if landmarks.coordinate_system in inside else inside


def _are_outside(points: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return for each index point (N, D) whether it lies outside an image; False if it is missing."""
    last = np.array(shape[: points.shape[1]]) - 0.5
    return np.any((points < -0.5) | (points > last), axis=1)


def name_faults(names: Sequence[Any]) -> list[str]:
    """Return one sentence per landmark name that MONAI's configurations or the lines of a table would change."""
    faults = []
    for name in names:
        if not isinstance(name, str):
            continue
        if name.strip().startswith(("@", "$", "%")):
            faults.append(
                f"the name of landmark {name!r} begins with {name.strip()[0]!r}, which MONAI's configurations take for a"
                " reference or an expression; rename it."
            )
        elif reference := _RELATIVE.search(name):
            faults.append(
                f"the name of landmark {name!r} contains {reference[0]!r}, which MONAI's configurations take for a reference;"
                " rename it."
            )
        elif any(unicodedata.category(letter) == "Cc" for letter in name):
            faults.append(
                f"the name of landmark {name!r} contains a tab, a line end or another control character; rename it."
            )
    return faults


def looks_of(name: str) -> str:
    """Return the same text for names that a reader may take for the same one.

    They may differ in case, spaces and hyphens, in invisible characters such as the zero-width space, in
    compatibility forms such as full-width letters, and in Cyrillic letters that look like Latin ones.
    """
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) != "Cf")
    return "".join(seen.casefold().translate(_LIKE_LATIN).replace("_", " ").replace("-", " ").split())


def shape_faults(shape: Sequence[int]) -> list[str]:
    """Return what is wrong with the size of a 2-D image: nothing is left of a very narrow one when it is resized."""
    sides = [size for size in shape if size > 1] if len(shape) > 2 else list(shape)
    if len(sides) != 2 or max(sides) <= _LONGEST_SIDE * min(sides):
        return []
    return [
        f"the image has {' x '.join(map(str, shape))} pixels; expected sides that differ by a factor of at most"
        f" {_LONGEST_SIDE}. Is it a part of an image?"
    ]


def first_line(error: Exception) -> str:
    """Return the first line of the message of an exception."""
    return str(error).strip().split("\n")[0] or type(error).__name__
