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
"""Tables of results as CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .csv_rows import text_cell
from .kept_files import remove_file
from .safe_files import atomic_write

__all__ = ["remove_table", "write_rows"]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], headings: Sequence[str] = ()) -> Path:
    """Write a table as a CSV file, completely or not at all. NaN becomes a blank cell.

    Numbers have four decimals, and those below 0.01 three significant digits.

    Args:
        path: the file.
        rows: rows from heading to cell. All rows have the same headings.
        headings: those of a table without rows.

    Returns:
        The path.
    """
    with atomic_write(path) as temporary:
        # names of images may come from the file system, where they need not be UTF-8
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, fieldnames=[text_cell(str(key)) for key in (rows[0] if rows else headings)])
            writer.writeheader()
            for row in rows:
                writer.writerow({text_cell(str(key)): _cell(value) for key, value in row.items()})
    return path


def remove_table(path: Path, column: str) -> None:
    """Remove a table of an earlier call, which has this column. A file of this name without the column stays."""
    if path.is_file() and column in path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].split(","):
        remove_file(path)


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return text_cell(value) if isinstance(value, str) else value
    if math.isnan(value):
        return ""
    return f"{value:.3g}" if 0 < abs(value) < 0.01 else f"{value:.4f}"
