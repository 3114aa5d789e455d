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

"""Datalists: the images and landmarks of the sections training, validation and testing.

A datalist is JSON in the layout of the Medical Segmentation Decathlon, which MONAI reads. It also describes the
landmarks::

    {
      "landmarks": {"names": ["a", "b"], "pairs": [["a", "b"]], "coordinate_system": "index"},
      "training": [{"image": "images/1.png", "label": [[3.5, 4.0], [null, null]], "spacing": [0.1, 0.1]}, ...],
      "validation": [{"image": "images/2.nii.gz", "label": "points/2.mrk.json"}, ...],
      "testing": []
    }

Paths are relative to the JSON file. A label is a list of points or the path of a landmark file. A list has one point
per name, in the stated coordinate system, with ``null`` for missing landmarks. A landmark file states its own names and
coordinate system. ``spacing`` is the (x, y) pixel size in mm of images whose format does not store it, such as PNG.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import atomic_write, naming_file, read_text
from monai_landmarks.data.images.image_files import ensure_pixel_size, has_spacing, relative_path
from monai_landmarks.data.landmarks.landmark_io import read_landmark_sets
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .datalist_faults import DatalistError, is_positive, is_spacing, require_valid_datalist
from .pairing import LandmarkCase, pair_landmarks
from .split import fold_images, group_images, require_group_pattern, split_images

__all__ = [
    "LabeledImage",
    "assemble_datalist",
    "build_datalist",
    "datalist_item",
    "load_landmark_datalist",
    "load_landmark_definition",
    "load_landmark_pairs",
    "make_datalists",
    "read_item_landmarks",
    "save_datalist",
]


def build_datalist(
    images: str | os.PathLike | Iterable[str | os.PathLike],
    landmarks: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    val_frac: float = 0.2,
    test_frac: float = 0.0,
    seed: int = 0,
    group_pattern: str | None = None,
    groups: Mapping[str, str] | None = None,
    pairs: Sequence[Sequence[str]] | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
    check: bool = True,
) -> dict[str, Any]:
    """Make a datalist from images and their landmarks.

    Args:
        images: a folder of images, which is searched with its subfolders, or the images.
        landmarks: a table of many images, such as a CSV in long or wide form; a folder of landmark files, each with the
            name of its image; or a table that lists the landmark file of each image. See :func:`pair_landmarks`.
        output: file to write. Image paths become relative to it. Without it they are absolute.
        val_frac: fraction of the images to draw for validation.
        test_frac: fraction of the images to draw for testing.
        seed: seed of the draw.
        group_pattern: regular expression that finds the group, for example the patient, in the path of an image (in its
            folder, or as given). Images of a group stay in one section; see :func:`split_images`.
        groups: group of each image, by its path in the folder (or as given), instead of a pattern.
        pairs: (left, right) names of landmarks that are exchanged when the image is mirrored. By default those that the
            landmark files state.
        spacing: pixel size in mm, one number or (x, y), of images whose format does not store it; 1 to work in pixels.
        coordinate_system: coordinate system of landmark files that do not state their own.
        check: whether to read every image and raise an error if the datalist has faults, before anything is written;
            see :func:`check_datalist`.

    Returns:
        the datalist with the sections training, validation and testing. Images without landmarks are left out, with a
        warning.

    Raises:
        ValueError: if there is no image or no landmark file, or the images cannot be split as requested.
        DatalistError: if landmarks have no image, a file is malformed, or the check finds faults. It lists all of them.
    """
    if group_pattern is not None:
        require_group_pattern(group_pattern)  # before all files are read
    pairing = pair_landmarks(images, landmarks, coordinate_system)
    if pairing.faults or pairing.absent:
        raise DatalistError(os.fspath(landmarks), [*pairing.faults, *pairing.absent])
    for note in pairing.notes:
        warnings.warn(note)
    if pairing.unlabeled:
        count = len(pairing.unlabeled) + len(pairing.cases)
        warnings.warn(
            f"{len(pairing.unlabeled)} of {count} images have no landmarks and are left out: {_some(pairing.unlabeled)}."
        )
    base = None if output is None else Path(output).parent
    names = [case.name for case in pairing.cases]
    [datalist] = make_datalists(
        pairing.cases,
        base,
        val_frac=val_frac,
        test_frac=test_frac,
        seed=seed,
        groups=groups or group_images(names, group_pattern),
        pairs=pairs,
        spacing=spacing,
        inline=coordinate_system is not None or pairing.is_assumed,  # so that the datalist states what the files do not
    )
    return _finish(datalist, output, check)


def make_datalists(
    cases: Sequence[LandmarkCase],
    base_dir: str | os.PathLike | None = None,
    *,
    val_frac: float = 0.2,
    test_frac: float = 0.0,
    folds: int = 0,
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
    pairs: Sequence[Sequence[str]] | None = None,
    spacing: float | Sequence[float] | None = None,
    inline: bool = False,
    sections: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Make one datalist, or one per fold of a cross-validation, from pairs of images and landmarks.

    Args:
        cases: result of :func:`pair_landmarks`.
        base_dir: folder to which the paths are relative. Without it they are absolute.
        val_frac: fraction of the images to draw for validation; ignored with folds.
        test_frac: fraction of the images to draw for testing.
        folds: number of folds; 0 for a single datalist. Each fold is the validation section of one datalist and part of
            the training section of the others. All datalists have the same testing section.
        seed: seed of the draw.
        groups: group of each image, by the name of its case. Images of a group stay in one section.
        pairs: see :func:`build_datalist`.
        spacing: see :func:`build_datalist`.
        inline: whether to write all points into the datalist, even if an image has its own landmark file.
        sections: section of each image, by the name of its case: ``"training"``, ``"validation"`` or ``"testing"``.
            Nothing is drawn then, and ``val_frac`` and ``test_frac`` are ignored. With folds, the images that are not
            for testing are divided into folds.

    Returns:
        one datalist, or one per fold.

    Raises:
        ValueError: if the images cannot be split as requested, images of a group have different sections, or some
            points are pixel index and others are in the world.
    """
    definition = _define([case.landmarks for case in cases], pairs)
    listed = [case for case in cases if inline or not case.is_file]
    if listed:
        definition["coordinate_system"] = listed[0].landmarks.coordinate_system.value
    items = {}
    for case in cases:
        label: LandmarkSet | str = relative_path(case.source, base_dir)
        if inline or not case.is_file:
            label = case.landmarks.to(definition["coordinate_system"]).reorder(definition["names"])
        image = relative_path(case.image, base_dir)
        items[case.name] = datalist_item(image, label, None if has_spacing(case.image) else spacing)
    if sections is None:
        fractions = [0.0 if folds else val_frac, test_frac]
        drawn, testing, rest = split_images(list(items), fractions, seed, groups=groups)
    else:
        drawn, testing, rest = _given_parts(list(items), sections, groups)
        rest = [name for name in items if name in {*drawn, *rest}] if folds else rest
        if not rest:
            raise ValueError(f"none of the {len(items)} images is for training.")
    validations = fold_images(rest, folds, seed, groups) if folds else [drawn]
    datalists = []
    for validation in validations:
        elsewhere = {*validation, *testing}
        training = [name for name in items if name not in elsewhere]
        datalist: dict[str, Any] = {"landmarks": definition}
        for section, part in (("training", training), ("validation", validation), ("testing", testing)):
            datalist[section] = [items[name] for name in part]
        datalists.append(datalist)
    return datalists


