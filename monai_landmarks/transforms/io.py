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
"""Landmarks from files into the world beside their image, and back into files."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor, PathLike
from monai.data import MetaTensor
from monai.data.folder_layout import FolderLayout
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey, ensure_tuple_rep

from monai_landmarks.data import CoordinateSystem, LandmarkSet, landmark_set_of, read_landmarks, write_landmarks
from monai_landmarks.spaces import affine_of, plane_z, points_as_rows

from .guard import require_followable_chain

__all__ = [
    "LoadLandmarks",
    "LoadLandmarksD",
    "LoadLandmarksDict",
    "LoadLandmarksd",
    "SaveLandmarks",
    "SaveLandmarksD",
    "SaveLandmarksDict",
    "SaveLandmarksd",
]

logger = logging.getLogger(__name__)

_PLANE_TOLERANCE = 1e-3  # mm, by which points of a 2-D image may be off its plane
_SLICER_FORMATS = (".mrk.json", ".fcsv")

Rows = Sequence[Sequence[float | None] | None]


class LoadLandmarks(Transform):
    """Load the landmarks of an image as world points: RAS mm, NaN where a landmark is missing.

    Args:
        names: the landmarks wanted, in this order. None: those of the file, in its order. Give names wherever items are
            batched, so that all have the same number and order; a landmark that a file does not have is missing.
        strict: raise an error for landmarks in a file that are not among ``names``; False leaves them out.
        coordinate_system: of rows given in place of a file: ``"index"`` (pixels of the image), ``"RAS"`` or ``"LPS"``.

    Example:

        >>> image = MetaTensor(torch.zeros(1, 60, 40), affine=torch.diag(torch.tensor([-0.5, -0.5, 1.0, 1.0])))
        >>> LoadLandmarks()([[33, 7], None], image)[0].tolist()
        [[-16.5, -3.5], [nan, nan]]
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        strict: bool = True,
        coordinate_system: CoordinateSystem | str = CoordinateSystem.INDEX,
    ) -> None:
        self.names = None if names is None else tuple(names)
        self.strict = strict
        self.coordinate_system = CoordinateSystem(coordinate_system)

    def __call__(
        self,
        source: PathLike | LandmarkSet | Rows | np.ndarray,
        img: NdarrayOrTensor | None = None,
        coordinate_system: CoordinateSystem | str | None = None,
        row_names: Sequence[str] | None = None,
    ) -> MetaTensor:
        """
        Args:
            source: path of a landmark file, a landmark set, or rows of coordinates, one for each landmark, in which None
                or NaN stands for a missing landmark.
            img: channel-first image as it was loaded; gives the number of axes, and the affine for points in pixels.
            coordinate_system: of rows, in place of the constructor's.
            row_names: the landmark of each row; None: those of ``names``, in that order.

        Returns:
            MetaTensor (1, N, D) float64 with affine ``eye(4)``.

        Raises:
            ValueError: names that are not wanted, a wrong number of rows or coordinates, 3-D points off the plane of a 2-D
                image, pixels without an image or with one that was already transformed.
        """
        landmarks, where = self._read(source, coordinate_system, row_names)
        if landmarks.coordinate_system == CoordinateSystem.INDEX:
            landmarks = landmarks.to_world(_loaded_affine(img, where))
        points = landmarks.to(CoordinateSystem.RAS).points
        if img is not None:
            points = _in_dimension(points, img, where)
        return MetaTensor(torch.from_numpy(points.copy())[None], affine=torch.eye(4, dtype=torch.float64))

    def _read(
        self,
        source: PathLike | LandmarkSet | Rows | np.ndarray,
        coordinate_system: CoordinateSystem | str | None,
        row_names: Sequence[str] | None,
    ) -> tuple[LandmarkSet, str]:
        """The landmarks wanted and, for messages, where they come from."""
        if isinstance(source, LandmarkSet):
            landmarks, where = source, f"landmarks of {source.image}" if source.image else "landmark set"
        elif isinstance(source, (str, os.PathLike)):
            landmarks, where = read_landmarks(source), os.fspath(source)
        else:
            points = _rows(source)
            names = tuple(row_names or self.names or (str(i) for i in range(len(points))))
            if len(points) != len(names):
                raise ValueError(f"{len(points)} rows of coordinates are given for {len(names)} landmark names.")
            landmarks = LandmarkSet(names, points, CoordinateSystem(coordinate_system or self.coordinate_system))
            where = "rows of coordinates"
        if self.names is None:
            return landmarks, where
        unknown = [name for name in landmarks.names if name not in self.names]
        if unknown and self.strict:
            raise ValueError(
                f"{where}: landmarks {unknown} are not among the names wanted, {list(self.names)}. "
                "Correct the file or the names, or use strict=False to leave them out."
            )
        return landmarks.reorder(self.names), where


