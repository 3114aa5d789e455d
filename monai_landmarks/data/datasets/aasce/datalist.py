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

"""The spine radiographs of the AASCE 2019 challenge (BoostNet, SpineWeb data set 16): 609 images, 68 vertebra corners.

Wu et al., Automatic landmark estimation for adolescent idiopathic scoliosis assessment using BoostNet, MICCAI 2017,
https://doi.org/10.1007/978-3-319-66182-7_15; Wang et al., Evaluation and comparison of accurate automated spinal curvature
estimation algorithms with spinal anterior-posterior X-ray images: The AASCE2019 challenge, Medical Image Analysis 72
(2021), https://doi.org/10.1016/j.media.2021.102115.
"""

from __future__ import annotations

import csv
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_landmarks.data.datalists.datalist import datalist_item, save_datalist
from monai_landmarks.data.datalists.datalist_format import check_datalist
from monai_landmarks.data.datalists.split import split_images
from monai_landmarks.data.files.csv_rows import parse_number
from monai_landmarks.data.files.safe_files import naming_file, read_text
from monai_landmarks.data.images.image_files import relative_path
from monai_landmarks.data.landmarks.landmark_io import read_landmark_table
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .landmarks_csv import (
    AASCE_LANDMARKS,
    AASCE_PAIRS,
    AASCE_VERTEBRAE,
    image_size,
    read_filenames,
    read_numbers,
    read_points,
    top_to_bottom,
)

__all__ = ["AASCE_LANDMARKS", "AASCE_PAIRS", "aasce_datalist", "read_aasce_part"]

logger = logging.getLogger(__name__)

# section of the datalist: split of the table layout, folder of the official layout
_SECTIONS = {"training": ("train", "training"), "testing": ("test", "test")}
# "sunhl-1th-02-Jan-2017-162 A AP.jpg" is patient 162; "...-coronal7.jpg" does not say whose it is
_PATIENT = re.compile(r"-\d{4}-(\d+|coronal)")
# numbers under which the same pictures occur again; nobody knows whom the other coronal ones show, so they stay together
_SAME_PATIENT = {"141": "77", "153": "78", "157": "79", "239": "238"} | dict.fromkeys(
    ("1", "5", "16", "35", "48"), "coronal"
)
_LEAST_STEP = 0.1  # from one vertebra's center down to the next, as a part of the usual step


class _Spine(NamedTuple):
    path: Path
    file: str  # its name in the official set
    points: np.ndarray  # (68, 2), pixel index
    angles: list[float]  # three, degrees
    flag: str = ""  # what qc_flags.csv says of it