def _given_parts(
    names: Sequence[str], sections: Mapping[str, str], groups: Mapping[str, str] | None
) -> tuple[list[str], list[str], list[str]]:
    """Return the images for validation, testing and training."""
    for name in names:
        if sections.get(name) not in ("training", "validation", "testing"):
            raise ValueError(
                f"{name}: the section is {sections.get(name)!r}; expected 'training', 'validation' or 'testing'."
            )
    if groups is not None:
        section_of: dict[str, str] = {}
        for name in names:
            if section_of.setdefault(groups[name], sections[name]) != sections[name]:
                raise ValueError(
                    f"{name}: its group {groups[name]!r} is in the sections {section_of[groups[name]]} and {sections[name]};"
                    " expected all images of a group in one section."
                )
    validation, testing, training = (
        [name for name in names if sections[name] == section] for section in ("validation", "testing", "training")
    )
    return validation, testing, training


class LabeledImage(NamedTuple):
    """An image with the landmarks that :func:`assemble_datalist` lists.

    Args:
        image: path of the image.
        landmarks: landmarks of the image.
        spacing: pixel size in mm, if the format of the image does not store it.
        extra: further entries of the item.
    """

    image: Path
    landmarks: LandmarkSet
    spacing: float | None = None
    extra: Mapping[str, Any] = {}


