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

"""Landmarks of one image or of many images as comma-separated text.

The header decides between three forms::

    landmark,x,y[,z][,score]                        one landmark set
    image,landmark,x,y[,z][,score]                  long: one row per landmark
    image,<name>_x,<name>_y[,<name>_z][,<name>_score],...   wide: one row per image

Predictions may have more columns: the entries of the covariance, ``cov_xx,cov_xy,cov_yy`` or
``cov_xx,cov_xy,cov_xz,cov_yy,cov_yz,cov_zz``, in the squared unit of the points, and those of the matrix of a region,
``region_xx,...``. In the wide form, each is prefixed with the name of the landmark.

Lines before the header may state what the columns cannot::

    # coordinate_system=RAS
    # pairs=[["left eye", "right eye"]]
    # coverage=0.9

If the file does not state its coordinate system, points with only x and y are pixel index, and points with z are RAS in
mm. A blank cell, ``nan`` or ``na`` is a missing coordinate. Other columns are ignored; also ``pixel_size_x`` or
``spacing_x``, which are no landmark.

Tables that a spreadsheet program has saved can have semicolons or tabs instead of commas, a first line ``sep=;``, and
decimal commas; see :class:`~monai_landmarks.data.files.csv_rows.TableRows` and
:class:`~monai_landmarks.data.files.csv_rows.NumberCells`. Names that such a program would take for a formula are
written with an apostrophe, which is removed on reading.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_landmarks.data.files.csv_rows import NumberCells, TableRows, cell_text, format_number, is_number, text_cell
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import open_text
from monai_landmarks.data.landmarks.landmark_set import (
    CoordinateSystem,
    LandmarkSet,
    landmark_name,
    landmark_sets_of_table,
)
from monai_landmarks.data.landmarks.point_matrices import pack_matrices, triangle, unpack_matrices

from .common import OtherSystemError, assumed_system, common_set

__all__ = ["read_csv_table", "write_csv", "write_csv_table"]

_AXES = ("x", "y", "z")
_MATRICES = {"covariances": "cov", "regions": "region"}
_BESIDE = ("score", *(f"{prefix}_{entry}" for prefix in _MATRICES.values() for entry in triangle(3)))
# what programs name the pixel size or the size of an image, in columns such as pixel_size_x
_SIZE = re.compile(r"((pixel|voxel|image)[ _-]?)?(size|spacing|resolution)([ _-]?\(?mm\)?)?|pixdim", re.IGNORECASE)
_RESERVED = {"image", "landmark", *_AXES, *_BESIDE}
_MOST_POINTS = 10_000_000  # of all images together, if most of them are missing
_SPARSEST = 100  # points per row of a larger table


def read_csv_table(
    path: Path,
    coordinate_system: CoordinateSystem | str | None = None,
    row_faults: list[str] | None = None,
    assumptions: list[str] | None = None,
) -> dict[str | None, LandmarkSet]:
    """Read the landmarks of one image or of many images from a CSV in any of the three forms.

    Args:
        path: the CSV file.
        coordinate_system: coordinate system of a file that does not state its own. A file that states another one is an
            error.
        row_faults: gets one sentence per faulty row, which is left out. By default the first one is raised as an error.
        assumptions: gets a sentence if the coordinate system of 3-D points is neither stated nor given, and one about
            columns of a pixel size, which are left out.

    Returns:
        the landmark set of each image, in the order of the file. The key is None if there is no column for the image.
        All sets have the same names; a landmark that only other images have is missing (NaN).

    Raises:
        ValueError: if the file is malformed, with line and what was expected.
    """
    with open_text(path) as file:
        return _Parser(row_faults, [] if assumptions is None else assumptions).parse(file, coordinate_system)


def write_csv_table(path: Path, sets: Mapping[str, LandmarkSet], form: Literal["long", "wide"] = "long") -> None:
    """Write the landmarks of many images to a CSV.

    Args:
        path: the CSV file.
        sets: landmark set of each image.
        form: ``"long"``, one row per landmark, or ``"wide"``, one row per image.

    Raises:
        ValueError: if the sets differ in coordinate system or dimension, or their left-right pairs contradict each
            other.
    """
    if form not in ("long", "wide"):
        raise ValueError(f"form is {form!r}; expected 'long' or 'wide'.")
    common = common_set(sets.values())
    _write_rows(path, common, (_long_rows if form == "long" else _wide_rows)(sets, common))


def write_csv(path: Path, landmark_set: LandmarkSet) -> None:
    """Write one landmark set to a CSV: in long form if it has an image name, otherwise without the image column."""
    rows = _long_rows({landmark_set.image or "": landmark_set}, landmark_set)
    if landmark_set.image is None:
        rows = (row[1:] for row in rows)
    _write_rows(path, landmark_set, rows)


class _Parser:
    """Reads a table row by row into arrays, so that a long table costs little more memory than its numbers."""

    def __init__(self, row_faults: list[str] | None, assumptions: list[str]) -> None:
        self._row_faults = row_faults
        self._assumptions = assumptions
        self._images: dict[str | None, int] = {}
        self._names: dict[str, int] = {}
        self._numbers = NumberCells()
        # per point: number of the image, number of the name, line, and its values: coordinates, then the other columns
        self._points = array("d")

    def parse(self, lines: Iterable[str], default: CoordinateSystem | str | None) -> dict[str | None, LandmarkSet]:
        """Read the lines of a table; see :func:`read_csv_table`."""
        table = TableRows(lines, _is_column, report=self._report)
        stated = _parse_comments(table.stated)
        self._numbers = NumberCells(table.delimiter)
        rows = iter(table)
        line, header = next(rows, (0, []))
        if not header:
            raise ValueError("no header; expected a first row such as 'image,landmark,x,y'.")
        columns = _parse_header(line, header)
        if "landmark" in columns:
            dims = 3 if "z" in columns else 2
            beside = [key for key in _BESIDE if key in columns]
            add_row = self._long_rows(columns, [*_AXES[:dims], *beside])
        else:
            of_names, of_size = _wide_columns(line, header)
            if of_size:
                self._assumptions.append(
                    f"the columns {', '.join(of_size)} are not read as a landmark, and not as the size of pixels; if the"
                    " images do not state it, give it (--spacing)."
                )
            self._names = {name: i for i, name in enumerate(of_names)}
            dims = 3 if any("z" in parts for parts in of_names.values()) else 2
            beside = [key for key in _BESIDE if any(key in parts for parts in of_names.values())]
            add_row = self._wide_rows(columns["image"], header, of_names, [*_AXES[:dims], *beside])
        for line, cells in rows:
            if len(cells) != len(header):
                self._report(table.width_fault(line, cells, header))
                continue
            try:
                add_row(line, cells)
            except ValueError as error:
                self._report(str(error))
        self._numbers.require_one_meaning()
        system = CoordinateSystem(stated.get("coordinate_system") or default or ("index" if dims == 2 else "RAS"))
        if default is not None and system != CoordinateSystem(default):
            raise OtherSystemError(f"states coordinate_system={system}, but {CoordinateSystem(default)} was asked for.")
        if dims == 3 and default is None and "coordinate_system" not in stated:
            more = ", or state it in a line '# coordinate_system=LPS' above the header"
            self._assumptions.append(assumed_system(system, more))
        return self._assemble(dims, beside, system, stated)

    def _report(self, message: str) -> None:
        if self._row_faults is None:
            raise ValueError(message)
        self._row_faults.append(message)

    def _long_rows(self, columns: dict[str, int], parts: list[str]) -> Callable[[int, list[str]], None]:
        of_image, of_landmark = columns.get("image"), columns["landmark"]
        places = [(part, columns[part]) for part in parts]
        written: dict[str, int] = {}
        parse, add = self._numbers.parse, self._add

        def add_row(line: int, cells: list[str]) -> None:
            image = None if of_image is None else cell_text(cells[of_image])
            if image == "" or not cells[of_landmark]:
                blank = "image" if image == "" else "landmark"
                raise ValueError(f"line {line}: column {blank!r} is blank; expected a name.")
            values = [parse(cells[place], line, part) for part, place in places]
            number = written.get(cells[of_landmark])
            if number is None:
                # names that only differ in how they are written are one landmark, and have one number
                name = landmark_name(cell_text(cells[of_landmark]))
                number = written[cells[of_landmark]] = self._names.setdefault(name, len(self._names))
            add(line, image, number, values)

        return add_row

    def _wide_rows(
        self, of_image: int, header: list[str], of_names: dict[str, dict[str, int]], parts: list[str]
    ) -> Callable[[int, list[str]], None]:
        places = [[of_name.get(part) for part in parts] for of_name in of_names.values()]
        stride = len(of_names) * (3 + len(parts))  # of an image in the array of points

        def add_row(line: int, cells: list[str]) -> None:
            image = cell_text(cells[of_image])
            if not image:
                raise ValueError(f"line {line}: column 'image' is blank; expected a name.")
            if image in self._images:
                first = int(self._points[self._images[image] * stride + 2])
                raise ValueError(f"line {line}: image {image!r} is also in line {first}; expected one row per image.")
            table = [
                [np.nan if i is None else self._numbers.parse(cells[i], line, header[i]) for i in row] for row in places
            ]
            for number, values in enumerate(table):
                self._add(line, image, number, values)

        return add_row

    def _add(self, line: int, image: str | None, number: int, values: list[float]) -> None:
        self._points.extend((self._images.setdefault(image, len(self._images)), number, line, *values))

    def _assemble(
        self, dims: int, beside: list[str], system: CoordinateSystem, stated: dict[str, str]
    ) -> dict[str | None, LandmarkSet]:
        table = self._fill_table(dims, dims + len(beside))
        columns = dict(zip(beside, np.moveaxis(table[:, :, dims:], 2, 0)))
        images = list(self._images)
        self._images.clear()  # a million keys take 80 MB
        return landmark_sets_of_table(
            tuple(self._names),
            table[:, :, :dims],
            images,
            system,
            _parse_pairs(stated),
            **_parse_beside(columns, dims, stated),
        )

    def _fill_table(self, dims: int, values: int) -> np.ndarray:
        """Return the values of all points (images, names, values), and forget the points."""
        rows = np.reshape(self._points, (-1, 3 + values))
        self._points = array("d")
        of_image, of_name = rows[:, :2].T.astype(np.int32)
        keep = self._faultless(of_image, of_name, rows[:, 2], rows[:, 3 : 3 + dims])
        _require_filled(len(self._images), len(self._names), len(rows))
        table = np.full((len(self._images), len(self._names), values), np.nan)
        table[of_image[keep], of_name[keep]] = rows[keep, 3:]
        return table

    def _faultless(
        self, of_image: np.ndarray, of_name: np.ndarray, lines: np.ndarray, points: np.ndarray
    ) -> np.ndarray:
        """Return the numbers of the rows (R,) without fault: a landmark once per image, and all of its coordinates."""
        _, first, group = np.unique(
            of_image * np.int64(len(self._names)) + of_name, return_index=True, return_inverse=True
        )
        first = first[group.reshape(-1)]
        blank = np.isnan(points).sum(axis=1)
        is_first, is_whole = first == np.arange(len(points)), (blank == 0) | (blank == points.shape[1])
        names, images = list(self._names), list(self._images)
        for row in np.flatnonzero(~is_first | ~is_whole).tolist():
            image, name = images[of_image[row]], names[of_name[row]]
            if not is_first[row]:
                where = "" if image is None else f" of image {image!r}"
                self._report(
                    f"line {lines[row]:.0f}: landmark {name!r}{where} is also in line {lines[first[row]]:.0f}; expected one row."
                )
            else:
                self._report(
                    f"line {lines[row]:.0f}: landmark {name!r} is at {points[row].tolist()}; expected {points.shape[1]} numbers,"
                    " or none if it is missing."
                )
        return np.flatnonzero(is_first & is_whole)


def _require_filled(images: int, names: int, rows: int) -> None:
    """Raise ValueError for a table of which almost every landmark would be missing in almost every image."""
    if images * names > max(_MOST_POINTS, _SPARSEST * rows):
        raise ValueError(
            f"{images} images and {names} landmark names in {rows} rows; expected images with the same landmarks. Are the"
            " columns 'image' and 'landmark' exchanged?"
        )


def _parse_comments(comments: list[str]) -> dict[str, str]:
    stated = {}
    for text in comments:
        key, equals, value = text.partition("=")
        if not equals:
            key, equals, value = text.partition(":")
        if equals:
            # 3D Slicer writes CoordinateSystem
            name = re.sub(r"[\s_-]", "", key).lower()
            stated["coordinate_system" if name == "coordinatesystem" else key.strip().lower()] = value.strip()
    return stated


def _parse_pairs(stated: dict[str, str]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((left, right) for left, right in load_json(stated.get("pairs", "[]")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"pairs is {stated['pairs']!r}; expected pairs of names, for example [[\"left eye\", \"right eye\"]]."
        ) from error


def _is_column(cell: str) -> bool:
    """Return whether a cell of the header is a column of any form."""
    return cell.lower() in _RESERVED or bool(_parse_column(cell)[1])


def _parse_header(line: int, header: list[str]) -> dict[str, int]:
    columns = {name.lower(): i for i, name in enumerate(header)}
    # names of landmarks may differ only in case, and spreadsheet programs may leave empty columns
    named = [name.lower() if name.lower() in _RESERVED else name for name in header if name]
    if len({*named}) != len(named):
        raise ValueError(f"line {line}: a column name occurs twice in the header {','.join(header)!r}.")
    if not ({"landmark", "x", "y"} <= set(columns) or ("image" in columns and "landmark" not in columns)):
        raise ValueError(
            f"line {line}: the header is {','.join(header)!r}; expected 'landmark,x,y[,z]', 'image,landmark,x,y[,z]' or"
            " 'image,<name>_x,<name>_y[,<name>_z],...'."
        )
    return columns


def _wide_columns(line: int, header: list[str]) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Return the columns of each landmark by what they hold, and the columns of a pixel size."""
    columns: dict[str, dict[str, int]] = {}
    of_size: list[str] = []
    for i, column in enumerate(header):
        name, part = _parse_column(cell_text(column))
        if not (name and part):
            continue
        if _SIZE.fullmatch(name.strip()):
            of_size.append(column)
            continue
        if columns.setdefault(landmark_name(name), {}).setdefault(part, i) != i:
            raise ValueError(f"line {line}: landmark {landmark_name(name)!r} has two columns {part!r} in the header.")
    if not columns:
        raise ValueError(f"line {line}: no landmark in the header; expected columns such as 'nasion_x,nasion_y'.")
    dims = 3 if any("z" in parts for parts in columns.values()) else 2
    for name, parts in columns.items():
        absent = [f"{name}_{axis}" for axis in _AXES[:dims] if axis not in parts]
        if absent:
            raise ValueError(f"line {line}: landmark {name!r} has no column {absent[0]!r} in the header.")
    return columns, of_size


