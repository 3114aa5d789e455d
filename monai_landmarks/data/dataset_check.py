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


"""A copy of a public benchmark held against its known counts and parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .aasce import read_aasce_part
from .image_files import read_header
from .image_folder import list_images
from .isbi2015 import read_isbi2015_part
from .landmark_io import read_landmark_table, read_landmarks
from .landmark_set import LandmarkSet
from .name_index import NameIndex
from .public_datasets import PublicDataset, public_dataset
from .safe_files import read_lines
from .verse import verse_files

__all__ = ["DatasetCheck", "DatasetPart", "check_public_dataset"]

# what parts are called where they are got in another way
_OTHER_NAMES = {"ds004470": "SNSX", "ds004471": "LHSCPD"}


class DatasetPart(NamedTuple):
    """A part of a benchmark in a copy: the images that it should have and has, and those with readable landmarks."""

    name: str
    expected: tuple[int, ...]
    images: int
    annotated: int


@dataclass(frozen=True)
class DatasetCheck:
    """What :func:`check_public_dataset` found; without faults the copy is complete."""

    dataset: PublicDataset
    parts: tuple[DatasetPart, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


class _Case(NamedTuple):
    """An image of a part, or a fault in its place; landmarks are counted where they can be read."""

    part: str
    image: bool = False
    landmarks: int | None = None
    fault: str = ""
    note: str = ""


def check_public_dataset(name: str, folder: str | os.PathLike) -> DatasetCheck:
    """Hold a copy of a public benchmark against its known counts and parts.

    All landmark files are read, and it is seen to that each has its image; images are not read, but for the headers of NIfTI
    volumes.

    Args:
        name: of the benchmark, one of :data:`monai_landmarks.data.PUBLIC_DATASETS`.
        folder: of the copy, in the official layout, which may lie anywhere below it. ISBI 2015 and AASCE may also have the
            tables that :func:`isbi2015_datalist` and :func:`aasce_datalist` read.

    Returns:
        the counts of each part, what is wrong or not as it should be, and what is worth knowing.

    Raises:
        ValueError: if there is no such benchmark or folder.
    """
    dataset, root = public_dataset(name), Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder.")
    cases: dict[str, list[_Case]] = {part: [] for part in dataset.parts}
    for case in _READERS[name](root):
        cases.setdefault(_OTHER_NAMES.get(case.part, case.part), []).append(case)
    parts, faults, notes = [], [], []
    for part, found in cases.items():
        images = sum(case.image for case in found)
        annotated = sum(case.landmarks is not None for case in found)
        expected = dataset.parts.get(part, ())
        parts.append(DatasetPart(part, expected, images, annotated))
        wrong = [case.fault for case in found if case.fault]
        if expected and images not in expected and not wrong:
            wrong = [f"{part}: {images} images; the official part has {' or '.join(map(str, expected))}."]
        faults += wrong
        notes += [case.note for case in found if case.note]
        if not expected:
            notes.append(f"{part}: no official part has this name.")
    return DatasetCheck(dataset, tuple(parts), tuple(faults), tuple(notes))


def _isbi2015(root: Path) -> Iterator[_Case]:
    for part in public_dataset("isbi2015").parts:
        try:
            for landmarks in read_isbi2015_part(root, part).values():
                yield _Case(part, True, _count(landmarks))
        except ValueError as error:
            yield _Case(part, fault=str(error))


def _aasce(root: Path) -> Iterator[_Case]:
    for part in public_dataset("aasce").parts:
        try:
            for file, fault in read_aasce_part(root, part).items():
                note = f"{part}: {file}: {fault}; aasce_datalist leaves it out." if fault else ""
                yield _Case(part, True, public_dataset("aasce").landmarks, note=note)
        except ValueError as error:
            yield _Case(part, fault=str(error))


def _hand(root: Path) -> Iterator[_Case]:
    table = min(root.rglob("all.csv"), key=lambda path: len(path.parts), default=None)
    if table is None:
        yield _Case("all.csv", fault=f"{root}: no file all.csv in it.")
        return
    try:
        sets = read_landmark_table(table, format="payer")
    except ValueError as error:
        yield _Case("all.csv", fault=str(error))
        return
    images = NameIndex(map(str, list_images(root)))
    absent = {name for name in sets if not images.find(name)}
    for name, landmarks in sets.items():
        yield _Case("all.csv", name not in absent, _count(landmarks), _wrong_number(f"{table}: {name}", landmarks, 37))
    lists = {path.parts[-2:]: path for path in sorted(root.rglob("set[123]/*.txt"))}
    for fold in ("set1", "set2", "set3"):
        for name in ("train", "test"):
            part, path = f"{fold} {name}", lists.get((fold, f"{name}.txt"))
            if path is None:
                yield _Case(part, fault=f"{root}: no list {fold}/{name}.txt in it.")
                continue
            for number in filter(None, map(str.strip, read_lines(path))):
                fault = "" if number in sets else f"{path}: image {number!r} is not in {table.name}."
                yield _Case(part, number not in absent, _count(sets[number]) if number in sets else None, fault)


def _afids(root: Path) -> Iterator[_Case]:
    for truth in sorted(root.rglob("afids_groundtruth")):
        collection = truth.parents[1]
        for path in sorted(truth.glob("sub-*/anat/*.fcsv")):
            subject = path.parents[1].name
            images = sorted((collection / subject / "anat").glob("*.nii*"))
            case = _read(collection.name, path, next(iter(images), None), "afids", 32)
            short = case.landmarks is not None and case.landmarks < 32
            yield case._replace(note=f"{path}: {case.landmarks} of 32 landmarks." if short else "")


def _verse(root: Path) -> Iterator[_Case]:
    for part, image, centroids in verse_files(root):
        if centroids is None:
            derivatives = f"derivatives/{image.parent.name}/{image.name.partition('_ct.nii')[0]}"
            yield _Case(part, True, fault=f"{image}: no centroids {derivatives}_seg-*_ctd.json.")
        else:
            yield _read(part, centroids, image, "verse")


def _mml(root: Path) -> Iterator[_Case]:
    for image in sorted(root.rglob("*_volume.nrrd")):
        path = image.with_name(image.name.replace("_volume.nrrd", "_label.npy"))
        if not path.is_file():
            yield _Case(image.parent.name, True, fault=f"{image}: no landmarks {path.name} beside it.")
            continue
        yield _read(image.parent.name, path, image, "mml", 14)
        spacing = path.with_name(path.name.replace("_label", "_spacing"))
        if not spacing.is_file():
            yield _Case(image.parent.name, fault=f"{image}: no {spacing.name} beside it.")


def _read(part: str, path: Path, image: Path | None, format: str, names: int | None = None) -> _Case:
    """A case whose landmarks have a file of their own."""
    there = image is not None and image.is_file()
    try:
        if image is not None and not there:
            raise ValueError(f"{image}: no such image, though there are landmarks {path.name}.")
        if image is None:
            raise ValueError(f"{path}: there is no image of these landmarks.")
        if ".nii" in image.name:
            read_header(image)
        landmarks = read_landmarks(path, format=format, image=image)
    except (OSError, ValueError) as error:
        return _Case(part, there, fault=str(error))
    return _Case(part, True, _count(landmarks), _wrong_number(str(path), landmarks, names))


def _count(landmarks: LandmarkSet) -> int:
    return int((~landmarks.missing).sum())


def _wrong_number(where: str, landmarks: LandmarkSet, names: int | None) -> str:
    if names is None or len(landmarks) == names:
        return ""
    return f"{where}: {len(landmarks)} landmarks; expected {names}."


_READERS: dict[str, Callable[[Path], Iterator[_Case]]] = {
    "isbi2015": _isbi2015,
    "hand": _hand,
    "aasce": _aasce,
    "afids": _afids,
    "verse": _verse,
    "mml": _mml,
}
