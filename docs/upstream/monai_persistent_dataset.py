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

"""MONAI: PersistentDataset loses the affine from the second epoch on.

**Describe the bug.** ``PersistentDataset`` stores plain tensors by default (``track_meta=False``). In the first epoch
an item is a ``MetaTensor`` with its affine. In the second epoch it is a plain tensor. A random spatial transform then
starts from an identity affine, without a warning. Everything that relies on world coordinates (landmarks, saving
results, resampling to another image) is right in the first epoch and wrong in all others.

**Expected behavior.** The item has the same affine in each epoch, or an error or a warning says that it is lost.

**To reproduce.** Run this script. It reads the same item twice.
"""

from __future__ import annotations

import tempfile

import torch
from monai.data import MetaTensor, PersistentDataset
from monai.transforms import Flip, Transform


class Load(Transform):
    """An image with voxels of 2 mm."""

    def __call__(self, item: int) -> MetaTensor:
        return MetaTensor(torch.rand(1, 8, 8), affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))


with tempfile.TemporaryDirectory() as folder:
    dataset = PersistentDataset([0], Load(), cache_dir=folder)
    for epoch in (1, 2):
        item = dataset[0]
        flipped = Flip(0)(item)
        print(f"epoch {epoch}: {type(item).__name__}, then {flipped.affine.diagonal().tolist()} after a flip")
