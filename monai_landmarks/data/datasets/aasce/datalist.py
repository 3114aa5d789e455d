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

"""Datalist of the AASCE 2019 spine radiographs (BoostNet, SpineWeb dataset 16): 609 images, 68 corners of vertebrae.

References:
    Wu et al., Automatic landmark estimation for adolescent idiopathic scoliosis assessment using BoostNet, MICCAI 2017,
    https://doi.org/10.1007/978-3-319-66182-7_15

    Wang et al., Evaluation and comparison of accurate automated spinal curvature estimation algorithms with spinal
    anterior-posterior X-ray images: The AASCE2019 challenge, Medical Image Analysis 72 (2021),
    https://doi.org/10.1016/j.media.2021.102115
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

from monai_landmarks.data.datalists.datalist import LabeledImage, assemble_datalist
from monai_landmarks.data.datalists.groups_pairs_splits import landmarks_of
from monai_landmarks.data.datalists.split import fold_images, group_images, split_images
from monai_landmarks.data.datasets.public_dataset import find_topmost
from monai_landmarks.data.files.csv_rows import parse_number
from monai_landmarks.data.files.safe_files import naming_file, read_text
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
# "sunhl-1th-02-Jan-2017-162 A AP.jpg" is patient 162; "...-coronal7.jpg" does not state the patient
_PATIENT = re.compile(r"-\d{4}-(\d+|coronal)")
# numbers with the same images; the patients of the other coronal images are unknown, so these stay together
_SAME_PATIENT = {"141": "77", "153": "78", "157": "79", "239": "238"} | dict.fromkeys(
    ("1", "5", "16", "35", "48"), "coronal"
)
_LEAST_STEP = 0.1  # smallest step down from one vertebra's center to the next, relative to the median step


class _Spine(NamedTuple):
    path: Path
    file: str  # its name in the official files
    points: np.ndarray  # (68, 2), pixel index
    angles: list[float]  # three, degrees
    flag: str = ""  # its issue in qc_flags.csv


def aasce_datalist(
    root_dir: str | os.PathLike,
    output: str | os.PathLike | None = None,
    val_frac: float = 0.2,
    seed: int = 0,
    *,
    folds: int | None = None,
    fold: int = 0,
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of the AASCE 2019 spine radiographs from the official files, or a reduced copy with tables.

    The official layout (``boostnet_labeldata``, anywhere below ``root_dir``) has ``data/{training,test}/*.jpg`` and
    ``labels/{training,test}/{filenames,landmarks,angles}.csv`` with one row per image: its name; 68 x and then 68 y as
    fractions of width and height; three Cobb angles. The layout with tables has ``images/``, ``landmarks.csv`` (image,
    landmark, x, y in pixels of its images), ``splits.csv`` (image, split: train or test, original_file, cobb1, cobb2,
    cobb3) and optionally ``qc_flags.csv`` (image, issue). Issues that begin with "exclude" leave an image out.

    Points are pixel index. **The pixel size is unknown**: the spacing in the datalist is 1, so that every value in mm
    in this package is in pixels of the image file. "Left" is the left of the image.

    The annotations have errors. Two kinds are corrected: vertebrae whose last one is the topmost are reordered, and a
    corner above its upper neighbor is exchanged with it. An image is left out and named in the log if a vertebra is not
    below the previous one (the same one was annotated twice), if a right corner is not to the right of the left one, or
    if a point is outside the image.

    The training images are split by patient, whose number is in the original file name. Some patients have several
    numbers with the same images; the known ones stay together. The numbers 239 to 244 are in both official parts,
    training and test.

    Args:
        root_dir: folder of the data.
        output: file to write. Image paths become relative to it. Without it they are absolute.
        val_frac: fraction of the training images to draw for validation.
        seed: seed of the draw. The same seed draws the same images in both layouts.
        folds: number of folds of a cross-validation by patient, in place of ``val_frac``.
        fold: number of the fold for validation, from 0. The other folds are for training.
        check: whether to read all images and raise an error if the datalist has faults. This takes a minute with the
            official images.

    Returns:
        the datalist with sections ``training`` and ``validation``, and ``testing`` if there are official test images.
        Besides image and label, an item has ``cobb_angles``: three angles in degrees from the table of the challenge,
        the largest first. If vertebrae were reordered, the second and third are unknown (NaN), because those of the
        table belong to the wrong order.

    Raises:
        ValueError: if the folder has neither layout, a file is missing or malformed, or there is no such fold.
        DatalistError: if the check finds faults.
    """
    root = Path(root_dir)
    found = {section: _plausible(_read_part(root, section)) for section in _SECTIONS}
    if not found["training"]:
        raise ValueError(f"{root}: no training image with plausible landmarks; the log names those that were left out.")
    names = {f"{_patient(spine)}/{spine.file}": spine for spine in found["training"]}
    if len(names) < len(found["training"]):
        twice = [file for file, count in Counter(spine.file for spine in found["training"]).items() if count > 1]
        raise ValueError(f"{root}: {twice[0]!r} is the original file of several training images; expected one.")
    patients = group_images(list(names), r"^\w+/")
    if folds is None:
        validation, training = split_images(list(names), [val_frac], seed, groups=patients)
    elif 0 <= fold < folds:
        validation = fold_images(list(names), folds, seed, patients)[fold]
        training = [name for name in names if name not in set(validation)]
    else:
        raise ValueError(f"fold is {fold}; expected a number from 0 to {folds - 1}, because there are {folds} folds.")
    parts = {
        "training": [names[name] for name in training],
        "validation": [names[name] for name in validation],
        "testing": found["testing"],
    }
    # loading a missing section is an error, but an empty one would be evaluated silently
    sections = {section: map(_labeled, part) for section, part in parts.items() if part}
    return assemble_datalist(
        "AASCE 2019 spine radiographs", AASCE_LANDMARKS, sections, output, pairs=AASCE_PAIRS, check=check
    )


