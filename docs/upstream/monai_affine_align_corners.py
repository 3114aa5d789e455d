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

"""MONAI: Affine(align_corners=True) writes an affine that its content does not have.

**Describe the bug.** With ``align_corners=True``, ``Affine`` samples the image with another scale than without, but it
writes the same affine into the result. The world position of a voxel, computed with that affine, is not the place that
the voxel shows. A translation by t voxels is wrong by t / n voxels along an axis of n voxels. Rotations and shears are
wrong if the sides of the image differ. Points and other images that follow the affine are then at a wrong place. In
lazy mode the result is right.

**Expected behavior.** The content is where the affine says, for both values of ``align_corners``.

**To reproduce.** Run this script. The image holds its own coordinates, so each voxel shows where it comes from.
"""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import Affine

index = (20, 10)
coordinates = torch.stack(torch.meshgrid(torch.arange(41.0), torch.arange(31.0), indexing="ij"))
for align_corners in (False, True):
    image = MetaTensor(coordinates, affine=torch.eye(4))
    result = Affine(translate_params=(8, 0), image_only=True, align_corners=align_corners)(image)
    shown = [round(float(value), 3) for value in result[:, index[0], index[1]]]
    stated = (result.affine @ torch.tensor([*index, 0.0, 1.0], dtype=result.affine.dtype))[:2].tolist()
    print(
        f"align_corners={align_corners}: voxel {index} shows {shown}, its affine says {[round(v, 3) for v in stated]}"
    )
