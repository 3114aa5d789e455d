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
"""The machine for a training, and the memory that a training step needs."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from monai.bundle import ConfigParser

__all__ = ["Machine", "TrainingMemory", "measure_training"]

_SHARE = 0.6  # part of the free memory to use; the rest is for memory that is not counted, and for other programs
_FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Machine:
    """The machine for a training.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        memory: memory that the training may use, in bytes.
    """

    device: Literal["cpu", "cuda"]
    memory: float

    @classmethod
    def here(cls, device: Literal["cpu", "cuda"] | None = None, memory: float | None = None) -> Machine:
        """Return this machine.

        Args:
            device: device for the training. Default: ``"cuda"`` if there is a GPU.
            memory: free memory in bytes, of which 60 % will be used. Default: the memory that is free now.

        Raises:
            ValueError: for ``"cuda"`` without ``memory`` on a machine without a GPU.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if memory is None:
            memory = _free_on_gpu() if device == "cuda" else _free_memory()
        return cls(device, _SHARE * memory)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == "cuda"


@dataclass(frozen=True)
class TrainingMemory:
    """Memory of a training step in bytes, as a linear function of the number of voxels.

    Args:
        weights: memory for the weights, their gradients and the two moving averages of Adam.
        per_voxel: memory per voxel of each image in the batch, mainly the activations kept for the backward pass.
        cached_per_voxel: memory per voxel for all cached images together.
    """

    weights: float
    per_voxel: float
    cached_per_voxel: float = 0.0

    def needed(self, voxels: int, batch_size: int = 1, cached_voxels: int | None = None) -> float:
        """Return the memory of a training step in bytes.

        Args:
            voxels: number of voxels of an image in the batch.
            batch_size: number of images in the batch.
            cached_voxels: number of voxels of a cached image. Default: ``voxels``.
        """
        cached = voxels if cached_voxels is None else cached_voxels
        return self.weights + voxels * batch_size * self.per_voxel + cached * self.cached_per_voxel

    def voxels_in(self, memory: float, batch_size: int = 1) -> int:
        """Return the largest number of voxels of an image with which a training step fits into the memory, or 0."""
        return max(0, int((memory - self.weights) / (batch_size * self.per_voxel + self.cached_per_voxel)))


def measure_training(network_def: Mapping[str, Any], num_cached: int = 0) -> TrainingMemory:
    """Measure the memory that a training step of a network needs, without allocating it.

    The network runs on torch's ``meta`` device, where tensors have a shape but no memory. The function adds up the
    sizes of all tensors that autograd keeps for the backward pass. The peak is assumed to be twice this sum, because
    gradients and workspaces need memory, too.

    Args:
        network_def: network in MONAI's configuration syntax, with ``spatial_dims`` and ``num_landmarks`` as numbers.
        num_cached: number of images that are cached in the memory of the training device.

    Returns:
        The memory of a training step.

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

    with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):  # BasicUNet prints its features
        network = ConfigParser({"network": dict(network_def)}).get_parsed_content("network")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            heatmaps = network(torch.empty(1, network_def["in_channels"], *[side] * dims))
            activations = sum(kept.values()) / side**dims
    del heatmaps
    # per heatmap: prediction, target, their difference and its gradient
    per_voxel = 2 * (activations + 4 * maps * _FLOAT)
    weights = 4 * _FLOAT * sum(parameter.numel() for parameter in network.parameters())
    return TrainingMemory(weights, per_voxel, _FLOAT * num_cached)


def _free_on_gpu() -> float:
    if not torch.cuda.is_available():
        raise ValueError("this machine has no GPU; give the free memory of the GPU for the training with --memory.")
    return torch.cuda.mem_get_info()[0]


def _free_memory() -> float:
    """Return the available memory in bytes, or half of all memory if the system does not report it."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/meminfo") as file:
        line = next(line for line in file if line.startswith("MemAvailable:"))
        return 1024.0 * int(line.split()[1])
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 4 * 2.0**30
