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
"""Augmentation: how far training images are translated, rotated and deformed, and whether they are mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from monai_landmarks.schema import LandmarkSchema, match_landmarks

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


def choose_translate(spatial_size: Sequence[int], spacing: float, unit: Literal["mm", "px"] = "mm") -> Choice:
    """Choose the largest translation along each axis, in voxels of the grid."""
    voxels = [round(0.05 * side, 1) for side in spatial_size]
    lengths = " x ".join(f"{value * spacing:.3g}" for value in voxels)
    return Choice(voxels, f"up to 5 % of the grid in either direction, {lengths} {unit}")


def choose_elastic(spatial_size: Sequence[int], spacing: float, unit: Literal["mm", "px"] = "mm") -> Choice:
    """Choose the largest displacement of the control points of the elastic field, in voxels of the grid."""
    voxels = round(0.02 * max(spatial_size), 1)
    return Choice(voxels, f"up to 2 % of the longest side, {voxels * spacing:.3g} {unit}")


def choose_rotate() -> Choice:
    """Choose the largest rotation, in rad."""
    return Choice(
        0.15, "up to 9 degrees in either direction, typical for one protocol; use more if your images vary more"
    )


def choose_scale() -> Choice:
    """Choose the largest relative change of size."""
    return Choice(0.12, "patients differ in size")


def choose_flip(
    pairs: Sequence[Sequence[str]],
    symmetric: bool = False,
    schema: LandmarkSchema | None = None,
    names: Sequence[str] = (),
) -> Choice:
    """Choose the probability of mirroring left and right.

    Args:
        pairs: left-right pairs of the data.
        symmetric: whether images are mirrored although there are no pairs.
        schema: landmark schema, which may say the same.
        names: names of the landmarks. The schema counts only if it has all of them, none with a partner.
    """
    if pairs:
        return Choice(0.5, f"{len(pairs)} left-right pairs are declared, which mirroring swaps")
    if symmetric:
        return Choice(0.5, "the anatomy is declared symmetric, with all landmarks in the plane of symmetry")
    if schema is not None and schema.symmetric and _all_in_plane(schema, names):
        return Choice(0.5, f"mirrored images are of the same kind, as the schema {schema.name} states")
    return Choice(
        0.0, "no left-right pairs are declared; use --symmetric if all landmarks are in the plane of symmetry"
    )


def _all_in_plane(schema: LandmarkSchema, names: Sequence[str]) -> bool:
    """Return whether all landmarks are some of the schema that have no partner on the other side."""
    match = match_landmarks(schema, names)
    paired = {name for pair in schema.pairs for name in pair}
    given = {own for own, name in zip(schema.names, match.names(names)) if name is not None}
    return not match.unknown and not given & paired


def warp_config(
    translate: float | Sequence[float], rotate: float | Sequence[float], scale: float, elastic: float
) -> dict[str, Any]:
    """Return the chosen arguments of :class:`monai_landmarks.transforms.RandLandmarkWarpd`."""
    return {
        "unit": "voxel",
        "translate_range": translate,
        "rotate_range": rotate,
        "scale_range": scale,
        "axis_scale_range": round(scale / 2, 4),
        "elastic_range": elastic,
    }


def flip_config(
    prob: float, pairs: Sequence[Sequence[str]], names: Sequence[str], one_sided: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return a list with the mirroring transform, or an empty list.

    The first axis runs along left-right, both in pictures and in volumes that are oriented to RAS.
    """
    if prob == 0:
        return []
    # row numbers instead of names, because MONAI would evaluate a name that begins with "$" as an expression
    rows = [[names.index(left), names.index(right)] for left, right in pairs]
    return [
        {
            "_target_": "monai_landmarks.transforms.RandLandmarkFlipd",
            "keys": "image",
            "points_keys": "label",
            "pairs": rows,
            "one_sided": [names.index(name) for name in one_sided],
            "spatial_axis": 0,
            "prob": prob,
        }
    ]
