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
"""Load landmarks from files to the world space of their image, and save them."""

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

from monai_landmarks.data import (
    CoordinateSystem,
    LandmarkSet,
    image_stem,
    landmark_set_of,
    read_landmarks,
    write_landmarks,
)
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.spaces import affine_of, off_plane, plane_z, points_as_rows

from .guard import require_followable_chain
from .lost_affine import is_moved, mark_loaded, require_affines, require_cache_of_affines, require_known_origin

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

_SLICER_FORMATS = (".mrk.json", ".fcsv")

Rows = Sequence[Sequence[float | None] | None]


class LoadLandmarks(Transform):
    """Load the landmarks of an image as world points: RAS mm, NaN where a landmark is missing.

    Args:
        names: landmarks to load, in this order. None: those of the file, in its order. Pass names wherever items are
            batched, so that all items have the same number and order of landmarks. A landmark that is not in the file
            is missing.
        strict: raise an error for landmarks in a file that are not among ``names``. False: leave them out.
        coordinate_system: of rows that are given instead of a file: ``"index"`` (pixels of the image), ``"RAS"`` or
            ``"LPS"``.

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
        """Load the landmarks of an image.

        Args:
            source: path of a landmark file, a landmark set, or rows of coordinates, one per landmark, None or NaN for a
                missing landmark.
            img: channel-first image as it was loaded. It gives the number of axes, and the affine for points in pixels.
            coordinate_system: of rows. Default: that of the constructor.
            row_names: landmark of each row. None: those of ``names``, in that order.

        Returns:
            MetaTensor (1, N, D) float64 with affine ``eye(4)``.

        Raises:
            ValueError: for landmarks that are loaded already or not among ``names``, a wrong number of rows or
                coordinates, 3-D points off the plane of a 2-D image, a file that states another size of the image, or
                pixels without an image or with one that was already transformed.
        """
        landmarks, where = self._read(source, img, coordinate_system, row_names)
        if landmarks.coordinate_system == CoordinateSystem.INDEX:
            landmarks = landmarks.to_world(_loaded_affine(img, where))
        points = landmarks.to(CoordinateSystem.RAS).points
        if img is not None:
            points = _in_dimension(points, img, where)
        return MetaTensor(torch.from_numpy(points.copy())[None], affine=torch.eye(4, dtype=torch.float64))

    def _read(
        self,
        source: PathLike | LandmarkSet | Rows | np.ndarray,
        img: NdarrayOrTensor | None,
        coordinate_system: CoordinateSystem | str | None,
        row_names: Sequence[str] | None,
    ) -> tuple[LandmarkSet, str]:
        """Return the landmarks, and where they come from, for error messages."""
        if isinstance(source, MetaTensor):
            raise ValueError(
                "The landmarks are loaded already: they are points with an affine. Load them once, before any other "
                "transform of landmarks."
            )
        if isinstance(source, LandmarkSet):
            landmarks, where = source, f"landmarks of {source.image}" if source.image else "landmark set"
        elif isinstance(source, (str, os.PathLike)):
            landmarks, where = read_landmarks(source), os.fspath(source)
            if isinstance(img, MetaTensor) and not (img.applied_operations or img.pending_operations):
                with naming_file(where):
                    landmarks.require_image_size(img.shape[1:])
        else:
            points = _rows(source)
            names = tuple(row_names or self.names or (str(i) for i in range(len(points))))
            if len(points) != len(names):
                raise ValueError(f"Got {len(points)} rows of coordinates for {len(names)} landmark names.")
            landmarks = LandmarkSet(names, points, CoordinateSystem(coordinate_system or self.coordinate_system))
            where = "rows of coordinates"
        if self.names is None:
            return landmarks, where
        unknown = [name for name in landmarks.names if name not in self.names]
        if unknown and self.strict:
            raise ValueError(
                f"{where}: landmarks {unknown} are not among the names {list(self.names)}. "
                "Correct the file or the names, or use strict=False to leave them out."
            )
        return landmarks.reorder(self.names), where


def _rows(source: Rows | np.ndarray) -> np.ndarray:
    if source is None:
        raise ValueError("The item has no landmarks (None). Expected a landmark file, or rows with None where missing.")
    rows: list[Any] = list(points_as_rows(source)) if isinstance(source, (np.ndarray, torch.Tensor)) else list(source)
    sizes = {len(row) for row in rows if row is not None}
    if len(sizes) > 1 or not sizes <= {2, 3}:
        raise ValueError(
            f"Landmarks must be rows of 2 or 3 coordinates, all of the same length, got lengths {sorted(sizes)}."
        )
    dims = sizes.pop() if sizes else 2
    missing = [None] * dims
    return np.array([missing if row is None else row for row in rows], dtype=np.float64).reshape(-1, dims)


def _loaded_affine(img: NdarrayOrTensor | None, where: str) -> np.ndarray:
    """Return the affine of an image that was not transformed since it was loaded, as pixels in files require."""
    affine = affine_of(img)
    if affine is None:
        raise ValueError(f"{where}: points in pixels need the image with its affine. Load the image first.")
    if is_moved(img):
        raise ValueError(
            f"{where}: the points are pixels of the image file, but the image was already transformed. "
            "Load landmarks right after the image, before any transform that moves or resamples it."
        )
    return affine


def _in_dimension(points: np.ndarray, img: NdarrayOrTensor, where: str) -> np.ndarray:
    """Return points with as many coordinates as the image has axes."""
    dims = img.ndim - 1
    if points.shape[1] == dims:
        return points
    if np.isnan(points).all():
        return np.full((len(points), dims), np.nan)
    if dims != 2 or points.shape[1] != 3:
        raise ValueError(
            f"{where}: the points have {points.shape[1]} coordinates, but the image has {dims} spatial axes."
        )
    off = off_plane(points, plane_z(img))
    if off.any():
        row = int(off.argmax())
        raise ValueError(f"{where}: landmark {row} lies {off[row]:.3f} mm off the plane of the 2-D image.")
    return points[:, :2]


class LoadLandmarksd(MapTransform):
    """Dictionary-based version of :class:`LoadLandmarks`. Use it after ``LoadImaged`` and ``EnsureWorldAffined``.

    It also checks the chain of transforms that is running, and raises an error if landmarks cannot follow one of them;
    see :func:`~monai_landmarks.transforms.require_followable_transforms`. It marks landmarks and images, so that all
    dictionary transforms of landmarks raise an error if one of them has lost its affine, for example in a cache on
    disk.

    Args:
        keys: landmarks, a path or rows of coordinates.
        refer_keys: the image of the landmarks, one or one per key.
        names: see :class:`LoadLandmarks`.
        strict: see :class:`LoadLandmarks`.
        coordinate_system: of rows, if the item does not have one.
        coordinate_system_key: key of the coordinate system in the item. None: ``"<key>_coordinate_system"``.
        names_key: key of the landmark names of the rows in the item. None: ``"<key>_names"``. The names are removed
            from the item, since they cannot be batched. Rows without names are those of ``names``, in that order.
        allow_missing_keys: do not raise if landmarks are missing from the item.
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
        """Load the landmarks of an item.

        Args:
            data: item with an image and the source of its landmarks.

        Returns:
            A copy of the item with landmarks as MetaTensors (1, N, D), see :class:`LoadLandmarks`, and
            ``"<key>_loaded"``, a boolean tensor (N,), True where the file has the landmark.

        Raises:
            KeyError: if the image is missing.
            ValueError: see :class:`LoadLandmarks`; if the running chain has a transform that landmarks cannot follow;
                if the image has no affine; or if the running dataset caches on disk without affines.
        """
        require_followable_chain(self, self.refer_keys)
        require_cache_of_affines()
        d = dict(data)
        loaded = []
        for key, refer_key in self.key_iterator(d, self.refer_keys):
            if refer_key not in d:
                raise KeyError(f"The image {refer_key!r} of the landmarks {key!r} is not in the item. Load it first.")
            require_known_origin(d[refer_key], refer_key)
            system_key = self.coordinate_system_key or f"{key}_coordinate_system"
            row_names = d.pop(self.names_key or f"{key}_names", None)
            d[key] = self.loader(d[key], d[refer_key], d.get(system_key), row_names)
            loaded.append(key)
        mark_loaded(d, loaded)
        return d


