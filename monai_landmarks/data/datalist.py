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

"""Datalists: which images and landmarks are for training, validation and testing.

A datalist is JSON in the layout of the Medical Segmentation Decathlon, which MONAI reads, with a description of the
landmarks beside the sections::

    {
      "landmarks": {"names": ["a", "b"], "pairs": [["a", "b"]], "coordinate_system": "index"},
      "training": [{"image": "images/1.png", "label": [[3.5, 4.0], [null, null]], "spacing": [0.1, 0.1]}, ...],
      "validation": [{"image": "images/2.nii.gz", "label": "points/2.mrk.json"}, ...],
      "testing": []
    }

Paths are relative to the JSON file. A label is a list of points, one for each name, in the stated coordinate system,
``null`` where missing; or a landmark file, which states its own names and coordinate system. ``spacing`` is the (x, y)
pixel size in mm of pictures such as PNG, which do not hold it.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .datalist_check import check_datalist
from .image_files import find_images, has_spacing, image_stem, relative_path
from .landmark_io import find_landmark_files, read_landmark_table, read_landmarks
from .landmark_set import CoordinateSystem, LandmarkSet
from .safe_files import atomic_write, naming_file, read_text
from .split import split_images

__all__ = [
    "build_datalist",
    "datalist_item",
    "load_landmark_datalist",
    "load_landmark_definition",
    "load_landmark_pairs",
    "save_datalist",
]


def build_datalist(
    images: str | os.PathLike | Iterable[str | os.PathLike],
    landmarks: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    val_fraction: float = 0.0,
    test_fraction: float = 0.0,
    seed: int = 0,
    group_pattern: str | None = None,
    pairs: Sequence[Sequence[str]] | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
    check: bool = True,
) -> dict[str, Any]:
    """Make a datalist from images and their landmarks.

    Args:
        images: a folder of images, searched with the folders in it, or the images themselves.
        landmarks: a table of many images (CSV, long or wide form), whose images are found by path, name or name without
            suffix; or a folder of landmark files, each named as its image but for the suffix.
        output: where to write the datalist; image paths become relative to it. Without it they are absolute.
        val_fraction: part of the images to draw for validation.
        test_fraction: part of the images to draw for testing.
        seed: the same seed draws the same images.
        group_pattern: regular expression which tells from an image's path in the folder (or the path given) what must
            stay together, such as the patient; see :func:`split_images`.
        pairs: (left, right) names of landmarks which change places when the image is mirrored. By default those which
            the landmark files state.
        spacing: pixel size in mm, one number or (x, y), of images whose format does not hold it; 1 to work in pixels.
        coordinate_system: of a table which does not state its own.
        check: read every image and check the datalist before anything is written, see :func:`check_datalist`.

    Returns:
        the datalist, with sections training, validation and testing. Images without landmarks are left out, with a
        warning.

    Raises:
        ValueError: if landmarks have no image, or a file is malformed.
        DatalistError: if the check finds faults; it lists them all.
    """
    files = find_images(images)
    root = Path(images) if isinstance(images, (str, os.PathLike)) else None
    base = None if output is None else Path(output).parent
    is_table = not Path(landmarks).is_dir()
    sets: dict[Path, LandmarkSet] = {}
    labels: dict[Path, Path] = {}
    if is_table:
        sets = _match_table(read_landmark_table(landmarks, coordinate_system), files, root, landmarks)
    else:
        labels = _match_files(Path(landmarks), files)
        sets = {image: read_landmarks(label) for image, label in labels.items()}
    without = [file for file in files if file not in sets]
    if without:
        warnings.warn(f"{len(without)} of {len(files)} images have no landmarks and are left out: {_some(without)}.")
    definition = _define(list(sets.values()), pairs)
    items = {}
    for image in files:
        if image in sets:
            label = relative_path(labels[image], base) if image in labels else sets[image].reorder(definition["names"])
            name = image.relative_to(root).as_posix() if root else str(image)
            items[name] = datalist_item(relative_path(image, base), label, None if has_spacing(image) else spacing)
    parts = split_images(list(items), [val_fraction, test_fraction], seed, group_pattern)
    datalist: dict[str, Any] = {"landmarks": definition}
    for section, part in zip(("training", "validation", "testing"), (parts[2], parts[0], parts[1])):
        datalist[section] = [items[image] for image in part]
    if check:
        check_datalist(datalist, base)
    if output is not None:
        save_datalist(output, datalist)
    return datalist


def datalist_item(
    image: str, label: LandmarkSet | str, spacing: float | Sequence[float] | None = None
) -> dict[str, Any]:
    """One entry of a datalist.

    Args:
        image: path of the image as it shall stand in the datalist.
        label: the landmarks, whose names and order must be the datalist's, or the path of a landmark file.
        spacing: pixel size in mm, one number for both axes or (x, y).

    Example:
        >>> datalist_item("1.png", LandmarkSet(["a", "b"], [[1, 2], [math.nan] * 2], "index"), spacing=0.5)
        {'image': '1.png', 'label': [[1.0, 2.0], [None, None]], 'spacing': [0.5, 0.5]}
    """
    item: dict[str, Any] = {"image": image, "label": _plain(label.points) if isinstance(label, LandmarkSet) else label}
    if spacing is not None:
        both = [spacing, spacing] if isinstance(spacing, (int, float)) else list(spacing)
        item["spacing"] = [float(value) for value in both]
    return item


def save_datalist(path: str | os.PathLike, datalist: Mapping[str, Any]) -> None:
    """Write a datalist as JSON, an item a line, NaN as null; the file is written whole or not at all."""
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
    """Items of one section of a datalist, ready for ``LoadImaged`` and ``LoadLandmarksd``.

    Args:
        path: the datalist's JSON file, or what it holds.
        section: ``"training"``, ``"validation"``, ``"testing"`` or another one of the file; or several.
        base_dir: folder which the paths are relative to; by default that of the JSON file, or the working directory.

    Returns:
        dictionaries with ``image`` (absolute path), ``label`` (absolute path of a landmark file, or a list of points
        with None where missing), for a list of points ``label_coordinate_system`` and ``label_names``, and what else the
        item holds, such as ``spacing``; in lists of numbers, null becomes NaN.

    Raises:
        ValueError: if the file is no datalist or has no such section.
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


