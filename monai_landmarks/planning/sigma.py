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
"""Width of the target heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from monai_landmarks.schema import LandmarkSchema, match_landmarks

from .choice import Choice

__all__ = ["choose_sigma", "defines_sigma", "sigma_in_voxels"]

_PART = 0.008  # part of the longest side of the grid; the shipped bundles use 0.5 % to 1.3 %


def choose_sigma(
    names: Sequence[str],
    spatial_size: Sequence[int],
    spacing: float,
    smallest: float,
    schema: LandmarkSchema | None = None,
    note: str = "",
    unit: Literal["mm", "px"] = "mm",
) -> Choice:
    """Choose sigma of the target heatmaps in mm: one number, or one per landmark.

    Args:
        names: names of the landmarks.
        spatial_size: size of the grid in voxels.
        spacing: voxel size of the grid in mm.
        smallest: smallest sigma in voxels.
        schema: landmark schema, whose ``sigma_mm`` are used where they are defined, unless ``unit`` is ``"px"``.
        note: text to append to the reason.
        unit: unit of ``spacing``; ``"px"`` if the pixel size is not known.
    """
    voxels = max(smallest, _PART * max(spatial_size))
    sigma = float(f"{voxels * spacing:.4g}")
    by_name = {}
    if schema is not None and defines_sigma(schema, unit):
        given = match_landmarks(schema, names).names(names)
        by_name = {name: mark.sigma_mm for mark, name in zip(schema.landmarks, given) if mark.sigma_mm}
    defined = [name for name in names if name in by_name]
    if defined:
        values = [by_name.get(name, sigma) for name in names]
        others = len(names) - len(defined)
        rest = f"; {sigma} {unit} for {others} landmarks without a value there" if others else ""
        return Choice(values[0] if len(set(values)) == 1 else values, f"from the schema{rest}")
    rule = f"{voxels:.3g} voxels, {100 * _PART:g} % of the longest side"
    if voxels == smallest:
        rule = f"{smallest:g} voxels, the smallest for this method"
    if unit == "px" and defines_sigma(schema):
        rule += "; those of the schema are in mm, but the pixel size is not known"
    return Choice(sigma, f"{rule}; {note}" if note else rule)


def defines_sigma(schema: LandmarkSchema | None, unit: Literal["mm", "px"] = "mm") -> bool:
    """Return whether a schema defines a sigma of any landmark, in a unit that the data have."""
    return schema is not None and unit == "mm" and any(mark.sigma_mm for mark in schema.landmarks)


def sigma_in_voxels(sigma_mm: float | Sequence[float], spacing: float) -> float | list[float]:
    """Convert sigma from mm to voxels."""
    if isinstance(sigma_mm, (int, float)):
        return round(sigma_mm / spacing, 4)
    return [round(value / spacing, 4) for value in sigma_mm]
