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


"""The fast layers beside the layers that they replace, forward and backward, on a CPU; see README.md.

python benchmarks/benchmark_layers.py [--threads 1] [--quick]
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import fire
import torch
import torch.nn as nn
from compare import announce, measure, print_table
from monai.networks.nets.basic_unet import UpCat

from monai_landmarks.handlers import keep_freed_memory
from monai_landmarks.networks.layers import use_fast_layers


def step(net: nn.Module, *inputs: torch.Tensor) -> None:
    """Forward and backward pass."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    output = net(*leaves)
    torch.autograd.grad(output, [*leaves, *net.parameters()], output.detach())


def main(threads: int | None = None, quick: bool = False, keep_memory: bool = False) -> None:
    """Run all comparisons.

    Args:
        threads: threads of torch, by default its own choice.
        quick: tiny sizes, to see that it runs; the numbers mean nothing.
        keep_memory: freed memory stays in the process, as in the bundles.
    """
    announce("cpu", threads)
    if keep_memory:
        keep_freed_memory()
    fine, coarse, volume = ((16, 32), (8, 16), (8, 16, 8)) if quick else ((160, 192), (80, 96), (48, 80, 48))
    leaky = ("LeakyReLU", {"negative_slope": 0.1})
    cases: dict[str, tuple[nn.Module, list[tuple[int, ...]]]] = {
        "Norm and leaky ReLU": (nn.Sequential(nn.InstanceNorm2d(32), nn.LeakyReLU(0.1)), [(4, 32, *fine)]),
        "Norm with scale, ReLU": (nn.Sequential(nn.InstanceNorm2d(32, affine=True), nn.ReLU()), [(4, 32, *fine)]),
        "Norm and leaky ReLU, 3-D": (nn.Sequential(nn.InstanceNorm3d(16), nn.LeakyReLU(0.1)), [(1, 16, *volume)]),
        "Convolution, 16 to 16, 3-D": (nn.Conv3d(16, 16, 3, padding=1), [(1, 16, *volume)]),
        "Convolution, 32 to 16, 3-D": (nn.Conv3d(32, 16, 3, padding=1), [(1, 32, *volume)]),
        "UpCat": (UpCat(2, 32, 32, 32, leaky, "instance", bias=True, halves=False), [(4, 32, *coarse), (4, 32, *fine)]),
    }
    for title, (plain, shapes) in cases.items():
        fast = use_fast_layers(nn.Sequential(deepcopy(plain)))[0]  # type: ignore[index]
        inputs = [torch.randn(shape) for shape in shapes]
        candidates = {"plain": partial(step, plain, *inputs), "fast": partial(step, fast, *inputs)}
        costs = measure(candidates, "cpu", 1 if quick else 15)
        # memory that is not returned when it is freed has no peak
        times = {name: cost._replace(memory=None) if keep_memory else cost for name, cost in costs.items()}
        print_table(f"{title}, {' and '.join(map(str, shapes))}", times)


if __name__ == "__main__":
    fire.Fire(main)
