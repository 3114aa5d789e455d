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
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from monai_landmarks.data.files.csv_rows import TableRows, cell_text
from monai_landmarks.data.files.safe_files import naming_file, open_text, path_fault, printable
from monai_landmarks.data.images.image_folder import find_images, image_name
from monai_landmarks.data.images.image_notes import join_notes
from monai_landmarks.data.images.name_index import NameIndex, beside
from monai_landmarks.data.landmarks.landmark_io import (
    find_foreign_files,
    find_landmark_files,
    landmark_suffix,
    leave_out_predictions,
    needs_image,
)
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet, join_landmark_sets
from monai_landmarks.data.landmarks.row_faults import LandmarkRows, read_past_faults

__all__ = ["LandmarkCase", "Pairing", "pair_landmarks"]

# what follows the name of the image in names of landmark files: scan_lm_Pred_U, scan-landmarks, scan_F
_WORD = re.compile(
    r"[_\-. ](lms?|landmarks?|pred(ict(ed|ions?))?s?|points?|pts|fid(ucial)?s?|markups?|keypoints?|annotations?|F)(?![a-z])",
    flags=re.IGNORECASE,
)
# 3D Slicer names a point list F, and the next ones F_1, F_2
_USUAL_NAME = re.compile(r"(F|landmarks?|points?|fiducials?|markups?)([_\- ]\d+)?", flags=re.IGNORECASE)


@dataclass(frozen=True)
class LandmarkCase:
    """An image and its landmarks.

    Args:
        name: path of the image within the folder of images, or as given.
        image: the image file.
        landmarks: landmarks of the image.
        source: file of the landmarks.
        key: name of the image in the source; None if the source belongs to this image alone.
        parts: cases of the single files, if the landmarks are joined from several files.
        image_fault: why the image cannot be read, if this is known without reading it; empty otherwise.
    """

    name: str
    image: Path
    landmarks: LandmarkSet
    source: Path
    key: str | None = None
    parts: tuple[LandmarkCase, ...] = ()
    image_fault: str = ""

    @property
    def is_file(self) -> bool:
        """Whether the landmarks are those of one file, which belongs to this image alone and can be read without it."""
        return self.key is None and not self.parts and not needs_image(self.source)

    def origin(self, landmark: str | None) -> tuple[Path, str | None]:
        """Return the file that holds a landmark, and the name of the image in it."""
        part = next((part for part in self.parts if landmark in part.landmarks.names), self)
        return part.source, part.key


