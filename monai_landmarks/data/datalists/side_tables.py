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

"""Tables that stand beside the landmarks: which images belong together, and which landmarks are left and right."""

from __future__ import annotations

import os
from collections.abc import Sequence

from monai_landmarks.data.files.csv_rows import read_rows
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.images.name_index import NameIndex

__all__ = ["read_groups", "read_pairs", "read_splits"]


def read_groups(path: str | os.PathLike, column: str, images: Sequence[str]) -> dict[str, str]:
    """Read which images belong together, such as those of one patient.

    Args:
        path: CSV with a column ``image``, which may be the table of the landmarks: an image may have many rows.
        column: the column that names the group, in any case.
        images: paths or names of the images; see :class:`NameIndex`.

    Returns:
        the group of each image.

    Raises:
        ValueError: if there is no such column, an image has no row, or rows of an image contradict each other.
    """
    index, groups = NameIndex(images), {}
    with naming_file(path):
        (first, header), *rows = read_rows(path) or [(1, [])]
        columns = [name.lower() for name in header]
        if "image" not in columns or column.lower() not in columns:
            raise ValueError(f"line {first}: no columns 'image' and {column!r} in {','.join(header)!r}.")
        for line, cells in rows:
            if len(cells) != len(header):
                raise ValueError(f"line {line}: {len(cells)} columns; expected {len(header)}.")
            group = cells[columns.index(column.lower())]
            for image in index.find(cells[columns.index("image")])[:1]:
                if groups.setdefault(image, group) != group:
                    raise ValueError(f"line {line}: {column} of {image} is {group!r}, but {groups[image]!r} before.")
        absent = [image for image in images if not groups.get(image)]
        if absent:
            raise ValueError(f"no {column!r} of {absent[0]}" + (f" and {len(absent) - 1} more." if absent[1:] else "."))
    return groups


def read_pairs(path: str | os.PathLike, names: Sequence[str]) -> list[tuple[str, str]]:
    """Read which landmarks change places when an image is mirrored.

    Args:
        path: CSV whose first two columns hold the (left, right) names of a pair, with or without a header. A pair that is
            there in both orders counts once; a landmark that is its own partner, or has a blank for it, is none.
        names: of all landmarks.

    Returns:
        the pairs.

    Raises:
        ValueError: if a row names a landmark that is not there.
    """
    pairs: list[tuple[str, str]] = []
    with naming_file(path):
        for number, (line, cells) in enumerate(read_rows(path)):
            known = [cell in names for cell in cells[:2]]
            if number == 0 and not any(known):
                continue
            if known == [True, False] and not cells[1]:
                continue
            if known != [True, True]:
                raise ValueError(f"line {line}: {cells[:2]} are not two names of landmarks.")
            left, right = cells[:2]
            if left != right and (left, right) not in pairs and (right, left) not in pairs:
                pairs.append((left, right))
    return pairs


def read_splits(path: str | os.PathLike) -> dict[str, list[str]]:
    """Read to which part of the data each image belongs.

    Args:
        path: CSV with columns ``image`` and ``split``, and perhaps more.

    Returns:
        the images of each split, in the order of the table.

    Raises:
        ValueError: if there is no such column, no row, a row of another length, or an image twice.
    """
    splits: dict[str, list[str]] = {}
    with naming_file(path):
        (first, header), *rows = read_rows(path) or [(1, [])]
        if not {"image", "split"} <= set(header):
            raise ValueError(f"line {first}: no columns 'image' and 'split' in {','.join(header)!r}.")
        if not rows:
            raise ValueError("no image in it.")
        for line, cells in rows:
            if len(cells) != len(header):
                raise ValueError(f"line {line}: {len(cells)} columns; expected {len(header)}.")
            image, split = (cells[header.index(column)] for column in ("image", "split"))
            if any(image in images for images in splits.values()):
                raise ValueError(f"line {line}: image {image!r} is there already.")
            splits.setdefault(split, []).append(image)
    return splits
