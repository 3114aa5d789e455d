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
"""Conformal regions from files of predictions, and into files of predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_landmarks.data import CoordinateSystem, LandmarkSet, write_landmark_table, write_landmarks
from monai_landmarks.data.landmarks.landmark_io import read_landmark_sets
from monai_landmarks.uncertainty import ConformalRegions

from .sources import ImageGeometry, in_one_space, landmark_files, match_landmarks, read_truth

__all__ = ["calibrate_predictions", "state_regions"]

# those which can hold a region
_SUFFIXES = (".mrk.json", ".fcsv", ".csv", ".npz")


def calibrate_predictions(
    predictions: str | os.PathLike,
    landmarks: str | os.PathLike,
    *,
    coverage: float = 0.9,
    shape: str = "ball",
    pooled: bool = False,
    min_std: float = 0.1,
    images: str | os.PathLike | None = None,
    section: str | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: str | None = None,
) -> ConformalRegions:
    """Calibrate regions on predictions of images that no training has seen.

    Args:
        predictions: a folder of landmark files, as `PredictionSaver` writes it, or one file of many images.
        landmarks: the truth: a landmark file of many images, a folder of landmark files, or a datalist.
        coverage: see `ConformalRegions.calibrate`, as for ``shape``, ``pooled`` and ``min_std``.
        shape: see there.
        pooled: see there.
        min_std: see there.
        images: folder of the images, or a datalist, to know their pixel size.
        section: of a datalist, all if not given.
        spacing: pixel size in mm of pictures that no datalist speaks of; 1 to work in pixels.
        coordinate_system: of landmark files which do not state their own.

    Raises:
        ValueError: if a file is malformed, no image is on both sides, the size of a pixel is not known, or there are too few
            images for the coverage.
    """
    truth = read_truth(landmarks, section=section, images=images, spacing=spacing, coordinate_system=coordinate_system)
    found, _ = match_landmarks(predictions, truth, coordinate_system)
    if not found:
        raise ValueError(
            f"{predictions}: no image of it is among the {len(truth)} of {landmarks}; expected the same names."
        )
    pairs = []
    for name in sorted(found):
        true, geometry = truth[name].landmarks, truth[name].geometry
        try:
            first, second, _ = in_one_space(found[name], true.reorder(found[name].names), geometry)
            pairs.append((_in_mm(first, geometry), _in_mm(second, geometry)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    predicted, true_sets = zip(*pairs)
    return ConformalRegions.calibrate(predicted, true_sets, coverage, shape, pooled, min_std)


def state_regions(
    predictions: str | os.PathLike, regions: ConformalRegions, folder: str | os.PathLike
) -> tuple[list[Path], list[str]]:
    """Write predictions again, with the regions that belong to them.

    Args:
        predictions: a landmark file, or a folder of some; those in the world, in mm.
        regions: from `calibrate_predictions`.
        folder: for the files, which keep their names.

    Returns:
        the files written, and which were left out and why, one sentence each.

    Raises:
        ValueError: if a file is malformed, or none could be written.
    """
    source, folder = Path(predictions), Path(folder)
    written, notes = [], []
    for file, suffix in landmark_files(source).items():
        sets = read_landmark_sets(file)
        if any(landmarks.coordinate_system == CoordinateSystem.INDEX for landmarks in sets.values()):
            notes.append(f"{file}: left out, as its points are pixels and regions are in mm.")
            continue
        if suffix not in _SUFFIXES:
            notes.append(f"{file}: left out, as files of its format cannot hold regions.")
            continue
        path = folder / (file.relative_to(source) if source.is_dir() else file.name)
        if path.resolve() == file.resolve():
            raise ValueError(f"{file}: would be written over itself; give another folder.")
        stated: dict[Any, LandmarkSet] = {key: regions.add_to(landmarks) for key, landmarks in sets.items()}
        if None in stated:
            write_landmarks(path, stated[None])
        else:
            write_landmark_table(path, stated)
        written.append(path)
    if not written:
        raise ValueError(f"{source}: no file that could hold regions. {' '.join(notes)}".strip())
    return written, notes


def _in_mm(landmarks: LandmarkSet, geometry: ImageGeometry) -> LandmarkSet:
    if landmarks.coordinate_system != CoordinateSystem.INDEX:
        return landmarks
    affine = geometry.affine()
    if affine is None:
        raise ValueError("the points are pixels of unknown size; give the images, or the spacing of pictures.")
    return landmarks.to_world(affine)
