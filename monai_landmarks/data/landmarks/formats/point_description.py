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
"""Words in the description of 3D Slicer's points, for values that its files have no field for.

::

    score=0.93 uncertainty_mm=0.52 covariance_mm2=0.135,0.01,0.135 coverage=0.9 within_mm=1.14 region_mm2=1.3,0.1,1.2

``uncertainty_mm`` and ``within_mm`` inform the reader in Slicer. They are :attr:`LandmarkSet.uncertainty` and
:attr:`LandmarkSet.region_radius`, and follow from the matrices. The entries of a matrix are xx, xy, xz, yy, yz, zz, or
xx, xy, yy if the points lie in a plane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_landmarks.data.landmarks.landmark_set import LandmarkSet
from monai_landmarks.data.landmarks.point_matrices import pack_matrices, unpack_matrices

__all__ = ["describe_points", "parse_descriptions"]

_MATRICES = {"covariance_mm2": "covariances", "region_mm2": "regions"}


def describe_points(landmark_set: LandmarkSet) -> list[str]:
    """Return the description of each landmark; empty if there is nothing to state."""
    return [" ".join(_words(landmark_set, n)) for n in range(len(landmark_set))]


def parse_descriptions(descriptions: Sequence[str]) -> dict[str, Any]:
    """Return scores (N,), covariances and regions (N, 3, 3) in mm^2 and coverage as arguments of :class:`LandmarkSet`.

    Only complete entries count, because users may write any text into a description.

    Args:
        descriptions: descriptions of N points.

    Raises:
        ValueError: if the regions of the points state different coverages.
    """
    words = [_parse_words(text) for text in descriptions]
    result: dict[str, Any] = {}
    scores = np.array([_number(found.get("score", "")) for found in words])
    if not np.isnan(scores).all():
        result["scores"] = scores
    for word, key in _MATRICES.items():
        matrices = np.reshape([_matrix(found.get(word, "")) for found in words], (-1, 3, 3))
        if not np.isnan(matrices).all():
            result[key] = matrices
    coverages = {found["coverage"] for found in words if "region_mm2" in found and "coverage" in found}
    if len(coverages) > 1:
        raise ValueError(f"the regions state the coverages {sorted(coverages)[:5]}; expected one for all points.")
    coverage = _number(*coverages) if coverages else math.nan
    if "regions" in result and 0 < coverage < 1:
        return result | {"coverage": coverage}
    result.pop("regions", None)
    return result


def _words(landmarks: LandmarkSet, n: int) -> list[str]:
    words = []
    if landmarks.scores is not None and not math.isnan(landmarks.scores[n]):
        words.append(f"score={float(landmarks.scores[n])!r}")
    if landmarks.covariances is not None and np.isfinite(landmarks.covariances[n]).all():
        words.append(f"uncertainty_mm={landmarks.uncertainty[n]:.3g}")
        words.append(f"covariance_mm2={_entries(landmarks.covariances[n])}")
    if landmarks.regions is not None and np.isfinite(landmarks.regions[n]).all():
        words.append(f"coverage={landmarks.coverage!r} within_mm={landmarks.region_radius[n]:.3g}")
        words.append(f"region_mm2={_entries(landmarks.regions[n])}")
    return words


def _parse_words(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in str(text).split():
        key, _, value = word.partition("=")
        found.setdefault(key, value)
    return found


def _entries(matrix: np.ndarray) -> str:
    if len(matrix) == 3 and not matrix[2].any():
        matrix = matrix[:2, :2]
    return ",".join(f"{value:.6g}" for value in pack_matrices(matrix))


def _matrix(text: str) -> np.ndarray:
    entries = [_number(part) for part in text.split(",")]
    result = np.full((3, 3), np.nan)
    if len(entries) in (3, 6) and np.isfinite(entries).all():
        dims = 2 if len(entries) == 3 else 3
        result[:] = 0
        result[:dims, :dims] = unpack_matrices(np.array(entries), dims)
    return result


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