def aasce_datalist(
    root_dir: str | os.PathLike,
    output: str | os.PathLike | None = None,
    val_frac: float = 0.2,
    seed: int = 0,
    *,
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of the AASCE 2019 spine radiographs from the official files, or from a reduced copy with tables.

    The official layout (``boostnet_labeldata``, anywhere below ``root_dir``) has ``data/{training,test}/*.jpg`` and
    ``labels/{training,test}/{filenames,landmarks,angles}.csv``, a row an image: its name; 68 x and then 68 y as a part of
    width and height; three Cobb angles. The layout with tables has ``images/``, ``landmarks.csv`` (image, landmark, x, y in
    pixels of its images), ``splits.csv`` (image, split: train or test, original_file, cobb1, cobb2, cobb3) and perhaps
    ``qc_flags.csv`` (image, issue), whose issues "exclude: ..." leave an image out.

    Points are pixel index. **Nobody knows the size of a pixel**: the spacing in the list is 1, so that wherever this package
    says mm, it is pixels of the image file. "Left" is left in the image.

    The annotation has faults, which are corrected where it is clear how. Vertebrae whose last one is the topmost are put in
    order; a corner above its upper neighbor changes places with it. An image is left out, and named in the log, when a
    vertebra is not below the one before it (the same one was annotated twice), when a right corner is not to the right of
    the left one, or when a point is outside the image.

    The training images are divided by patient, whose number stands in the original file name. Some patients have several
    numbers, under which the same pictures occur; those found are kept together. The numbers 239 to 244 are in both
    official parts, training and test.

    Args:
        root_dir: folder of the data.
        output: where to write the datalist; image paths become relative to it. Without it they are absolute.
        val_frac: part of the training images to draw for validation.
        seed: the same seed draws the same images, in both layouts.
        check: read all images and check the datalist, which takes a minute with the official images.

    Returns:
        the datalist with sections ``training`` and ``validation``, and ``testing`` where there are official test images.
        Besides image and label, an item has ``cobb_angles``: three angles in degrees from the challenge's table, the
        greatest first. Where vertebrae were put in order, the second and third are unknown (NaN), since the table has
        those of the wrong order.

    Raises:
        ValueError: if the folder has neither layout, or a file is missing or malformed.
        DatalistError: if the check finds faults.
    """
    root = Path(root_dir)
    base = None if output is None else Path(output).parent
    found = {section: _plausible(_read_part(root, section)) for section in _SECTIONS}
    if not found["training"]:
        raise ValueError(f"{root}: no training image in it whose landmarks can be right; the log names those left out.")
    names = {f"{_patient(spine)}/{spine.file}": spine for spine in found["training"]}
    if len(names) < len(found["training"]):
        twice = [file for file, count in Counter(spine.file for spine in found["training"]).items() if count > 1]
        raise ValueError(f"{root}: {twice[0]!r} is the original file of more than one training image; expected one.")
    validation, training = split_images(list(names), [val_frac], seed, group_pattern=r"^\w+/")
    parts = {
        "training": [names[name] for name in training],
        "validation": [names[name] for name in validation],
        "testing": found["testing"],
    }
    pairs = [list(pair) for pair in AASCE_PAIRS]
    datalist: dict[str, Any] = {
        "name": "AASCE 2019 spine radiographs",
        "landmarks": {"names": list(AASCE_LANDMARKS), "pairs": pairs, "coordinate_system": "index"},
    }
    # a section that is not there is refused by its name; an empty one would be evaluated to nothing
    datalist |= {section: [_item(spine, base) for spine in part] for section, part in parts.items() if part}
    if check:
        check_datalist(datalist, base)
    if output is not None:
        save_datalist(output, datalist)
    return datalist


def read_aasce_part(root: Path, section: str) -> dict[str, str | None]:
    """What cannot be right about each image of a section (training, testing), in either layout; None where nothing is."""
    return {spine.path.name: _fault(spine) for spine in _read_part(root, section)}


def _read_part(root: Path, section: str) -> list[_Spine]:
    read = _read_tables if (root / "splits.csv").is_file() else _read_official
    return read(root, *_SECTIONS[section])


def _item(spine: _Spine, base: Path | None) -> dict[str, Any]:
    landmarks = LandmarkSet(AASCE_LANDMARKS, spine.points, CoordinateSystem.INDEX)
    return {**datalist_item(relative_path(spine.path, base), landmarks, spacing=1), "cobb_angles": spine.angles}


def _patient(spine: _Spine) -> str:
    match = _PATIENT.search(spine.file)
    if match is None:
        raise ValueError(
            f"{spine.path}: the original name {spine.file!r} has no patient in it; expected such as"
            " 'sunhl-1th-02-Jan-2017-162 A AP.jpg', in which it is 162."
        )
    return _SAME_PATIENT.get(match[1], match[1])


def _read_tables(root: Path, split: str, folder: str) -> list[_Spine]:
    with naming_file(root / "splits.csv"):
        columns = ("image", "split", "original_file", "cobb1", "cobb2", "cobb3")
        rows = [(line, row) for line, row in _dict_rows(root / "splits.csv", columns) if row["split"] == split]
        angles = [[parse_number(row[column], line, column) for column in columns[3:]] for line, row in rows]
    if not rows:
        return []
    table = read_landmark_table(root / "landmarks.csv", coordinate_system="index")
    flags = _read_flags(root / "qc_flags.csv")
    spines = []
    for (_, row), cobb in zip(rows, angles):
        image = row["image"]
        if image not in table:
            raise ValueError(f"{root / 'landmarks.csv'}: no landmarks of image {image!r}, which is in splits.csv.")
        if set(table[image].names) != set(AASCE_LANDMARKS):
            wrong = sorted(set(table[image].names) ^ set(AASCE_LANDMARKS))
            raise ValueError(
                f"{root / 'landmarks.csv'}: landmarks {wrong} are missing or unknown; see AASCE_LANDMARKS."
            )
        points = table[image].reorder(AASCE_LANDMARKS).points
        flag = flags.get(image, "")
        spine = _in_order(_Spine(root / "images" / image, row["original_file"], points, cobb, flag))
        spines.append(_without_order(spine) if "re-sorted" in flag else spine)
    return spines


def _dict_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line and cells by column of each row."""
    reader = csv.DictReader(read_text(path).splitlines())
    absent = [column for column in columns if column not in (reader.fieldnames or ())]
    if absent:
        raise ValueError(f"no column {absent[0]!r}; expected a table with columns {', '.join(columns)}.")
    rows = [(reader.line_num, row) for row in reader]
    for line, row in rows:
        if any(row[column] is None for column in columns):
            raise ValueError(
                f"line {line}: {len([c for c in row.values() if c is not None])} columns; expected as in line 1."
            )
    return rows


def _read_flags(path: Path) -> dict[str, str]:
    """What is wrong with an image, for those where something is."""
    if not path.is_file():
        return {}
    with naming_file(path):
        return {row["image"]: row["issue"] for _, row in _dict_rows(path, ("image", "issue"))}


def _read_official(root: Path, split: str, folder: str) -> list[_Spine]:
    labels = min(root.rglob("labels/training"), key=lambda path: len(path.parts), default=None)
    if labels is None:
        raise ValueError(
            f"{root}: no folder 'labels/training' below it, and no 'splits.csv'; expected the official boostnet_labeldata,"
            " or images, splits.csv and landmarks.csv."
        )
    labels = labels.with_name(folder)
    if folder == "test" and not labels.is_dir():
        return []
    files = read_filenames(labels / "filenames.csv")
    paths = [labels.parents[1] / "data" / folder / file for file in files]
    landmarks = read_points(labels / "landmarks.csv", paths)
    angles = read_numbers(labels / "angles.csv", 3, len(files))
    return [_in_order(_Spine(*row)) for row in zip(paths, files, landmarks, angles)]


def _in_order(spine: _Spine) -> _Spine:
    """Vertebrae from top to bottom, the upper corners before the lower ones."""
    points, rotated = top_to_bottom(spine.points)
    spine = spine._replace(points=points)
    return _without_order(spine) if rotated else spine


def _without_order(spine: _Spine) -> _Spine:
    """The same spine without the angles that depend on the order of the vertebrae."""
    return spine._replace(angles=[spine.angles[0], math.nan, math.nan])


def _plausible(spines: list[_Spine]) -> list[_Spine]:
    faults = [_fault(spine) for spine in spines]
    wrong = [f"{spine.path.name} ({fault})" for spine, fault in zip(spines, faults) if fault]
    if wrong:
        logger.warning("%d images are left out, whose landmarks cannot be right: %s", len(wrong), ", ".join(wrong))
    return [spine for spine, fault in zip(spines, faults) if not fault]


def _fault(spine: _Spine) -> str | None:
    """What cannot be right about the landmarks of an image; None where nothing is wrong."""
    if spine.flag.startswith("exclude"):
        return spine.flag
    vertebrae = spine.points.reshape(-1, 4, 2)
    steps = np.diff(vertebrae[..., 1].mean(1))
    low = np.flatnonzero(steps < _LEAST_STEP * np.nanmedian(steps))
    if len(low):
        return f"{AASCE_VERTEBRAE[low[0] + 1]} is not below {AASCE_VERTEBRAE[low[0]]}"
    crossed = np.flatnonzero((vertebrae[:, [1, 3], 0] <= vertebrae[:, [0, 2], 0]).any(1))
    if len(crossed):
        return f"left and right corners of {AASCE_VERTEBRAE[crossed[0]]} are mixed up"
    outside = (spine.points < -0.5).any(1) | (spine.points > image_size(spine.path) - 0.5).any(1)
    return f"{AASCE_LANDMARKS[np.flatnonzero(outside)[0]]} is outside the image" if outside.any() else None
