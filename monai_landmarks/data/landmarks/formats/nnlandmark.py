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

"""nnLandmark: label maps with one cube per landmark, and tables of voxel coordinates.

A label map (``.nii.gz``) holds a cube of 3x3x3 voxels for each landmark, with its own label. The point is the center of
mass of the label, as in nnLandmark. The names come from ``name_to_label.json`` or nnU-Net's ``dataset.json``, in the
same folder or the one above. ``all_landmarks_voxel.json`` holds the voxel coordinates of all cases::

    {"case_1": {"landmark_1": [13, 19, 89], "landmark_2": [19, 75, 85]}}

References:
    Ertl et al., nnLandmark: A self-configuring method for 3D medical landmark detection (2025),
    https://arxiv.org/abs/2504.06742; https://github.com/MIC-DKFZ/nnLandmark
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.files.json_values import load_json, read_position, short
from monai_landmarks.data.files.safe_files import atomic_write, naming_file, read_text
from monai_landmarks.data.images.image_files import read_header
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet

from .common import common_set, ensure_image, require_index, sets_of_images

__all__ = ["is_voxel_table", "read_label_cubes", "read_voxel_table", "write_label_cubes", "write_voxel_table"]

_NAME_FILES = ("name_to_label.json", "dataset.json")
_MAX_COMPRESSION = 1100  # largest compression ratio of gzip
_MAX_LABEL = 65535


def read_label_cubes(path: Path, names: Sequence[str] | None = None) -> LandmarkSet:
    """Read a label map: the center of mass of each label.

    Args:
        path: NIfTI file.
        names: names of the labels 1, 2, ...; by default those of the JSON file, or the labels themselves. A landmark
            whose label is not in the map is missing.

    Raises:
        ValueError: if the file cannot be read, holds values other than whole numbers from 0, or a label without name.
    """
    labels, points = _centers(_read_volume(path))
    if names is not None:
        table = {name: label for label, name in enumerate(names, 1)}
    else:
        table = _find_names(path)[0] or dict(zip(map(str, labels.tolist()), labels.tolist()))
    unknown = sorted(set(labels.tolist()) - set(table.values()))
    if unknown:
        raise ValueError(f"labels {unknown[:5]} have no name; expected labels among {sorted(table.values())[:50]}.")
    row = {label: i for i, label in enumerate(labels.tolist())}
    missing = np.full(points.shape[1], np.nan)
    centers = [points[row[label]] if label in row else missing for label in table.values()]
    return LandmarkSet(tuple(table), np.reshape(centers, (-1, points.shape[1])), CoordinateSystem.INDEX)


def write_label_cubes(path: Path, landmark_set: LandmarkSet, image: str | os.PathLike | None = None) -> None:
    """Write a label map with a cube of three voxels per axis around the voxel nearest to each landmark.

    The position within the voxel is lost. At the border the cube is cut, so that its center moves by half a voxel. A
    missing landmark has no cube. The labels are those of the JSON file. If there is none, ``name_to_label.json`` is
    written; names that it does not hold are added, so that all files of a folder have the same labels.

    Args:
        path: NIfTI file.
        landmark_set: pixel index.
        image: the image, for its shape and affine.

    Raises:
        ValueError: if the points are not pixel index, one is outside the image, two are so close that their cubes
            overlap, a name has no label in a JSON file other than ``name_to_label.json`` in this folder, or there is no
            image.
    """
    require_index(landmark_set, "label maps")
    shape, affine = read_header(ensure_image(image, "a label map has the shape and affine of the image"))
    table, source = _find_names(path)
    own = path.absolute().with_name(_NAME_FILES[0])
    new = [name for name in landmark_set.names if name not in table]
    if new and source not in (None, own):
        raise ValueError(f"landmarks {new[:5]} have no label in {source}.")
    first = max(table.values(), default=0) + 1
    table.update(zip(new, range(first, first + len(new))))
    volume = np.zeros(shape, np.uint8 if max(table.values(), default=0) < 256 else np.uint16)
    for name, center in _centers_in(landmark_set, shape):
        volume[tuple(slice(max(i - 1, 0), i + 2) for i in center)] = table[name]
    import nibabel as nib

    nib.save(nib.Nifti1Image(volume, affine), path)
    if new:
        with atomic_write(own) as temporary:
            temporary.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_voxel_table(content: Any) -> bool:
    """Return whether JSON is a table of voxel coordinates (cases with named points), and not ``spacing.json``."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(case, dict)
            and "image_spacing" not in case
            and all(point is None or isinstance(point, list) for point in case.values())
            for case in content.values()
        )
    )


