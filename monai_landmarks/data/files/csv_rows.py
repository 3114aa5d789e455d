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

"""Rows, numbers and names of CSV tables, as programs and spreadsheets write them, with errors that name the line."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain

from .safe_files import open_text

__all__ = [
    "NumberCells",
    "TableRows",
    "cell_text",
    "first_cells",
    "format_number",
    "is_missing",
    "is_number",
    "parse_number",
    "read_rows",
    "text_cell",
]

_MISSING = {"", "nan", "na", "n/a", "null", "none"}
_DELIMITERS = (",", ";", "\t")
_EXPECTED = "expected a number, or nothing if missing."
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_THOUSANDS_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
# A spreadsheet program takes a cell that begins with one of = + - @ for a formula. Where it splits at another character
# than the comma, a cell may begin within a name.
_FORMULA = re.compile(r"(^|[\t\r\n,;|])(?='*[=+\-@\t\r\n])")
_MARKED_FORMULA = re.compile(r"(^|[\t\r\n,;|])'(?='*[=+\-@\t\r\n])")

Columns = Collection[str] | Callable[[str], bool]
Report = Callable[[str], None]


def _raise(message: str) -> None:
    raise ValueError(message)


class TableRows:
    """Rows of a table, one by one: comma-separated, or as spreadsheet programs write it, with semicolons or tabs.

    A line such as ``sep=;`` before the header states the delimiter. Otherwise it is the one by which the first row has
    the most known columns, or, without any, the most cells.

    Args:
        lines: lines of the text.
        columns: known columns in lower case; or a function that returns whether a cell is one.
        delimiter: character between the cells, instead of that of the text.
        comments: whether lines that begin with ``#`` are comments.
        report: called with the message for each row that is not a row of a table. By default it raises ``ValueError``.

    Attributes:
        stated: texts of the comments before the first row.
        delimiter: character between the cells.

    Example:
        >>> rows = TableRows(["# by hand;;", "image;landmark;x", "1.png;a;10,5"], {"image", "landmark", "x"})
        >>> rows.stated, list(rows)
        ([' by hand'], [(2, ['image', 'landmark', 'x']), (3, ['1.png', 'a', '10,5'])])
    """

    def __init__(
        self,
        lines: Iterable[str],
        columns: Columns = (),
        delimiter: str = "",
        comments: bool = True,
        report: Report = _raise,
    ) -> None:
        self.stated: list[str] = []
        self.delimiter = delimiter
        self._report = report
        self._skips_comments = comments
        self._skipped = 0
        rest = iter(lines)
        first = next((line for line in rest if not self._skip(line)), "")
        if "\0" in first:
            raise ValueError("the text has characters of code 0; if it is UTF-16, save the file as UTF-8.")
        self.delimiter = self.delimiter or _find_delimiter(first, columns)
        self.stated = [_comment(line, self.delimiter) for line in self.stated]
        self._lines = chain([first], rest) if first else iter(())

    def _skip(self, line: str) -> bool:
        """Return whether a line is none of the rows that follow, and keep what it states."""
        text = line.strip().strip('"')
        mark = re.fullmatch(r"sep=([^\w\s]|\t)?", line.strip("\r\n ").strip('"'), flags=re.IGNORECASE)
        if mark:
            self.delimiter = self.delimiter or mark.group(1) or ""
        elif self._skips_comments and text.startswith("#"):
            self.stated.append(line.strip())
        elif text.strip(",;"):
            return False
        self._skipped += 1
        return True

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line number and stripped cells of each row that is not blank."""
        reader = csv.reader(self._lines, strict=True, delimiter=self.delimiter)
        while True:
            line = reader.line_num + self._skipped + 1
            try:
                cells = list(map(str.strip, next(reader)))
            except StopIteration:
                return
            except csv.Error as error:
                self._report(f"line {line}: not comma-separated text ({error}).")
                continue
            if any(cells):
                yield reader.line_num + self._skipped, cells

    def width_fault(self, line: int, cells: list[str], header: list[str]) -> str:
        """Say that a row has another number of cells than the header."""
        names = ",".join(header[:6]) + ("..." if len(header) > 6 else "")
        fault = f"line {line}: {len(cells)} columns; expected {len(header)} ({names})."
        if self.delimiter == "," and len(cells) > len(header):
            fault += (
                " If numbers have decimal commas, write decimal points, or separate the columns by semicolons; a cell"
                " that contains a comma needs quotes."
            )
        return fault


def first_cells(text: str, columns: Columns = ()) -> list[str]:
    """Return the stripped cells of the first line that is not blank, to recognize a format.

    Args:
        text: the text of a table.
        columns: known columns, as in :class:`TableRows`.
    """
    line = text.lstrip("\r\n ").partition("\n")[0]
    return _split(line, _find_delimiter(line, columns))