def _rows(source: Rows | np.ndarray) -> np.ndarray:
    if source is None:
        raise ValueError("The item has no landmarks (None); expected a landmark file, or rows with None where missing.")
    rows: list[Any] = list(points_as_rows(source)) if isinstance(source, (np.ndarray, torch.Tensor)) else list(source)
    sizes = {len(row) for row in rows if row is not None}
    if len(sizes) > 1 or not sizes <= {2, 3}:
        raise ValueError(f"Landmarks must be rows of 2 or 3 coordinates each, got rows of {sorted(sizes)}.")
    dims = sizes.pop() if sizes else 2
    missing = [None] * dims
    return np.array([missing if row is None else row for row in rows], dtype=np.float64).reshape(-1, dims)


def _loaded_affine(img: NdarrayOrTensor | None, where: str) -> np.ndarray:
    """The affine of an image that is still as its file has it, to which pixels in files refer."""
    affine = affine_of(img)
    if affine is None:
        raise ValueError(f"{where}: the points are pixels, which need the image with its affine; load the image first.")
    if isinstance(img, MetaTensor) and (img.applied_operations or img.pending_operations):
        raise ValueError(
            f"{where}: the points are pixels of the image file, but the image was already transformed. "
            "Load landmarks right after the image, before any transform that moves or resamples it."
        )
    return affine


def _in_dimension(points: np.ndarray, img: NdarrayOrTensor, where: str) -> np.ndarray:
    """Points with as many coordinates as the image has axes."""
    dims = img.ndim - 1
    if points.shape[1] == dims:
        return points
    if np.isnan(points).all():
        return np.full((len(points), dims), np.nan)
    if dims != 2 or points.shape[1] != 3:
        raise ValueError(
            f"{where}: the points have {points.shape[1]} coordinates, but the image has {dims} spatial axes."
        )
    off = np.minimum(np.abs(points[:, 2]), np.abs(points[:, 2] - plane_z(img)))
    if (off > _PLANE_TOLERANCE).any():
        row = int(np.nanargmax(off))
        raise ValueError(f"{where}: landmark {row} lies {off[row]:.3f} mm off the plane of the 2-D image.")
    return points[:, :2]


