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

"""Tables that accompany landmarks: groups of images, left-right pairs, splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from monai_landmarks.data.files.csv_rows import cell_text, read_rows
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.images.name_index import NameIndex
from monai_landmarks.data.landmarks.landmark_set import LandmarkSet, landmark_name

__all__ = [
    "landmarks_of",
    "read_groups",
    "read_pairs",
    "read_sections",
    "read_splits",
    "require_names_of_table",
    "section_of_split",
]

_SECTIONS = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "testing",
    "testing": "testing",
}


def read_groups(
    path: str | os.PathLike, column: str, images: Sequence[str], root_dir: str | os.PathLike | None = None
) -> dict[str, str]:
    """Read the group of each image, for example its patient.

    Args:
        path: CSV with a column ``image``. It may be the table of the landmarks; an image may have many rows.
        column: column of the group, in any case.
        images: paths or names of the images; see :class:`~monai_landmarks.data.NameIndex`.
        root_dir: folder to which the paths are relative. If names in the table have it, those with another folder there
            are of other images.

    Returns:
        the group of each image.

    Raises:
        ValueError: if a column is missing, an image has no row, or rows of an image contradict each other.
    """
    return _read_column(path, column, images, root_dir)


def read_pairs(path: str | os.PathLike, names: Sequence[str]) -> list[tuple[str, str]]:
    """Read the landmarks that are exchanged when an image is mirrored.

    Args:
        path: CSV whose first two columns hold the (left, right) names of a pair, with or without header. A pair in both
            orders counts once. Rows with a landmark and itself, or with a blank second column, are no pairs.
        names: names of all landmarks.

    Returns:
        the pairs.

    Raises:
        ValueError: if a row names an unknown landmark, or one of another pair.
    """
    pairs: list[tuple[str, str]] = []
    lines: dict[str, int] = {}
    with naming_file(path):
        given = {landmark_name(name): name for name in names}
        for number, (line, row) in enumerate(read_rows(path, lambda cell: landmark_name(cell_text(cell)) in given)):
            cells = [landmark_name(cell_text(cell)) for cell in row[:2]]
            known = [cell in given for cell in cells]
            if number == 0 and not any(known):
                continue
            if known == [True, False] and not cells[1]:
                continue
            if known != [True, True]:
                raise ValueError(f"line {line}: {cells} are not two names of landmarks.")
            left, right = (given[cell] for cell in cells)
            if left != right and (left, right) not in pairs and (right, left) not in pairs:
                for name in (left, right):
                    if lines.setdefault(name, line) != line:
                        raise ValueError(
                            f"line {line}: landmark {name!r} is also in a pair in line {lines[name]}; expected one pair."
                        )
                pairs.append((left, right))
    return pairs


def read_sections(
    path: str | os.PathLike, images: Sequence[str], root_dir: str | os.PathLike | None = None
) -> dict[str, str]:
    """Read the section of each image from a table of splits.

    Args:
        path: CSV with the columns ``image`` and ``split`` (train, val or test). Rows of other images are ignored.
        images: paths or names of the images; see :class:`~monai_landmarks.data.NameIndex`.
        root_dir: see :func:`read_groups`.

    Returns:
        ``"training"``, ``"validation"`` or ``"testing"`` for each image.

    Raises:
        ValueError: as :func:`read_groups`, and for another split.
    """
    return _read_column(path, "split", images, root_dir, section_of_split)


def section_of_split(split: str, image: str) -> str:
    """Return the section of a datalist for the split of an image, for example ``"training"`` for ``"train"``."""
    if split.strip().lower() not in _SECTIONS:
        raise ValueError(f"the split of {image!r} is {split!r}; expected one of {', '.join(_SECTIONS)}.")
    return _SECTIONS[split.strip().lower()]


def _read_column(
    path: str | os.PathLike,
    column: str,
    images: Sequence[str],
    root_dir: str | os.PathLike | None,
    convert: Callable[[str, str], str] = lambda value, image: value,
) -> dict[str, str]:
    """Read the value of each image, converted with the name of the image."""
    index, values = NameIndex(images), dict[str, str]()
    with naming_file(path):
        (first, header), *rows = read_rows(path, ("image", column.lower())) or [(1, [])]
        columns = [name.lower() for name in header]
        if "image" not in columns or column.lower() not in columns:
            raise ValueError(f"line {first}: no columns 'image' and {column!r} in {','.join(header)!r}.")
        if root_dir is not None:
            place = columns.index("image")
            index.add_root(root_dir, [cell_text(cells[place]) for _, cells in rows if len(cells) == len(header)])
        for line, cells in rows:
            if len(cells) != len(header):
                raise ValueError(f"line {line}: {len(cells)} columns; expected {len(header)}.")
            value = cells[columns.index(column.lower())]
            for image in index.find(cell_text(cells[columns.index("image")]))[:1]:
                value = convert(value, image) if value else value
                if values.setdefault(image, value) != value:
                    raise ValueError(
                        f"line {line}: {column} of {image} is {value!r}, but {values[image]!r} in an earlier line."
                    )
        absent = [image for image in images if not values.get(image)]
        if absent:
            raise ValueError(f"no {column!r} of {absent[0]}" + (f" and {len(absent) - 1} more." if absent[1:] else "."))
    return values


def read_splits(path: str | os.PathLike) -> dict[str, list[str]]:
    """Read the split of each image.

    Args:
        path: CSV with columns ``image`` and ``split``; other columns are ignored.

    Returns:
        the images of each split, in the order of the table.

    Raises:
        ValueError: if a column is missing, there is no row, a row differs in length, or an image occurs twice.
    """
    splits: dict[str, list[str]] = {}
    seen: set[str] = set()
    with naming_file(path):
        (first, header), *rows = read_rows(path, ("image", "split")) or [(1, [])]
        if not {"image", "split"} <= set(header):
            raise ValueError(f"line {first}: no columns 'image' and 'split' in {','.join(header)!r}.")
        if not rows:
            raise ValueError("the table has no rows; expected one row per image.")
        for line, cells in rows:
            if len(cells) != len(header):
                raise ValueError(f"line {line}: {len(cells)} columns; expected {len(header)}.")
            image, split = (cell_text(cells[header.index(column)]) for column in ("image", "split"))
            if image in seen:
                raise ValueError(f"line {line}: image {image!r} occurs twice; expected one row per image.")
            seen.add(image)
            splits.setdefault(split, []).append(image)
    return splits


def landmarks_of(image: str, table: Mapping[str, LandmarkSet], names: Sequence[str], path: Path) -> LandmarkSet:
    """Return the landmarks of an image that ``splits.csv`` lists.

    Args:
        image: name of the image.
        table: landmarks of all images, read from ``path``.
        names: expected names, in the order of the result.
        path: the table, for errors.

    Raises:
        ValueError: if the table has no landmarks of the image, or landmarks with other names.
    """
    if image not in table:
        raise ValueError(f"{path}: no landmarks of image {image!r}, which is in splits.csv.")
    require_names_of_table(table[image].names, names, path)
    return table[image].reorder(names)


def require_names_of_table(found: Sequence[str], names: Sequence[str], path: Path) -> None:
    """Raise ValueError if the landmarks of the table ``path`` do not have exactly the expected names, in any order."""
    wrong = sorted(set(found) ^ set(names))
    if wrong:
        raise ValueError(f"{path}: landmarks {wrong} are missing or unknown; expected {len(set(names))} known names.")