class SaveLandmarks(Transform):
    """Save landmarks to a file that 3D Slicer shows at the right place on the image.

    The file is named after the image, ``<output_dir>/<image>_<output_postfix><output_ext>``. In Slicer's formats, 2-D
    points get the z of the plane of their image, which is 0 for most images.

    Args:
        names: of the landmarks. None: 1, 2, ...
        output_dir: folder, which is created if needed.
        output_postfix: appended to the name of the image. May be empty.
        output_ext: ``".mrk.json"``, ``".fcsv"``, ``".csv"`` or another registered landmark format.
        coordinate_system: of the file: ``"LPS"`` (Slicer's own), ``"RAS"`` or, in CSV, ``"index"`` (pixels of ``img``).
        separate_folder: write a separate folder per image.
        data_root_dir: folder below which the folders of the images are repeated in the output.
        print_log: log the path.
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
        """Save the landmarks of an image.

        Args:
            points: (1, N, D) or (N, D), world points (affine ``eye(4)``) or index points of ``img``.
            img: channel-first image of the landmarks. It gives the name of the file, and the affine for index points.
            scores: one per landmark, (N,) or (1, N).
            filename: name of the image. Default: that in the metadata of ``img``.

        Returns:
            Path of the file written.

        Raises:
            ValueError: if the number of names or scores is not that of the points, for index points without an image
                that has an affine, or if the name of the file is unknown.
        """
        landmarks = self._landmark_set(points, img, scores)
        meta = img.meta if isinstance(img, MetaTensor) else {}
        filename = filename or meta.get(ImageMetaKey.FILENAME_OR_OBJ)
        if not filename:
            raise ValueError(
                "The name of the landmark file is unknown: the metadata of the image has no file name. Pass filename."
            )
        # the layout cuts off all after the last dot, which is part of the name of a folder such as 1.2.840.113.1
        path = Path(self.layout.filename(Path(filename).with_name(f"{image_stem(filename)}.image")))
        write_landmarks(path, landmarks)
        if self.print_log:
            logger.info("%s: %d landmarks", path, len(landmarks))
        return path

    def _landmark_set(
        self, points: NdarrayOrTensor, img: NdarrayOrTensor | None, scores: NdarrayOrTensor | None
    ) -> LandmarkSet:
        if not isinstance(points, MetaTensor) and not isinstance(img, MetaTensor):
            raise ValueError("Points without an affine are pixels. To save them, pass their image with its affine.")
        landmarks = landmark_set_of(points, img, self.names, scores, strict=True)
        if self.coordinate_system == CoordinateSystem.INDEX:
            affine = affine_of(img)
            if affine is None:
                raise ValueError("To save landmarks as pixels, pass their image with its affine.")
            return landmarks.to_index(affine)
        if self.output_ext.lower() in _SLICER_FORMATS:
            landmarks = landmarks.with_spatial_dims(3, plane_z(img))
        return landmarks.to(self.coordinate_system)


class SaveLandmarksd(MapTransform):
    """Dictionary-based version of :class:`SaveLandmarks`.

    Args:
        keys: landmarks.
        refer_keys: the image of the landmarks, one or one per key.
        score_keys: scores of the landmarks, one or one per key. Items without them are saved without scores. None: no
            scores.
        saved_path_key: the path of the file is added to the item as ``"<key>_<saved_path_key>"``. None: it is not
            added.
        names: see :class:`SaveLandmarks`, also for all further arguments.
        allow_missing_keys: do not raise if landmarks are missing.
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
        """Save the landmarks of an item.

        Args:
            data: item with landmarks and their image.

        Returns:
            A copy of the item.

        Raises:
            ValueError: see :class:`SaveLandmarks`.
        """
        d = dict(data)
        for key, refer_key, score_key in self.key_iterator(d, self.refer_keys, self.score_keys):
            require_affines(d, key, refer_key if refer_key in d else None)
            path = self.saver(d[key], d.get(refer_key), d.get(score_key))
            if self.saved_path_key is not None:
                d[f"{key}_{self.saved_path_key}"] = str(path)
        return d


LoadLandmarksD = LoadLandmarksDict = LoadLandmarksd
SaveLandmarksD = SaveLandmarksDict = SaveLandmarksd
