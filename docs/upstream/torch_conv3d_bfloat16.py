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

"""PyTorch: conv3d in bfloat16 on CPUs has wrong weight gradients if the kernel is wider than its input.

**Describe the bug.** On a CPU with AVX-512 BF16 instructions, torch 2.13, the weight gradient of ``conv3d`` in bfloat16
is wrong or NaN if the kernel is wider than the input along an axis. Such layers are the deepest levels of a U-Net on a
thin patch. In some runs memory was corrupted. In float32 the gradient is right.

**Expected behavior.** The gradients of both types agree within the precision of bfloat16.

**To reproduce.** Run this script on such a CPU. It prints the largest difference, relative to the largest gradient.
Other CPUs compute bfloat16 in another way and show a small difference.
"""

from __future__ import annotations

import torch

torch.manual_seed(0)
image, weight = torch.randn(1, 16, 1, 4, 4), torch.randn(16, 16, 3, 3, 3) / 20
gradients = []
for dtype in (torch.float32, torch.bfloat16):
    kernel = weight.to(dtype, copy=True).requires_grad_()
    torch.nn.functional.conv3d(image.to(dtype), kernel, padding=1).float().square().sum().backward()
    gradients.append(kernel.grad.float())
difference = (gradients[0] - gradients[1]).abs().max() / gradients[0].abs().max()
print(f"{torch.__version__}: difference of the weight gradients {float(difference):.3f}")
