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

"""Cubic upsampling by an integer factor, in 2-D and 3-D."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

__all__ = ["CubicUpsample"]


def _cubic_kernel(distance: torch.Tensor, a: float) -> torch.Tensor:
    """Keys' cubic convolution kernel."""
    t = distance.abs()
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


class CubicUpsample(nn.Module):
    """
    Separable cubic upsampling.

    PyTorch has bicubic interpolation with a = -0.75, but no tricubic interpolation. SCN upsamples its spatial
    configuration with Catmull-Rom splines, a = -0.5. Cell centers are aligned as with ``align_corners=False``. Values
    outside the input are zero.

    Args:
        spatial_dims: 2 or 3.
        factor: integer upsampling factor.
        a: parameter of Keys' kernel (IEEE Transactions on Acoustics, Speech, and Signal Processing 1981).

    Shape:
        (B, C, *spatial) to (B, C, *(factor * spatial)).
    """

    def __init__(self, spatial_dims: int, factor: int, a: float = -0.5) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.factor = factor
        # sampled symmetrically: at (k + 1/2) / f - 2 for an even factor and at (k + 1) / f - 2 for an odd one
        taps = 4 * factor - factor % 2
        position = (torch.arange(taps, dtype=torch.float64) + (0.5 if factor % 2 == 0 else 1.0)) / factor - 2
        self.padding = (3 * factor) // 2
        self.register_buffer("kernel", _cubic_kernel(position, a).float(), persistent=False)

    def _matrix(self, size: int, dtype: torch.dtype) -> torch.Tensor:
        """The upsampling matrix, (size, factor * size). Row i is the output for a 1 in cell i and 0 elsewhere."""
        cells = torch.eye(size, dtype=dtype, device=self.kernel.device)[:, None]
        kernel = self.kernel.to(dtype).view(1, 1, -1)
        return F.conv_transpose1d(cells, kernel, None, self.factor, self.padding)[:, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Upsample each axis of ``x`` in turn."""
        # on a CPU, a matrix product is many times faster than a transposed convolution of all maps
        for axis in range(2, 2 + self.spatial_dims):
            x = (x.movedim(axis, -1) @ self._matrix(x.shape[axis], x.dtype)).movedim(-1, axis)
        return x
