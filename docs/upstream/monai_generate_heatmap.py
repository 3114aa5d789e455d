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

"""MONAI: GenerateHeatmap rounds points to whole voxels.

**Describe the bug.** ``GenerateHeatmap`` rounds each point before it computes the Gaussian. A point at 20.3 has the
same heatmap as a point at 20.0. Networks that decode heatmaps with sub-pixel precision therefore learn targets that are
up to half a voxel wrong per axis, 0.38 voxels on average in 2-D. The docstring does not mention it.

**Expected behavior.** The Gaussian is evaluated at the distance of each voxel from the exact point. This costs nothing,
because the Gaussian is separable.

**To reproduce.** Run this script. It prints the center of mass of the heatmap for several points.
"""

from __future__ import annotations

import torch
from monai.transforms import GenerateHeatmap

for point in (20.0, 20.3, 20.5, 20.7):
    heatmap = GenerateHeatmap(sigma=2.0, spatial_shape=(48, 48))(torch.tensor([[point, 24.0]]))[0]
    center = float((torch.arange(48.0)[:, None] * heatmap).sum() / heatmap.sum())
    print(f"point at {point}: center of mass of the heatmap at {center:.2f}")
