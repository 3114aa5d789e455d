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

"""Rows and numbers of comma-separated text, with errors that name the line."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

from .safe_files import read_lines

__all__ = ["format_number", "is_missing", "is_number", "parse_number", "read_rows", "split_rows"]

_MISSING = {"", "nan", "na", "n/a", "null", "none"}


def split_rows(lines: list[str], first_line: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Split comma-separated text into rows.

    Args:
        lines: lines of the text.
        first_line: number of the first line, for errors and for the result.

    Yields:
        line number and stripped cells of each row that is not blank.

    Raises:
        ValueError: if the text is not comma-separated, with the line.
    """
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num + first_line - 1, cells
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num + first_line - 1}: not comma-separated text ({error}).") from error


def read_rows(path: str | os.PathLike) -> list[tuple[int, list[str]]]:
    """Read line number and cells of each row of a CSV, header first. Lines that begin with ``#`` are skipped."""
    lines = ["\n" if line.lstrip().startswith("#") else line for line in read_lines(Path(path))]
    return list(split_rows(lines))


def is_missing(cell: str) -> bool:
    """Return whether a cell states that there is no value: blank, nan, na, n/a, null or none."""
    return cell.lower() in _MISSING


def is_number(cell: str) -> bool:
    """Return whether a cell holds a finite number."""
    try:
        return not math.isnan(parse_number(cell.strip(), 0, ""))
    except ValueError:
        return False


def parse_number(cell: str, line: int, column: str) -> float:
    """Parse the finite number in a cell; a missing one gives NaN.

    Args:
        cell: text of the cell.
        line: number of the line, for errors.
        column: name of the column, for errors.

    Raises:
        ValueError: if the cell holds anything else.
    """
    if is_missing(cell):
        return math.nan
    try:
        value = float(cell) if "_" not in cell else math.inf
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"line {line}: column {column!r} is {cell!r}; expected a number, or nothing if missing.")
    return value


def format_number(value: float, missing: str = "") -> str:
    """Format a number as the shortest text that reads back as exactly the same number; NaN gives ``missing``."""
    return missing if math.isnan(value) else repr(float(value))
