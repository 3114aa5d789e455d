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

"""The lateral cephalograms of the ISBI 2015 challenge: 400 images, 19 landmarks, two doctors.

Wang et al., A benchmark for comparison of dental radiography analysis algorithms, Medical Image Analysis 31 (2016),
https://doi.org/10.1016/j.media.2016.02.004.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.datalists.datalist import datalist_item, save_datalist
from monai_landmarks.data.datalists.datalist_format import check_datalist
from monai_landmarks.data.datalists.side_tables import read_splits
from monai_landmarks.data.datalists.split import split_images
from monai_landmarks.data.images.image_files import image_stem, read_geometry, relative_path
from monai_landmarks.data.images.image_folder import find_images
from monai_landmarks.data.landmarks.landmark_io import read_landmark_table, read_landmarks
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .annotation_text import ISBI2015_LANDMARKS

__all__ = ["ISBI2015_LANDMARKS", "isbi2015_datalist", "read_isbi2015_part"]

_ANNOTATORS = ("mean", "senior", "junior", "challenge")
_FILM_WIDTH = 193.5  # mm; 1935 pixels of 0.1 mm in the official images
_OFFICIAL_WIDTH = 1935
# section of the datalist: folder of the official layout, split of the table layout
_SECTIONS = {"training": ("TrainingData", "train"), "testing": ("Test1Data", "test1"), "test2": ("Test2Data", "test2")}


def isbi2015_datalist(
    root_dir: str | os.PathLike,
    output: str | os.PathLike | None = None,
    annotator: str = "mean",
    val_frac: float = 0.2,
    seed: int = 0,
    *,
    test2: bool = False,
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of the ISBI 2015 challenge from the official files, or from a reduced copy with tables.

    The official layout has the images in ``RawImage/{TrainingData,Test1Data,Test2Data}/*.bmp`` and 19 lines ``x,y`` an
    image in ``AnnotationsByMD/{400_senior,400_junior}/*.txt``; these folders may lie anywhere below ``root_dir``. The layout
    with tables has ``images/``, ``splits.csv`` (image, split: train, test1, test2), ``landmarks.csv`` (mean of both
    doctors) and ``landmarks_{senior,junior,challenge}.csv``, in pixels of its images.

    Points are pixel index; the pixel size follows from the width of the images (0.1 mm at 1935 pixels).

    Args:
        root_dir: folder of the data.
        output: where to write the datalist; image paths become relative to it. Without it they are absolute.
        annotator: whose points are the truth: ``"mean"`` of both doctors, ``"senior"``, ``"junior"``, or
            ``"challenge"``, the truth of the 2015 challenge. That is the senior's, except for the soft tissue pogonion in
            test2; the official files do not hold the exception, so with them it is the senior's throughout.
        val_frac: part of the training images to draw for validation.
        seed: the same seed draws the same images.
        test2: add the section ``test2``.
        check: read all images and check the datalist, which takes some minutes with the official images.

    Returns:
        the datalist with sections ``training`` and ``validation`` (150 images), ``testing`` (test1, 150 images), and
        ``test2`` (100 images) if asked for. There are no left-right pairs: the film shows the head from the side.

    Raises:
        ValueError: if the folder has neither layout, or a file is missing or malformed.
        DatalistError: if the check finds faults.
    """
    if annotator not in _ANNOTATORS:
        raise ValueError(f"annotator is {annotator!r}; expected one of {', '.join(_ANNOTATORS)}.")
    root = Path(root_dir)
    found = {key: read_isbi2015_part(root, key, annotator) for key in _SECTIONS if test2 or key != "test2"}
    base = None if output is None else Path(output).parent
    spacing = _spacing(next(iter(found["training"])), official=not _has_tables(root))
    datalist: dict[str, Any] = {
        "name": f"ISBI 2015 cephalograms, truth: {annotator}",
        "landmarks": {"names": list(ISBI2015_LANDMARKS), "pairs": [], "coordinate_system": "index"},
    }
    for section, sets in found.items():
        images = {image.name: image for image in sets}
        validation, rest = split_images(list(images), [val_frac if section == "training" else 0.0], seed)
        parts = {section: rest, **({"validation": validation} if section == "training" else {})}
        for key, names in parts.items():
            paths = [images[name] for name in names]
            datalist[key] = [datalist_item(relative_path(path, base), sets[path], spacing) for path in paths]
    if check:
        check_datalist(datalist, base)
    if output is not None:
        save_datalist(output, datalist)
    return datalist