def read_aasce_part(root: Path, section: str) -> dict[str, str | None]:
    """Return the fault of each image of a section (training, testing), in either layout; None if it has none."""
    return {spine.path.name: _fault(spine) for spine in _read_part(root, section)}


def _read_part(root: Path, section: str) -> list[_Spine]:
    read = _read_tables if (root / "splits.csv").is_file() else _read_official
    return read(root, *_SECTIONS[section])


def _labeled(spine: _Spine) -> LabeledImage:
    landmarks = LandmarkSet(AASCE_LANDMARKS, spine.points, CoordinateSystem.INDEX)
    return LabeledImage(spine.path, landmarks, spacing=1, extra={"cobb_angles": spine.angles})


def _patient(spine: _Spine) -> str:
    match = _PATIENT.search(spine.file)
    if match is None:
        raise ValueError(
            f"{spine.path}: the original name {spine.file!r} holds no patient number; expected a name such as"
            " 'sunhl-1th-02-Jan-2017-162 A AP.jpg', whose number is 162."
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
        points = landmarks_of(image, table, AASCE_LANDMARKS, root / "landmarks.csv").points
        flag = flags.get(image, "")
        spine = _in_order(_Spine(root / "images" / image, row["original_file"], points, cobb, flag))
        spines.append(_without_order(spine) if "re-sorted" in flag else spine)
    return spines


def _dict_rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read line number and cells, by column, of each row."""
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
    """Read the issues of the images that have one."""
    if not path.is_file():
        return {}
    with naming_file(path):
        return {row["image"]: row["issue"] for _, row in _dict_rows(path, ("image", "issue"))}


def _read_official(root: Path, split: str, folder: str) -> list[_Spine]:
    labels = find_topmost(root, "labels/training")
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
    """Order vertebrae from top to bottom, and upper corners before lower ones."""
    points, rotated = top_to_bottom(spine.points)
    spine = spine._replace(points=points)
    return _without_order(spine) if rotated else spine


def _without_order(spine: _Spine) -> _Spine:
    """Remove the angles that depend on the order of the vertebrae."""
    return spine._replace(angles=[spine.angles[0], math.nan, math.nan])


def _plausible(spines: list[_Spine]) -> list[_Spine]:
    faults = [_fault(spine) for spine in spines]
    wrong = [f"{spine.path.name} ({fault})" for spine, fault in zip(spines, faults) if fault]
    if wrong:
        logger.warning("%d images are left out because of wrong landmarks: %s", len(wrong), ", ".join(wrong))
    return [spine for spine, fault in zip(spines, faults) if not fault]


def _fault(spine: _Spine) -> str | None:
    """Return why the landmarks of an image cannot be correct; None if no fault is found."""
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
