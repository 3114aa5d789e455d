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
"""Images with NaN or infinite voxels are refused, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.transforms import RequireFinite, RequireFinited


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_message_counts_the_voxels_and_names_the_file(bad: float, dtype: torch.dtype) -> None:
    values = torch.zeros(1, 3, 4, dtype=dtype)
    values[0, 1, :2] = bad
    image = MetaTensor(values, meta={"filename_or_obj": "a.nii"})
    with pytest.raises(ValueError, match="a.nii: 2 of 12 voxels are NaN or infinite"):
        RequireFinited("image")({"image": image})


def test_finite_voxels_whose_sum_is_not() -> None:
    for kind in (torch.from_numpy, np.asarray):
        image = kind(np.full((1, 2, 3), np.finfo(np.float64).max))
        assert RequireFinite()(image) is image