def read_isbi2015_part(root: Path, section: str, annotator: str = "mean") -> dict[Path, LandmarkSet]:
    """The landmarks of each image of a section (training, testing, test2), in either layout."""
    read = _read_tables if _has_tables(root) else _read_official
    return read(root, *_SECTIONS[section], annotator)


def _has_tables(root: Path) -> bool:
    return (root / "splits.csv").is_file()


def _read_tables(root: Path, folder: str, split: str, annotator: str) -> dict[Path, LandmarkSet]:
    name = "landmarks.csv" if annotator == "mean" else f"landmarks_{annotator}.csv"
    table = read_landmark_table(root / name, coordinate_system="index")
    splits = read_splits(root / "splits.csv")
    if split not in splits:
        raise ValueError(f"{root / 'splits.csv'}: no image has the split {split!r}.")
    sets = {}
    for image in splits[split]:
        path = root / "images" / image
        if image not in table:
            raise ValueError(f"{root / name}: no landmarks of image {image!r}, which is in splits.csv.")
        if not path.is_file():
            raise ValueError(f"{path}: no such image, though it is in splits.csv.")
        sets[path] = _in_order(table[image], root / name)
    return sets


def _in_order(landmarks: LandmarkSet, source: Path) -> LandmarkSet:
    if set(landmarks.names) != set(ISBI2015_LANDMARKS):
        wrong = sorted(set(landmarks.names) ^ set(ISBI2015_LANDMARKS))
        raise ValueError(f"{source}: landmarks {wrong} are missing or unknown; expected ISBI2015_LANDMARKS.")
    return landmarks.reorder(ISBI2015_LANDMARKS)


def _read_official(root: Path, folder: str, split: str, annotator: str) -> dict[Path, LandmarkSet]:
    doctors = {"mean": ("senior", "junior"), "challenge": ("senior",)}.get(annotator, (annotator,))
    annotations = [_find_folder(root, f"400_{doctor}") for doctor in doctors]
    sets = {}
    for image in find_images(_find_folder(root, folder)):
        points = np.mean([_read_points(texts / f"{image_stem(image)}.txt") for texts in annotations], axis=0)
        sets[image] = LandmarkSet(ISBI2015_LANDMARKS, points, CoordinateSystem.INDEX, image=image.name)
    return sets


def _find_folder(root: Path, name: str) -> Path:
    found = min(root.rglob(name), key=lambda path: len(path.parts), default=None)
    if found is None:
        raise ValueError(
            f"{root}: no folder {name!r} below it, and no 'splits.csv'; expected the official RawImage and"
            " AnnotationsByMD, or images, splits.csv and landmarks.csv."
        )
    return found


def _read_points(path: Path) -> np.ndarray:
    """The 19 points (19, 2) of one official annotation file."""
    if not path.is_file():
        raise ValueError(f"{path}: no such annotation file.")
    return read_landmarks(path, format="isbi2015").points


def _spacing(image: Path, official: bool) -> float:
    shape, _ = read_geometry(image)
    if official and shape[0] != _OFFICIAL_WIDTH:
        raise ValueError(
            f"{image}: {shape[0]} pixels wide; expected {_OFFICIAL_WIDTH}, which its annotations refer to."
        )
    return round(_FILM_WIDTH / shape[0], 6)
