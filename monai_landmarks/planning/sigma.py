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
"""How wide the target heatmaps are."""

from __future__ import annotations

from collections.abc import Sequence

from monai_landmarks.schema import LandmarkSchema

from .choice import Choice

__all__ = ["choose_sigma", "sigma_in_voxels"]

_PART = 0.008  # of the longest side of the grid; the settings of the bundles have 0.5 to 1.3 %


def choose_sigma(
    names: Sequence[str],
    spatial_size: Sequence[int],
    spacing: float,
    smallest: float,
    schema: LandmarkSchema | None = None,
    note: str = "",
    unit: str = "mm",
) -> Choice:
    """Sigma of the targets in mm, one number or one for each landmark.

    Args:
        names: of the landmarks.
        spatial_size: of the grid.
        spacing: of the grid, in mm.
        smallest: in voxels.
        schema: whose ``sigma_mm`` are taken where it has them.
        note: what becomes of it in the training.
        unit: what a length is called.
    """
    voxels = max(smallest, _PART * max(spatial_size))
    sigma = float(f"{voxels * spacing:.4g}")
    by_name = {} if schema is None else {mark.name: mark.sigma_mm for mark in schema.landmarks if mark.sigma_mm}
    said = [name for name in names if name in by_name]
    if said:
        values = [by_name.get(name, sigma) for name in names]
        every = len(said) == len(names)
        rest = "" if every else f", {sigma} {unit} for the {len(names) - len(said)} without one"
        return Choice(values[0] if len(set(values)) == 1 else values, f"of the schema{rest}")
    rule = f"{voxels:.3g} voxels, {100 * _PART:g} % of the longest side"
    if voxels == smallest:
        rule = f"{smallest:g} voxels, the narrowest for this method"
    return Choice(sigma, f"{rule}; {note}" if note else rule)


def sigma_in_voxels(sigma_mm: float | Sequence[float], spacing: float) -> float | list[float]:
    """Sigma in voxels of a grid."""
    if isinstance(sigma_mm, (int, float)):
        return round(sigma_mm / spacing, 4)
    return [round(value / spacing, 4) for value in sigma_mm]
