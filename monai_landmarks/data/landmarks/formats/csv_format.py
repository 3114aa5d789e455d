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
mm. A blank cell, ``nan`` or ``na`` is a missing coordinate. Other columns are ignored.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from monai_landmarks.data.files.csv_rows import format_number, is_number, parse_number, split_rows
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import read_lines
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet
from monai_landmarks.data.landmarks.point_matrices import pack_matrices, triangle, unpack_matrices

from .common import common_set

__all__ = ["read_csv_table", "write_csv", "write_csv_table"]

_AXES = ("x", "y", "z")
_MATRICES = {"covariances": "cov", "regions": "region"}
_BESIDE = ("score", *(f"{prefix}_{entry}" for prefix in _MATRICES.values() for entry in triangle(3)))
_RESERVED = {"image", "landmark", *_AXES, *_BESIDE}


class _Record(NamedTuple):
    line: int
    image: str | None
    name: str
    point: list[float]
    beside: dict[str, float]  # entries of _BESIDE for which the file has a column


def read_csv_table(
    path: Path, coordinate_system: CoordinateSystem | str | None = None
) -> dict[str | None, LandmarkSet]:
    """Read the landmarks of one image or of many images from a CSV in any of the three forms.

    Args:
        path: the CSV file.
        coordinate_system: coordinate system of a file that does not state its own. A file that states another one is an
            error.

    Returns:
        the landmark set of each image, in the order of the file. The key is None if there is no column for the image.
        All sets have the same names; a landmark that only other images have is missing (NaN).

    Raises:
        ValueError: if the file is malformed, with line and what was expected.
    """
    return _parse(read_lines(path), coordinate_system)


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
    common = common_set(list(sets.values()))
    _write_rows(path, common, (_long_rows if form == "long" else _wide_rows)(sets, common))


def write_csv(path: Path, landmark_set: LandmarkSet) -> None:
    """Write one landmark set to a CSV: in long form if it has an image name, otherwise without the image column."""
    rows = _long_rows({landmark_set.image or "": landmark_set}, landmark_set)
    if landmark_set.image is None:
        rows = [row[1:] for row in rows]
    _write_rows(path, landmark_set, rows)


def _parse(lines: list[str], default: CoordinateSystem | str | None) -> dict[str | None, LandmarkSet]:
    start = next((i for i, line in enumerate(lines) if line.strip() and line.lstrip()[0] != "#"), len(lines))
    stated = _parse_comments(lines[:start])
    rows = list(split_rows(lines[start:], start + 1))
    if not rows:
        raise ValueError("no header; expected a first row such as 'image,landmark,x,y'.")
    (line, header), body = rows[0], rows[1:]
    columns = _parse_header(line, header)
    for number, cells in body:
        if len(cells) != len(header):
            raise ValueError(
                f"line {number}: {len(cells)} columns; expected {len(header)} ({','.join(header[:6])}...)."
            )
    if "landmark" in columns:
        dims, records = _parse_long(columns, body)
        names = None
    else:
        names, dims, records = _parse_wide(line, header, body)
    system = CoordinateSystem(stated.get("coordinate_system") or default or ("index" if dims == 2 else "RAS"))
    if default is not None and system != CoordinateSystem(default):
        raise ValueError(f"states coordinate_system={system}, but {CoordinateSystem(default)} was asked for.")
    return _assemble(records, names, dims, system, stated)


def _parse_comments(lines: list[str]) -> dict[str, str]:
    stated = {}
    for line in lines:
        # spreadsheet programs pad a comment with empty cells
        key, equals, value = line.strip().strip(",").lstrip("#").partition("=")
        if equals:
            stated[key.strip().lower()] = value.strip()
    return stated


def _parse_pairs(stated: dict[str, str]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple((left, right) for left, right in load_json(stated.get("pairs", "[]")))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"pairs is {stated['pairs']!r}; expected pairs of names, for example [[\"left eye\", \"right eye\"]]."
        ) from error


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


def _parse_long(columns: dict[str, int], body: list[tuple[int, list[str]]]) -> tuple[int, list[_Record]]:
    axes = [axis for axis in _AXES if axis in columns]
    records = []
    for line, cells in body:
        for key in ("image", "landmark"):
            if key in columns and not cells[columns[key]]:
                raise ValueError(f"line {line}: column {key!r} is blank; expected a name.")
        point = [parse_number(cells[columns[axis]], line, axis) for axis in axes]
        beside = {key: parse_number(cells[columns[key]], line, key) for key in _BESIDE if key in columns}
        image = cells[columns["image"]] if "image" in columns else None
        records.append(_Record(line, image, cells[columns["landmark"]], point, beside))
    return len(axes), records


