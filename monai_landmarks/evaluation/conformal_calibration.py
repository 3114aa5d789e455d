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
"""Calibration of conformal regions on files of predictions, and predictions written with their regions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from monai_landmarks.data import CoordinateSystem, LandmarkSet, write_landmark_table, write_landmarks
from monai_landmarks.data.landmarks.formats.slicer_markups import add_markup_nodes, other_nodes
from monai_landmarks.data.landmarks.landmark_io import read_landmark_sets
from monai_landmarks.uncertainty import ConformalRegions

from .landmark_sources import ImageGeometry, landmark_files, match_predictions, read_annotations, to_common_space

__all__ = ["calibrate_regions", "write_predictions_with_regions"]

# those which can hold a region
_SUFFIXES = (".mrk.json", ".fcsv", ".csv", ".npz")


def calibrate_regions(
    predictions: str | os.PathLike,
    landmarks: str | os.PathLike,
    *,
    coverage: float = 0.9,
    shape: Literal["ball", "ellipse"] = "ball",
    pooled: bool = False,
    min_std: float = 0.1,
    images: str | os.PathLike | None = None,
    section: str | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: str | None = None,
) -> ConformalRegions:
    """Calibrate conformal regions on predictions of images that were not used in training.

    Args:
        predictions: folder of landmark files, as :class:`monai_landmarks.handlers.PredictionSaver` writes it, or one
            file of many images.
        landmarks: ground truth: a landmark file of many images, a folder of landmark files, or a datalist.
        coverage: see :meth:`monai_landmarks.uncertainty.ConformalRegions.calibrate`, as for ``shape``, ``pooled`` and
            ``min_std``.
        shape: ``"ball"`` or ``"ellipse"``.
        pooled: whether all landmarks share one bound.
        min_std: standard deviation in mm that is added to the covariance of an ellipse.
        images: folder of the images, or a datalist, from which the pixel size is read.
        section: section of the datalist. Default: all sections.
        spacing: pixel size in mm of pictures that are in no datalist. 1: work in pixels.
        coordinate_system: coordinate system of landmark files that do not state their own.

    Returns:
        The calibrated regions.

    Raises:
        ValueError: if a file is malformed, no image has both predictions and ground truth, the pixel size is not known,
            or there are too few images for the coverage.
    """
    truth = read_annotations(
        landmarks, section=section, images=images, spacing=spacing, coordinate_system=coordinate_system
    )
    found, _ = match_predictions(predictions, truth, coordinate_system)
    if not found:
        raise ValueError(
            f"{predictions}: none of its images is among the {len(truth)} images of {landmarks}; expected the same names."
        )
    pairs = []
    for name in sorted(found):
        true, geometry = truth[name].landmarks, truth[name].geometry
        try:
            (first, second), _ = to_common_space([found[name], true.reorder(found[name].names)], geometry)
            pairs.append((_in_mm(first, geometry), _in_mm(second, geometry)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    predicted, true_sets = zip(*pairs)
    return ConformalRegions.calibrate(predicted, true_sets, coverage, shape, pooled, min_std)


def write_predictions_with_regions(
    predictions: str | os.PathLike, regions: ConformalRegions, output_dir: str | os.PathLike
) -> tuple[list[Path], list[str]]:
    """Copy files of predictions, and add a region to each landmark.

    Args:
        predictions: landmark file, or folder of landmark files. Their points must be in world coordinates, in mm.
        regions: from :func:`calibrate_regions`.
        output_dir: folder for the new files, which keep their names.

    Returns:
        The files written, and notes about the files that were left out, one sentence each.

    Raises:
        ValueError: if a file is malformed, if no file can hold regions, or if a file would overwrite itself.
    """
    source, output_dir = Path(predictions), Path(output_dir)
    written, notes = [], []
    for file, suffix in landmark_files(source).items():
        sets = read_landmark_sets(file)
        if any(landmarks.coordinate_system == CoordinateSystem.INDEX for landmarks in sets.values()):
            notes.append(f"{file}: left out, because its points are in pixels and regions are in mm.")
            continue
        if suffix not in _SUFFIXES:
            notes.append(f"{file}: left out, because its format cannot hold regions.")
            continue
        path = output_dir / (file.relative_to(source) if source.is_dir() else file.name)
        if path.resolve() == file.resolve():
            raise ValueError(f"{file}: the new file would overwrite this one; give another output folder.")
        stated: dict[Any, LandmarkSet] = {key: regions.add_to(landmarks) for key, landmarks in sets.items()}
        if None in stated:
            write_landmarks(path, stated[None])
            if suffix == ".mrk.json" and (nodes := other_nodes(file)):  # lines and angles of measurements
                add_markup_nodes(path, nodes)
        else:
            write_landmark_table(path, stated)
        written.append(path)
    if not written:
        raise ValueError(f"{source}: no file in it can hold regions. {' '.join(notes)}".strip())
    return written, notes


def _in_mm(landmarks: LandmarkSet, geometry: ImageGeometry) -> LandmarkSet:
    """Return landmarks in world coordinates. A pixel of size 1 counts as 1 mm here."""
    if landmarks.coordinate_system != CoordinateSystem.INDEX:
        return landmarks
    affine = geometry.affine()
    if affine is None:
        raise ValueError("the points are in pixels of unknown size; give the images, or the spacing of pictures.")
    return landmarks.to_world(affine)
