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

"""Cubic upsampling against properties of cubic convolution and against scipy-free dense sums."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from monai_landmarks.networks.layers import CubicUpsample


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("dims", [2, 3])
def test_reproduces_quadratic_polynomials(dims, factor):
    # Keys' kernel with a = -1/2 is exact for polynomials of degree two, away from the border
    size = 9
    coarse = torch.arange(size, dtype=torch.float64)
    fine = (torch.arange(size * factor, dtype=torch.float64) + 0.5) / factor - 0.5

    def polynomial(x, axis):
        shape = [1] * dims
        shape[axis] = -1
        return (0.3 * x**2 - x + 2).view(shape)

    image = sum(polynomial(coarse, a) for a in range(dims)).expand((size,) * dims)
    expected = sum(polynomial(fine, a) for a in range(dims)).expand((size * factor,) * dims)
    result = CubicUpsample(dims, factor).double()(image[None, None].contiguous())[0, 0]
    inner = (slice(2 * factor, -2 * factor),) * dims
    assert result.shape == expected.shape
    assert torch.allclose(result[inner], expected[inner], atol=1e-5)


def test_equals_pytorch_for_its_own_parameter():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 10, 12)
    result = CubicUpsample(2, 4, a=-0.75)(image)
    expected = F.interpolate(image, scale_factor=4, mode="bicubic", align_corners=False)
    assert torch.allclose(result[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], atol=1e-5)


def test_zero_outside():
    # equal to upsampling an image padded with zeros
    image = torch.rand(1, 1, 6, 6)
    padded = CubicUpsample(2, 4)(F.pad(image, [2] * 4))[..., 8:-8, 8:-8]
    assert torch.allclose(CubicUpsample(2, 4)(image), padded, atol=1e-6)
