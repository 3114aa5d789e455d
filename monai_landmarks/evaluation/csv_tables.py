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
"""Tables of results as CSV files, and short lists of names."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_landmarks.data import atomic_write
from monai_landmarks.data.files.csv_rows import text_cell

__all__ = ["some_names", "write_rows"]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a table as a CSV file, completely or not at all. NaN becomes a blank cell.

    Args:
        path: the file.
        rows: at least one row, from heading to cell. All rows have the same headings.

    Returns:
        The path.
    """
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[text_cell(str(key)) for key in rows[0]])
        writer.writeheader()
        for row in rows:
            writer.writerow({text_cell(str(key)): _cell(value) for key, value in row.items()})
    return path


def some_names(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are.

    Example:
        >>> some_names("abcdefg")
        'a, b, c, d, e and 2 more'
    """
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return text_cell(value) if isinstance(value, str) else value
    return "" if math.isnan(value) else f"{value:.4f}"