def assemble_datalist(
    name: str,
    names: Sequence[str],
    sections: Mapping[str, Iterable[LabeledImage]],
    output: str | os.PathLike | None = None,
    *,
    pairs: Iterable[Sequence[str]] = (),
    coordinate_system: CoordinateSystem | str = CoordinateSystem.INDEX,
    check: bool = False,
) -> dict[str, Any]:
    """Make the datalist of a dataset whose sections are known.

    Args:
        name: name of the dataset.
        names: names of the landmarks, in the order wanted. A landmark that an image does not have is missing.
        sections: images of each section.
        output: file to write. Image paths become relative to it. Without it they are absolute.
        pairs: (left, right) names of landmarks that are exchanged when the image is mirrored.
        coordinate_system: coordinate system of the points in the datalist.
        check: whether to read all images and raise an error if the datalist has faults.

    Returns:
        the datalist.

    Raises:
        DatalistError: if the check finds faults.
    """
    base = None if output is None else Path(output).parent
    system = CoordinateSystem(coordinate_system)
    datalist: dict[str, Any] = {
        "name": name,
        "landmarks": {"names": list(names), "pairs": [list(pair) for pair in pairs], "coordinate_system": system.value},
    }
    for section, images in sections.items():
        datalist[section] = [
            {**datalist_item(relative_path(image, base), landmarks.to(system).reorder(names), spacing), **extra}
            for image, landmarks, spacing, extra in images
        ]
    return _finish(datalist, output, check)


def _finish(datalist: dict[str, Any], output: str | os.PathLike | None, check: bool) -> dict[str, Any]:
    """Check and write a datalist, each if requested."""
    if check:
        require_valid_datalist(datalist, None if output is None else Path(output).parent)
    if output is not None:
        save_datalist(output, datalist)
    return datalist


def datalist_item(
    image: str, label: LandmarkSet | str, spacing: float | Sequence[float] | None = None
) -> dict[str, Any]:
    """Make one item of a datalist.

    Args:
        image: path of the image in the datalist.
        label: landmarks with the names of the datalist, in that order; or the path of a landmark file.
        spacing: pixel size in mm, one number for both axes or (x, y).

    Example:
        >>> datalist_item("1.png", LandmarkSet(["a", "b"], [[1, 2], [math.nan] * 2], "index"), spacing=0.5)
        {'image': '1.png', 'label': [[1.0, 2.0], [None, None]], 'spacing': [0.5, 0.5]}
    """
    item: dict[str, Any] = {"image": image, "label": _plain(label.points) if isinstance(label, LandmarkSet) else label}
    if spacing is not None:
        item["spacing"] = ensure_pixel_size(spacing)
    return item


def save_datalist(path: str | os.PathLike, datalist: Mapping[str, Any]) -> None:
    """Write a datalist as JSON, one line per item, NaN as null. The file is written completely or not at all."""
    entries = []
    for key, value in datalist.items():
        if isinstance(value, list):
            lines = ",\n".join(f"  {_dump(item)}" for item in value)
            entries.append(f" {_dump(key)}: [\n{lines}\n ]" if value else f" {_dump(key)}: []")
        else:
            entries.append(f" {_dump(key)}: {_dump(value)}")
    with atomic_write(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="utf-8")


def load_landmark_datalist(
    path: str | os.PathLike | Mapping[str, Any],
    section: str | Sequence[str] = "training",
    base_dir: str | os.PathLike | None = None,
) -> list[dict[str, Any]]:
    """Load the items of a section for ``LoadImaged`` and ``LoadLandmarksd``.

    Args:
        path: JSON file of the datalist, or its content.
        section: ``"training"``, ``"validation"``, ``"testing"`` or another section of the file; or several.
        base_dir: folder to which the paths are relative; by default that of the JSON file, or the working directory.

    Returns:
        one dictionary per item with ``image`` (absolute path) and ``label``: the absolute path of a landmark file, or a
        list of points with None for missing coordinates. A list also has ``label_coordinate_system`` and
        ``label_names``. Other entries of the item, such as ``spacing``, are kept; in lists of numbers, null becomes
        NaN.

    Raises:
        ValueError: if the file is not a datalist or has no such section, or a spacing is not positive.
    """
    in_memory = isinstance(path, Mapping)
    with naming_file("datalist" if in_memory else path):
        datalist = path if in_memory else _read(path)
        sections = [key for key, value in datalist.items() if isinstance(value, list)]
        wanted = [section] if isinstance(section, str) else list(section)
        unknown = [name for name in wanted if name not in sections]
        if unknown:
            raise ValueError(f"no section {unknown[0]!r}; there are {sections}.")
        definition = datalist.get("landmarks", {})
        for name in wanted:
            for i, entry in enumerate(datalist[name]):
                _require_spacing(entry, f"{name}[{i}]")
    folder = os.path.abspath(base_dir if base_dir is not None else "." if in_memory else Path(path).parent)
    items = []
    for entry in (entry for name in wanted for entry in datalist[name]):
        item = {key: value if key == "label" else _number_list(value) for key, value in entry.items()}
        item["image"] = os.path.normpath(os.path.join(folder, entry["image"]))
        if isinstance(entry.get("label"), str):
            item["label"] = os.path.normpath(os.path.join(folder, entry["label"]))
        elif "label" in entry:
            item["label_coordinate_system"] = definition.get("coordinate_system", CoordinateSystem.INDEX.value)
            if "names" in definition:
                item["label_names"] = definition["names"]
        items.append(item)
    return items