class LoadLandmarksd(MapTransform):
    """Dictionary-based version of :class:`LoadLandmarks`. Use it after ``LoadImaged`` and ``EnsureWorldAffined``.

    When it runs, it also checks the chain of transforms that it is part of and refuses those that landmarks cannot follow;
    see :func:`~monai_landmarks.transforms.require_followable_transforms`.

    Args:
        keys: landmarks: a path or rows of coordinates in the item.
        refer_keys: the image of the landmarks, one or one per key.
        names: see :class:`LoadLandmarks`.
        strict: see :class:`LoadLandmarks`.
        coordinate_system: of rows, where the item does not state it.
        coordinate_system_key: where the item states it; None: ``"<key>_coordinate_system"``.
        names_key: where the item states the landmark of each row; None: ``"<key>_names"``. It is taken out of the item, as
            it is of no use in a batch. Rows without names are those of ``names``, in that order.
        allow_missing_keys: do not raise an error where landmarks are missing from the item.
    """

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection = "image",
        names: Sequence[str] | None = None,
        strict: bool = True,
        coordinate_system: CoordinateSystem | str = CoordinateSystem.INDEX,
        coordinate_system_key: str | None = None,
        names_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))
        self.coordinate_system_key = coordinate_system_key
        self.names_key = names_key
        self.loader = LoadLandmarks(names, strict, coordinate_system)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: item with an image and the source of its landmarks.

        Returns:
            a copy of the item with landmarks as MetaTensors (1, N, D), see :class:`LoadLandmarks`.

        Raises:
            KeyError: the image is missing.
            ValueError: see :class:`LoadLandmarks`, or the running chain holds a transform that landmarks cannot follow.
        """
        require_followable_chain(self, self.refer_keys)
        d = dict(data)
        for key, refer_key in self.key_iterator(d, self.refer_keys):
            if refer_key not in d:
                raise KeyError(f"The image {refer_key!r} of the landmarks {key!r} is not in the item; load it first.")
            system_key = self.coordinate_system_key or f"{key}_coordinate_system"
            row_names = d.pop(self.names_key or f"{key}_names", None)
            d[key] = self.loader(d[key], d[refer_key], d.get(system_key), row_names)
        return d


class SaveLandmarks(Transform):
    """Save landmarks to a file that opens at the right place in 3D Slicer.

    The file is named after the image, ``<output_dir>/<image>_<output_postfix><output_ext>``. 2-D points get the z of their
    image's plane in Slicer's formats, 0 unless the file says otherwise.

    Args:
        names: of the landmarks; None: 1, 2, ...
        output_dir: folder; created if needed.
        output_postfix: appended to the image's name; may be empty.
        output_ext: ``".mrk.json"``, ``".fcsv"``, ``".csv"`` or another registered landmark format.
        coordinate_system: of the file: ``"LPS"`` (Slicer's own), ``"RAS"`` or, in CSV, ``"index"`` (pixels of ``img``).
        separate_folder: a folder of its own for each image.
        data_root_dir: folder below which the images' own folders are kept in the output.
        print_log: print the path.
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        output_dir: PathLike = "./",
        output_postfix: str = "landmarks",
        output_ext: str = ".mrk.json",
        coordinate_system: CoordinateSystem | str = CoordinateSystem.LPS,
        separate_folder: bool = False,
        data_root_dir: PathLike = "",
        print_log: bool = True,
    ) -> None:
        self.names = None if names is None else tuple(names)
        self.output_ext = output_ext if output_ext.startswith(".") else f".{output_ext}"
        self.coordinate_system = CoordinateSystem(coordinate_system)
        self.print_log = print_log
        self.layout = FolderLayout(
            output_dir, output_postfix, self.output_ext, separate_folder, False, data_root_dir=data_root_dir
        )

    def __call__(
        self,
        points: NdarrayOrTensor,
        img: NdarrayOrTensor | None = None,
        scores: NdarrayOrTensor | None = None,
        filename: PathLike | None = None,
    ) -> Path:
        """
        Args:
            points: (1, N, D) or (N, D): world (affine ``eye(4)``) or index points of ``img``.
            img: the image of the landmarks, channel-first; gives the file its name and index points their world.
            scores: one for each landmark, (N,) or (1, N).
            filename: names the file in place of the image.

        Returns:
            path of the file written.

        Raises:
            ValueError: the number of names or scores is not that of the points, index points come without an image that has
                an affine, or nothing names the file.
        """
        landmarks = self._landmark_set(points, img, scores)
        meta = img.meta if isinstance(img, MetaTensor) else {}
        filename = filename or meta.get(ImageMetaKey.FILENAME_OR_OBJ)
        if not filename:
            raise ValueError(
                "Neither the image's meta nor the argument filename names the image whose landmarks these are."
            )
        path = Path(self.layout.filename(os.fspath(filename)))
        write_landmarks(path, landmarks)
        if self.print_log:
            logger.info("%s: %d landmarks", path, len(landmarks))
        return path

    def _landmark_set(
        self, points: NdarrayOrTensor, img: NdarrayOrTensor | None, scores: NdarrayOrTensor | None
    ) -> LandmarkSet:
        if not isinstance(points, MetaTensor) and not isinstance(img, MetaTensor):
            raise ValueError(
                "Points without an affine are pixels; they need their image, with its affine, to be saved."
            )
        landmarks = landmark_set_of(points, img, self.names, scores, strict=True)
        if self.coordinate_system == CoordinateSystem.INDEX:
            affine = affine_of(img)
            if affine is None:
                raise ValueError("To save landmarks as pixels, their image with its affine is needed.")
            return landmarks.to_index(affine)
        if self.output_ext.lower() in _SLICER_FORMATS:
            landmarks = landmarks.with_spatial_dims(3, plane_z(img))
        return landmarks.to(self.coordinate_system)


class SaveLandmarksd(MapTransform):
    """Dictionary-based version of :class:`SaveLandmarks`.

    Args:
        keys: landmarks.
        refer_keys: the image of the landmarks, one or one per key.
        score_keys: scores of the landmarks, one or one per key; None: no scores. Items without it are saved without.
        saved_path_key: the item gets the path of the file under ``"<key>_<this>"``; None: it does not.
        names: see :class:`SaveLandmarks`, as all further arguments.
        allow_missing_keys: do not raise an error where landmarks are missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        refer_keys: KeysCollection = "image",
        score_keys: KeysCollection | None = None,
        names: Sequence[str] | None = None,
        output_dir: PathLike = "./",
        output_postfix: str = "landmarks",
        output_ext: str = ".mrk.json",
        coordinate_system: CoordinateSystem | str = CoordinateSystem.LPS,
        separate_folder: bool = False,
        data_root_dir: PathLike = "",
        print_log: bool = True,
        saved_path_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.refer_keys = ensure_tuple_rep(refer_keys, len(self.keys))
        self.score_keys = ensure_tuple_rep(score_keys, len(self.keys))
        self.saved_path_key = saved_path_key
        self.saver = SaveLandmarks(
            names, output_dir, output_postfix, output_ext, coordinate_system, separate_folder, data_root_dir, print_log
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: item with landmarks and their image.

        Returns:
            a copy of the item.

        Raises:
            ValueError: see :class:`SaveLandmarks`.
        """
        d = dict(data)
        for key, refer_key, score_key in self.key_iterator(d, self.refer_keys, self.score_keys):
            path = self.saver(d[key], d.get(refer_key), d.get(score_key))
            if self.saved_path_key is not None:
                d[f"{key}_{self.saved_path_key}"] = str(path)
        return d


LoadLandmarksD = LoadLandmarksDict = LoadLandmarksd
SaveLandmarksD = SaveLandmarksDict = SaveLandmarksd
