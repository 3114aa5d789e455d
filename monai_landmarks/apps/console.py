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

"""What the commands share: options, and tables of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

__all__ = ["FOLDER", "PATH", "SPACING", "SYSTEM", "text_table"]

PATH = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
SYSTEM = click.Choice(["RAS", "LPS", "index"], case_sensitive=False)


class _Spacing(click.ParamType):
    name = "MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [float(part) for part in str(value).replace("x", ",").split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2, 3) or not all(math.isfinite(number) and number > 0 for number in numbers):
            self.fail(f"{value!r} is no size of a pixel; expected such as 0.3, or 0.3,0.25 for x and y.", param, ctx)
        return numbers[0] if len(numbers) == 1 else tuple(numbers)


SPACING = _Spacing()


def text_table(rows: Sequence[Mapping[str, Any]], digits: int = 2) -> str:
    """Rows as aligned text under a header: words to the left, numbers to the right.

    Args:
        rows: cells by heading; all rows have the same headings. NaN and None are blank.
        digits: behind the point.

    Example:
        >>> print(text_table([{"landmark": "sella", "n": 3, "mean": 1.234}, {"landmark": "porion", "n": 12, "mean": 2.0}]))
        landmark   n  mean
        sella      3  1.23
        porion    12  2.00
    """
    if not rows:
        return ""
    header = list(rows[0])
    cells = [[_cell(row[key], digits) for key in header] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells)]
    to_left = [all(isinstance(row[key], (str, type(None))) for row in rows) for key in header]
    lines = [
        "  ".join(cell.ljust(width) if left else cell.rjust(width) for cell, width, left in zip(line, widths, to_left))
        for line in (header, *cells)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
