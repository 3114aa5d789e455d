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
"""Landmarks on one side only, which are missing in mirrored images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .choice import Choice

__all__ = ["choose_one_sided", "distances_to_plane", "require_one_sided"]

# A landmark is one-sided if its distance is above both. Landmarks in the plane of symmetry of mouse skulls and spines
# are below 0.04 half widths and 0.9 spreads, landmarks whose partner was left out above 0.17 and 4.6.
_HALF_WIDTHS = 0.1
_SPREADS = 2.5
_ONE_SIDE = 0.9  # share of the images in which a one-sided landmark is on the same side


def choose_one_sided(
    points: np.ndarray | None, names: Sequence[str], pairs: Sequence[Sequence[str]], flip: float, unit: str = "mm"
) -> Choice:
    """Find the landmarks without a partner that do not lie in the plane of symmetry.

    In a mirrored image, such a landmark would be expected on the wrong side.

    Args:
        points: landmarks of the training images, (n, N, D), NaN where missing. The first axis runs left-right. None:
            not known.
        names: names of the landmarks.
        pairs: left-right pairs of names.
        flip: probability of mirroring.
        unit: unit of the points, for the reason.

    Returns:
        A list of names.
    """
    partners = {name for pair in pairs for name in pair}
    single = [name for name in names if name not in partners]
    if not flip:
        return Choice([], "images are not mirrored")
    if not single:
        return Choice([], "all landmarks have a partner on the other side")
    if not pairs:
        return Choice([], "all landmarks are declared to be in the plane of symmetry")
    rows = [[list(names).index(name) for name in pair] for pair in pairs]
    few = _SPREADS * (1 + 2 / (1 if points is None else len(points)))  # a spread of few images is too small
    found, unknown = {}, []
    for name in single:
        distance, half_width, spread = (
            (np.nan,) * 3 if points is None else distances_to_plane(points, rows, list(names).index(name))
        )
        if np.isnan(distance):
            unknown.append(name)
        elif abs(distance) > max(_HALF_WIDTHS * half_width, few * spread):
            found[name] = abs(distance)
    measured = len(single) - len(unknown)
    reason = f"all {measured} landmarks without a partner are in the plane of symmetry"
    if found:
        beside = ", ".join(f"{name} by {distance:.3g} {unit}" for name, distance in found.items())
        reason = f"beside the plane of symmetry: {beside}; missing in mirrored images"
    if unknown:
        reason = f"{reason}; " if measured else ""
        reason += f"not measured, because no training image has it with a pair that is apart: {', '.join(unknown)}"
    return Choice(list(found), reason)


def distances_to_plane(points: np.ndarray, pairs: Sequence[Sequence[int]], row: int) -> tuple[float, float, float]:
    """Measure the distance of a landmark from the plane of symmetry over several images.

    The plane of each image is estimated from the pairs, with larger weights for pairs near the landmark, because a body
    may be bent. Its normal is the main direction between partners, and it goes through the weighted median of their
    centers.

    Args:
        points: (n, N, D), NaN where missing.
        pairs: row numbers of left-right pairs, in any order of left and right.
        row: row number of the landmark.

    Returns:
        Median signed distance over the images, median distance of the partners from the plane, and spread: the larger
        of the variation between images and of the scatter of the centers of the pairs; infinite for a landmark that is
        on either side. NaN if no image has the landmark and a pair.
    """
    left, right = (points[:, [pair[side] for pair in pairs]] for side in (0, 1))
    measured = []
    for point, one, other in zip(points[:, row], left, right):
        known = ~np.isnan(one + other).any(axis=1) & (one != other).any(axis=1)  # partners at one place show no plane
        if np.isnan(point).any() or not known.any():
            continue
        half, center = (other - one)[known] / 2, (other + one)[known] / 2 - point
        weight = 1 / ((center**2).sum(axis=1) + np.median((half**2).sum(axis=1)))
        normal = np.linalg.eigh(half.T * weight @ half)[1][:, -1]
        normal *= 1 if normal[0] >= 0 else -1  # the same direction in all images
        along = center @ normal
        offset = _weighted_median(along, weight)
        measured.append(
            (-offset, np.average(np.abs(half @ normal), weights=weight), _weighted_median(abs(along - offset), weight))
        )
    if not measured:
        return np.nan, np.nan, np.nan
    distances, half_widths, scatter = np.transpose(measured)
    distance = float(np.median(distances))
    variation = 1.4826 * float(np.median(abs(distances - distance)))  # a standard deviation, for a normal distribution
    if np.mean(distances * distance > 0) < _ONE_SIDE:
        variation = np.inf
    return distance, float(np.median(half_widths)), max(variation, float(np.median(scatter)))


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulated, cumulated[-1] / 2)])


def require_one_sided(one_sided: object, names: Sequence[str], pairs: Sequence[Sequence[str]]) -> None:
    """Raise an error if the given one-sided landmarks are not a list of landmarks without a partner.

    Raises:
        ValueError: with the first wrong name.
    """
    if not isinstance(one_sided, list):
        raise ValueError(f'one_sided is {one_sided!r}; expected a list of names, for example ["{names[0]}"].')
    for name in one_sided:
        if name not in names:
            raise ValueError(f"one_sided: {name!r} is not a landmark of the datalist.")
        if any(name in pair for pair in pairs):
            raise ValueError(f"one_sided: {name!r} has a partner in the left-right pairs.")
