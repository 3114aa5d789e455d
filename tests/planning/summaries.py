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
"""Summaries of data that is not there, and small files."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np

from monai_landmarks.planning import DataSummary, TrainingMemory

GIB = 2.0**30
# as much as the networks of the bundles, about: 5 kB a voxel
MEMORY = TrainingMemory(weights=2e8, per_voxel=5000.0)


def summary(size=(500, 600), spacing=None, images=40, **more) -> DataSummary:
    """Images of one size, 1 mm by default."""
    dims = len(size)
    values = {
        "names": ("a", "b", "c"),
        "sizes": (tuple(size),) * images,
        "spacings": (tuple(spacing or (1.0,) * dims),) * images,
        "counts": (images - 8, 8, 0),
        "point_extent": (10.0,) * dims,
        "modality": "X-ray" if dims == 2 else "MR",
    }
    return DataSummary(**{**values, **more})


def save_volume(path, size, axes, spacing, values=(0, 500)):
    """A volume whose voxel axes run along the given world axes, such as ``"PIR"``: posterior, inferior, right."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, step) in enumerate(zip(axes, spacing)):
        row, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[axis]
        affine[row, column] = sign * step
    affine[:3, 3] = (5, -7, 11)
    pixels = np.random.default_rng(0).integers(*values, size).astype(np.int16)
    nib.save(nib.Nifti1Image(pixels, affine), path)
    return affine


def write(path, names, sections, system="index", pairs=()):
    definition = {"names": names, "pairs": [list(pair) for pair in pairs], "coordinate_system": system}
    path.write_text(json.dumps({"landmarks": definition, **sections}))
    return path


def volumes(folder, values=(0, 500)):
    """Three volumes of other axes, with two landmarks 30 mm apart to the right and 20 to superior."""
    items = []
    for i, (axes, size, spacing) in enumerate(
        [("RAS", (10, 20, 30), (3, 2, 1)), ("PIR", (20, 30, 10), (2, 1, 3)), ("SLA", (30, 10, 20), (1, 3, 2))]
    ):
        affine = save_volume(folder / f"{i}.nii.gz", size, axes, spacing, values)
        world = np.array([[5.0, 0, 20], [35.0, 0, 40]])
        index = np.linalg.solve(affine[:3, :3], (world - affine[:3, 3]).T).T
        items.append({"image": f"{i}.nii.gz", "label": [*index.tolist(), [None] * 3]})
    return write(folder / "datalist.json", ["a", "b", "c"], {"training": items[:2], "validation": items[2:]})
