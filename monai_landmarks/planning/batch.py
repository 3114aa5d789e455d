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
"""Batch size, number of epochs, and validation interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .choice import Choice
from .data_summary import DataSummary
from .machine import Machine, TrainingMemory

__all__ = ["choose_batch_size", "choose_max_epochs", "choose_val_interval"]

_VALIDATIONS = 12  # number of validations in a training


def choose_batch_size(
    summary: DataSummary, machine: Machine, memory: TrainingMemory, spatial_size: Sequence[int], largest: int
) -> Choice:
    """Choose the batch size: that of the method, or less if memory or training images are too few.

    Args:
        summary: summary of the data.
        machine: machine for the training.
        memory: memory of a training step.
        spatial_size: size of an image in voxels.
        largest: batch size of the method.
    """
    voxels = math.prod(spatial_size)
    wanted = min(largest, summary.counts[0])
    batch_size = next((n for n in range(wanted, 1, -1) if memory.needed(voxels, n) <= machine.memory), 1)
    needed, available = (f"{size / 2**30:.2g} GiB" for size in (memory.needed(voxels, batch_size), machine.memory))
    if memory.needed(voxels, batch_size) > machine.memory:
        return Choice(
            batch_size,
            f"the smallest possible, although a training step needs about {needed} and only {available} are available",
        )
    why = f"a training step needs about {needed} of the available {available}"
    if batch_size < wanted:
        return Choice(batch_size, f"{why}; one more image does not fit")
    return Choice(batch_size, why if wanted == largest else f"all training images; {why}")


def choose_max_epochs(summary: DataSummary, batch_size: int, steps: int) -> Choice:
    """Choose the number of epochs from a number of training steps."""
    epochs = math.ceil(steps / math.ceil(summary.counts[0] / batch_size))
    return Choice(epochs, f"about {steps} training steps; increase it if the training curve still falls")


def choose_val_interval(max_epochs: int, each_epoch: bool = False) -> Choice:
    """Choose the number of epochs between two validations."""
    if each_epoch:
        return Choice(1, "the training uses every validation")
    interval = max(1, max_epochs // _VALIDATIONS)
    return Choice(interval, f"the best model is chosen from {max_epochs // interval} validations")