def _parse_column(column: str) -> tuple[str, str]:
    """Return the landmark of a column and the part that it holds; both are empty for any other column."""
    lower = column.lower()
    part = max((part for part in (*_AXES, *_BESIDE) if lower.endswith(f"_{part}")), key=len, default="")
    return (column[: -len(part) - 1], part) if part else ("", "")


def _parse_beside(columns: dict[str, np.ndarray], dims: int, stated: dict[str, str]) -> dict[str, Any]:
    """Return scores, covariances, regions and coverage as arguments of :class:`LandmarkSet`."""
    result: dict[str, Any] = {"scores": columns["score"]} if "score" in columns else {}
    for key, prefix in _MATRICES.items():
        wanted = [f"{prefix}_{entry}" for entry in triangle(dims)]
        found = [column for column in columns if column.startswith(f"{prefix}_")]
        if found and found != wanted:
            raise ValueError(f"the columns are {','.join(found)}; expected {','.join(wanted)} for {dims}-D points.")
        if found:
            result[key] = unpack_matrices(np.stack([columns[column] for column in wanted], axis=-1), dims)
    if "regions" in result:
        coverage = stated.get("coverage", "")
        if not is_number(coverage):
            raise ValueError(
                f"there are regions, but coverage is {coverage!r}; expected a comment such as '# coverage=0.9'."
            )
        result["coverage"] = float(coverage)
    return result


