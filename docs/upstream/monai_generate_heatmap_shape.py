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

"""MONAI: GenerateHeatmapd with ref_image_keys returns heatmaps of the size before resampling.

**Describe the bug.** With ``ref_image_keys``, ``GenerateHeatmapd`` takes the size of the heatmaps from
``meta["spatial_shape"]`` of the image. A reader writes this entry, and no transform updates it. After ``Resized``,
``Spacingd``, ``Zoomd`` or a crop, the heatmaps have the size of the image in the file, not that of the image in the
item. Network output and target then have different sizes, or, after a crop, the same size at different places.

**Expected behavior.** The heatmaps have the size of the image, ``image.shape[1:]``.

**To reproduce.** Run this script. It writes an image, loads and resizes it, and prints both sizes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose, GenerateHeatmapd, LoadImaged, Resized
from PIL import Image

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "image.png"
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(path)
    pipeline = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Resized("image", (128, 96)),
            GenerateHeatmapd("points", sigma=2.0, heatmap_keys="heatmaps", ref_image_keys="image"),
        ]
    )
    item = pipeline({"image": str(path), "points": torch.tensor([[20.0, 24.0]])})
    print(f"image {tuple(item['image'].shape[1:])}, heatmaps {tuple(item['heatmaps'].shape[1:])}")
