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

"""Shapes that differ from the others: landmarks exchanged or out of place, mirrored, turned, or of another size."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .alignment import known_points
from .shape_model import MIN_LANDMARKS, MIN_SHAPES, ShapeModel, fit_left_out_models, turn_angles, usable_shapes

__all__ = ["ShapeFinding", "examine_shape", "examine_shapes"]

# Times the usual deviation. In 270 annotated images (two sets of cephalograms, mouse skulls, lumbar vertebrae), three
# deviate by more, and one by 4 to 5.
_OUT_OF_PLACE = 5.0
_SETTLED = 0.5  # an exchange must reduce the squared deviation of the whole shape to this part
_MAX_EXCHANGES = 4
_REFITTED = 12  # exchanges that look best and are fitted again
_TURNED = np.deg2rad(30.0)
_RESIZED = np.log(1.5)
_UNUSUAL = 5.0  # times the usual rotation, or deviation of the logarithm of the size


@dataclass(frozen=True)
class ShapeFinding:
    """What is unusual about one shape.

    Args:
        exchanged: pairs of landmarks, by index. With each pair exchanged back, the shape is ordinary.
        displaced: landmarks out of place, by index, with their distance from the expected place in mm.
        mirrored: whether the mirrored shape is ordinary, and this one is not.
        turned: rotation in degrees away from the pose of the others, if it is unusual.
        resized: size relative to the others, if it is unusual.
    """

    exchanged: tuple[tuple[int, int], ...] = ()
    displaced: dict[int, float] = field(default_factory=dict)
    mirrored: bool = False
    turned: float | None = None
    resized: float | None = None

    def __bool__(self) -> bool:
        return bool(
            self.exchanged or self.displaced or self.mirrored or self.turned is not None or self.resized is not None
        )

    def describe(self, names: Sequence[str], unit: str = "mm") -> str:
        """Return what is unusual in words, without a period at the end. Empty if nothing is unusual.

        Args:
            names: names of the landmarks.
            unit: unit of the points, for example ``"pixels"``.
        """
        texts = []
        if self.mirrored:
            texts.append(
                "the landmarks are a mirror image of those of other images; the image is mirrored, or left and right are"
                " exchanged"
            )
        for first, second in self.exchanged:
            texts.append(f"landmarks {names[first]!r} and {names[second]!r} look exchanged")
        if self.displaced:
            order = sorted(self.displaced, key=lambda index: -self.displaced[index])
            places = [f"{names[index]!r} by {self.displaced[index]:.3g} {unit}" for index in order[:5]]
            more = [f"{len(order) - 5} more"] if len(order) > 5 else []
            noun = "landmark" if len(order) == 1 else "landmarks"
            texts.append(f"{noun} away from the expected place: {', '.join([*places, *more])}")
        if self.turned is not None:
            texts.append(f"the landmarks are turned by {self.turned:.0f} degrees against those of other images")
        if self.resized is not None:
            texts.append(
                f"the landmarks are {self.resized:.2g} times as large as in other images; the pixel size may be wrong"
            )
        return "; ".join(texts)


def examine_shapes(points: np.ndarray) -> list[ShapeFinding] | None:
    """Compare each shape with the others.

    Position, rotation and size of each shape are removed, with outlying landmarks hardly counted. A normal distribution
    of the shapes, learned without the shape in question, gives the expected place of each landmark given the others,
    and the usual distance from it. A landmark much farther away is out of place. If exchanging two landmarks, or
    mirroring the shape, makes it ordinary, this is reported instead. Rotation and size are compared with those of the
    other shapes.

    Args:
        points: array (K, N, D) in mm, NaN where missing.

    Returns:
        One finding for each shape. None if there are too few shapes or landmarks to say anything: fewer than 8 shapes
        with three landmarks.
    """
    usable = np.flatnonzero(usable_shapes(points))
    if len(usable) < MIN_SHAPES:
        return None
    models, parts = fit_left_out_models(points[usable])
    collapsed = (known_points(points).sum(axis=1) >= MIN_LANDMARKS) & ~usable_shapes(points)
    found = [ShapeFinding(resized=0.0) if one_place else ShapeFinding() for one_place in collapsed]
    for part, model in enumerate(models):
        rows = usable[parts == part]
        for row, finding in zip(rows, _examine(points[rows], model)):
            found[row] = finding
    return found


def examine_shape(points: np.ndarray, model: ShapeModel, limit: float = _OUT_OF_PLACE) -> ShapeFinding:
    """Compare one shape (N, D), in mm, with a model.

    Args:
        points: array (N, D) in mm, NaN where missing.
        model: from :func:`monai_landmarks.shapes.fit_shape_model`.
        limit: a landmark is out of place if it deviates by more than this number of usual deviations.
    """
    return _examine(points[None], model, limit)[0]


def _examine(points: np.ndarray, model: ShapeModel, limit: float = _OUT_OF_PLACE) -> list[ShapeFinding]:
    deviations = model.compare(points)
    ordinary = np.asarray(~(deviations.distances > limit).any(axis=1))
    return [
        _with_pose(ShapeFinding(), shape, model) if good else _explain(shape, model, limit)
        for shape, good in zip(points, ordinary)
    ]


def _explain(points: np.ndarray, model: ShapeModel, limit: float) -> ShapeFinding:
    """Return why a shape is not ordinary."""
    if not (model.compare(points[None], mirrored=True).distances > limit).any():
        return _with_pose(ShapeFinding(mirrored=True), points, model, mirrored=True)
    displaced = _out_of_place(points, model, limit)
    exchanged: list[tuple[int, int]] = []
    mended = points
    for _ in range(_MAX_EXCHANGES):
        pair, candidate = _best_exchange(mended, model)
        if pair is None:
            break
        left = _out_of_place(candidate, model, limit)
        if set(pair) & set(left) or len(left) >= len(displaced):
            break
        exchanged, mended, displaced = [*exchanged, pair], candidate, left
        if not displaced:
            break
    return _with_pose(ShapeFinding(tuple(exchanged), displaced), mended, model)


def _best_exchange(points: np.ndarray, model: ShapeModel) -> tuple[tuple[int, int] | None, np.ndarray]:
    """Return the exchange of two landmarks after which the shape fits best, if it fits much better."""
    known = np.flatnonzero(known_points(points) & known_points(model.mean))
    pairs = np.array(list(itertools.combinations(known, 2)))
    aligned = model.align(points[None])(points[None])
    before = model.deviations(aligned).costs[0]
    if len(pairs) > _REFITTED:
        pairs = pairs[np.argsort(_costs_after_exchange(aligned[0], pairs, model))[:_REFITTED]]
    candidates = np.repeat(points[None], len(pairs), axis=0)
    rows = np.arange(len(pairs))
    candidates[rows, pairs[:, 0]], candidates[rows, pairs[:, 1]] = points[pairs[:, 1]], points[pairs[:, 0]]
    costs = model.compare(candidates).costs
    best = int(np.argmin(costs))
    if costs[best] > _SETTLED * before:
        return None, points
    first, second = pairs[best].tolist()
    return (first, second), candidates[best]


def _costs_after_exchange(aligned: np.ndarray, pairs: np.ndarray, model: ShapeModel) -> np.ndarray:
    """Return the squared Mahalanobis distances after each exchange, without aligning the shape again."""
    dims = model.spatial_dims
    known = known_points(aligned) & known_points(model.mean)
    number = np.cumsum(known) - 1
    n = int(known.sum())
    precision = model.precision(known)
    z = (aligned - model.mean)[known].ravel()
    q = (precision @ z).reshape(n, dims)
    blocks = precision.reshape(n, dims, n, dims).transpose(0, 2, 1, 3)
    first, second = number[pairs[:, 0]], number[pairs[:, 1]]
    step = aligned[pairs[:, 1]] - aligned[pairs[:, 0]]  # the first moves by it, the second back
    own = blocks[first, first] + blocks[second, second] - blocks[first, second] - blocks[second, first]
    change = 2 * ((q[first] - q[second]) * step).sum(axis=1) + np.einsum("pi,pij,pj->p", step, own, step)
    return np.asarray(z @ precision @ z + change)


def _out_of_place(points: np.ndarray, model: ShapeModel, limit: float) -> dict[int, float]:
    """Return the landmarks out of place with their distance in the unit of the points.

    The worst landmark is left out, and the rest is aligned again, until none is out of place.
    """
    kept = known_points(points) & known_points(model.mean)
    removed: list[int] = []
    while kept.sum() > MIN_LANDMARKS:
        shape = np.where(kept[:, None], points, np.nan)[None]
        distances = model.compare(shape).distances[0]
        worst = int(np.nanargmax(distances)) if np.isfinite(distances).any() else -1
        if worst < 0 or distances[worst] <= limit:
            break
        removed.append(worst)
        kept[worst] = False
    result: dict[int, float] = {}
    for index in reversed(removed):
        # what looked out of place beside a worse landmark may not be without it
        fit = model.align(np.where(kept[:, None], points, np.nan)[None])
        aligned = fit(points[None])[0]
        places, covariances = model.expected(aligned, kept)
        offset = aligned[index] - places[index]
        squared = offset @ np.linalg.solve(covariances[index], offset) / model.spatial_dims
        if squared > limit**2:
            result[index] = float(np.linalg.norm(offset) / fit.scales[0])
        else:
            kept[index] = True
    if not result:  # too few landmarks to leave one out
        found = model.compare(points[None])
        scale = model.align(points[None]).scales[0]
        for index in np.flatnonzero(found.distances[0] > limit):
            result[int(index)] = float(np.linalg.norm(found.offsets[0, index]) / scale)
    return result


def _with_pose(finding: ShapeFinding, points: np.ndarray, model: ShapeModel, mirrored: bool = False) -> ShapeFinding:
    """Return the finding with unusual rotation and size."""
    kept = known_points(points)
    kept[list(finding.displaced)] = False
    kept &= known_points(model.mean)
    if kept.sum() < MIN_LANDMARKS:
        return finding
    fit = model.align(np.where(kept[:, None], points, np.nan)[None], mirrored=mirrored)
    angle, size = 0.0, -float(np.log(fit.scales[0]))
    if not mirrored:
        back = np.swapaxes(fit.rotations, 1, 2)
        angle = float(turn_angles(back, np.eye(model.spatial_dims), model.mean[kept])[0])
    return ShapeFinding(
        finding.exchanged,
        finding.displaced,
        finding.mirrored,
        float(np.rad2deg(angle)) if angle > max(_TURNED, _UNUSUAL * model.turn_spread) else None,
        float(np.exp(size)) if abs(size) > max(_RESIZED, _UNUSUAL * model.size_spread) else None,
    )
