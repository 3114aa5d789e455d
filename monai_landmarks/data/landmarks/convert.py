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

"""Conversion of landmark files between formats."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from monai_landmarks.data.files.kept_files import KeptFiles
from monai_landmarks.data.images.image_files import ensure_pixel_size, image_stem, read_header
from monai_landmarks.data.images.image_folder import find_images, image_name
from monai_landmarks.data.images.image_notes import image_notes, join_notes
from monai_landmarks.data.images.name_index import NameIndex, beside

from .landmark_io import (
    LandmarkFormat,
    find_landmark_files,
    format_to_write,
    landmark_format,
    landmark_suffix,
    leave_out_predictions,
    read_landmark_sets,
    write_landmark_table,
    write_landmarks,
)
from .landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["Conversion", "ConversionFault", "ConvertedFile", "convert_landmarks"]

# ends of the names of landmark files and of their images: VerSe, nnU-Net, mandibular molars
_IMAGE_ENDINGS = (("_seg-subreg_ctd", "_ct"), ("_seg-vert_ctd", "_ct"), ("", "_0000"), ("", "_volume"))
_PLANE_TOLERANCE = 1e-3  # largest distance in pixels of a point from the plane of a 2-D image


class ConvertedFile(NamedTuple):
    """A file that was written, and the images whose landmarks it holds."""

    path: Path
    images: tuple[str, ...]


class ConversionFault(NamedTuple):
    """Why landmarks of a file were not written: what is wrong, where (file, row), and what to do."""

    source: Path
    message: str


@dataclass(frozen=True)
class Conversion:
    """Result of :func:`convert_landmarks`: the files that were written, all faults, and copies of replaced files."""

    written: tuple[ConvertedFile, ...]
    faults: tuple[ConversionFault, ...]
    copies: tuple[Path, ...] = ()


class _Case(NamedTuple):
    """Landmarks of one image."""

    source: Path
    stem: str  # path of the new file in a folder, without suffix
    key: str  # name in a table
    landmarks: LandmarkSet
    image: Path | None


def convert_landmarks(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    source_format: str | None = None,
    destination_format: str | None = None,
    *,
    images: str | os.PathLike | Iterable[str | os.PathLike] | None = None,
    spacing: float | Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    source_coordinate_system: CoordinateSystem | str | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
) -> Conversion:
    """Convert landmark files between formats: from a file, a table of many images or a folder to any of these.

    Points keep their coordinate system if the new format can hold it. Between pixel index and world they are converted
    with the affine of their image. A file is written completely or not at all. A folder gets all files that can be
    converted, even if others have faults; a single file is written only if there is no fault. Existing files are
    replaced, but never a source. If a file had other contents, a copy is kept with ``.bak`` after its name. Scores,
    left-right pairs and missing landmarks are kept if the new format has a place for them; see the module of the format.
    A warning says where a conversion between pixel index and world had a choice, or where viewers have another pixel size.

    Args:
        source: a file, or a folder, which is searched with its subfolders.
        destination: a file if its name ends in the suffix of a format; otherwise a folder, which gets one file per
            image.
        source_format: name of the format; see :mod:`monai_landmarks.data.landmarks.landmark_io`. By default the suffix
            and the content of each file decide.
        destination_format: name of the format. Required for a folder, and for suffixes of several formats such as
            ``.json``.
        images: a folder of images, or the images, found by name. Required between pixel index and world, and for
            formats that store something about the image. A single image belongs to a single set whatever its name.
        spacing: pixel size in mm of images whose format does not store it, such as PNG, one number or (x, y).
            Default: 1.
        names: names of the points, in the order of the file, for formats without names. Default: 1, 2, ...
        source_coordinate_system: coordinate system of a table that does not state its own.
        coordinate_system: coordinate system of the result. By default that of the source, or one that the new format
            can hold.

    Returns:
        the files that were written, the faults, each with its file, and the copies of replaced files.

    Raises:
        FileNotFoundError: if the source does not exist.
        ValueError: if a format is unknown or is required and not given, the images do not exist, or the spacing has more
            than two values.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "points.csv").write_text("image,landmark,x,y\\n1.png,a,10,20\\n2.png,a,30,40\\n")
        >>> result = convert_landmarks(folder / "points.csv", folder / "new", destination_format="labelme")
        >>> [file.path.name for file in result.written], result.faults
        (['1.json', '2.json'], ())
    """
    source, destination = Path(source), Path(destination)
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder.")
    is_file = not destination.is_dir() and bool(_suffix(destination, destination_format))
    if is_file:
        target = format_to_write(destination, destination_format)
    elif destination_format is not None:
        target = landmark_format(destination_format)
    else:
        raise ValueError(
            f"{destination}: the name has no suffix of a landmark format, so it is a folder; give destination_format."
        )
    if target.writer is None and target.table_writer is None:
        raise ValueError(f"files of format {target.name!r} can be read, but not written.")
    wanted = None if coordinate_system is None else CoordinateSystem(coordinate_system)
    known = _Images(images, spacing)
    files = dict(_source_files(source, source_format))
    faults: list[ConversionFault] = []
    cases: list[_Case] = []
    for path, stem in files.items():
        with _collecting(faults, path):
            # VerSe files can only be read with their image
            image = known.find(_image_names(stem), alone=len(files) == 1)
            assumptions: list[str] = []
            sets = read_landmark_sets(
                path,
                format=source_format,
                names=names,
                image=image,
                coordinate_system=source_coordinate_system,
                find_image=lambda name: known.find(_image_names(name), alone=False),
                assumptions=assumptions,
            )
            for sentence in assumptions:  # there is another option for the coordinate system of the destination
                warnings.warn(f"{path}: {sentence.replace('--coordinate', '--source-coordinate')}")
            alone = len(files) == len(sets) == 1
            for name, landmarks in sets.items():
                with _collecting(faults, path):
                    case = _case(path, stem, name, landmarks, known, alone)
                    if case.image is not None and landmarks.image_size is not None:
                        landmarks.require_image_size(known.geometry(case.image)[0])
                    cases.append(_in_space(case, wanted, target, known))
    for sentence in join_notes(known.notes()):
        warnings.warn(sentence)
    if not cases and not faults:
        faults.append(ConversionFault(source, f"{source}: it holds no landmarks."))
    sources = {path.resolve() for path in files}
    written: list[ConvertedFile] = []
    with KeptFiles() as kept:
        if not is_file:
            written = _write_files(destination, cases, target, sources, faults)
        elif not faults:
            written = _write_file(source, destination, cases, target, sources, faults)
    return Conversion(tuple(written), tuple(faults), tuple(kept.copies))


def _suffix(path: Path, format: str | None) -> str:
    """Return the suffix of a landmark file, that of the given format if it fits; empty if there is none."""
    if format is not None:
        suffix = landmark_format(format, path).suffix
        if path.name.lower().endswith(suffix):
            return suffix
    return landmark_suffix(path) or ""


def _source_files(source: Path, format: str | None) -> Iterator[tuple[Path, str]]:
    """Yield landmark files, each with its path below the source without suffix."""
    if not source.is_dir():
        yield source, _cut(source.name, _suffix(source, format) or source.suffix)
        return
    files, notes = leave_out_predictions(find_landmark_files(source, format))
    for note in notes:
        warnings.warn(note)
    for path, suffix in files.items():
        yield path, _cut(path.relative_to(source).as_posix(), suffix)


def _cut(name: str, suffix: str) -> str:
    return name[: len(name) - len(suffix)]


def _case(path: Path, stem: str, name: str | None, landmarks: LandmarkSet, known: _Images, alone: bool) -> _Case:
    """Return the landmarks of a file with the image they belong to. ``name`` is the name of the image in a table."""
    stated = name or (PurePosixPath(landmarks.image.replace("\\", "/")).name if landmarks.image else "")
    named = [] if name is not None or not landmarks.image else [beside(stem, landmarks.image)]
    image = known.find([*_image_names(stem if name is None else name), *named], alone)
    if name is not None:
        return _Case(path, _safe_stem(name), name, landmarks, image)
    return _Case(path, stem, known.key(image) if image else stated or stem, landmarks, image)


def _image_names(name: str) -> list[str]:
    """Return names that the image of a landmark file or of a row may have."""
    return [name, *(_cut(name, old) + new for old, new in _IMAGE_ENDINGS if name.endswith(old))]


def _safe_stem(name: str) -> str:
    """Return the stem of the file for image ``name``, as a path that stays inside the destination folder."""
    parts = name.replace("\\", "/").split("/")
    if ":" in name or any(part in ("", ".", "..") for part in parts):
        parts = parts[-1:]  # an absolute path, or one with steps up
    stem = image_stem(parts[-1])
    if stem.strip(". ") == "" or ":" in stem or not name.isprintable():
        raise ValueError(f"image {name!r} cannot be the name of a file.")
    return "/".join([*parts[:-1], stem])


class _Images:
    """Image files, found by name."""

    def __init__(
        self, images: str | os.PathLike | Iterable[str | os.PathLike] | None, spacing: float | Sequence[float] | None
    ) -> None:
        self._spacing = ensure_pixel_size(spacing)
        self._keys: dict[Path, str] = {}
        self._files: dict[str, set[Path]] = {}
        self._index = NameIndex([])
        self._notes: dict[Path, list[str]] = {}
        if images is None:
            return
        root = Path(images) if isinstance(images, (str, os.PathLike)) else None
        files = [root] if root is not None and root.is_file() else find_images(images)
        for file in files:
            inside = image_name(file, root) if root is not None and root.is_dir() else file.name
            self._keys[file] = inside
            self._files.setdefault(inside, set()).add(file)
        self._index = NameIndex(self._keys.values())

    def find(self, names: Iterable[str], alone: bool) -> Path | None:
        """Return the image with the first matching name, or the only image if ``alone`` is true."""
        if alone and len(self._keys) == 1:
            return next(iter(self._keys))
        meant = next((hits for name in names if name and (hits := self._index.find(name))), [])
        found = {file for key in meant for file in self._files[key]}
        if len(found) > 1:
            raise ValueError(f"several images have this name, for example {sorted(map(str, found))[:2]}; expected one.")
        return next(iter(found), None)

    def key(self, image: Path) -> str:
        """Return the path of an image relative to its folder."""
        return self._keys[image]

    def geometry(self, image: Path) -> tuple[tuple[int, ...], np.ndarray]:
        """Return spatial shape and affine of an image."""
        return read_header(image, self._spacing)

    def add_notes(self, image: Path) -> None:
        """Keep the notes on an image with which points are converted between pixel index and world."""
        if image not in self._notes:
            self._notes[image] = image_notes(image, spacing=self._spacing or 1.0)

    def notes(self) -> list[tuple[str, str]]:
        """Return the kept notes, each with the name of its image."""
        return [(self.key(image), note) for image, notes in self._notes.items() for note in notes]


def _in_space(case: _Case, wanted: CoordinateSystem | None, target: LandmarkFormat, known: _Images) -> _Case:
    """Convert the points of a case to the wanted coordinate system, or to one that the format can hold."""
    system = case.landmarks.coordinate_system
    needed = {"index": CoordinateSystem.INDEX, "world": CoordinateSystem.RAS}.get(target.space or "", system)
    is_index = system == CoordinateSystem.INDEX
    if wanted is None:
        wanted = system if is_index == (needed == CoordinateSystem.INDEX) else needed
    if is_index == (wanted == CoordinateSystem.INDEX):
        return case._replace(landmarks=case.landmarks.to(wanted))
    if case.image is None:
        raise ValueError(
            f"{case.source}: the points of {case.key!r} are in {system} and cannot be converted to {wanted} without the image;"
            " no image has this name; give the images."
        )
    shape, affine = known.geometry(case.image)
    _require_dims(case, shape)
    known.add_notes(case.image)
    moved = _to_world(case.landmarks, affine).to(wanted) if is_index else _to_index(case, shape, affine)
    return case._replace(landmarks=moved)


def _require_dims(case: _Case, shape: tuple[int, ...]) -> None:
    """Raise an error for 2-D points of a volume, which would all lie in its first slice."""
    if case.landmarks.spatial_dims == 2 and len(shape) > 2 and shape[2] > 1:
        raise ValueError(f"{case.source}: the points of {case.key!r} are 2-D, but the image has the shape {shape}.")


def _to_world(landmarks: LandmarkSet, affine: np.ndarray) -> LandmarkSet:
    if landmarks.spatial_dims == 3:
        return landmarks.to_world(affine)
    # a slice may lie anywhere in the world; its points stay 2-D only in the plane z = 0
    world = landmarks.with_spatial_dims(3).to_world(affine)
    return world if np.nan_to_num(world.points[:, 2]).any() else world.with_spatial_dims(2)


def _to_index(case: _Case, shape: tuple[int, ...], affine: np.ndarray) -> LandmarkSet:
    index = case.landmarks.to_index(affine)
    is_slice = len(shape) == 2 or shape[2] == 1  # a radiograph in DICOM is a volume of one slice
    if is_slice and index.spatial_dims == 3:
        for name, k in zip(index.names, index.points[:, 2]):
            if abs(k) > _PLANE_TOLERANCE:
                raise ValueError(
                    f"{case.source}: landmark {name!r} of {case.key!r} is {k:g} pixels off the image's plane."
                )
        return index.with_spatial_dims(2, plane=None)
    return index


def _write_files(
    folder: Path, cases: list[_Case], target: LandmarkFormat, sources: set[Path], faults: list[ConversionFault]
) -> list[ConvertedFile]:
    """Write one file per image."""
    written: dict[Path, ConvertedFile] = {}
    for case in cases:
        file = folder / f"{case.stem}{target.suffix}"
        with _collecting(faults, case.source):
            if file in written:
                raise ValueError(
                    f"{case.source}: {file} was written for another image already; expected distinct names."
                )
            _write(file, [case], target, sources)
            written[file] = ConvertedFile(file, (case.key,))
    return list(written.values())


def _write_file(
    source: Path,
    file: Path,
    cases: list[_Case],
    target: LandmarkFormat,
    sources: set[Path],
    faults: list[ConversionFault],
) -> list[ConvertedFile]:
    """Write one file for all images."""
    with _collecting(faults, source):
        if len(cases) > 1 and target.table_writer is None:
            raise ValueError(
                f"{source}: {len(cases)} images, but a file of format {target.name!r} holds one; give a folder."
            )
        twice = [key for key, count in Counter(case.key for case in cases).items() if count > 1]
        if twice:
            raise ValueError(f"{source}: image {twice[0]!r} has landmarks more than once; expected distinct images.")
        _write(file, cases, target, sources)
        return [ConvertedFile(file, tuple(case.key for case in cases))]
    return []


def _write(file: Path, cases: list[_Case], target: LandmarkFormat, sources: set[Path]) -> None:
    if file.resolve() in sources:
        raise ValueError(f"{file}: this file is a source; give another destination.")
    if len(cases) == 1 and target.writer is not None:
        write_landmarks(file, cases[0].landmarks, format=target.name, image=cases[0].image)
        return
    sets = {case.key: replace(case.landmarks, image=case.key) for case in cases}
    images = {case.key: case.image for case in cases if case.image is not None}
    write_landmark_table(file, sets, format=target.name, images=images)


@contextmanager
def _collecting(faults: list[ConversionFault], source: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        faults.append(ConversionFault(source, str(error)))