def load_landmark_definition(path: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """What a datalist says of its landmarks: ``names``, ``pairs`` and ``coordinate_system``.

    Args:
        path: the datalist's JSON file, or what it holds.

    Raises:
        ValueError: if the file is no datalist of landmarks.
    """
    in_memory = isinstance(path, Mapping)
    with naming_file("datalist" if in_memory else path):
        definition = (path if in_memory else _read(path)).get("landmarks")
        if not isinstance(definition, dict) or "names" not in definition:
            raise ValueError("no 'landmarks' with 'names'; expected a datalist of landmarks.")
    return {"pairs": [], "coordinate_system": CoordinateSystem.INDEX.value, **definition}


def load_landmark_pairs(path: str | os.PathLike | Mapping[str, Any]) -> list[list[str]]:
    """The left-right pairs that a datalist declares, as ``RandLandmarkFlipd`` takes them.

    Args:
        path: the datalist's JSON file, or what it holds.

    Returns:
        pairs of names; none where the datalist declares none.

    Raises:
        ValueError: if the file is no datalist of landmarks.

    Example:
        >>> load_landmark_pairs({"landmarks": {"names": ["left eye", "right eye"], "pairs": [["left eye", "right eye"]]}})
        [['left eye', 'right eye']]
    """
    return [list(pair) for pair in load_landmark_definition(path)["pairs"]]


def _read(path: str | os.PathLike) -> dict[str, Any]:
    datalist = json.loads(read_text(path))
    if not isinstance(datalist, dict):
        raise ValueError("not a JSON object; expected a datalist with sections such as 'training'.")
    return datalist


def _match_table(
    table: dict[str, LandmarkSet], files: list[Path], root: Path | None, source: str | os.PathLike
) -> dict[Path, LandmarkSet]:
    known: dict[str, list[Path]] = {}
    for file in files:
        keys = {str(file), file.name, image_stem(file), *([file.relative_to(root).as_posix()] if root else [])}
        for key in keys:
            known.setdefault(key, []).append(file)
    absent = [image for image in table if image not in known]
    if absent:
        raise ValueError(f"{source}: {len(absent)} images of the table are not among the images: {_some(absent)}.")
    sets: dict[Path, LandmarkSet] = {}
    for image, landmark_set in table.items():
        matches = known[image]
        if len(matches) > 1 or matches[0] in sets:
            raise ValueError(f"{source}: {image!r} fits more than one image or row; expected a path that fits one.")
        sets[matches[0]] = landmark_set
    return sets


def _match_files(folder: Path, files: list[Path]) -> dict[Path, Path]:
    images: dict[str, Path] = {}
    for file in files:
        if image_stem(file) in images:
            raise ValueError(f"{file} and {images[image_stem(file)]} have the same stem; expected distinct names.")
        images[image_stem(file)] = file
    labels: dict[Path, Path] = {}
    for label, suffix in find_landmark_files(folder).items():
        image = images.get(label.name[: -len(suffix)])
        if image is None:
            raise ValueError(f"{label}: no image of this name; expected the landmark file to be named as its image.")
        if image in labels:
            raise ValueError(f"{label}: {labels[image]} holds landmarks of the same image; expected one file.")
        labels[image] = label
    if not labels:
        raise ValueError(f"{folder}: no landmark file in it.")
    return labels


def _define(sets: list[LandmarkSet], pairs: Sequence[Sequence[str]] | None) -> dict[str, Any]:
    if pairs is None:
        pairs = list(dict.fromkeys(pair for landmark_set in sets for pair in landmark_set.pairs))
    return {
        "names": list(dict.fromkeys(name for landmark_set in sets for name in landmark_set.names)),
        "pairs": [list(pair) for pair in pairs],
        "coordinate_system": sets[0].coordinate_system.value if sets else CoordinateSystem.INDEX.value,
    }


def _plain(value: Any) -> Any:
    """Lists and numbers as JSON knows them: NaN becomes None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def _number_list(value: Any) -> Any:
    """A list of numbers with NaN where JSON has null, so that items can be batched; anything else as it is."""
    if not isinstance(value, list) or not all(part is None or isinstance(part, (int, float)) for part in value):
        return value
    return [math.nan if part is None else part for part in value]


def _dump(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _some(names: Sequence[object]) -> str:
    return ", ".join(str(name) for name in names[:5]) + (", ..." if len(names) > 5 else "")