def read_item_landmarks(item: Mapping[str, Any], pairs: Sequence[Sequence[str]] = ()) -> LandmarkSet | None:
    """Read the landmarks of an item from its list of points or its landmark file.

    Args:
        item: item that :func:`load_landmark_datalist` returns.
        pairs: left-right pairs for a list of points; a file states its own.

    Returns:
        the landmarks, in the coordinate system that the datalist or the file states; None if the item has no label.

    Raises:
        ValueError: if the file is malformed or holds more than one image.

    Example:
        >>> item = {"image": "1.png", "label": [[1, 2], [None, None]]}
        >>> datalist = {"landmarks": {"names": ["a", "b"]}, "training": [item]}
        >>> landmarks = read_item_landmarks(load_landmark_datalist(datalist)[0])
        >>> landmarks.names, landmarks.missing.tolist()
        (('a', 'b'), [False, True])
    """
    label = item.get("label")
    if label is None:
        return None
    if isinstance(label, str):
        sets = read_landmark_sets(label)
        if len(sets) != 1:
            raise ValueError(f"{label}: holds {len(sets)} images; expected the landmarks of one.")
        return next(iter(sets.values()))
    points = np.array([[math.nan if value is None else value for value in point] for point in label], dtype=np.float64)
    declared = tuple((left, right) for left, right in pairs)
    return LandmarkSet(tuple(item["label_names"]), points, item["label_coordinate_system"], declared)


def load_landmark_definition(path: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """Load the description of the landmarks: ``names``, ``pairs`` and ``coordinate_system``.

    Args:
        path: JSON file of the datalist, or its content.

    Raises:
        ValueError: if the file is not a datalist of landmarks.
    """
    in_memory = isinstance(path, Mapping)
    with naming_file("datalist" if in_memory else path):
        definition = (path if in_memory else _read(path)).get("landmarks")
        if not isinstance(definition, dict) or "names" not in definition:
            raise ValueError("no 'landmarks' with 'names'; expected a datalist of landmarks.")
    return {"pairs": [], "coordinate_system": CoordinateSystem.INDEX.value, **definition}


def load_landmark_pairs(path: str | os.PathLike | Mapping[str, Any]) -> list[list[str]]:
    """Load the left-right pairs of a datalist, in the form that ``RandLandmarkFlipd`` takes.

    Args:
        path: JSON file of the datalist, or its content.

    Returns:
        pairs of names; empty if the datalist declares none.

    Raises:
        ValueError: if the file is not a datalist of landmarks.

    Example:
        >>> load_landmark_pairs({"landmarks": {"names": ["left", "right"], "pairs": [["left", "right"]]}})
        [['left', 'right']]
    """
    return [list(pair) for pair in load_landmark_definition(path)["pairs"]]


def _read(path: str | os.PathLike) -> dict[str, Any]:
    try:
        datalist = load_json(read_text(path))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{error} Expected a datalist, which 'monai-landmarks check' writes.") from error
    if not isinstance(datalist, dict):
        raise ValueError("not a JSON object; expected a datalist with sections such as 'training'.")
    return datalist


def _define(sets: list[LandmarkSet], pairs: Sequence[Sequence[str]] | None) -> dict[str, Any]:
    if pairs is None:
        pairs = list(dict.fromkeys(pair for landmark_set in sets for pair in landmark_set.pairs))
    return {
        "names": list(dict.fromkeys(name for landmark_set in sets for name in landmark_set.names)),
        "pairs": [list(pair) for pair in pairs],
        "coordinate_system": sets[0].coordinate_system.value if sets else CoordinateSystem.INDEX.value,
    }


def _require_spacing(entry: Any, where: str) -> None:
    spacing = entry.get("spacing") if isinstance(entry, Mapping) else None
    if spacing is not None and not (is_positive(spacing) or is_spacing(spacing)):
        raise ValueError(
            f"{where} ({entry.get('image')}): spacing is {spacing!r}; expected positive numbers in mm, one per axis."
        )


def _plain(value: Any) -> Any:
    """Convert to JSON types; NaN becomes None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _number_list(value: Any) -> Any:
    """Replace None by NaN in a list of numbers, so that items can be collated; return other values unchanged."""
    if not isinstance(value, list) or not all(part is None or isinstance(part, (int, float)) for part in value):
        return value
    return [math.nan if part is None else part for part in value]


def _dump(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _some(names: Sequence[object]) -> str:
    return ", ".join(str(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
