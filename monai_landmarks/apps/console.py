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

"""Options and text output that the commands share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

__all__ = [
    "FOLDER",
    "PART",
    "PATH",
    "PROBABILITY",
    "SCHEMA",
    "SETTING",
    "SYSTEM",
    "evaluation_options",
    "first_lines",
    "interval_text",
    "keep_copies",
    "keep_sources",
    "schema_option",
    "spacing_option",
    "system_option",
    "text_table",
]

PATH = click.Path(exists=True, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
PROBABILITY = click.FloatRange(0, 1, min_open=True, max_open=True)
SYSTEM = click.Choice(["RAS", "LPS", "index"], case_sensitive=False)


class _Spacing(click.ParamType):
    name = "MM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [float(part) for part in str(value).replace("x", ",").split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2, 3) or not all(math.isfinite(number) and number > 0 for number in numbers):
            self.fail(f"{value!r} is not a pixel size; expected for example 0.3, or 0.3,0.25 for x and y.", param, ctx)
        return numbers[0] if len(numbers) == 1 else tuple(numbers)


class _Setting(click.ParamType):
    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, equals, text = str(value).partition("=")
        if not equals or not name.strip():
            self.fail(
                f"{value!r} is not a setting; expected NAME=VALUE, for example batch_size=2 or spatial_size=[128,160].",
                param,
                ctx,
            )
        try:
            return name.strip(), json.loads(text)
        except ValueError:
            return name.strip(), text


SETTING = _Setting()


def spacing_option(addition: str = "") -> Callable[[Any], Any]:
    """Return the option ``--spacing``, with an addition to its help text."""
    text = "Pixel size in mm of images whose file states none (PNG, JPEG, BMP, TIFF, some DICOM)."
    return click.option("--spacing", type=_Spacing(), help=f"{text} {addition}".rstrip())


def text_table(rows: Sequence[Mapping[str, Any]], digits: int = 2) -> str:
    """Format rows as an aligned text table with a header. Text is aligned to the left, numbers to the right.

    Args:
        rows: one mapping per row, from heading to cell. All rows have the same headings. NaN and None are left blank.
        digits: number of decimal places.

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


def keep_sources(outputs: Iterable[Path], sources: Iterable[Path | None]) -> None:
    """Stop before a file that the command reads is replaced by one that it writes.

    Raises:
        click.UsageError: if an output is one of the sources.
    """
    read = {source.resolve() for source in sources if source is not None}
    for output in outputs:
        if output.resolve() in read:
            raise click.UsageError(f"{output} is read by this command and would be replaced; give another --out.")


@contextmanager
def keep_copies(folder: Path) -> Iterator[None]:
    """Keep a copy of each file that the command replaces and that no command wrote, and name the copies at the end.

    Args:
        folder: output folder. A hidden file in it has the checksums of the files that commands wrote.
    """
    from monai_landmarks.data.files.kept_files import KeptFiles

    kept = KeptFiles(folder / ".monai-landmarks.written")
    try:
        with kept:
            yield
    finally:
        for note in kept.notes():
            click.echo(f"note: {note}", err=True)


def first_lines(lines: Sequence[str], most: int, more: str = "") -> str:
    """Join lines; only the first ones, and how many more there are.

    Args:
        lines: the lines.
        most: largest number of lines.
        more: where the others are, for example ``"see failed.csv"``.
    """
    if len(lines) <= most:
        return "\n".join(lines)
    return "\n".join([*lines[:most], f"  ... and {len(lines) - most} more" + (f"; {more}" if more else "")])


def interval_text(low: float, high: float, digits: int = 2) -> str:
    """Return an interval as text; empty if it is not known."""
    return f"{low:.{digits}f} .. {high:.{digits}f}" if low == low else ""


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


class _Part(click.ParamType):
    name = "K/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = re.fullmatch(r"(\d+)/(\d+)", str(value))
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"{value!r} is not a part; expected for example 3/8.", param, ctx)
        return int(found[1]), int(found[2])


PART = _Part()


class _Schema(click.ParamType):
    name = "SCHEMA"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from monai_landmarks.schema import load_landmark_schema

        return load_landmark_schema(value)


SCHEMA = _Schema()

system_option = click.option(
    "--coordinate-system", type=SYSTEM, help="Coordinate system of landmark files that do not state their own."
)
schema_option = click.option(
    "--schema",
    type=SCHEMA,
    help="Landmark schema whose measurements are compared: a JSON or YAML file, or the name of a shipped schema.",
)

_OPTIONS = (
    click.argument("predictions", type=PATH),
    click.argument("landmarks", type=PATH),
    click.option("--images", type=PATH, help="Folder or datalist of the images, to compare pixels to mm."),
    click.option("--section", help="Section of a datalist, for example validation. Default: all sections."),
    spacing_option(),
    system_option,
    click.option("--second-annotator", type=PATH, help="Landmarks by another annotator, for the inter-observer error."),
    click.option("--compare", type=PATH, help="Other predictions of the same images."),
    schema_option,
    click.option("--all-images", is_flag=True, help="Count the landmarks of images without predictions as missed."),
    click.option(
        "--radius",
        "thresholds",
        type=click.FloatRange(0, min_open=True),
        multiple=True,
        default=(2, 2.5, 3, 4),
        show_default=True,
        help="Radius of the success detection rate (SDR). May be repeated.",
    ),
    click.option(
        "--limit",
        type=click.FloatRange(0, min_open=True),
        default=20.0,
        show_default=True,
        help="Largest distance in mm at which a landmark is identified. No other true landmark may be closer.",
    ),
    click.option("--strict", is_flag=True, help="Count an error equal to a radius as outside."),
    click.option(
        "--confidence", type=PROBABILITY, default=0.95, show_default=True, help="Confidence level of the intervals."
    ),
    click.option(
        "--resamples", type=click.IntRange(1), default=2000, show_default=True, help="Number of bootstrap samples."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap."),
)


def evaluation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments and options of :func:`monai_landmarks.evaluation.evaluate_predictions` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
