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

"""Which landmarks belong to which image."""

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
from monai_landmarks.data.landmarks.landmark_rows import LandmarkRows, read_past_faults
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

__all__ = ["LandmarkCase", "Pairing", "pair_landmarks"]


@dataclass(frozen=True)
class LandmarkCase:
    """An image and its landmarks.

    Args:
        name: of the image: its path within the folder of the images, or as it was given.
        image: the image file.
        landmarks: its landmarks.
        source: the file they are from.
        key: what the source calls the image; None if it is a file of this image alone.
    """

    name: str
    image: Path
    landmarks: LandmarkSet
    source: Path
    key: str | None = None


@dataclass
class Pairing:
    """Images and their landmarks, and what could not be paired; see :func:`pair_landmarks`.

    Args:
        cases: images with landmarks, in the order of the images.
        unlabeled: images without landmarks.
        absent: what landmarks there are of images that are not there, a sentence each, with file and row.
        faults: all else that is wrong, likewise.
    """

    cases: list[LandmarkCase] = field(default_factory=list)
    unlabeled: list[Path] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of all landmarks, in the order in which they are met."""
        return list(dict.fromkeys(name for case in self.cases for name in case.landmarks.names))


def pair_landmarks(
    images: str | os.PathLike | Iterable[str | os.PathLike],
    landmarks: str | os.PathLike,
    coordinate_system: CoordinateSystem | str | None = None,
) -> Pairing:
    """Find the landmarks of each image.

    Args:
        images: a folder of images, searched with the folders in it, or the images themselves.
        landmarks: one of three. A file of many images, such as a CSV, which calls them by path, name or name without
            suffix. A folder of landmark files, each named as its image but for the suffix. A CSV with the columns
            ``image`` and ``landmarks``, which names the landmark file of each image, relative to the CSV.
        coordinate_system: of files which do not state their own.

    Returns:
        the pairs, and what is wrong. Nothing stops at the first fault.

    Raises:
        ValueError: if there is no image, or no landmark file.
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
    """Collects the landmarks of images which are known by name."""

    def __init__(self, names: Iterable[str]) -> None:
        self.cases: dict[str, LandmarkCase] = {}
        self.absent: list[str] = []
        self.faults: list[str] = []
        self._index = NameIndex(names)
        self._rows: dict[Path, LandmarkRows] = {}

    def add(self, case: LandmarkCase) -> None:
        """Take landmarks of which only the name is known that their file or table gives to the image."""
        found = self._index.find(case.name)
        if not found and case.key is None and case.landmarks.image:  # a file of another name may say whose it is
            found = self._index.find(case.landmarks.image)
        if not found and case.key is None:
            self.absent.append(f"{case.source}: no image of this name; expected the file to be named as its image.")
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
    """The landmark files with the names of their images, as far as they are told; whether each is of one image."""
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
    """Line, image and landmark file of each row of a table of such files; None if the file is no such table."""
    if not path.name.lower().endswith(".csv"):
        return None
    with naming_file(path):
        try:
            (_, header), *rows = read_rows(path)
        except ValueError:  # an empty or malformed one is for the reader of landmarks to judge
            return None
        columns: Mapping[str, int] = {name.lower(): i for i, name in enumerate(header)}
        if not {"image", "landmarks"} <= set(columns):
            return None
        short = [line for line, cells in rows if len(cells) != len(header)]
        if short:
            raise ValueError(f"line {short[0]}: expected {len(header)} columns ({','.join(header)}).")
    return [(line, cells[columns["image"]], path.parent / cells[columns["landmarks"]]) for line, cells in rows]
