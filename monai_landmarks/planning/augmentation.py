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
"""How far training images are moved, turned and deformed, and whether they are mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .choice import Choice

__all__ = [
    "choose_elastic",
    "choose_flip",
    "choose_rotate",
    "choose_scale",
    "choose_translate",
    "flip_config",
    "warp_config",
]


def choose_translate(spatial_size: Sequence[int], spacing: float, unit: str = "mm") -> Choice:
    """Translation along each axis, in voxels of the grid."""
    voxels = [round(0.05 * side, 1) for side in spatial_size]
    lengths = " x ".join(f"{value * spacing:.3g}" for value in voxels)
    return Choice(voxels, f"5 % of the grid to either side, {lengths} {unit}")


def choose_elastic(spatial_size: Sequence[int], spacing: float, unit: str = "mm") -> Choice:
    """Displacement of the control points of the elastic field, in voxels of the grid."""
    voxels = round(0.02 * max(spatial_size), 1)
    return Choice(voxels, f"2 % of the longest side, {voxels * spacing:.3g} {unit}")


def choose_rotate() -> Choice:
    """Rotation in rad."""
    return Choice(0.15, "9 degrees to either side, as images of one protocol differ; more if yours do")


def choose_scale() -> Choice:
    """Relative change of size."""
    return Choice(0.12, "patients of different size")


def choose_flip(pairs: Sequence[Sequence[str]], symmetric: bool = False) -> Choice:
    """Probability of mirroring left and right."""
    if pairs:
        return Choice(0.5, f"{len(pairs)} left-right pairs are declared, which change places")
    if symmetric:
        return Choice(0.5, "the anatomy is said to be symmetric, with all landmarks in the middle")
    return Choice(
        0.0, "no left-right pair is declared; where all landmarks lie in the plane of symmetry, --symmetric mirrors"
    )


def warp_config(translate: Any, rotate: Any, scale: float, elastic: float) -> dict[str, Any]:
    """The settings of ``RandLandmarkWarpd`` that are chosen."""
    return {
        "unit": "voxel",
        "translate_range": translate,
        "rotate_range": rotate,
        "scale_range": scale,
        "axis_scale_range": round(scale / 2, 4),
        "elastic_range": elastic,
    }


def flip_config(prob: float, pairs: Sequence[Sequence[str]], names: Sequence[str]) -> list[dict[str, Any]]:
    """The mirroring transform, or none. The first axis runs from left to right, in pictures as in turned volumes."""
    if prob == 0:
        return []
    # by number, because a configuration would take a name that begins with a dollar for an expression
    rows = [[names.index(left), names.index(right)] for left, right in pairs]
    return [
        {
            "_target_": "monai_landmarks.transforms.RandLandmarkFlipd",
            "keys": "image",
            "points_keys": "label",
            "pairs": rows,
            "spatial_axis": 0,
            "prob": prob,
        }
    ]
