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

"""Doubts about predictions, read from the tables that a prediction has written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from monai_landmarks.data import NameIndex
from monai_landmarks.data.files.csv_rows import TableRows, cell_text
from monai_landmarks.data.files.safe_files import naming_file, open_text

__all__ = ["read_doubts"]


def read_doubts(predictions: str | os.PathLike, images: Sequence[str]) -> dict[str, str] | None:
    """Read the reasons to doubt predictions from ``predictions_std.csv``.

    Args:
        predictions: folder of predictions, or their table ``predictions.csv``.
        images: names of the images.

    Returns:
        The reasons of each doubtful image. None if the predictions were not examined.

    Raises:
        ValueError: if a table is malformed, with its name and line.
    """
    path = Path(predictions)
    tables = sorted(path.rglob("*_std.csv")) if path.is_dir() else [path.with_name(f"{path.stem}_std.csv")]
    index, reasons, examined = NameIndex(images), {}, False
    for table in tables:
        if not table.is_file():
            continue
        with naming_file(table), open_text(table) as file:
            rows = iter(TableRows(file, ("image", "landmark", "doubt")))
            _, header = next(rows, (0, []))
            if not {"image", "doubt"} <= set(header):
                continue
            examined = True
            for _, cells in rows:
                row = dict(zip(header, cells))
                found = index.find(cell_text(row.get("image", "")))
                if len(found) == 1 and row.get("doubt"):
                    reasons[found[0]] = cell_text(row["doubt"])
    return reasons if examined else None