def _parse_wide(
    line: int, header: list[str], body: list[tuple[int, list[str]]]
) -> tuple[list[str], int, list[_Record]]:
    columns: dict[str, dict[str, int]] = {}
    for i, column in enumerate(header):
        name, part = _parse_column(column)
        if name and part:
            columns.setdefault(name, {})[part] = i
    if not columns:
        raise ValueError(f"line {line}: no landmark in the header; expected columns such as 'nasion_x,nasion_y'.")
    image_column = [column.lower() for column in header].index("image")
    dims = 3 if any("z" in axes for axes in columns.values()) else 2
    for name, axes in columns.items():
        absent = [f"{name}_{axis}" for axis in _AXES[:dims] if axis not in axes]
        if absent:
            raise ValueError(f"line {line}: landmark {name!r} has no column {absent[0]!r} in the header.")
    records, seen = [], {}
    for number, cells in body:
        image = cells[image_column]
        if not image:
            raise ValueError(f"line {number}: column 'image' is blank; expected a name.")
        if image in seen:
            raise ValueError(
                f"line {number}: image {image!r} is also in line {seen[image]}; expected one row per image."
            )
        seen[image] = number
        for name, axes in columns.items():
            point = [parse_number(cells[axes[axis]], number, f"{name}_{axis}") for axis in _AXES[:dims]]
            beside = {key: parse_number(cells[axes[key]], number, f"{name}_{key}") for key in _BESIDE if key in axes}
            records.append(_Record(number, image, name, point, beside))
    return list(columns), dims, records


def _parse_column(column: str) -> tuple[str, str]:
    """Return the landmark of a column and the part that it holds; both are empty for any other column."""
    lower = column.lower()
    part = max((part for part in (*_AXES, *_BESIDE) if lower.endswith(f"_{part}")), key=len, default="")
    return (column[: -len(part) - 1], part) if part else ("", "")


def _assemble(
    records: list[_Record], names: list[str] | None, dims: int, system: CoordinateSystem, stated: dict[str, str]
) -> dict[str | None, LandmarkSet]:
    names = list(dict.fromkeys(record.name for record in records)) if names is None else names
    pairs = _parse_pairs(stated)
    index = {name: i for i, name in enumerate(names)}
    lines: dict[tuple[str | None, str], int] = {}
    columns = sorted({key for record in records for key in record.beside}, key=_BESIDE.index)
    tables: dict[str | None, np.ndarray] = {}  # per image: coordinates, then the other columns
    for record in records:
        key = (record.image, record.name)
        if key in lines:
            of_image = "" if record.image is None else f" of image {record.image!r}"
            raise ValueError(
                f"line {record.line}: landmark {record.name!r}{of_image} is also in line {lines[key]}; expected one row."
            )
        lines[key] = record.line
        if 0 < np.isnan(record.point).sum() < dims:
            raise ValueError(
                f"line {record.line}: landmark {record.name!r} is at {record.point}; expected {dims} numbers, or none if it"
                " is missing."
            )
        table = tables.setdefault(record.image, np.full((len(names), dims + len(columns)), np.nan))
        table[index[record.name]] = [*record.point, *(record.beside.get(column, np.nan) for column in columns)]
    result = {}
    for image, table in tables.items():
        beside = _parse_beside(dict(zip(columns, table[:, dims:].T)), dims, stated)
        result[image] = LandmarkSet(tuple(names), table[:, :dims], system, pairs, image, **beside)
    return result


def _parse_beside(columns: dict[str, np.ndarray], dims: int, stated: dict[str, str]) -> dict[str, Any]:
    """Return scores, covariances, regions and coverage as arguments of :class:`LandmarkSet`."""
    result: dict[str, Any] = {"scores": columns["score"]} if "score" in columns else {}
    for key, prefix in _MATRICES.items():
        wanted = [f"{prefix}_{entry}" for entry in triangle(dims)]
        found = [column for column in columns if column.startswith(f"{prefix}_")]
        if found and found != wanted:
            raise ValueError(f"the columns are {','.join(found)}; expected {','.join(wanted)} for {dims}-D points.")
        if found:
            result[key] = unpack_matrices(np.stack([columns[column] for column in wanted], axis=1), dims)
    if "regions" in result:
        coverage = stated.get("coverage", "")
        if not is_number(coverage):
            raise ValueError(
                f"there are regions, but coverage is {coverage!r}; expected a comment such as '# coverage=0.9'."
            )
        result["coverage"] = float(coverage)
    return result


def _long_rows(sets: Mapping[str, LandmarkSet], common: LandmarkSet) -> list[list[str]]:
    rows = [["image", "landmark", *_columns(common)]]
    for image, landmark_set in sets.items():
        rows += [[image, name, *cells] for name, cells in zip(landmark_set.names, _cells(landmark_set, common))]
    return rows


def _wide_rows(sets: Mapping[str, LandmarkSet], common: LandmarkSet) -> list[list[str]]:
    rows = [["image", *(f"{name}_{column}" for name in common.names for column in _columns(common))]]
    for image, landmark_set in sets.items():
        cells = _cells(landmark_set.reorder(common.names), common)
        rows.append([image, *(cell for landmark in cells for cell in landmark)])
    return rows


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


def _write_rows(path: Path, common: LandmarkSet, rows: list[list[str]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(f"# coordinate_system={common.coordinate_system}\n")
        if common.coverage is not None:
            file.write(f"# coverage={common.coverage!r}\n")
        if common.pairs:
            file.write(f"# pairs={json.dumps(common.pairs, ensure_ascii=False)}\n")
        csv.writer(file, lineterminator="\n").writerows(rows)
