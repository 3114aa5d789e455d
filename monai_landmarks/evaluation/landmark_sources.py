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

"""Landmarks of many images from files, folders and datalists, and their conversion to a common space."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

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
from monai_landmarks.data.datalists.datalist_faults import other_readings
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.name_lists import some_names
from monai_landmarks.data.files.safe_files import naming_file, read_text
from monai_landmarks.data.images.image_files import has_spacing, read_header
from monai_landmarks.data.images.image_folder import find_images, image_name
from monai_landmarks.data.images.image_notes import join_notes
from monai_landmarks.data.landmarks.formats.common import OtherSystemError
from monai_landmarks.data.landmarks.landmark_io import find_landmark_files, read_landmark_sets
from monai_landmarks.spaces import in_xy_plane, picture_affine

__all__ = [
    "ImageGeometry",
    "ImageLandmarks",
    "landmark_files",
    "match_predictions",
    "read_annotations",
    "to_common_space",
]

_SAME_PLANE = 1e-3  # mm
_SAME_POINT = 0.01  # mm or pixels: tables have fewer digits than other files


class ImageGeometry:
    """Affine and pixel size of an image, as far as they are known.

    Args:
        image: image file. Its header is read when the affine is requested.
        spacing: pixel size in mm of a picture, or of an image whose file is not known. 1: lengths are in pixels.
    """

    def __init__(self, image: Path | None = None, spacing: float | Sequence[float] | None = None) -> None:
        self.image = image
        self.spacing = spacing

    @property
    def in_pixels(self) -> bool:
        """Whether lengths are in pixels: the pixel size is not known, or it was given as 1."""
        if self.image is not None and has_spacing(self.image):
            return False
        return self.spacing is None or bool(np.all(np.asarray(self.spacing) == 1))

    @property
    def picture_size(self) -> tuple[float, ...] | None:
        """Pixel size (x, y) or (x, y, z) in mm that was given. None if it is that of the file, or not known."""
        if self.in_pixels or self.spacing is None or (self.image is not None and has_spacing(self.image)):
            return None
        return tuple(np.broadcast_to(self.spacing, max(2, np.size(self.spacing))).astype(float).tolist())

    @property
    def is_flat(self) -> bool:
        """Whether nothing is known of a third axis: there is no header, and the spacing has fewer than 3 numbers."""
        return (
            not (self.image is not None and has_spacing(self.image))
            and np.size(1 if self.spacing is None else self.spacing) < 3
        )

    def affine(self) -> np.ndarray | None:
        """Return the 4x4 affine from index to RAS mm, or None if neither an image nor a spacing is known."""
        if self.image is not None and has_spacing(self.image):
            return read_header(self.image)[1]
        return None if self.spacing is None else picture_affine(self.spacing)


@dataclass(frozen=True)
class ImageLandmarks:
    """The landmarks of an image, with the geometry of the image.

    Args:
        landmarks: landmarks in the coordinate system of their file.
        geometry: affine and pixel size of the image.
    """

    landmarks: LandmarkSet
    geometry: ImageGeometry


def read_annotations(
    path: str | os.PathLike,
    *,
    section: str | None = None,
    images: str | os.PathLike | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: str | None = None,
    notes: list[str] | None = None,
) -> dict[str, ImageLandmarks]:
    """Read the annotated landmarks of many images.

    Args:
        path: landmark file of one or many images, folder of landmark files, or datalist.
        section: section of the datalist. Default: all sections.
        images: folder of the images, or a datalist that names them, from which the pixel size is read.
        spacing: pixel size in mm of pictures for which a datalist does not state it.
        coordinate_system: coordinate system of landmark files that do not state their own.
        notes: gets what is assumed about the files, such as a coordinate system that is neither stated nor given, and
            which of them are left out. By default it is a warning.

    Returns:
        Dictionary from the name of the image to its landmarks.

    Raises:
        ValueError: if a file is malformed, two files hold landmarks of the same image, a name matches several images, none
            of the images is annotated, or a section is given for anything but a datalist.
    """
    path = Path(path)
    if _is_datalist(path):
        return _read_datalist(path, section, spacing)
    if section is not None:
        raise ValueError(f"{path}: only a datalist has sections, but section {section!r} was given; leave it out.")
    spacings = {} if images is None else _image_spacings(Path(images), spacing)
    files = {_name_below(file, images): file for file in spacings}
    index = NameIndex(files)
    result = {}

    def find_image(name: str) -> Path | None:
        hits = index.find(name)
        return Path(files[hits[0]]) if len(hits) == 1 else None

    kinds, assumed = _read_kinds(path, coordinate_system, find_image)
    for kind in kinds.values():
        for name, landmarks in kind.items():
            if name in result:
                raise ValueError(
                    f"{path}: landmarks of {name} are in two files of different formats; expected one file per image."
                )
            found = index.find(name)
            if len(found) > 1:
                raise ValueError(f"{path}: {name!r} matches more than one image: {', '.join(found)}.")
            file = files[found[0]] if found else ""
            if file:
                _require_size(landmarks, file)
            geometry = ImageGeometry(Path(file), spacings[file]) if file else ImageGeometry(None, spacing)
            result[name] = ImageLandmarks(landmarks, geometry)
    if images is not None:
        _say_absent(path, images, result, notes)
    _say_assumed(assumed, result.values(), notes)
    return result


def _say_absent(
    path: Path, images: str | os.PathLike, annotated: Mapping[str, ImageLandmarks], notes: list[str] | None
) -> None:
    """Say which annotated images are not among the images, whose pixel size is then not known."""
    absent = [name for name, item in annotated.items() if item.geometry.image is None]
    if absent and len(absent) == len(annotated):
        raise ValueError(
            f"{images}: none of its images is among the {len(annotated)} of {path}; expected the same names, for example"
            f" {absent[0]}."
        )
    if absent:
        _say(f"{path}: {len(absent)} of {len(annotated)} images are not in {images} ({some_names(absent)}).", notes)


def match_predictions(
    path: str | os.PathLike,
    truth: Mapping[str, ImageLandmarks],
    coordinate_system: str | None = None,
    notes: list[str] | None = None,
) -> tuple[dict[str, LandmarkSet], list[str]]:
    """Read predicted landmarks, and match them to annotated images by name.

    A folder can hold the same predictions in several formats, as :class:`monai_landmarks.handlers.PredictionSaver`
    writes them. Files in the space of the ground truth are preferred, so that pixels are compared to pixels and mm to
    mm; then files of single images, which a person may have corrected, to tables. A note says if the others hold other
    points.

    Args:
        path: landmark file of one or many images, folder of landmark files, or datalist.
        truth: ground truth by the name of the image, from :func:`read_annotations`.
        coordinate_system: coordinate system of landmark files that do not state their own.
        notes: see :func:`read_annotations`.

    Returns:
        Dictionary from the names in ``truth`` to predicted landmarks, and the names of predictions that match no image.

    Raises:
        ValueError: if a file is malformed, a name matches several images, or two predictions match the same image: of
            one format, with different points.
    """
    path, index = Path(path), NameIndex(truth)
    kinds: dict[str | Path, dict[str, LandmarkSet]]
    if _is_datalist(path):
        kinds = {path: {name: item.landmarks for name, item in _read_datalist(path, None, None).items()}}
        assumed: list[tuple[str, str]] = []
    else:

        def find_image(name: str) -> Path | None:
            hits = index.find(name)
            return truth[hits[0]].geometry.image if len(hits) == 1 else None

        kinds, assumed = _read_kinds(path, coordinate_system, find_image)
    in_index = {item.landmarks.coordinate_system == CoordinateSystem.INDEX for item in truth.values()}
    fits = {
        kind: in_index == {landmarks.coordinate_system == CoordinateSystem.INDEX for landmarks in sets.values()}
        for kind, sets in kinds.items()
    }
    matched: dict[str, LandmarkSet] = {}
    kind_of: dict[str, str | Path] = {}
    others: dict[tuple[str | Path, str | Path], list[str]] = {}
    unknown: dict[str, str] = {}  # by file name, because a table and a landmark file may name the same image
    for kind in sorted(kinds, key=lambda kind: (not fits[kind], isinstance(kind, Path))):
        taken: dict[str, str] = {}
        for name, landmarks in kinds[kind].items():
            found = index.find(name)
            if len(found) > 1:
                raise ValueError(f"{path}: {name!r} matches more than one image: {', '.join(found)}.")
            if not found:
                unknown.setdefault(image_stem(name), name)
                continue
            if found[0] in taken:
                raise ValueError(f"{path}: {name!r} and {taken[found[0]]!r} match the same image {found[0]}.")
                continue
            image, taken[found[0]] = found[0], name
            if image not in matched:
                matched[image], kind_of[image] = landmarks, kind
            elif _differ(landmarks, matched[image], truth[image].geometry):
                others.setdefault((kind, kind_of[image]), []).append(image)
    for (kind, chosen), differing in others.items():
        if isinstance(kind, Path) and isinstance(chosen, Path) and kind.suffix == chosen.suffix:
            raise ValueError(
                f"{kind} and {chosen} hold different points of {some_names(differing)}; expected one table."
            )
        why = "which a person may have corrected" if fits[kind] == fits[chosen] else "in the space of the ground truth"
        _say(
            f"{path}: the points of {_kind_text(chosen)} are taken, {why}; those of {_kind_text(kind)} are others in"
            f" {len(differing)} images ({some_names(differing)}).",
            notes,
        )
    _say_assumed(assumed, (ImageLandmarks(one, truth[name].geometry) for name, one in matched.items()), notes)
    return matched, list(unknown.values())


def _kind_text(kind: str | Path) -> str:
    return kind.name if isinstance(kind, Path) else f"the {kind} files"


def _differ(first: LandmarkSet, second: LandmarkSet, geometry: ImageGeometry) -> bool:
    """Return whether two landmark sets of an image hold different points, beyond the digits of their files."""
    if set(first.names) != set(second.names):
        return True
    second = second.reorder(first.names)
    one, other = sorted((first, second), key=lambda one: one.coordinate_system == CoordinateSystem.INDEX)
    in_index = [each.coordinate_system == CoordinateSystem.INDEX for each in (one, other)]
    if in_index[0] == in_index[1] or geometry.affine() is not None:
        (one, other), _ = to_common_space([one, other], geometry)
        places, others = one.points, other.points
    else:  # the pixel size is not known, so the same points of a picture differ by a factor along each axis
        places, pixels = one.to("LPS").points[:, :2], other.points[:, :2]
        others = pixels * np.nansum(places * pixels, axis=0) / np.maximum(np.nansum(pixels**2, axis=0), 1e-9)
    return not np.allclose(places, others, rtol=0, atol=_SAME_POINT, equal_nan=True)


def to_common_space(
    sets: Sequence[LandmarkSet], geometry: ImageGeometry
) -> tuple[list[LandmarkSet], Literal["mm", "px"]]:
    """Convert landmark sets of an image to one space, in which distances between them can be measured.

    Args:
        sets: landmarks with the same names, each in any coordinate system.
        geometry: affine and pixel size of the image.

    Returns:
        The sets, and the unit of their points: ``"mm"``, or ``"px"`` where the pixel size is not known or is 1. The
        sets are 2-D where all points lie in the plane z = 0.

    Raises:
        ValueError: if some sets are in pixels and others in mm, and the pixel size is not known, or points are voxels of
            a volume, but only the pixel size of a picture is known.
    """
    sets = list(sets)
    indexed = [landmarks.coordinate_system == CoordinateSystem.INDEX for landmarks in sets]
    # files of 3D Slicer hold 3-D points, also for 2-D images
    if len({landmarks.spatial_dims for landmarks in sets}) > 1:
        plane = _common_plane(sets)
        sets = [
            landmarks.with_spatial_dims(3, 0.0 if is_index else plane) for landmarks, is_index in zip(sets, indexed)
        ]
    if not (all(indexed) and geometry.in_pixels):
        affine = geometry.affine() if any(indexed) else np.eye(4)
        if affine is None:
            raise ValueError(
                "some points are in pixels and others in mm; give the images, or the spacing of pictures, to compare them."
            )
        if geometry.is_flat and any(_has_depth(one) for one, is_index in zip(sets, indexed) if is_index):
            raise ValueError("the points are voxels of a volume, but a spacing of pictures has no z; give the images.")
        if not in_xy_plane(affine):  # a coronal or sagittal slice: in the world, its 2-D points have a z
            sets = [landmarks.with_spatial_dims(3) for landmarks in sets]
        sets = [landmarks.to_world(affine) for landmarks in sets]
    if not any(map(_has_depth, sets)):
        sets = [landmarks.with_spatial_dims(2) for landmarks in sets]
    return sets, "px" if any(indexed) and geometry.in_pixels else "mm"


def _has_depth(landmarks: LandmarkSet) -> bool:
    """Return whether any point lies outside of the plane z = 0."""
    return bool(np.nan_to_num(landmarks.points[:, 2:]).any())


def _common_plane(sets: Sequence[LandmarkSet]) -> float:
    """Return the z of 2-D points in mm beside 3-D ones: that of all 3-D points if it is the same, as in a slice, or 0."""
    solid = [landmarks for landmarks in sets if landmarks.spatial_dims == 3]
    heights = np.concatenate(
        [landmarks.points[:, 2] for landmarks in solid if landmarks.coordinate_system != CoordinateSystem.INDEX] or [[]]
    )
    heights = heights[np.isfinite(heights)]
    return float(heights.mean()) if len(heights) and np.ptp(heights) < _SAME_PLANE else 0.0


def _image_spacings(images: Path, spacing: float | Sequence[float] | None) -> dict[str, float | Sequence[float] | None]:
    """Return the images of a folder or a datalist, each with the pixel size to use if it is a picture."""
    if not _is_datalist(images):
        return {str(file): spacing for file in find_images(images)}
    content: dict[str, Any] = load_json(read_text(images))
    sections = [key for key, value in content.items() if isinstance(value, list)]
    return {item["image"]: item.get("spacing", spacing) for item in load_landmark_datalist(images, sections)}


def _name_below(file: str, images: str | os.PathLike | None) -> str:
    """Return the path of an image in the folder of the images, or as a datalist has it."""
    folder = Path(images or "")
    return image_name(Path(file), folder) if folder.is_dir() and Path(file).is_relative_to(folder) else file


def landmark_files(path: Path) -> dict[Path, str]:
    """Return the landmark files of a folder, see :func:`find_landmark_files`, or a single file, each with its suffix.

    Raises:
        ValueError: if a folder has no landmark file.
    """
    if not path.is_dir():
        return {path: landmark_suffix(path) or ""}
    files = find_landmark_files(path)
    if not files:
        raise ValueError(f"{path}: no landmark file in it.")
    return files


def _read_kinds(
    path: Path, coordinate_system: str | None, find_image: Callable[[str], Path | None]
) -> tuple[dict[str | Path, dict[str, LandmarkSet]], list[tuple[str, str]]]:
    """Read landmark sets, by kind of source and by the name of their image.

    A kind is a table, called by its path, or all files of single images with one suffix. Also return the files whose
    coordinate system is assumed, each with a sentence.
    """
    kinds: dict[str | Path, dict[str, LandmarkSet]] = {}
    assumed: list[tuple[str, str]] = []
    for file, suffix in landmark_files(path).items():
        assumptions: list[str] = []
        read = partial(read_landmark_sets, file, find_image=find_image, assumptions=assumptions)
        try:
            sets = read(coordinate_system=coordinate_system)
        except ValueError as error:
            if not isinstance(error.__cause__, OtherSystemError):
                raise
            sets = read()  # the file states its own
        assumed += [(str(file), sentence) for sentence in assumptions]
        stem = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for key, landmarks in sets.items():
            name = stem[: len(stem) - len(suffix)] if key is None else key
            kind = suffix if key is None else file
            if name in kinds.setdefault(kind, {}):
                raise ValueError(f"{file}: landmarks of {name} are in another file, too; expected one file per image.")
            kinds[kind][name] = landmarks
    return kinds, assumed


def _say_assumed(assumed: list[tuple[str, str]], images: Iterable[ImageLandmarks], notes: list[str] | None) -> None:
    """Add what is assumed to the notes, or warn of it, and say if the points then lie outside of their images."""
    if not assumed:
        return
    readings = Counter(system for image in images for system in _other_readings(image))
    more = "".join(
        f" Read as {system} instead, all points of {count} images would lie inside their image; now some are outside."
        for system, count in readings.items()
    )
    for sentence in join_notes(assumed):
        _say(sentence + more, notes)


def _say(sentence: str, notes: list[str] | None) -> None:
    """Add a sentence to the notes, or warn of it."""
    if notes is None:
        warnings.warn(sentence)
    else:
        notes.append(sentence)


def _other_readings(image: ImageLandmarks) -> list[CoordinateSystem]:
    file = image.geometry.image
    if file is None or not has_spacing(file) or not file.exists():
        return []
    return other_readings(image.landmarks, *read_header(file))


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


def _require_size(landmarks: LandmarkSet, image: str) -> None:
    """Raise an error if the landmark file states another size than that of the image, where there is an image."""
    if landmarks.image_size is not None and os.path.exists(image):
        with naming_file(image):
            landmarks.require_image_size(read_header(image)[0])


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
        _require_size(landmarks, item["image"])
        result[Path(os.path.relpath(item["image"], folder)).as_posix()] = ImageLandmarks(
            landmarks, ImageGeometry(Path(item["image"]), item.get("spacing", spacing))
        )
    return result