def _long_rows(sets: Mapping[str, LandmarkSet], common: LandmarkSet) -> Iterator[list[str]]:
    yield ["image", "landmark", *_columns(common)]
    for image, landmark_set in sets.items():
        for name, cells in zip(landmark_set.names, _cells(landmark_set, common)):
            yield [text_cell(image), text_cell(name), *cells]


def _wide_rows(sets: Mapping[str, LandmarkSet], common: LandmarkSet) -> Iterator[list[str]]:
    if of_size := [name for name in common.names if _SIZE.fullmatch(name)]:
        raise ValueError(
            f"the wide form cannot hold a landmark {of_size[0]!r}, whose columns are taken for a pixel size."
        )
    yield ["image", *(text_cell(f"{name}_{column}") for name in common.names for column in _columns(common))]
    for image, landmark_set in sets.items():
        cells = _cells(landmark_set.reorder(common.names), common)
        yield [text_cell(image), *(cell for landmark in cells for cell in landmark)]


def _columns(common: LandmarkSet) -> list[str]:
    """Return the columns of each landmark, without its name."""
    dims = common.spatial_dims
    columns = [*_AXES[:dims], *(["score"] if common.scores is not None else [])]
    for key, prefix in _MATRICES.items():
        if getattr(common, key) is not None:
            columns += [f"{prefix}_{entry}" for entry in triangle(dims)]
    return columns


