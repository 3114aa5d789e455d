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

"""The class :class:`LandmarkSet`: named points in a stated coordinate system."""

from __future__ import annotations

import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import lru_cache
from itertools import repeat
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.spaces import (
    RAS_TO_LPS,
    covariances_to_index,
    covariances_to_world,
    points_to_index,
    points_to_world,
)

from .point_matrices import ensure_matrices

__all__ = ["CoordinateSystem", "LandmarkSet", "join_landmark_sets", "landmark_name", "landmark_sets_of_table"]

_store = object.__setattr__  # into a frozen object
_Move = Callable[[np.ndarray, np.ndarray], np.ndarray]  # arrays through an affine

_LONGEST_NAME = 10_000  # characters; a CSV with a cell of more than 131072 can be written, but not read again


class CoordinateSystem(str, Enum):
    """Coordinate system of points.

    ``RAS`` and ``LPS`` are world coordinates in mm. In RAS, x, y and z point to the patient's right, anterior and
    superior; in LPS to the left, posterior and superior. ``INDEX`` is the pixel index of an image: coordinate d runs
    along axis d of ``image[channel, ...]``, starts at 0, and whole numbers are pixel centers.
    """

    RAS = "RAS"
    LPS = "LPS"
    INDEX = "index"

    @classmethod
    def _missing_(cls, value: object) -> CoordinateSystem:
        for member in cls:
            if str(value).strip().lower() == member.value.lower():
                return member
        raise ValueError(f"coordinate system {value!r} is unknown; expected one of RAS, LPS, index.")

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, eq=False, slots=True)
class LandmarkSet:
    """The landmarks of one image.

    Args:
        names: N distinct landmark names, in the order of the points. They are kept without spaces at their ends, and
            in the composed form of Unicode (NFC), so that a name is the same however a program encodes its accents.
        points: array (N, D), D = 2 or 3, float64. A missing landmark is a row of NaN.
        coordinate_system: coordinate system of the points: RAS or LPS in mm, or pixel index.
        pairs: (left, right) names of landmarks that are exchanged when the image is mirrored.
        image: image of the points, as a file name or path.
        image_size: width and height of the image in pixels, if the landmark file states on which size the points were
            drawn.
        scores: array (N,), confidence of each predicted point. NaN if unknown.
        covariances: array (N, D, D), covariance of each predicted point, in the squared unit of the points. NaN if
            unknown.
        regions: array (N, D, D). The stated region of a landmark at p is ``(x - p)^T R^-1 (x - p) <= 1``, an ellipse or
            ellipsoid whose semi-axes are the square roots of the eigenvalues of R. NaN if there is none.
        coverage: probability that a region contains the landmark, for example 0.9. Given with ``regions`` and only
            then.

    Raises:
        ValueError: if a name occurs twice or is very long, shapes disagree, only part of a point is missing, a
            coordinate is infinite, a pair names an unknown landmark or one that is in another pair, or a matrix is no
            covariance.

    Example:
        >>> landmarks = LandmarkSet(("left eye", "right eye"), [[30.0, 5.0], [-30.0, 5.0]], "RAS")
        >>> landmarks.to("LPS").points.tolist()
        [[-30.0, -5.0], [30.0, -5.0]]
        >>> landmarks.reorder(["right eye", "chin"]).missing.tolist()
        [False, True]
    """

    names: tuple[str, ...]
    points: np.ndarray
    coordinate_system: CoordinateSystem = CoordinateSystem.RAS
    pairs: tuple[tuple[str, str], ...] = ()
    image: str | None = None
    scores: np.ndarray | None = None
    covariances: np.ndarray | None = None
    regions: np.ndarray | None = None
    coverage: float | None = None
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # the class is frozen: this is the one place where arguments become their stored, read-only form
        store = _store
        store(self, "names", _checked_names(self.names))
        store(self, "points", _checked_points(self.points, self.names))
        store(self, "coordinate_system", CoordinateSystem(self.coordinate_system))
        store(self, "pairs", _checked_pairs(self.pairs, self.names))
        store(self, "image", None if self.image is None else _checked_length(str(self.image), "image"))
        if self.image_size is not None:
            width, height = self.image_size
            store(self, "image_size", (int(width), int(height)))
        if self.scores is not None:
            store(self, "scores", _checked_scores(self.scores, len(self.names)))
        for key in ("covariances", "regions"):
            if getattr(self, key) is not None:
                store(self, key, ensure_matrices(getattr(self, key), self.points, self.names, key))
        if (self.regions is None) != (self.coverage is None):
            raise ValueError("regions and coverage belong together; give both or neither.")
        if self.coverage is not None:
            if not 0 < self.coverage < 1:
                raise ValueError(f"coverage is {self.coverage}; expected a probability between 0 and 1, such as 0.9.")
            store(self, "coverage", float(self.coverage))

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        """Compare all fields; missing points equal missing points."""
        if not isinstance(other, LandmarkSet):
            return NotImplemented
        plain = ("names", "coordinate_system", "pairs", "image", "coverage", "image_size")
        arrays = ("points", "scores", "covariances", "regions")
        return all(getattr(self, key) == getattr(other, key) for key in plain) and all(
            _equal_arrays(getattr(self, key), getattr(other, key)) for key in arrays
        )

    def require_image_size(self, shape: Sequence[int]) -> None:
        """Raise an error if the points were drawn on an image of another size.

        Args:
            shape: spatial shape of the image, x first; that of a picture as viewers show it.

        Raises:
            ValueError: if the landmark file states another size.
        """
        if self.image_size is not None and tuple(shape[:2]) != self.image_size:
            (width, height), size = self.image_size, " x ".join(map(str, shape[:2]))
            raise ValueError(
                f"the points were drawn on an image of {width} x {height} pixels, but the image has {size}; give the image on"
                " which they were drawn, or correct the size in the landmark file."
            )

    @property
    def spatial_dims(self) -> int:
        """Number of coordinates, 2 or 3."""
        return self.points.shape[1]

    @property
    def missing(self) -> np.ndarray:
        """Boolean array (N,), True for landmarks without position."""
        return np.asarray(np.isnan(self.points).any(axis=1))

    @property
    def uncertainty(self) -> np.ndarray:
        """Array (N,) of the root mean square distance of each landmark from its point; NaN if unknown."""
        if self.covariances is None:
            return np.full(len(self), np.nan)
        return np.sqrt(np.trace(self.covariances, axis1=1, axis2=2))

    @property
    def region_radius(self) -> np.ndarray:
        """Array (N,) of the largest semi-axis of each region. NaN if there is no region."""
        radius = np.full(len(self), np.nan)
        if self.regions is not None:
            stated = np.isfinite(self.regions).all(axis=(1, 2))
            radius[stated] = np.sqrt(np.maximum(np.linalg.eigvalsh(self.regions[stated])[:, -1], 0))
        return radius

    def permutation(self) -> np.ndarray:
        """Return the index (N,) of each landmark's left-right partner, or its own index if it has none.

        ``points[landmark_set.permutation()]`` restores the order of the landmarks in a mirrored image.
        """
        index = {name: i for i, name in enumerate(self.names)}
        result = np.arange(len(self))
        for left, right in self.pairs:
            result[index[left]], result[index[right]] = index[right], index[left]
        return result

    def reorder(self, names: Sequence[str]) -> LandmarkSet:
        """Return the landmarks ``names`` in that order; those that this set does not have are missing (NaN)."""
        names = [landmark_name(name) for name in names]
        index = {name: i for i, name in enumerate(self.names)}
        rows = [index.get(name, -1) for name in names]

        def taken(values: np.ndarray | None) -> Any:
            # row -1 holds NaN, for landmarks that this set does not have
            return (
                None
                if values is None
                else np.concatenate([values, np.full_like(values, np.nan, shape=(1, *values.shape[1:]))])[rows]
            )

        pairs = tuple(pair for pair in self.pairs if set(pair) <= set(names))
        arrays = {key: taken(getattr(self, key)) for key in ("points", "scores", "covariances", "regions")}
        return replace(self, names=tuple(names), pairs=pairs, **arrays)

    def to(self, coordinate_system: CoordinateSystem | str) -> LandmarkSet:
        """Convert points to another world coordinate system. RAS and LPS differ in the signs of x and y.

        Raises:
            ValueError: between pixel index and world, which requires an affine; see :meth:`to_world` and
                :meth:`to_index`.
        """
        target = CoordinateSystem(coordinate_system)
        if target == self.coordinate_system:
            return self
        if CoordinateSystem.INDEX in (target, self.coordinate_system):
            method = "to_index" if target == CoordinateSystem.INDEX else "to_world"
            raise ValueError(
                f"points in {self.coordinate_system} can only be converted to {target} with the affine of an image: use {method}(affine)."
            )
        return self._moved(points_to_world, covariances_to_world, RAS_TO_LPS, target)

    def to_index(self, affine: np.ndarray) -> LandmarkSet:
        """Convert world points to the pixel index of an image.

        Args:
            affine: index to RAS world in mm, (D+1, D+1) or (4, 4), as the ``affine`` of a MONAI image. For 2-D points,
                the first two axes of a 4x4 affine are used, as in MONAI.
        """
        if self.coordinate_system == CoordinateSystem.INDEX:
            return self
        ras = self.to(CoordinateSystem.RAS)
        return ras._moved(points_to_index, covariances_to_index, affine, CoordinateSystem.INDEX)

    def to_world(self, affine: np.ndarray) -> LandmarkSet:
        """Convert pixel index to RAS world in mm. World points are converted as by ``to("RAS")``.

        Args:
            affine: index to RAS world in mm, (D+1, D+1) or (4, 4), as the ``affine`` of a MONAI image.
        """
        if self.coordinate_system != CoordinateSystem.INDEX:
            return self.to(CoordinateSystem.RAS)
        return self._moved(points_to_world, covariances_to_world, affine, CoordinateSystem.RAS)

    def _moved(self, points: _Move, covariances: _Move, affine: np.ndarray, system: CoordinateSystem) -> LandmarkSet:
        """Move points with one function, covariances and regions with another."""
        matrices = {
            key: covariances(values, affine) + 0.0
            for key in ("covariances", "regions")
            if (values := getattr(self, key)) is not None
        }
        # + 0.0 turns -0.0 into 0.0
        return replace(self, points=points(self.points, affine) + 0.0, coordinate_system=system, **matrices)

    def with_spatial_dims(self, spatial_dims: int, plane: float | None = 0.0) -> LandmarkSet:
        """Return 2-D points as 3-D points in a plane, or 3-D points that lie in this plane as 2-D points.

        Formats that only store 3-D points, such as those of 3D Slicer, keep 2-D points in the plane z = 0.

        Args:
            spatial_dims: 2 or 3.
            plane: z of the plane. None removes z of 3-D points, whatever it is.

        Raises:
            ValueError: if ``spatial_dims`` is 2 and a point lies outside the plane, or it is 3 and ``plane`` is None.
        """
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims is {spatial_dims}; expected 2 or 3.")
        if spatial_dims == self.spatial_dims:
            return self
        if spatial_dims == 3:
            if plane is None:
                raise ValueError("2-D points become 3-D points only in a plane; give its z.")
            z = np.where(self.missing, np.nan, plane)
            points = np.concatenate([self.points, z[:, None]], axis=1)
            return replace(self, points=points, covariances=_deep(self.covariances), regions=_deep(self.regions))
        for name, z in zip(self.names, self.points[:, 2]):
            if plane is not None and z != plane and not np.isnan(z):
                raise ValueError(
                    f"landmark {name!r} has z = {z:g}; only points in the plane z = {plane:g} can become 2-D."
                )
        flat = {
            key: values[:, :2, :2] for key in ("covariances", "regions") if (values := getattr(self, key)) is not None
        }
        return replace(self, points=self.points[:, :2], **flat)


