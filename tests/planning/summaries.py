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
"""Summaries of data that is not there."""

from __future__ import annotations

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