@dataclass
class Pairing:
    """Result of :func:`pair_landmarks`.

    Args:
        cases: images with landmarks, in the order of the images.
        unlabeled: images without landmarks.
        absent: one sentence per landmark set without image, with file and row.
        faults: all other faults, one sentence each, with file and row.
        notes: files that are joined, and other findings that are no faults.
        is_assumed: whether something is assumed about a landmark file, such as its coordinate system.
    """

    cases: list[LandmarkCase] = field(default_factory=list)
    unlabeled: list[Path] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_assumed: bool = False

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

    A landmark file in a folder belongs to the image with its name. Otherwise it belongs to the image whose name begins
    its own, if the rest is a word for landmarks (``scan_lm_Pred_U.mrk.json`` of ``scan.nii.gz``), or if there are
    several such files with different landmarks, which are joined (``scan_U.json`` and ``scan_L.json``). Otherwise it
    belongs to the only image of its folder, as in 3D Slicer's layout ``sub-01/ct.nii.gz`` and ``sub-01/F.mrk.json``.
    Where a name has folders, those of the image must not contradict them; see :class:`NameIndex`. If a file of one image
    states the name of another image than the file has, this is a fault.

    Args:
        images: a folder of images, which is searched with its subfolders, or the images.
        landmarks: one of three. A file of many images, such as a CSV, with the path of each image, its file name, or
            its name without suffix. A folder of landmark files. A CSV with the columns ``image`` and ``landmarks`` that
            lists the landmark file of each image, relative to the CSV; files of one image with different landmarks are
            joined.
        coordinate_system: coordinate system of files that do not state their own.

    Returns:
        the pairs, and all faults.

    Raises:
        ValueError: if there is no image or no landmark file.
    """
    root = Path(images) if isinstance(images, (str, os.PathLike)) else None
    found = find_images(images)
    # an image whose name or kind cannot be used is left out; one whose content is at fault is kept, and checked
    left_out = {file: fault for file in found if (fault := path_fault(file, root or file.parent))}
    by_name = {image_name(file, root): file for file in found if file not in left_out}
    landmarks = Path(landmarks)
    pairs = _Pairs(by_name, root, landmarks)
    sources, are_of_one = _sources(landmarks, pairs.faults, pairs.notes)
    assumed: list[tuple[str, str]] = []
    tables: dict[Path, dict[str | None, LandmarkSet]] = {}
    for source in sources:
        assumptions: list[str] = []
        tables[source], faults = read_past_faults(source, coordinate_system, pairs.find_image, assumptions)
        assumed += [(str(source), sentence) for sentence in assumptions]
        pairs.faults += faults
    pairs.add_names([*sources.values(), *(key for sets in tables.values() for key in sets if key is not None)])
    for source, sets in tables.items():
        for key, landmark_set in sets.items():
            of_one = key is None or (are_of_one and len(sets) == 1)
            name = sources[source] if of_one else str(key)
            pairs.add(LandmarkCase(name, source, landmark_set, source, None if of_one else key), key)
        pairs.notes += pairs.rows_of(source).notes() if sets else []
    pairs.finish()
    cases = [
        replace(pairs.cases[name], name=name, image=file, image_fault=found[file])
        for name, file in by_name.items()
        if name in pairs.cases
    ]
    pairs.faults += [f"{case.image}: {case.image_fault}" for case in cases if case.image_fault]
    return Pairing(
        cases=cases,
        unlabeled=[file for name, file in by_name.items() if name not in pairs.cases],
        absent=pairs.absent,
        faults=pairs.faults,
        notes=[
            *(f"{printable(file)}: is left out: {fault}" for file, fault in left_out.items()),
            *join_notes(assumed),
            *pairs.notes,
        ],
        is_assumed=bool(assumed),
    )


class _Pairs:
    """Collects the landmarks of images by name."""

    def __init__(self, images: Mapping[str, Path], root: Path | None, landmarks: Path) -> None:
        self.cases: dict[str, LandmarkCase] = {}
        self.absent: list[str] = []
        self.faults: list[str] = []
        self.notes: list[str] = []
        self._images = images
        self._roots = root, landmarks
        self._index = NameIndex(images)
        self._rows: dict[Path, LandmarkRows] = {}
        # files whose name begins with that of an image, with the rest of their name
        self._parts: dict[str, list[tuple[LandmarkCase, str]]] = {}
        self._others: list[LandmarkCase] = []  # files that no name belongs to

    def rows_of(self, source: Path) -> LandmarkRows:
        """Return the rows of a landmark file."""
        return self._rows.setdefault(source, LandmarkRows(source))

    def find_image(self, name: str) -> Path | None:
        """Return the only image with a name."""
        found = self._index.find(name)
        return self._images[found[0]] if len(found) == 1 else None

    def add_names(self, names: Iterable[str]) -> None:
        """Compare the folders of all names with the folder of the images."""
        if self._roots[0] is not None:
            self._index.add_root(self._roots[0], names)

    def add(self, case: LandmarkCase, key: str | None) -> None:
        """Add landmarks to the image that their file or table names.

        Args:
            case: the landmarks, with the name of their image.
            key: name of the image in the source, also if the source belongs to one image.
        """
        found = self._index.find(case.name)
        if found and case.key is None and key is not None:  # the name of a file of one image, and a name in it
            stated = self._index.find(beside(case.name, key)) or self._index.find(key)
            both = [image for image in found if image in stated]
            if stated and not both:
                self.faults.append(self._contradiction(case, key, found, stated))
                return
            found = both or found  # a name in the file that no image has may be an older one
        if not found and case.key is None and case.landmarks.image:  # the file may state the name of its image
            found = self._index.find(beside(case.name, case.landmarks.image))
        if not found and case.key is None and (beginning := self._index.find_beginning(case.name))[0]:
            self._parts.setdefault(beginning[0], []).append((case, beginning[1]))
        elif not found and case.key is None:
            self._others.append(case)
        elif not found:
            why = _rounded(case.name) or self._elsewhere(case.name)
            self.absent.append(f"{self._where(case)}: {case.name!r} is not among the images{why}.")
        elif len(found) > 1:
            self.faults.append(f"{self._where(case)}: {case.name!r} fits more than one image: {', '.join(found)}.")
        elif found[0] in self.cases and self._roots[1].is_file() and case.key is None:
            self._join(found[0], [*(self.cases[found[0]].parts or [self.cases[found[0]]]), case])
        else:
            self._take(found[0], case)

    def finish(self) -> None:
        """Add the files that do not have the name of an image."""
        for image, named in self._parts.items():
            parts = [case for case, _ in named]
            if len(parts) == 1 and not _WORD.match(named[0][1]):
                self._others += parts
            elif len(parts) == 1 or image in self.cases:
                for part in parts:
                    self._take(image, part)
            else:
                self._join(image, parts)
        by_folder: dict[Path, list[LandmarkCase]] = {}
        for case in self._others:
            by_folder.setdefault(case.source.parent, []).append(case)
        for folder, cases in by_folder.items():
            self._pair_by_folder(folder, cases)

    def _pair_by_folder(self, folder: Path, cases: list[LandmarkCase]) -> None:
        """Add a file to the image of its folder, if it is the only one."""
        images = self._images_of(folder)
        free = [image for image in images if image not in self.cases]
        named = [case for case in cases if _USUAL_NAME.fullmatch(PurePosixPath(case.name).name)]
        chosen = cases if len(cases) == 1 else named
        if len(images) == len(free) == len(chosen) == 1:
            if not named:
                self.notes.append(f"{chosen[0].source}: is taken for the landmarks of {free[0]}, the only image there.")
            self._take(free[0], chosen[0])
            cases = [case for case in cases if case is not chosen[0]]
        why = ""
        if images:
            why = f" Its folder has {len(images)} image(s) and {len(cases)} landmark file(s) without image;"
            why += " only one of each makes a pair. A CSV with the columns 'image' and 'landmarks' can list the pairs."
        for case in cases:
            name = f"this name{self._elsewhere(case.name)}"
            self.absent.append(f"{case.source}: no image has {name}; expected the name of an image.{why}")

    def _contradiction(self, case: LandmarkCase, key: str, found: list[str], stated: list[str]) -> str:
        table = self._roots[1]
        by, mend = ("its name", "rename the file") if table.is_dir() else (str(table), f"correct {table.name}")
        return (
            f"{self.rows_of(case.source).where(key)}: the landmarks are of {key!r} ({', '.join(stated)}), but {by} says"
            f" {case.name!r} ({', '.join(found)}); correct the image in the file, or {mend}."
        )

    def _elsewhere(self, name: str) -> str:
        """Return which images have the same file name in a folder that contradicts that of the name."""
        found = self._index.find_elsewhere(name)
        return f"; {' and '.join(found[:2])} has another folder" if found else ""

    def _images_of(self, folder: Path) -> list[str]:
        """Return the images of the same folder, or of the folder with the same name below that of all images."""
        root, landmarks = self._roots
        same = {folder.resolve()}
        if root is not None and landmarks.is_dir() and folder != landmarks:
            same.add((root / folder.relative_to(landmarks)).resolve())
        return [
            name
            for name, image in self._images.items()
            if not same.isdisjoint({image.parent.resolve(), image.resolve()})
        ]

    def _take(self, image: str, case: LandmarkCase) -> None:
        if image in self.cases:
            other = self._where(self.cases[image])
            self.faults.append(f"{self._where(case)}: {other} holds landmarks of the same image, {image}.")
        else:
            self.cases[image] = case

    def _join(self, image: str, parts: list[LandmarkCase]) -> None:
        files = " and ".join(str(part.source) for part in parts)
        twice = [name for name, n in Counter(name for part in parts for name in part.landmarks.names).items() if n > 1]
        if twice:
            self.faults.append(
                f"{files} belong to the image {image}, and both hold the landmark {twice[0]!r}; expected each landmark in one"
                " file."
            )
            return
        try:
            joined = join_landmark_sets([part.landmarks for part in parts])
        except ValueError as error:
            self.faults.append(f"{files} belong to the image {image}, but cannot be joined: {error}")
            return
        self.cases[image] = replace(parts[0], landmarks=joined, parts=tuple(parts))
        self.notes = [note for note in self.notes if not note.startswith(f"{image}: ")]
        self.notes.append(f"{image}: its landmarks are joined from {files}.")

    def _where(self, case: LandmarkCase) -> str:
        return self.rows_of(case.source).where(case.key)


def _rounded(name: str) -> str:
    """Return what may have happened to a name that looks like a rounded number."""
    if re.fullmatch(r"\d([.,]\d+)?E\+?\d+", name, flags=re.IGNORECASE):
        return "; a spreadsheet program may have rounded this number, unless the column is text"
    return ""


def _sources(landmarks: Path, faults: list[str], notes: list[str]) -> tuple[dict[Path, str], bool]:
    """Return the landmark files with the names of their images, and whether each file belongs to one image."""
    if landmarks.is_dir():
        found, left_out = leave_out_predictions(find_landmark_files(landmarks))
        notes += left_out
        if not found:
            raise ValueError("\n".join([f"{landmarks}: no landmark file in it.", *find_foreign_files(landmarks)]))
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
            with open_text(path) as file:
                (_, header), *rows = _rows_of_files(file)
        except ValueError:  # the reader of landmarks reports an empty or malformed table
            return None
        columns = {name.lower(): i for i, name in enumerate(header)}
        short = [line for line, cells in rows if len(cells) != len(header)]
        if short:
            raise ValueError(f"line {short[0]}: expected {len(header)} columns ({','.join(header)}).")
    places = columns["image"], columns["landmarks"]
    return [(line, cell_text(cells[places[0]]), path.parent / cell_text(cells[places[1]])) for line, cells in rows]


def _rows_of_files(lines: Iterable[str]) -> list[tuple[int, list[str]]]:
    """Return the rows of a table of landmark files; none for any other table, of which only the header is read."""
    rows = iter(TableRows(lines, ("image", "landmarks")))
    header = next(rows, (0, []))
    return [header, *rows] if {"image", "landmarks"} <= {cell.lower() for cell in header[1]} else []