def join_landmark_sets(sets: Sequence[LandmarkSet]) -> LandmarkSet:
    """Join the landmarks of parts of one image, for example of upper and lower jaw.

    Args:
        sets: landmark sets with different names. World points are converted to the coordinate system of the first set.

    Raises:
        ValueError: if a landmark is in two sets, the sets differ in dimension or coverage, or some are pixel index and
            others in the world.
    """
    first, *others = sets
    sets = [first, *(other.to(first.coordinate_system) for other in others)]
    if len({one.spatial_dims for one in sets}) > 1:
        raise ValueError("some points are 2-D and some 3-D; expected one dimension.")
    coverages = {one.coverage for one in sets if one.coverage is not None}
    if len(coverages) > 1:
        raise ValueError(f"the regions state the coverages {sorted(coverages)}; expected one.")
    sizes = {one.image_size for one in sets if one.image_size is not None}
    if len(sizes) > 1:
        raise ValueError(f"the points were drawn on images of the sizes {sorted(sizes)}; expected one.")
    dims = first.spatial_dims
    beside: dict[str, Any] = {"image_size": next(iter(sizes), None)}
    for key, shape in (("scores", ()), ("covariances", (dims, dims)), ("regions", (dims, dims))):
        if any(getattr(one, key) is not None for one in sets):
            parts = [getattr(one, key) for one in sets]
            beside[key] = np.concatenate(
                [np.full((len(one), *shape), np.nan) if part is None else part for one, part in zip(sets, parts)]
            )
    return LandmarkSet(
        tuple(name for one in sets for name in one.names),
        np.concatenate([one.points for one in sets]),
        first.coordinate_system,
        tuple(pair for one in sets for pair in one.pairs),
        first.image,
        coverage=next(iter(coverages), None),
        **beside,
    )


