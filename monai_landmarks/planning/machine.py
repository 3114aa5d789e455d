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
"""The machine that will train, and how much memory a training needs on it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.bundle import ConfigParser

__all__ = ["Machine", "TrainingMemory", "measure_training"]

_SHARE = 0.6  # of the memory that is free now: the rest is for what was not counted, and for others
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Machine:
    """Where a training will run.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        memory: that a training may use, in bytes.
    """

    device: str
    memory: float

    @classmethod
    def here(cls, device: str | None = None, memory: float | None = None) -> Machine:
        """This machine.

        Args:
            device: by default a GPU where there is one.
            memory: that is free, in bytes, of which a part will be used; by default what is free now.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if memory is None:
            memory = _free_on_gpu() if device == "cuda" else _free_memory()
        return cls(device, _SHARE * memory)

    @property
    def on_gpu(self) -> bool:
        """Whether it is a GPU."""
        return self.device == "cuda"


@dataclass(frozen=True)
class TrainingMemory:
    """What a training step needs, in bytes; all that grows with the image is proportional to its voxels.

    Args:
        weights: of the network, with their gradient and the two averages of Adam.
        per_voxel: what one voxel of one image of the batch leaves for the backward pass.
        cached_per_voxel: of all images that are kept in memory, a voxel of each.
    """

    weights: float
    per_voxel: float
    cached_per_voxel: float = 0.0

    def needed(self, voxels: int, batch_size: int = 1, cached_voxels: int | None = None) -> float:
        """Bytes for a training step with images of so many voxels, where those kept in memory may have others."""
        cached = voxels if cached_voxels is None else cached_voxels
        return self.weights + voxels * batch_size * self.per_voxel + cached * self.cached_per_voxel

    def voxels_in(self, memory: float, batch_size: int = 1) -> int:
        """The largest image for which a step needs no more than this, 0 if there is none."""
        return max(0, int((memory - self.weights) / (batch_size * self.per_voxel + self.cached_per_voxel)))


def measure_training(network_def: Mapping[str, Any], num_cached: int = 0) -> TrainingMemory:
    """What a training step of a network needs, counted and not estimated, without running it.

    The network is made on torch's ``meta`` device, where tensors have a shape and no memory, and what autograd keeps of
    a forward pass is added up. Twice that is the rule for the peak: gradients and workspaces come and go on top.

    Args:
        network_def: a network in MONAI's configuration notation, with spatial_dims and num_landmarks as numbers.
        num_cached: images that are kept on the same device as the network works on.

    Example:
        >>> network = {"_target_": "monai_landmarks.networks.nets.LocalizationUNet", "spatial_dims": 2, "in_channels": 1}
        >>> memory = measure_training({**network, "num_landmarks": 4})
        >>> memory.needed(256 * 256, batch_size=2) < 2**30
        True
    """
    dims, maps = network_def["spatial_dims"], network_def["num_landmarks"]
    side = 256 if dims == 2 else 64
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):  # MONAI's BasicUNet prints its widths
        network = ConfigParser({"network": dict(network_def)}).get_parsed_content("network")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            heatmaps = network(torch.empty(1, network_def["in_channels"], *[side] * dims))
            activations = sum(kept.values()) / side**dims
    del heatmaps
    # of each heatmap: itself, its target, their difference and its gradient
    per_voxel = 2 * (activations + 4 * maps * _FLOAT)
    weights = 4 * _FLOAT * sum(parameter.numel() for parameter in network.parameters())
    return TrainingMemory(weights, per_voxel, _FLOAT * num_cached)


def _free_on_gpu() -> float:
    if not torch.cuda.is_available():
        raise ValueError("there is no GPU here; tell how much memory (--memory) the one that will train has.")
    return torch.cuda.mem_get_info()[0]


def _free_memory() -> float:
    """Bytes of memory that are free or can be made free; half of all memory where the system does not say."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo") as file:
        line = next(line for line in file if line.startswith("MemAvailable:"))
        return 1024.0 * int(line.split()[1])
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 4 * 2.0**30