def read_voxel_table(path: Path) -> dict[str, LandmarkSet]:
    """Read the landmarks of all cases as pixel index. A landmark that only other cases have is missing.

    Raises:
        ValueError: if the file is malformed, with case and landmark.
    """
    content = load_json(read_text(path))
    if not is_voxel_table(content):
        raise ValueError("no cases of named points; expected nnLandmark's all_landmarks_voxel.json.")
    points: dict[str, dict[str, list[float]]] = {case: {} for case in content}
    given = [(case, name, value) for case, named in content.items() for name, value in named.items()]
    there = [item for item in given if item[2] is not None and any(part is not None for part in item[2])]
    dims = 2 if there and len(there[0][2]) == 2 else 3
    for case, name, _ in given:
        points[case][name] = [np.nan] * dims
    for case, name, value in there:
        points[case][name] = read_position(value, dims, f"{short(case)}: {short(name)}")
    return sets_of_images(points, dims)


def write_voxel_table(path: Path, sets: Mapping[str, LandmarkSet]) -> None:
    """Write the landmarks of all cases. nnLandmark has no missing landmarks; they are left out.

    Raises:
        ValueError: if the points are not pixel index, or the sets contradict each other.
    """
    require_index(common_set(list(sets.values())), "nnLandmark's files")
    content = {
        case: {name: point.tolist() for name, point, missing in zip(s.names, s.points, s.missing) if not missing}
        for case, s in sets.items()
    }
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _read_volume(path: Path) -> np.ndarray:
    size = path.stat().st_size
    try:
        import nibabel as nib

        image: Any = nib.load(path)
        needed = math.prod(image.shape) * image.get_data_dtype().itemsize
        # a damaged header must not cause a huge allocation
        volume = np.asarray(image.dataobj) if needed <= size * _MAX_COMPRESSION else None
    except Exception as error:  # nibabel raises many types of errors for a damaged file
        raise ValueError(f"cannot be read as a NIfTI label map ({error}).") from error
    if volume is None:
        raise ValueError(f"the header states the shape {image.shape}, which is more than {size} bytes can hold.")
    while volume.ndim > 3 and volume.shape[-1] == 1:
        volume = volume[..., 0]
    if volume.ndim not in (2, 3) or volume.dtype.kind not in "iuf":
        raise ValueError(f"holds {volume.dtype} of shape {volume.shape}; expected the labels of an image or a volume.")
    return volume


def _centers(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels (L,) and the center of mass (L, D) of each."""
    voxels = np.nonzero(volume)
    values = volume[voxels]
    if len(values) and not ((values >= 1) & (values <= _MAX_LABEL) & (values == np.floor(values))).all():
        raise ValueError(f"holds values other than whole numbers from 0 to {_MAX_LABEL}; expected a label map.")
    labels, rows, counts = np.unique(values, return_inverse=True, return_counts=True)
    sums = [np.bincount(rows.ravel(), weights=axis, minlength=len(labels)) for axis in voxels]
    return labels.astype(int), np.stack(sums, axis=1) / counts[:, None]


def _centers_in(landmark_set: LandmarkSet, shape: tuple[int, ...]) -> list[tuple[str, list[int]]]:
    """Return names and nearest voxels of the landmarks that are present."""
    if len(shape) != landmark_set.spatial_dims:
        raise ValueError(f"the points are {landmark_set.spatial_dims}-D, but the image has the shape {shape}.")
    there = ~landmark_set.missing
    names = [name for name, present in zip(landmark_set.names, there) if present]
    centers = np.rint(landmark_set.points[there])
    for name, center in zip(names, centers):
        if (center < 0).any() or (center >= shape).any():
            raise ValueError(f"landmark {name!r} is at index {center.tolist()}, outside the image of shape {shape}.")
    for i, center in enumerate(centers):
        for j in np.flatnonzero((np.abs(centers[:i] - center) <= 2).all(axis=1)):
            raise ValueError(f"landmarks {names[j]!r} and {names[i]!r} are so close that their cubes overlap.")
    return [(name, center.astype(int).tolist()) for name, center in zip(names, centers)]


def _find_names(path: Path) -> tuple[dict[str, int], Path | None]:
    """Return the label of each name and the file that states them; an empty dictionary and None if there is none."""
    folder = path.absolute().parent
    files = [place / name for place in (folder, folder.parent) for name in _NAME_FILES]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return {}, None
    with naming_file(file):
        content = load_json(read_text(file))
        if file.name == _NAME_FILES[1] and isinstance(content, dict):
            content = content.get("labels")
        return _read_names(content), file


def _read_names(content: Any) -> dict[str, int]:
    labels = {name: label for name, label in content.items() if label != 0} if isinstance(content, dict) else {}
    if not labels or not all(type(label) is int and 0 < label <= _MAX_LABEL for label in labels.values()):
        raise ValueError(f"the labels are {short(content)}; expected a number for each name, or give the names.")
    if len({*labels.values()}) < len(labels):
        raise ValueError("two landmarks have the same label; expected distinct labels.")
    return labels