def _find_delimiter(line: str, columns: Columns) -> str:
    known = columns if callable(columns) else lambda cell: cell.lower() in columns

    def fit(delimiter: str) -> tuple[int, int]:
        cells = _split(line, delimiter)
        return sum(map(known, cells)), len(cells)

    return max(_DELIMITERS, key=fit)


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return [cell.strip() for cell in line.split(delimiter)]


def _comment(text: str, delimiter: str) -> str:
    """Return the text of a comment. Spreadsheet programs split it at commas, quote it, and pad it with empty cells."""
    if text.startswith('"'):
        text = ",".join(_split(text, delimiter))
    return text.rstrip(",;\t").lstrip("#")


def read_rows(path: str | os.PathLike, columns: Columns = ()) -> list[tuple[int, list[str]]]:
    """Read line number and cells of each row of a CSV, header first; see :class:`TableRows`.

    Lines that begin with ``#`` are skipped above the header only, because a name may begin so, too.
    """
    with open_text(path) as file:
        return list(TableRows(file, columns))


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
    try:
        value = float(cell)
    except ValueError:
        if is_missing(cell):
            return math.nan
        value = math.inf
    if math.isinf(value) or "_" in cell:
        raise ValueError(f"line {line}: column {column!r} is {cell!r}; {_EXPECTED}")
    return value


class NumberCells:
    """Numbers of one table, which have decimal points, or decimal commas as in spreadsheets of many countries.

    A comma may also separate thousands. Decimal commas are therefore only accepted if one number of the table cannot be
    read otherwise, and no number has a decimal point. A point may separate thousands, too, in the countries whose
    spreadsheets have semicolons between the columns: next to whole numbers, ``1.234`` may be 1234.

    Args:
        delimiter: character between the cells.

    Example:
        >>> numbers = NumberCells()
        >>> numbers.parse("10,5", 2, "x"), numbers.parse("1,234", 3, "x")
        (10.5, 1.234)
        >>> numbers.require_one_meaning()
    """

    def __init__(self, delimiter: str = ",") -> None:
        self._point = self._comma = ""  # first number of each kind, with its place
        self._is_sure = False
        self._is_sure_point = delimiter == ","
        self._has_whole = False

    def parse(self, cell: str, line: int, column: str) -> float:
        """Parse the finite number in a cell; see :func:`parse_number`."""
        if not self._point and "." in cell:
            self._point = f"{cell!r} in line {line}" if is_number(cell) else ""
        if not self._is_sure_point:
            self._has_whole = self._has_whole or cell.isdecimal()
            self._is_sure_point = "." in cell and not _THOUSANDS_POINTS.fullmatch(cell) and is_number(cell)
        if "," not in cell or not _DECIMAL_COMMA.fullmatch(cell):
            return parse_number(cell, line, column)
        self._comma = self._comma or f"{cell!r} in line {line}"
        self._is_sure = self._is_sure or not _THOUSANDS.fullmatch(cell)
        return float(cell.replace(",", "."))

    def require_one_meaning(self) -> None:
        """Raise ValueError if commas or points may separate thousands."""
        if self._comma and self._point:
            raise ValueError(
                f"some numbers have a comma ({self._comma}) and some a decimal point ({self._point}); write all with decimal"
                " points and without separators of thousands."
            )
        if self._point and self._has_whole and not self._is_sure_point:
            raise ValueError(
                f"the point of {self._point} and of all other numbers with a point may separate thousands, because others are"
                " whole numbers; write them without separators of thousands, or separate the columns by commas."
            )
        if self._comma and not self._is_sure:
            raise ValueError(
                f"the comma of {self._comma} and of all other numbers may be a decimal comma or separate thousands; write"
                " decimal points."
            )


def format_number(value: float, missing: str = "") -> str:
    """Format a number as the shortest text that reads back as exactly the same number; NaN gives ``missing``."""
    return missing if math.isnan(value) else repr(float(value))


def text_cell(text: str) -> str:
    """Return a name as a cell of a table that a spreadsheet program does not take for a formula.

    An apostrophe is put before ``=``, ``+``, ``-`` or ``@`` at the beginning, as spreadsheet programs themselves do.
    :func:`cell_text` removes it.

    Example:
        >>> text_cell("=1+1"), cell_text("'=1+1"), text_cell("T1-left")
        ("'=1+1", '=1+1', 'T1-left')
    """
    return _FORMULA.sub(r"\1'", text)


def cell_text(cell: str) -> str:
    """Return the name that :func:`text_cell` made a cell of."""
    return _MARKED_FORMULA.sub(r"\1", cell) if "'" in cell else cell
