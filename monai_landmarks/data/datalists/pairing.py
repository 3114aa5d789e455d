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

"""Pairing of images and landmarks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from monai_landmarks.data.files.csv_rows import read_rows
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.images.image_folder import find_images, image_name
from monai_landmarks.data.images.name_index import NameIndex
from monai_landmarks.data.landmarks.landmark_io import find_landmark_files, landmark_suffix
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet
from monai_landmarks.data.landmarks.row_faults import LandmarkRows, read_past_faults

__all__ = ["LandmarkCase", "Pairing", "pair_landmarks"]


@dataclass(frozen=True)
class LandmarkCase:
    """An image and its landmarks.

    Args:
        name: path of the image within the folder of images, or as given.
        image: the image file.
        landmarks: landmarks of the image.
        source: file of the landmarks.
        key: name of the image in the source; None if the source belongs to this image alone.
    """

    name: str
    image: Path
    landmarks: LandmarkSet
    source: Path
    key: str | None = None


@dataclass
class Pairing:
    """Result of :func:`pair_landmarks`.

    Args:
        cases: images with landmarks, in the order of the images.
        unlabeled: images without landmarks.
        absent: one sentence per landmark set without image, with file and row.
        faults: all other faults, one sentence each, with file and row.
    """

    cases: list[LandmarkCase] = field(default_factory=list)
    unlabeled: list[Path] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of all landmarks, in order of first occurrence."""
        return list(dict.fromkeys(name for case in self.cases for name in case.landmarks.names))


def pair_landmarks(
    images: str | os.PathLike | Iterable[str | os.PathLike],
    landmarks: str | os.PathLike,
    coordinate_system: CoordinateSystem | str | None = None,
) -> Pairing:
    """Find the landmarks of each image.

    Args:
        images: a folder of images, which is searched with its subfolders, or the images.
        landmarks: one of three. A file of many images, such as a CSV, with the path of each image, its file name, or
            its name without suffix. A folder of landmark files, each with the name of its image. A CSV with the columns
            ``image`` and ``landmarks`` that lists the landmark file of each image, relative to the CSV.
        coordinate_system: coordinate system of files that do not state their own.

    Returns:
        the pairs, and all faults.

    Raises:
        ValueError: if there is no image or no landmark file.
    """
    root = Path(images) if isinstance(images, (str, os.PathLike)) else None
    found = find_images(images)
    by_name = {image_name(file, root): file for file in found}
    pairs = _Pairs(by_name)
    sources, are_of_one = _sources(Path(landmarks), pairs.faults)
    for source, called in sources.items():
        sets, faults = read_past_faults(source, coordinate_system)
        pairs.faults += faults
        for key, landmark_set in sets.items():
            of_one = key is None or (are_of_one and len(sets) == 1)
            pairs.add(
                LandmarkCase(called if of_one else str(key), source, landmark_set, source, None if of_one else key)
            )
    pairs.faults += [f"{by_name[name]}: {fault}" for name in pairs.cases if (fault := found[by_name[name]])]
    return Pairing(
        cases=[replace(pairs.cases[name], name=name, image=by_name[name]) for name in by_name if name in pairs.cases],
        unlabeled=[file for name, file in by_name.items() if name not in pairs.cases],
        absent=pairs.absent,
        faults=pairs.faults,
    )


class _Pairs:
    """Collects the landmarks of images by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.cases: dict[str, LandmarkCase] = {}
        self.absent: list[str] = []
        self.faults: list[str] = []
        self._index = NameIndex(names)
        self._rows: dict[Path, LandmarkRows] = {}

    def add(self, case: LandmarkCase) -> None:
        """Add landmarks to the image that their file or table names."""
        found = self._index.find(case.name)
        if not found and case.key is None and case.landmarks.image:  # the file may state the name of its image
            found = self._index.find(case.landmarks.image)
        if not found and case.key is None:
            self.absent.append(f"{case.source}: no image has this name; expected the name of an image.")
        elif not found:
            self.absent.append(f"{self._where(case)}: {case.name!r} is not among the images.")
        elif len(found) > 1:
            self.faults.append(f"{self._where(case)}: {case.name!r} fits more than one image: {', '.join(found)}.")
        elif found[0] in self.cases:
            other = self._where(self.cases[found[0]])
            self.faults.append(f"{self._where(case)}: {other} holds landmarks of the same image, {found[0]}.")
        else:
            self.cases[found[0]] = case

    def _where(self, case: LandmarkCase) -> str:
        return self._rows.setdefault(case.source, LandmarkRows(case.source)).where(case.key)


def _sources(landmarks: Path, faults: list[str]) -> tuple[dict[Path, str], bool]:
    """Return the landmark files with the names of their images, and whether each file belongs to one image."""
    if landmarks.is_dir():
        found = find_landmark_files(landmarks)
        if not found:
            raise ValueError(f"{landmarks}: no landmark file in it.")
        return {file: file.relative_to(landmarks).as_posix()[: -len(suffix)] for file, suffix in found.items()}, True
    listed = _listed(landmarks)
    if listed is None:
        return {landmarks: landmarks.name[: -len(landmark_suffix(landmarks) or "")]}, False
    sources: dict[Path, str] = {}
    for line, image, file in listed:
        if file in sources:
            faults.append(f"{landmarks}: line {line}: {file} is the landmark file of {sources[file]!r} already.")
        elif not file.is_file():
            faults.append(f"{landmarks}: line {line}: there is no file {file}.")
        else:
            sources[file] = image
    return sources, True


def _listed(path: Path) -> list[tuple[int, str, Path]] | None:
    """Return line, image and landmark file of each row of a table of landmark files; None for any other file."""
    if not path.name.lower().endswith(".csv"):
        return None
    with naming_file(path):
        try:
            (_, header), *rows = read_rows(path)
        except ValueError:  # the reader of landmarks reports an empty or malformed table
            return None
        columns: Mapping[str, int] = {name.lower(): i for i, name in enumerate(header)}
        if not {"image", "landmarks"} <= set(columns):
            return None
        short = [line for line, cells in rows if len(cells) != len(header)]
        if short:
            raise ValueError(f"line {short[0]}: expected {len(header)} columns ({','.join(header)}).")
    return [(line, cells[columns["image"]], path.parent / cells[columns["landmarks"]]) for line, cells in rows]
