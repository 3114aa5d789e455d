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
"""The landmarks of several annotators in the same images, in one space, and their consensus."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

import numpy as np

from monai_landmarks.data import CoordinateSystem, LandmarkSet, NameIndex, landmark_suffix
from monai_landmarks.data.files.name_lists import some_names

from .landmark_sources import ImageGeometry, ImageLandmarks, match_predictions, read_annotations, to_common_space

__all__ = [
    "ALL",
    "MODEL",
    "OTHERS",
    "AnnotatedImages",
    "ConsensusKind",
    "geometric_median",
    "known_mean",
    "read_annotators",
]

ConsensusKind = Literal["mean", "geometric-median"]

# names of what annotators are compared with
MODEL = "model"
OTHERS = "mean of the others"
ALL = "mean of the annotators"

_ITERATIONS = 1000  # of the geometric median; some tens are enough, unless the median is close to one of the points
_TOLERANCE = 1e-9  # relative to the spread of the points


@dataclass(frozen=True, eq=False)
class AnnotatedImages:
    """Points of A annotators and, optionally, of a model: N landmarks in B images.

    Args:
        annotators: names of the annotators.
        images: names of the images.
        names: names of the landmarks.
        points: (A, B, N, D) in ``unit``, NaN where an annotator did not mark a landmark.
        model: (B, N, D), predictions in the same space. None: there is no model.
        unit: unit of the points, ``"mm"`` or ``"px"``.
        coordinates: names of the D coordinates. In 2-D, x runs to the right and y down, as in a picture. In 3-D, they
            run to the right, anterior and superior.
        geometries: affine and pixel size of each image, as far as they are known.
        system: coordinate system of the points.
        in_index: whether all annotations are in pixels. The consensus is then in pixels, too.
        pairs: left-right pairs of landmarks.
        notes: images and landmarks that were left out, one sentence each.
    """

    annotators: tuple[str, ...]
    images: tuple[str, ...]
    names: tuple[str, ...]
    points: np.ndarray
    model: np.ndarray | None
    unit: Literal["mm", "px"]
    coordinates: tuple[str, ...]
    geometries: tuple[ImageGeometry, ...]
    system: CoordinateSystem
    in_index: bool
    pairs: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def given(self) -> np.ndarray:
        """Mask (A, B) of the images that each annotator has, which are those with at least one known point."""
        return np.asarray(np.isfinite(self.points[..., 0]).any(axis=2))

    def landmark_set(self, points: np.ndarray) -> LandmarkSet:
        """Return points (N, D) of an image as a landmark set."""
        return LandmarkSet(self.names, points, self.system, self.pairs)

    def consensus(self, kind: ConsensusKind = "mean", at_least: int | None = None) -> dict[str, LandmarkSet]:
        """Return the consensus of the annotators, by image.

        Args:
            kind: ``"mean"``, or ``"geometric-median"``, the point with the smallest sum of distances to the
                annotators, which an outlier hardly moves. Both are the same for two annotators.
            at_least: number of annotators that must have marked a landmark. It is missing otherwise. Default: more than
                half of the annotators who have the image, and at least two.

        Returns:
            Landmark sets in pixels if all annotations are in pixels, and in RAS mm otherwise.

        Raises:
            ValueError: for an unknown kind, or if ``at_least`` is more than the number of annotators.
        """
        if at_least is not None and not 1 <= at_least <= len(self.annotators):
            raise ValueError(f"at_least is {at_least}; expected 1 to {len(self.annotators)}, the number of annotators.")
        if kind not in ("mean", "geometric-median"):
            raise ValueError(f"kind is {kind!r}; expected 'mean' or 'geometric-median'.")
        points = known_mean(self.points) if kind == "mean" else geometric_median(self.points)
        needed = np.maximum(self.given.sum(axis=0) // 2 + 1, 2) if at_least is None else np.array([at_least])
        points[np.isfinite(self.points[..., 0]).sum(axis=0) < needed[:, None]] = np.nan
        result = {}
        for b, image in enumerate(self.images):
            landmarks = self.landmark_set(points[b])
            if self.system != CoordinateSystem.INDEX:
                affine = self.geometries[b].affine() if self.in_index else None
                landmarks = landmarks.to("RAS") if affine is None else landmarks.to_index(affine)
            result[image] = landmarks
        return result


def read_annotators(
    paths: Sequence[str | os.PathLike],
    *,
    model: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: str | None = None,
) -> AnnotatedImages:
    """Read the landmarks of several annotators, and convert the points of each image to one space.

    Args:
        paths: landmark file, folder of landmark files, or datalist of each annotator, at least two.
        model: predictions of a model for the same images.
        images: folder of the images, or a datalist, see :func:`monai_landmarks.evaluation.evaluate_predictions`.
        spacing: pixel size in mm of pictures that are in no datalist. 1: work in pixels.
        coordinate_system: coordinate system of landmark files that do not state their own.

    Returns:
        The images that at least two annotators have, sorted by name.

    Raises:
        ValueError: if there are fewer than two annotators, a file is malformed, no image is in two of them, or pixels
            cannot be compared to mm.
    """
    if len(paths) < 2:
        raise ValueError(f"got {len(paths)} annotators; expected two or more.")
    annotators = _short_names([Path(path) for path in paths])
    notes: list[str] = []
    found = _by_image(paths, images, spacing, coordinate_system, notes)
    shared = {image: items for image, items in sorted(found.items()) if len(items) > 1}
    if not shared:
        raise ValueError(
            f"no image is in two of {', '.join(map(str, paths))}; expected the same names of images, for example"
            f" {next(iter(found), 'none')}."
        )
    if alone := [image for image in found if image not in shared]:
        notes.append(f"left out, because only one annotator has them: {len(alone)} images ({some_names(alone)}).")
    for a, annotator in enumerate(annotators):
        lacking = [image for image, items in shared.items() if a not in items]
        if lacking:
            notes.append(f"{annotator} lacks {len(lacking)} of {len(shared)} images ({some_names(lacking)}).")
    names = _shared_landmarks(shared, annotators, notes)
    geometries = [_geometry(image, items.values()) for image, items in shared.items()]
    predicted = _predictions(model, shared, geometries, names, coordinate_system, notes)

    converted, units = [], {}
    for (image, items), geometry in zip(shared.items(), geometries):
        sets = {a: item.landmarks.reorder(names) for a, item in items.items()}
        if image in predicted:
            sets[len(annotators)] = predicted[image].reorder(names)
        try:
            moved, unit = to_common_space(list(sets.values()), geometry)
        except ValueError as error:
            raise ValueError(f"{image}: {error}") from error
        converted.append(dict(zip(sets, moved)))
        units.setdefault(unit, image)
    if len(units) > 1:
        raise ValueError(
            f"the points of {units['mm']} are in mm, but those of {units['px']} are in pixels; give the spacing of pictures."
        )
    dims = max(one.spatial_dims for sets in converted for one in sets.values())
    unit = next(iter(units))
    system = CoordinateSystem.INDEX if unit == "px" else CoordinateSystem.LPS if dims == 2 else CoordinateSystem.RAS
    points = np.full((len(annotators) + 1, len(shared), len(names), dims), np.nan)
    for b, sets in enumerate(converted):
        for a, one in sets.items():
            points[a, b] = (one if unit == "px" else one.to(system)).with_spatial_dims(dims).points
    for path, own in zip(paths, points):
        if not np.isfinite(own).any():
            raise ValueError(
                f"{path}: has no landmark that another annotator has, too; leave it out, or correct the names of its landmarks"
                " or images."
            )
    originals = [item.landmarks for items in shared.values() for item in items.values()]
    return AnnotatedImages(
        annotators=tuple(annotators),
        images=tuple(shared),
        names=names,
        points=points[:-1],
        model=None if model is None else points[-1],
        unit=unit,
        coordinates=("x", "y") if dims == 2 else ("x", "y", "z") if unit == "px" else ("R", "A", "S"),
        geometries=tuple(geometries),
        system=system,
        in_index=all(one.coordinate_system == CoordinateSystem.INDEX for one in originals),
        pairs=next((one.reorder(names).pairs for one in originals if one.pairs), ()),
        notes=tuple(notes),
    )


def geometric_median(points: np.ndarray) -> np.ndarray:
    """Return the points with the smallest sum of distances to the known points, by Weiszfeld's iteration.

    Args:
        points: (A, ..., D); NaN is not counted.

    Returns:
        (..., D), NaN where no point is known. For two points, it is their mean.

    References:
        Vardi and Zhang, *The multivariate L1-median and associated data depth*, PNAS 97 (2000) 1423-1426, whose
        modification holds where the iteration meets one of the points.

    Example:
        >>> geometric_median(np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 50.0]])).round(6).tolist()
        [0.0, 1.0]
    """
    points = np.asarray(points, dtype=np.float64)
    known = np.isfinite(points[..., 0])  # a point is known or NaN as a whole
    center = known_mean(points)
    places = np.where(known[..., None], points, 0)
    spread = np.where(known, np.linalg.norm(places - np.nan_to_num(center), axis=-1), 0).max(axis=0)
    tolerance = _TOLERANCE * np.maximum(spread, 1e-300)
    for _ in range(_ITERATIONS):
        offsets = places - np.nan_to_num(center)
        distances = np.linalg.norm(offsets, axis=-1)
        apart = known & (distances > tolerance)
        weights = np.where(apart, 1 / np.where(apart, distances, 1), 0)[..., None]
        total = weights.sum(axis=0)
        pull = (weights * offsets).sum(axis=0)
        met = (known & ~apart).sum(axis=0)  # points at the center, which hold it
        length = np.linalg.norm(pull, axis=-1)
        share = np.clip(1 - met / np.where(length > 0, length, 1), 0, 1) * (length > 0)
        step = share[..., None] * pull / np.where(total > 0, total, 1)
        center = center + step
        if not (np.nan_to_num(np.linalg.norm(step, axis=-1)) > tolerance).any():
            break
    return center


def known_mean(points: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of points (A, ..., D) that are not NaN, or NaN without any."""
    known = np.isfinite(points)
    count = known.sum(axis=0)
    return np.where(count, np.where(known, points, 0).sum(axis=0), np.nan) / np.maximum(count, 1)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest different names of paths: the file name without suffix, with as many folders as necessary."""
    parts = [
        (*path.absolute().parts[:-1], path.name.removesuffix(landmark_suffix(path) or "") or path.name)
        for path in paths
    ]
    for depth in range(1, max(map(len, parts)) + 1):
        names = [PurePath(*part[-depth:]).as_posix() for part in parts]
        if len({*names, MODEL, OTHERS, ALL}) == len(names) + 3:
            return names
    raise ValueError(f"the same annotator is given twice: {', '.join(map(str, paths))}.")


def _by_image(
    paths: Sequence[str | os.PathLike],
    images: str | os.PathLike | None,
    spacing: float | Sequence[float] | None,
    coordinate_system: str | None,
    notes: list[str],
) -> dict[str, dict[int, ImageLandmarks]]:
    """Read all annotators. Return the landmarks of each image by the index of the annotator."""
    result: dict[str, dict[int, ImageLandmarks]] = {}
    for a, path in enumerate(paths):
        read = read_annotations(path, images=images, spacing=spacing, coordinate_system=coordinate_system, notes=notes)
        index, spellings = NameIndex(result), {}
        for name, item in read.items():
            found = index.find(name)
            if len(found) > 1:
                raise ValueError(f"{path}: {name!r} matches more than one image: {', '.join(found)}.")
            image = found[0] if found else name
            if image in spellings:
                raise ValueError(f"{path}: {name!r} and {spellings[image]!r} match the same image {image}.")
            spellings[image] = name
            result.setdefault(image, {})[a] = item
    return result


def _shared_landmarks(
    shared: Mapping[str, Mapping[int, ImageLandmarks]], annotators: Sequence[str], notes: list[str]
) -> tuple[str, ...]:
    """Return the landmarks that at least two annotators have, and add notes about the others."""
    owners: dict[str, set[int]] = {}
    for items in shared.values():
        for a, item in items.items():
            for name in item.landmarks.names:
                owners.setdefault(name, set()).add(a)
    names = tuple(name for name, known in owners.items() if len(known) > 1)
    if not names:
        examples = "; ".join(
            f"{annotator}: {some_names([name for name, known in owners.items() if a in known])}"
            for a, annotator in enumerate(annotators)
        )
        raise ValueError(f"the annotators have no landmark in common ({examples}).")
    if alone := [name for name in owners if name not in names]:
        notes.append(f"landmarks left out, because only one annotator has them: {some_names(alone)}.")
    return names


def _geometry(image: str, items: Iterable[ImageLandmarks]) -> ImageGeometry:
    """Return the geometry of an image that is known best, and raise a ``ValueError`` for several pixel sizes."""
    known = [item.geometry for item in items]
    sizes = [size for one in known if (size := one.picture_size) is not None]
    if any(size != sizes[0] for size in sizes):
        raise ValueError(
            f"{image}: the annotators state different pixel sizes, {' and '.join(map(str, dict.fromkeys(sizes)))} mm; expected"
            " one size for an image."
        )
    return min(known, key=lambda geometry: (geometry.image is None, geometry.in_pixels))


def _predictions(
    model: str | os.PathLike | None,
    shared: Mapping[str, Mapping[int, ImageLandmarks]],
    geometries: Sequence[ImageGeometry],
    names: Sequence[str],
    coordinate_system: str | None,
    notes: list[str],
) -> dict[str, LandmarkSet]:
    """Return the predictions by image, and add notes about images and landmarks without a prediction."""
    if model is None:
        return {}
    truth = {
        image: ImageLandmarks(next(iter(items.values())).landmarks, geometry)
        for (image, items), geometry in zip(shared.items(), geometries)
    }
    found, unknown = match_predictions(model, truth, coordinate_system, notes)
    if not found:
        raise ValueError(f"{model}: none of its images is among the {len(shared)} images of the annotators.")
    if lacking := [image for image in shared if image not in found]:
        notes.append(f"without predictions: {len(lacking)} of {len(shared)} images ({some_names(lacking)}).")
    if unknown:
        notes.append(f"predicted, but not annotated twice: {len(unknown)} images ({some_names(unknown)}).")
    predicted = {name for landmarks in found.values() for name in landmarks.names}
    if predicted.isdisjoint(names):
        raise ValueError(f"{model}: none of its landmarks is among those of the annotators ({some_names(names)}).")
    if never := [name for name in names if name not in predicted]:
        notes.append(f"landmarks without predictions: {some_names(never)}.")
    return found
