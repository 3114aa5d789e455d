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
"""A folder of images with tables: their landmarks, the split that goes with them, the left-right pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_landmarks.data.images.image_files import relative_path
from monai_landmarks.data.landmarks.landmark_io import read_landmark_table
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem

from .datalist import datalist_item, save_datalist
from .datalist_format import check_datalist
from .side_tables import read_pairs, read_splits

__all__ = ["table_folder_datalist"]

_SECTIONS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}


def table_folder_datalist(
    root_dir: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    names: Sequence[str] | None = None,
    coordinate_system: CoordinateSystem | str = "RAS",
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of images whose split is given.

    The folder holds ``images/``; ``landmarks.csv``, in long form (image, landmark, x, y, z) or wide form; ``splits.csv`` with
    columns image and split (train, val or test), perhaps more; and perhaps ``mirror_pairs.csv``, whose first two columns name
    the landmarks that change places when an image is mirrored.

    Args:
        root_dir: the folder.
        output: where to write the datalist; image paths become relative to it. Without it they are absolute.
        names: of the landmarks, in the order wanted; that of the table if None.
        coordinate_system: of the landmarks: ``"RAS"`` or ``"LPS"`` in mm, or ``"index"``.
        check: read all images and check the datalist.

    Returns:
        the datalist, with those of the sections ``training``, ``validation`` and ``testing`` that the table of splits has and
        whose images are there.

    Raises:
        ValueError: if a table is missing or malformed, an image of the table of splits has no landmarks, some but not all
            images of a section are missing, or the names are not those of the table.
        DatalistError: if the check finds faults.

    Example:
        >>> table_folder_datalist("skulls", "skulls/datalist.json")  # doctest: +SKIP
    """
    root, base = Path(root_dir), None if output is None else Path(output).parent
    system = CoordinateSystem(coordinate_system)
    table = read_landmark_table(root / "landmarks.csv", coordinate_system=system)
    found = next(iter(table.values())).names
    names = list(found if names is None else names)
    if set(names) != set(found):
        wrong = sorted(set(names) ^ set(found))
        raise ValueError(f"{root / 'landmarks.csv'}: landmarks {wrong} are missing or unknown.")
    pairs = read_pairs(root / "mirror_pairs.csv", names) if (root / "mirror_pairs.csv").is_file() else []
    datalist: dict[str, Any] = {
        "name": root.resolve().name,
        "landmarks": {"names": names, "pairs": [list(pair) for pair in pairs], "coordinate_system": system.value},
    }
    for section, images in _present(root, _read_sections(root / "splits.csv")).items():
        unknown = [image for image in images if image not in table]
        if unknown:
            raise ValueError(f"{root / 'landmarks.csv'}: no landmarks of {unknown[0]!r}, which is in splits.csv.")
        datalist[section] = [
            datalist_item(relative_path(root / "images" / image, base), table[image].reorder(names)) for image in images
        ]
    if check:
        check_datalist(datalist, base)
    if output is not None:
        save_datalist(output, datalist)
    return datalist


def _read_sections(path: Path) -> dict[str, list[str]]:
    """The images of each section."""
    sections: dict[str, list[str]] = {}
    for split, images in read_splits(path).items():
        if split not in _SECTIONS:
            raise ValueError(
                f"{path}: the split of {images[0]!r} is {split!r}; expected one of {', '.join(_SECTIONS)}."
            )
        sections.setdefault(_SECTIONS[split], []).extend(images)
    return sections


def _present(root: Path, sections: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without the sections of which no image is there, such as a test part that is kept elsewhere."""
    present = {}
    for section, images in sections.items():
        absent = [image for image in images if not (root / "images" / image).is_file()]
        if absent and len(absent) < len(images):
            raise ValueError(f"{root / 'images' / absent[0]}: no such image, though it is in splits.csv.")
        if not absent:
            present[section] = images
    if not present:
        raise ValueError(f"{root / 'images'}: none of the images in splits.csv is there.")
    return present
