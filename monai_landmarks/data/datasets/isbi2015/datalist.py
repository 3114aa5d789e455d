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

"""Datalist of the ISBI 2015 cephalograms: 400 lateral images, 19 landmarks, two doctors.

References:
    Wang et al., A benchmark for comparison of dental radiography analysis algorithms, Medical Image Analysis 31 (2016),
    https://doi.org/10.1016/j.media.2016.02.004
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from monai_landmarks.data.datalists.datalist import LabeledImage, assemble_datalist
from monai_landmarks.data.datalists.groups_pairs_splits import landmarks_of, read_splits
from monai_landmarks.data.datalists.split import split_images
from monai_landmarks.data.datasets.public_dataset import find_topmost
from monai_landmarks.data.images.image_files import image_stem, read_geometry
from monai_landmarks.data.images.image_folder import find_images
from monai_landmarks.data.landmarks.landmark_io import read_landmark_table, read_landmarks
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .annotation_text import ISBI2015_LANDMARKS

__all__ = ["ISBI2015_LANDMARKS", "isbi2015_datalist", "read_isbi2015_part"]

Annotator = Literal["mean", "senior", "junior", "challenge"]
_FILM_WIDTH = 193.5  # mm; 1935 pixels of 0.1 mm in the official images
_OFFICIAL_WIDTH = 1935
# section of the datalist: folder of the official layout, split of the table layout
_SECTIONS = {"training": ("TrainingData", "train"), "testing": ("Test1Data", "test1"), "test2": ("Test2Data", "test2")}


def isbi2015_datalist(
    root_dir: str | os.PathLike,
    output: str | os.PathLike | None = None,
    annotator: Annotator = "mean",
    val_frac: float = 0.2,
    seed: int = 0,
    *,
    test2: bool = False,
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of the ISBI 2015 challenge from the official files, or from a reduced copy with tables.

    The official layout has images ``RawImage/{TrainingData,Test1Data,Test2Data}/*.bmp`` and annotations
    ``AnnotationsByMD/{400_senior,400_junior}/*.txt`` with 19 lines ``x,y`` per image. These folders may be anywhere
    below ``root_dir``. The layout with tables has ``images/``, ``splits.csv`` (image, split: train, test1, test2),
    ``landmarks.csv`` (mean of both doctors) and ``landmarks_{senior,junior,challenge}.csv``, in pixels of its images.

    Points are pixel index. The pixel size follows from the width of the images (0.1 mm at 1935 pixels).

    Args:
        root_dir: folder of the data.
        output: file to write. Image paths become relative to it. Without it they are absolute.
        annotator: whose points are the ground truth: ``"mean"`` of both doctors, ``"senior"``, ``"junior"``, or
            ``"challenge"``, the ground truth of the 2015 challenge. That is the senior's, except for the soft tissue
            pogonion in test2. The official files do not contain the exception; with them, ``"challenge"`` is the
            senior's.
        val_frac: fraction of the training images to draw for validation.
        seed: seed of the draw.
        test2: whether to add the section ``test2``.
        check: whether to read all images and raise an error if the datalist has faults. This takes some minutes with
            the official images.

    Returns:
        the datalist with sections ``training`` and ``validation`` (150 images), ``testing`` (test1, 150 images), and
        ``test2`` (100 images) if requested. There are no left-right pairs, because the film shows the head from the
        side.

    Raises:
        ValueError: if the folder has neither layout, or a file is missing or malformed.
        DatalistError: if the check finds faults.
    """
    if annotator not in get_args(Annotator):
        raise ValueError(f"annotator is {annotator!r}; expected one of {', '.join(get_args(Annotator))}.")
    root = Path(root_dir)
    found = {key: read_isbi2015_part(root, key, annotator) for key in _SECTIONS if test2 or key != "test2"}
    spacing = _spacing(next(iter(found["training"])), official=not _has_tables(root))
    images = {path.name: path for path in found["training"]}
    validation, training = split_images(list(images), [val_frac], seed)
    paths = {
        "training": [images[name] for name in training],
        "validation": [images[name] for name in validation],
        **{section: list(sets) for section, sets in found.items() if section != "training"},
    }
    landmarks = {path: landmark_set for sets in found.values() for path, landmark_set in sets.items()}
    sections = {key: [LabeledImage(path, landmarks[path], spacing) for path in part] for key, part in paths.items()}
    name = f"ISBI 2015 cephalograms, truth: {annotator}"
    return assemble_datalist(name, ISBI2015_LANDMARKS, sections, output, check=check)


def read_isbi2015_part(root: Path, section: str, annotator: Annotator = "mean") -> dict[Path, LandmarkSet]:
    """Read the landmarks of each image of a section (training, testing, test2), in either layout."""
    read = _read_tables if _has_tables(root) else _read_official
    return read(root, *_SECTIONS[section], annotator)


def _has_tables(root: Path) -> bool:
    return (root / "splits.csv").is_file()


def _read_tables(root: Path, folder: str, split: str, annotator: Annotator) -> dict[Path, LandmarkSet]:
    name = "landmarks.csv" if annotator == "mean" else f"landmarks_{annotator}.csv"
    table = read_landmark_table(root / name, coordinate_system="index")
    splits = read_splits(root / "splits.csv")
    if split not in splits:
        raise ValueError(f"{root / 'splits.csv'}: no image has the split {split!r}.")
    sets = {}
    for image in splits[split]:
        path = root / "images" / image
        sets[path] = landmarks_of(image, table, ISBI2015_LANDMARKS, root / name)
        if not path.is_file():
            raise ValueError(f"{path}: no such image, but it is in splits.csv.")
    return sets


def _read_official(root: Path, folder: str, split: str, annotator: Annotator) -> dict[Path, LandmarkSet]:
    doctors = {"mean": ("senior", "junior"), "challenge": ("senior",)}.get(annotator, (annotator,))
    annotations = [_find_folder(root, f"400_{doctor}") for doctor in doctors]
    sets = {}
    for image in find_images(_find_folder(root, folder)):
        points = np.mean([_read_points(texts / f"{image_stem(image)}.txt") for texts in annotations], axis=0)
        sets[image] = LandmarkSet(ISBI2015_LANDMARKS, points, CoordinateSystem.INDEX, image=image.name)
    return sets


def _find_folder(root: Path, name: str) -> Path:
    found = find_topmost(root, name)
    if found is None:
        raise ValueError(
            f"{root}: no folder {name!r} below it, and no 'splits.csv'; expected the official RawImage and"
            " AnnotationsByMD, or images, splits.csv and landmarks.csv."
        )
    return found


def _read_points(path: Path) -> np.ndarray:
    """Read the 19 points (19, 2) of an official annotation file."""
    if not path.is_file():
        raise ValueError(f"{path}: no such annotation file.")
    return read_landmarks(path, format="isbi2015").points


def _spacing(image: Path, official: bool) -> float:
    shape, _ = read_geometry(image)
    if official and shape[0] != _OFFICIAL_WIDTH:
        raise ValueError(
            f"{image}: {shape[0]} pixels wide; expected {_OFFICIAL_WIDTH}, to which its annotations refer."
        )
    return round(_FILM_WIDTH / shape[0], 6)