def _cells(landmark_set: LandmarkSet, common: LandmarkSet) -> list[list[str]]:
    count, dims = landmark_set.points.shape
    parts = [landmark_set.points]
    if common.scores is not None:
        parts.append((np.full(count, np.nan) if landmark_set.scores is None else landmark_set.scores)[:, None])
    for key in _MATRICES:
        if getattr(common, key) is not None:
            matrices = getattr(landmark_set, key)
            matrices = np.full((count, dims, dims), np.nan) if matrices is None else matrices
            parts.append(np.vectorize(_rounded, otypes=[float])(pack_matrices(matrices)))
    return [[format_number(value) for value in row] for row in np.concatenate(parts, axis=1)]


def _rounded(value: float) -> float:
    """Round to six digits, which is enough for an estimated matrix."""
    return float(f"{value:.6g}")


def _write_rows(path: Path, common: LandmarkSet, rows: Iterable[list[str]]) -> None:
    # names of images may come from the file system, where they need not be UTF-8
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.write(f"# coordinate_system={common.coordinate_system}\n")
        if common.coverage is not None:
            file.write(f"# coverage={common.coverage!r}\n")
        if common.pairs:
            file.write(f"# pairs={json.dumps(common.pairs, ensure_ascii=False)}\n")
        csv.writer(file, lineterminator="\n").writerows(rows)
