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

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.transforms import CropToForeground, CropToForegroundd


@pytest.mark.parametrize("dims", [2, 3])
def test_the_box_and_its_margin_in_mm(dims: int, device: torch.device) -> None:
    spacing = np.array([0.5, 2.0, 1.0][:dims])
    affine = torch.eye(4, dtype=torch.float64)
    affine[:dims, :dims] = torch.from_numpy(np.diag(spacing))
    affine[:dims, 3] = torch.arange(dims) * 10.0
    array = torch.zeros(1, *[30] * dims, device=device)
    array[(0, *[slice(12, 20)] * dims)] = 101.0
    array[(0, *[0] * dims)] = 100.0  # not above the threshold
    image = MetaTensor(array, affine=affine)
    cropped = CropToForegroundd("image", threshold=100, margin=3.0)({"image": image})["image"]
    margin = np.array([6, 2, 3][:dims])  # 3 mm, rounded up
    assert cropped.shape == (1, *(8 + 2 * margin)) and cropped.device.type == device.type
    box = tuple(slice(12 - m, 20 + m) for m in margin)
    assert torch.equal(cropped.as_tensor(), array[(slice(None), *box)])
    expected = affine[:dims, 3].numpy() + spacing * (12 - margin)
    np.testing.assert_allclose(cropped.affine[:dims, 3], expected)
    assert cropped.applied_operations == []


def test_the_margin_ends_at_the_border() -> None:
    image = torch.zeros(1, 10, 10)
    image[0, 1, 8] = 1.0
    assert CropToForeground(threshold=0.5, margin=4)(image).shape == (1, 6, 6)


def test_an_image_without_foreground_stays_whole() -> None:
    assert CropToForeground(threshold=5)(torch.ones(1, 6, 7, 8)).shape == (1, 6, 7, 8)
    assert CropToForeground(threshold=None)(torch.ones(1, 6, 7)).shape == (1, 6, 7)


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin"):
        CropToForeground(threshold=0, margin=-1)
