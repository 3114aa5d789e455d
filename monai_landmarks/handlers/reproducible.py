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


"""Random seeds, and whether a GPU computes the same twice."""

from __future__ import annotations

import torch
import torch.distributed as dist
from monai.utils import set_determinism

__all__ = ["start_reproducible"]


def start_reproducible(seed: int | None, deterministic: bool = False) -> None:
    """Seed all random numbers, and let cuDNN choose its fastest algorithms unless the results must not vary.

    MONAI's ``set_determinism`` also restricts cuDNN to deterministic algorithms, which takes time on a GPU. On a CPU
    ``deterministic`` makes no difference.

    In a training by several processes, each has a seed of its own. Otherwise image k of every process would have the
    same augmentation and dropout. What must be the same in all of them does not depend on these numbers: the initial
    weights are those of rank 0, and the order of the images and the agent of a search have their own random numbers.

    Args:
        seed: for Python, NumPy and torch. The rank of the process is added to it. None: other numbers each time.
        deterministic: use only algorithms of cuDNN that give the same result each time.
    """
    if seed is not None and dist.is_available() and dist.is_initialized():
        seed += dist.get_rank()
    set_determinism(seed=seed)
    if not deterministic:
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True
