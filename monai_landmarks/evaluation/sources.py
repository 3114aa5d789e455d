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

"""The landmarks of many images, from whatever holds them, in one space with those they are compared to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data import (
    CoordinateSystem,
    LandmarkSet,
    NameIndex,
    image_stem,
    landmark_suffix,
    load_landmark_datalist,
    load_landmark_definition,
    read_item_landmarks,
)
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import read_text
from monai_landmarks.data.images.image_files import has_spacing, read_header
from monai_landmarks.data.images.image_folder import find_images
from monai_landmarks.data.landmarks.landmark_io import find_landmark_files, read_landmark_sets
from monai_landmarks.spaces import picture_affine

__all__ = ["ImageGeometry", "ImageLandmarks", "in_one_space", "landmark_files", "match_landmarks", "read_truth"]

# what is written beside predictions and holds no points
_NO_LANDMARKS = ("metrics.csv", "errors_per_landmark.csv", "errors_per_image.csv")


class ImageGeometry:
    """Where the pixels of an image lie in the world, as far as it is known.

    Args:
        image: the image file, which is read when its affine is asked for.
        spacing: pixel size in mm, for a picture, or where there is no image. 1 says that a pixel is the unit.
    """

    def __init__(self, image: Path | None = None, spacing: float | Sequence[float] | None = None) -> None:
        self.image = image
        self.spacing = spacing

    @property
    def in_pixels(self) -> bool:
        """Whether lengths are pixels: no size of a pixel is known, or it was given as 1."""
        if self.image is not None and has_spacing(self.image):
            return False
        return self.spacing is None or bool(np.all(np.asarray(self.spacing) == 1))

    def affine(self) -> np.ndarray | None:
        """Pixel index to RAS mm, 4x4; None if neither an image nor a spacing is known."""
        if self.image is not None and has_spacing(self.image):
            return read_header(self.image)[1]
        return None if self.spacing is None else picture_affine(self.spacing)


@dataclass(frozen=True)
class ImageLandmarks:
    """The landmarks of an image, and what is known of the image."""

    landmarks: LandmarkSet
    geometry: ImageGeometry


def read_truth(
    path: str | os.PathLike,
    *,
    section: str | None = None,
    images: str | os.PathLike | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: str | None = None,
) -> dict[str, ImageLandmarks]:
    """Read the true landmarks of many images.

    Args:
        path: a landmark file of many images or of one, a folder of landmark files, or a datalist.
        section: of the datalist; all of its sections if not given.
        images: folder of the images, or a datalist that names them, to know their pixel size.
        spacing: pixel size in mm of pictures, where a datalist does not say it.
        coordinate_system: of landmark files which do not state their own.

    Returns:
        the landmarks by the name of the image.

    Raises:
        ValueError: if a file is malformed, or two files hold the same image.
    """
    path = Path(path)
    if _is_datalist(path):
        return _read_datalist(path, section, spacing)
    spacings = {} if images is None else _image_spacings(Path(images), spacing)
    index = NameIndex(list(spacings))
    result = {}
    for kind in _read_kinds(path, coordinate_system).values():
        for name, landmarks in kind.items():
            if name in result:
                raise ValueError(f"{path}: holds the landmarks of {name} twice, in files of different formats.")
            found = index.find(name)
            if len(found) > 1:
                raise ValueError(f"{path}: {name!r} fits more than one image: {', '.join(found)}.")
            geometry = ImageGeometry(Path(found[0]), spacings[found[0]]) if found else ImageGeometry(None, spacing)
            result[name] = ImageLandmarks(landmarks, geometry)
    return result


def match_landmarks(
    path: str | os.PathLike, truth: Mapping[str, ImageLandmarks], coordinate_system: str | None = None
) -> tuple[dict[str, LandmarkSet], list[str]]:
    """Read predicted landmarks, and find the image that each of them belongs to.

    A folder may hold the same predictions in several formats, as that of `PredictionSaver` does. Those in the space of the
    truth are taken first, so that pixels are compared to pixels and mm to mm.

    Args:
        path: a landmark file of many images or of one, a folder of landmark files, or a datalist.
        truth: by the name of the image.
        coordinate_system: of landmark files which do not state their own.

    Returns:
        the landmarks by the names in ``truth``; and what is called by no name there.

    Raises:
        ValueError: if a file is malformed, or a name fits several images.
    """
    path, index = Path(path), NameIndex(truth)
    if _is_datalist(path):
        kinds = {"datalist": {name: item.landmarks for name, item in _read_datalist(path, None, None).items()}}
    else:
        kinds = _read_kinds(path, coordinate_system)
    in_index = {item.landmarks.coordinate_system == CoordinateSystem.INDEX for item in truth.values()}
    fits = {
        kind: in_index == {landmarks.coordinate_system == CoordinateSystem.INDEX for landmarks in sets.values()}
        for kind, sets in kinds.items()
    }
    matched: dict[str, LandmarkSet] = {}
    unknown: dict[str, str] = {}  # by the file name: a table and a file of one image may both have it
    for kind in sorted(kinds, key=lambda kind: not fits[kind]):
        taken: dict[str, str] = {}
        for name, landmarks in kinds[kind].items():
            found = index.find(name)
            if len(found) > 1:
                raise ValueError(f"{path}: {name!r} fits more than one image: {', '.join(found)}.")
            if not found:
                unknown.setdefault(image_stem(name), name)
            elif found[0] in taken:
                raise ValueError(f"{path}: {name!r} and {taken[found[0]]!r} are both {found[0]}.")
            else:
                taken[found[0]] = name
                matched.setdefault(found[0], landmarks)
    return matched, list(unknown.values())


def in_one_space(
    first: LandmarkSet, second: LandmarkSet, geometry: ImageGeometry
) -> tuple[LandmarkSet, LandmarkSet, str]:
    """Two landmark sets of an image where distances can be measured between them.

    Args:
        first: in any coordinate system.
        second: with the same names.
        geometry: of the image.

    Returns:
        both sets, 2-D where both lie in the plane z = 0, and the unit of their points: mm, or px where the size of a pixel is
        not known or is 1.

    Raises:
        ValueError: if one is in pixels and the other in the world, and nothing leads from one to the other.
    """
    indexed = [landmarks.coordinate_system == CoordinateSystem.INDEX for landmarks in (first, second)]
    if first.spatial_dims != second.spatial_dims:  # 3D Slicer's files hold 3-D points of 2-D images, too
        first, second = (landmarks.with_spatial_dims(3) for landmarks in (first, second))
    if not (all(indexed) and geometry.in_pixels):
        affine = geometry.affine() if any(indexed) else np.eye(4)
        if affine is None:
            raise ValueError(
                "some points are pixels and others mm; give the images, or the spacing of pictures, to compare them."
            )
        first, second = (landmarks.to_world(affine) for landmarks in (first, second))
    if not any(np.nan_to_num(landmarks.points[:, 2:]).any() for landmarks in (first, second)):
        first, second = (landmarks.with_spatial_dims(2) for landmarks in (first, second))
    return first, second, "px" if any(indexed) and geometry.in_pixels else "mm"


def _image_spacings(images: Path, spacing: float | Sequence[float] | None) -> dict[str, float | Sequence[float] | None]:
    """The images of a folder or a datalist, and the pixel sizes of those that are pictures."""
    if not _is_datalist(images):
        return {str(file): spacing for file in find_images(images)}
    content: dict[str, Any] = load_json(read_text(images))
    sections = [key for key, value in content.items() if isinstance(value, list)]
    return {item["image"]: item.get("spacing", spacing) for item in load_landmark_datalist(images, sections)}


def landmark_files(path: Path) -> dict[Path, str]:
    """The landmark files of a folder, or the one file, each with its suffix; without what is written beside predictions.

    Raises:
        ValueError: if there is none in the folder.
    """
    if not path.is_dir():
        return {path: landmark_suffix(path) or ""}
    files = {
        file: suffix
        for file, suffix in find_landmark_files(path).items()
        if file.name not in _NO_LANDMARKS and not file.name.endswith("_std.csv")
    }
    if not files:
        raise ValueError(f"{path}: no landmark file in it.")
    return files


def _read_kinds(path: Path, coordinate_system: str | None) -> dict[str, dict[str, LandmarkSet]]:
    """Landmark sets by what their image is called, for each table and for the files of each suffix."""
    kinds: dict[str, dict[str, LandmarkSet]] = {}
    for file, suffix in landmark_files(path).items():
        sets = read_landmark_sets(file, coordinate_system=coordinate_system)
        stem = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for key, landmarks in sets.items():
            name = stem[: len(stem) - len(suffix)] if key is None else key
            kind = suffix if key is None else str(file)
            if name in kinds.setdefault(kind, {}):
                raise ValueError(f"{file}: the landmarks of {name} are in another file, too.")
            kinds[kind][name] = landmarks
    return kinds


def _is_datalist(path: Path) -> bool:
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        content = load_json(read_text(path))
    except ValueError:
        return False
    if not isinstance(content, dict) or not isinstance(content.get("landmarks"), dict):
        return False
    return "names" in content["landmarks"]


def _read_datalist(
    path: Path, section: str | None, spacing: float | Sequence[float] | None
) -> dict[str, ImageLandmarks]:
    content: dict[str, Any] = load_json(read_text(path))
    pairs = load_landmark_definition(path)["pairs"]
    sections = [section] if section else [key for key, value in content.items() if isinstance(value, list)]
    items = load_landmark_datalist(path, sections)
    folder = os.path.commonpath([os.path.dirname(item["image"]) or "." for item in items]) if items else ""
    result = {}
    for item in items:
        landmarks = read_item_landmarks(item, pairs)
        if landmarks is None:
            continue
        result[Path(os.path.relpath(item["image"], folder)).as_posix()] = ImageLandmarks(
            landmarks, ImageGeometry(Path(item["image"]), item.get("spacing", spacing))
        )
    return result