def landmark_sets_of_table(
    names: Sequence[str],
    points: np.ndarray,
    images: Sequence[str | None],
    coordinate_system: CoordinateSystem | str,
    pairs: Iterable[Sequence[str]] = (),
    coverage: float | None = None,
    **beside: np.ndarray,
) -> dict[str | None, LandmarkSet]:
    """Make the landmark sets of many images with the same names at once.

    The sets share their names, pairs and arrays, so that a million images take seconds.

    Args:
        names: N names.
        points: (M, N, D), of M images.
        images: names of the M images.
        coordinate_system: coordinate system of the points.
        pairs: see :class:`LandmarkSet`.
        coverage: see :class:`LandmarkSet`.
        beside: ``scores`` (M, N), ``covariances`` and ``regions`` (M, N, D, D).

    Raises:
        ValueError: as :class:`LandmarkSet`.
    """
    if not len(images):
        return {}
    first = {key: values[0] for key, values in beside.items()}
    given = cast("tuple[tuple[str, str], ...]", tuple(pairs))  # LandmarkSet checks them
    shared = LandmarkSet(
        tuple(names), points[0], CoordinateSystem(coordinate_system), given, coverage=coverage, **first
    )
    every = shared.names * len(images)
    points = _checked_points(points.reshape(-1, points.shape[2]), every)
    columns: dict[str, Iterable[Any]] = {field.name: repeat(getattr(shared, field.name)) for field in fields(shared)}
    columns["image"] = [image and _checked_length(image, "image") for image in images]
    for key, values in {"points": points, **beside}.items():
        if key == "scores":
            values = _checked_scores(values.reshape(-1), len(every))
        elif key != "points":
            values = ensure_matrices(values.reshape(-1, *values.shape[2:]), points, every, key)
        columns[key] = values.reshape(len(images), len(shared), *values.shape[1:])
    del every, points, beside
    # __post_init__ would check each set again, and takes ten times as long
    sets = list(map(object.__new__, repeat(LandmarkSet, len(images))))
    for key, column in columns.items():
        deque(map(_store, sets, repeat(key), column), maxlen=0)
    return dict(zip(images, sets))


