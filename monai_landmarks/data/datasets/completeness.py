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


"""Check of a copy of a public benchmark against its known counts and parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import aasce, afids, hand, isbi2015, mml, verse
from .catalog import public_dataset
from .public_dataset import CopiedImage, PublicDataset

__all__ = ["DatasetCheck", "DatasetPart", "check_public_dataset"]

# names of parts in other distributions
_OTHER_NAMES = {"ds004470": "SNSX", "ds004471": "LHSCPD"}


class DatasetPart(NamedTuple):
    """A part of a benchmark in a copy: expected images, images found, and images with readable landmarks."""

    name: str
    expected: tuple[int, ...]
    images: int
    annotated: int


@dataclass(frozen=True)
class DatasetCheck:
    """Result of :func:`check_public_dataset`. The copy is complete if there are no faults."""

    dataset: PublicDataset
    parts: tuple[DatasetPart, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def check_public_dataset(name: str, root_dir: str | os.PathLike) -> DatasetCheck:
    """Check a copy of a public benchmark against its known counts and parts.

    All landmark files are read, and each must have its image. Of the images, only the headers of NIfTI volumes are
    read.

    Args:
        name: name of the benchmark in :data:`monai_landmarks.data.PUBLIC_DATASETS`.
        root_dir: folder of the copy. The official layout may be anywhere below it. ISBI 2015 and AASCE may also have
            the tables that :func:`~monai_landmarks.data.isbi2015_datalist` and
            :func:`~monai_landmarks.data.aasce_datalist` read.

    Returns:
        the counts of each part, the faults, and notes.

    Raises:
        ValueError: if the benchmark is unknown or the folder does not exist.
    """
    dataset, root = public_dataset(name), Path(root_dir)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder.")
    cases: dict[str, list[CopiedImage]] = {part: [] for part in dataset.parts}
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


_READERS: dict[str, Callable[[Path], Iterator[CopiedImage]]] = {
    "isbi2015": isbi2015.copied_images,
    "hand": hand.copied_images,
    "aasce": aasce.copied_images,
    "afids": afids.copied_images,
    "verse": verse.copied_images,
    "mml": mml.copied_images,
}
