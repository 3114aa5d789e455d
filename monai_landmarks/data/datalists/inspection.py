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

"""Inspection of images and their landmarks: what there is, and all faults."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_landmarks.data.files.worker_count import usual_workers
from monai_landmarks.data.images.image_files import (
    channel_fault,
    ensure_pixel_size,
    has_spacing,
    image_suffix,
    read_image,
)
from monai_landmarks.data.images.image_headers import voxel_files
from monai_landmarks.data.images.image_notes import image_notes, join_notes
from monai_landmarks.data.landmarks.landmark_set import CoordinateSystem, LandmarkSet
from monai_landmarks.data.landmarks.row_faults import LandmarkRows
from monai_landmarks.shapes import MIN_LANDMARKS, MIN_SHAPES, examine_shapes, usable_shapes
from monai_landmarks.spaces import affine_spacing

from .datalist_faults import first_line, index_points, looks_of, name_faults, point_faults, shape_faults
from .pairing import LandmarkCase, Pairing, pair_landmarks

_AT_ONCE = 4  # images that a process is given

__all__ = ["CheckedImage", "DataCheck", "check_data"]


@dataclass
class CheckedImage:
    """Result of the inspection of one image.

    Args:
        case: the image and its landmarks.
        faults: one sentence per fault, with file and row.
        shape: spatial shape; empty if the image cannot be read.
        channels: number of channels.
        spacing: pixel size along each axis in mm; None if unknown.
        orientation: direction of each axis, for example ``"RAS"``: toward the patient's right, anterior, superior. None
            for PNG, JPEG, BMP and TIFF, whose x runs to the right and y down.
        points: the landmarks as pixel index; None if they cannot be converted.
        affine: index to RAS world in mm, 4x4; None if the image cannot be read.
        warnings: what is unusual about the shape that the landmarks form, one sentence each.
    """

    case: LandmarkCase
    faults: list[str] = field(default_factory=list)
    shape: tuple[int, ...] = ()
    channels: int = 0
    spacing: tuple[float, ...] | None = None
    orientation: str | None = None
    points: LandmarkSet | None = None
    affine: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass
class DataCheck:
    """Result of :func:`check_data`.

    Args:
        pairing: which landmarks belong to which image.
        images: images with landmarks.
        faults: everything that prevents a training, one sentence each, with file and row.
        notes: unusual findings that do not prevent a training.
        compared: number of images whose landmarks were compared with those of the others.
    """

    pairing: Pairing
    images: list[CheckedImage]
    faults: list[str]
    notes: list[str]
    compared: int = 0

    @property
    def warnings(self) -> list[str]:
        """Unusual shapes of the landmarks, which may be mistakes. One sentence each names the image and its landmarks."""
        return [warning for image in self.images for warning in image.warnings]

    @property
    def names(self) -> list[str]:
        """Names of all landmarks."""
        return self.pairing.names

    def counts(self) -> dict[str, int]:
        """Count the images that have a point, per landmark."""
        counts = dict.fromkeys(self.names, 0)
        for image in self.images:
            for name, missing in zip(image.case.landmarks.names, image.case.landmarks.missing):
                counts[name] += not missing
        return counts

    def summary(self) -> list[tuple[str, str]]:
        """Summarize the data as pairs of heading and text."""
        points, count = sum(self.counts().values()), len(self.images)
        read = [image for image in self.images if image.shape]
        rows = [
            ("images", f"{count + len(self.pairing.unlabeled)}, {count} of them with landmarks"),
            ("formats", _tally(image_suffix(image.case.image) or "DICOM" for image in self.images)),
            ("size", _tally(" x ".join(map(str, image.shape)) for image in read)),
            ("channels", _tally(str(image.channels) for image in read)),
            ("spacing", _tally(_spacing(image.spacing) for image in read)),
            ("orientation", _tally(image.orientation or "picture, x right and y down" for image in read)),
            ("coordinates", _tally(image.case.landmarks.coordinate_system.value for image in self.images)),
            ("landmarks", f"{len(self.names)}: {', '.join(self.names)}"),
            ("points", f"{points}, {count * len(self.names) - points} missing"),
            ("shapes", self._shapes()),
        ]
        return [(heading, text) for heading, text in rows if text]

    def _shapes(self) -> str:
        if not self.compared:
            return f"not compared; this requires {MIN_SHAPES} images with {MIN_LANDMARKS} or more landmarks"
        unusual = sum(bool(image.warnings) for image in self.images)
        return f"{self.compared} compared, {unusual or 'none'} of them unusual"


def check_data(
    images: str | os.PathLike | Iterable[str | os.PathLike],
    landmarks: str | os.PathLike,
    *,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: CoordinateSystem | str | None = None,
    partial: bool = False,
    workers: int | None = 0,
) -> DataCheck:
    """Read images and landmarks, and find all faults before a training starts.

    Faults are: a file or a row that cannot be read; landmarks without image, of two images, or given twice for one
    image; names that MONAI takes for references; an unknown pixel size; points outside their image or of another
    dimension; pixels that are not finite; volumes with several channels; 2-D images together with 3-D images.

    Notes are: images without landmarks; landmarks that few images have, or whose names differ only in case, spaces or
    letters that look the same; images that are the same file twice, have an unusual number of channels, or are constant;
    a pixel size that was chosen between two, or 2-D images of several pixel sizes; and images that readers put at
    different places or show with another pixel size, if their points are in mm.

    Warnings name images whose landmarks form an unusual shape: two landmarks that look exchanged, landmarks far from
    the place where the other landmarks make them expected, and shapes that are mirrored, turned, or of another size.
    See :func:`monai_landmarks.shapes.examine_shapes`. An unusual shape can be right, so a warning does not prevent a
    training.

    Args:
        images: a folder of images, or the images; see :func:`pair_landmarks`.
        landmarks: a table or a folder; see :func:`pair_landmarks`.
        coordinate_system: coordinate system of landmark files that do not state their own.
        spacing: pixel size in mm, one number or (x, y), of images whose file does not state it; 1 to work in pixels.
        partial: whether landmarks without an image are a note instead of a fault.
        workers: number of processes that read images. 0: this process reads them. None: one per core, for many images.

    Returns:
        the report. It has no faults if a training can start.

    Raises:
        ValueError: if there is no image or no landmark file, or the spacing has more than two values.
    """
    from tqdm import tqdm
    from tqdm.contrib.concurrent import process_map

    both = ensure_pixel_size(spacing)
    pairing = pair_landmarks(images, landmarks, coordinate_system)
    rows = {part.source: LandmarkRows(part.source) for case in pairing.cases for part in (case, *case.parts)}
    look = functools.partial(_look, spacing=both)
    bar: dict[str, Any] = {"desc": "reading images", "leave": False, "disable": None}
    workers = usual_workers(len(pairing.cases)) if workers is None else workers
    looks: Iterable[_Look]
    if workers:
        looks = process_map(look, pairing.cases, max_workers=workers, chunksize=_AT_ONCE, **bar)
    else:
        looks = map(look, tqdm(pairing.cases, **bar))
    checked, notes, geometry, seen = [], [], [], {}
    for case, found in zip(pairing.cases, looks):
        checked.append(replace(found.image, case=case))
        for name, fault in found.point_faults:
            source, key = case.origin(name)
            checked[-1].faults.append(f"{rows[source].where(key, name)}: {fault[:-1]}: {case.name}.")
        notes += found.notes
        geometry += [(case.name, text) for text in found.geometry]
        if found.digest in seen:
            notes.append(f"{case.image}: the same image as {seen[found.digest]}.")
        if found.digest:
            seen.setdefault(found.digest, case.image)
    faults = [
        *pairing.faults,
        *([] if partial else pairing.absent),
        *name_faults(pairing.names),
        *_common_faults(checked),
        *(fault for image in checked for fault in image.faults),
    ]
    result = DataCheck(pairing, checked, faults, notes)
    _compare_shapes(result, in_pixels=spacing is not None and both == [1.0, 1.0])
    joined = [*_common_notes(result), *join_notes(geometry)]
    result.notes[:0] = [*pairing.notes, *(pairing.absent if partial else []), *joined]
    return result


class _Look(NamedTuple):
    """What a look at one image has found."""

    image: CheckedImage
    point_faults: list[tuple[str | None, str]]  # landmark or None for all, and what is wrong
    notes: list[str]
    geometry: list[str]
    digest: bytes


def _look(case: LandmarkCase, spacing: list[float] | None) -> _Look:
    """Look at one image and its points; in a process of its own, if there are workers."""
    result = CheckedImage(case)
    if case.image_fault:  # is among the faults of the pairing
        return _Look(result, [], [], [], b"")
    try:
        image, affine = read_image(case.image, spacing)
    except Exception as error:  # readers raise exceptions of any type
        result.faults.append(f"{case.image}: the image cannot be read: {first_line(error)}")
        return _Look(result, [], [], [], b"")
    result.affine = affine
    result.channels, result.shape = image.shape[0], image.shape[1:]
    result.faults += [f"{case.image}: {fault}" for fault in shape_faults(result.shape)]
    unknown = spacing is None and not has_spacing(case.image)
    if not unknown:
        result.spacing = tuple(affine_spacing(affine, len(result.shape)).tolist())
    if has_spacing(case.image):
        import nibabel as nib

        result.orientation = "".join(nib.orientations.aff2axcodes(affine)[: len(result.shape)])
    if fault := channel_fault(result.channels, result.shape):
        result.faults.append(f"{case.image}: {fault}")
    if not np.isfinite(image).all():
        result.faults.append(f"{case.image}: {(~np.isfinite(image)).sum()} pixels are not finite numbers.")
    notes = [f"{case.image}: all pixels are {image.flat[0]:g}."] if image.min() == image.max() else []
    in_world = case.landmarks.coordinate_system != CoordinateSystem.INDEX
    faults: list[tuple[str | None, str]] = []
    if not (unknown and in_world):  # the position of the points in the image depends on the spacing
        faults = point_faults(case.landmarks, result.shape, affine)
        with suppress(ValueError):  # listed among the faults
            result.points = index_points(case.landmarks, result.shape, affine)
    if not result.shape:
        return _Look(result, faults, notes, [], b"")
    return _Look(result, faults, notes, image_notes(case.image, in_world, spacing), _digest(case.image))


def _compare_shapes(check: DataCheck, in_pixels: bool) -> None:
    """Compare the shapes that the landmarks of the images form, and write warnings."""
    drawn = [image for image in check.images if image.points is not None]
    if len({image.points.spatial_dims for image in drawn if image.points is not None}) != 1:
        return
    names = check.names
    points = np.stack([_in_mm(image, names) for image in drawn])
    findings = examine_shapes(points)
    if findings is None:
        return
    check.compared = int(usable_shapes(points).sum())
    for image, finding in zip(drawn, findings):
        if finding:
            unit = "pixels" if in_pixels or image.spacing is None else "mm"
            text = finding.describe(names, unit)
            image.warnings.append(f"{image.case.image} (landmarks in {image.case.source}): {text}.")


def _in_mm(image: CheckedImage, names: Sequence[str]) -> np.ndarray:
    """Return the points (N, D) of an image in mm: of a volume in RAS, of a 2-D image along its axes."""
    assert image.points is not None and image.affine is not None
    landmarks = image.points.reorder(names)
    if landmarks.spatial_dims == 3:
        return landmarks.to_world(image.affine).points
    return landmarks.points * affine_spacing(image.affine, 2)


def _digest(image: Path) -> bytes:
    """Return a checksum of the files of an image; empty if they are not all known."""
    if image.is_dir():
        files = sorted(file for file in image.iterdir() if file.is_file())
    elif (voxels := voxel_files(image)) is None:
        return b""
    else:
        files = [image, *voxels]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def _common_faults(images: list[CheckedImage]) -> list[str]:
    """Return the faults of the images taken together."""
    faults = []
    if not images:
        faults.append("no image has landmarks.")
    unknown = [image.case.name for image in images if image.shape and image.spacing is None]
    if unknown:
        faults.append(
            f"pixel size not known: {len(unknown)} images, for example {unknown[0]}, whose files state none that can be trusted."
            " Give the spacing in mm, or 1 to work in pixels."
        )
    by_dims: dict[int, str] = {}
    for image in images:
        if image.points is not None:
            by_dims.setdefault(image.points.spatial_dims, image.case.name)
    if len(by_dims) > 1:
        faults.append(f"{by_dims[2]} is 2-D and {by_dims[3]} is 3-D; expected images of the same dimension.")
    return faults


def _common_notes(check: DataCheck) -> list[str]:
    notes = [f"{image}: has no landmarks and is left out." for image in check.pairing.unlabeled]
    counts = check.counts()
    for name, count in counts.items():
        if count <= len(check.images) // 10:
            notes.append(f"landmark {name!r} has a point in only {count} of {len(check.images)} images.")
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault(looks_of(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            shown = f"[{', '.join(map(ascii, names))}]"
            notes.append(
                f"landmarks {shown} count as different; their names differ only in case, spaces or letters that look the same."
            )
    sizes = Counter(
        _spacing(image.spacing[:2]) for image in check.images if image.spacing and sum(n > 1 for n in image.shape) == 2
    )
    if len(sizes) > 1:
        (first, count), *others = sizes.most_common()
        listed = [f"{count} images at {first}", *(f"{count} at {size}" for size, count in others[:5])]
        more = [f"{len(others) - 5} more sizes"] if len(others) > 5 else []
        notes.append(f"the images have several pixel sizes: {', '.join([*listed, *more])}.")
    channels = Counter(image.channels for image in check.images if image.shape)
    if len(channels) > 1:
        usual = channels.most_common(1)[0][0]
        others = [image.case.name for image in check.images if image.shape and image.channels != usual]
        notes.append(f"most images have {usual} channels, but {len(others)} differ, for example {others[0]}.")
    return notes


def _tally(values: Iterable[str]) -> str:
    """Format values with their counts, most frequent first; after five values only the number of the others."""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return counts[0][0]
    more = [f"{len(counts) - 5} more"] if len(counts) > 6 else []
    shown = counts[:5] if more else counts
    return ", ".join([*(f"{value} ({count})" for value, count in shown), *more])


def _spacing(spacing: tuple[float, ...] | None) -> str:
    return "not known" if spacing is None else " x ".join(f"{step:.4g}" for step in spacing) + " mm"
