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
"""Datalist of a folder of images with tables of landmarks, splits and left-right pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.landmarks.landmark_io import read_landmark_table
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem

from .datalist import LabeledImage, assemble_datalist
from .groups_pairs_splits import landmarks_of, read_pairs, read_splits, require_names_of_table, section_of_split

__all__ = ["table_folder_datalist"]


def table_folder_datalist(
    root_dir: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    names: Sequence[str] | None = None,
    coordinate_system: CoordinateSystem | str = "RAS",
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of a folder of images with tables of landmarks and splits.

    The folder holds ``images/``; ``landmarks.csv`` in long form (image, landmark, x, y, z) or wide form; ``splits.csv``
    with the columns image and split (train, val or test); and optionally ``mirror_pairs.csv``, whose first two columns
    name the landmarks that are exchanged when an image is mirrored.

    Args:
        root_dir: the folder.
        output: file to write. Image paths become relative to it. Without it they are absolute.
        names: names of the landmarks in the order wanted; by default that of the table.
        coordinate_system: coordinate system of the landmarks: ``"RAS"`` or ``"LPS"`` in mm, or ``"index"``.
        check: whether to read all images and raise an error if the datalist has faults.

    Returns:
        the datalist with those of the sections ``training``, ``validation`` and ``testing`` that ``splits.csv`` lists
        and whose images exist.

    Raises:
        ValueError: if a table is missing or malformed, an image of ``splits.csv`` has no landmarks, some but not all
            images of a section are missing, or the names are not those of the table.
        DatalistError: if the check finds faults.

    Example:
        >>> table_folder_datalist("skulls", "skulls/datalist.json")  # doctest: +SKIP
    """
    root = Path(root_dir)
    table = read_landmark_table(root / "landmarks.csv", coordinate_system)
    found = next(iter(table.values())).names
    names = list(found if names is None else names)
    require_names_of_table(found, names, root / "landmarks.csv")
    pairs = read_pairs(root / "mirror_pairs.csv", names) if (root / "mirror_pairs.csv").is_file() else []
    sections = {
        section: [
            LabeledImage(root / "images" / image, landmarks_of(image, table, names, root / "landmarks.csv"))
            for image in images
        ]
        for section, images in _present(root, _read_sections(root / "splits.csv")).items()
    }
    return assemble_datalist(
        root.resolve().name, names, sections, output, pairs=pairs, coordinate_system=coordinate_system, check=check
    )


def _read_sections(path: Path) -> dict[str, list[str]]:
    """Read the images of each section."""
    sections: dict[str, list[str]] = {}
    for split, images in read_splits(path).items():
        with naming_file(path):
            sections.setdefault(section_of_split(split, images[0]), []).extend(images)
    return sections


def _present(root: Path, sections: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the sections whose images exist. A test section may be kept elsewhere."""
    present = {}
    for section, images in sections.items():
        absent = [image for image in images if not (root / "images" / image).is_file()]
        if absent and len(absent) < len(images):
            raise ValueError(f"{root / 'images' / absent[0]}: no such image, but it is in splits.csv.")
        if not absent:
            present[section] = images
    if not present:
        raise ValueError(f"{root / 'images'}: none of the images in splits.csv exists.")
    return present