def landmark_name(name: str) -> str:
    """Return a name as :class:`LandmarkSet` keeps it.

    Example:
        >>> landmark_name(" Me\u0301nton ") == "M\u00e9nton"
        True
    """
    return unicodedata.normalize("NFC", str(name)).strip()


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"names is the string {names!r}; expected a sequence of names.")
    return _distinct_names(tuple(map(str, names)))


@lru_cache(maxsize=64)  # the images of a table have the same names
def _distinct_names(names: tuple[str, ...]) -> tuple[str, ...]:
    result = tuple(landmark_name(name) for name in names)
    twice = [name for name, count in Counter(result).items() if count > 1]
    if twice:
        raise ValueError(f"landmark names must be distinct; given more than once: {twice}.")
    for name in result:
        _checked_length(name, "landmark")
    if not all(result):
        raise ValueError("a landmark name is empty; every landmark requires a name.")
    return result


def _checked_length(name: str, what: str) -> str:
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"the name of {what} {name[:20]!r}... has {len(name)} characters; expected up to {_LONGEST_NAME}."
        )
    return name


def _checked_points(points: ArrayLike, names: tuple[str, ...]) -> np.ndarray:
    result = np.array(points, dtype=np.float64)
    if result.ndim != 2 or len(result) != len(names) or result.shape[1] not in (2, 3):
        raise ValueError(
            f"points has shape {result.shape}; expected ({len(names)}, 2) or ({len(names)}, 3), one row per name."
        )
    blank = np.isnan(result)
    wrong = np.isinf(result).any(axis=1) | (blank.any(axis=1) & ~blank.all(axis=1))
    if wrong.any():
        n = int(wrong.argmax())
        raise ValueError(
            f"landmark {names[n]!r} is at {result[n].tolist()}; expected finite numbers, or all NaN if missing."
        )
    result.setflags(write=False)
    return result


def _checked_scores(scores: ArrayLike, count: int) -> np.ndarray:
    result = np.array(scores, dtype=np.float64)
    if result.shape != (count,):
        raise ValueError(f"scores has shape {result.shape}; expected ({count},), one per landmark.")
    result.setflags(write=False)
    return result


def _checked_pairs(pairs: Iterable[Sequence[str]], names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    known, taken, result = set(names), set(), []
    for given in pairs:
        if isinstance(given, str) or len(given) != 2:
            raise ValueError(f"left-right pair {given!r} is not a pair; expected two landmark names.")
        pair = tuple(map(landmark_name, given))
        for name in pair:
            if name not in known:
                raise ValueError(f"left-right pair {pair} names {name!r}, which is not among the landmarks.")
            if name in taken:
                raise ValueError(f"landmark {name!r} is in two left-right pairs (or twice in one); expected one.")
            taken.add(name)
        result.append((pair[0], pair[1]))
    return tuple(result)


def _equal_arrays(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second, equal_nan=True)


def _deep(matrices: np.ndarray | None) -> np.ndarray | None:
    """Extend 2-D matrices to 3-D, with zeros for z."""
    if matrices is None:
        return None
    result = np.pad(matrices, ((0, 0), (0, 1), (0, 1)))
    result[np.isnan(matrices).any(axis=(1, 2))] = np.nan
    return result
