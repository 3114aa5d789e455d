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
"""How many images a batch, and for how long."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .choice import Choice
from .data_summary import DataSummary
from .machine import Machine, TrainingMemory

__all__ = ["choose_batch_size", "choose_max_epochs", "choose_val_interval"]

_VALIDATIONS = 12


def choose_batch_size(
    summary: DataSummary, machine: Machine, memory: TrainingMemory, spatial_size: Sequence[int], largest: int
) -> Choice:
    """Images a batch: as many as the method is used with, fewer where memory or images are few."""
    voxels = math.prod(spatial_size)
    wanted = min(largest, summary.counts[0])
    batch_size = next((n for n in range(wanted, 1, -1) if memory.needed(voxels, n) <= machine.memory), 1)
    needed, at_hand = (f"{size / 2**30:.2g} GiB" for size in (memory.needed(voxels, batch_size), machine.memory))
    if memory.needed(voxels, batch_size) > machine.memory:
        return Choice(batch_size, f"the least, though a step needs about {needed} and {at_hand} are at hand")
    why = f"a step needs about {needed} of {at_hand}"
    if batch_size < wanted:
        return Choice(batch_size, f"{why}, and one image more would not fit")
    return Choice(batch_size, why if wanted == largest else f"no more images to learn from; {why}")


def choose_max_epochs(summary: DataSummary, batch_size: int, steps: int) -> Choice:
    """Epochs, from a number of training steps."""
    epochs = math.ceil(steps / math.ceil(summary.counts[0] / batch_size))
    return Choice(epochs, f"about {steps} steps; look at the training curve, and give more if it still falls")


def choose_val_interval(max_epochs: int, each_epoch: bool = False) -> Choice:
    """Epochs from one validation to the next."""
    if each_epoch:
        return Choice(1, "the training learns from each validation")
    interval = max(1, max_epochs // _VALIDATIONS)
    return Choice(interval, f"the best model is chosen from {max_epochs // interval} validations")
