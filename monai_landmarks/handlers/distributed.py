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

"""Process group of a training on several devices that ``torchrun`` has started."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

__all__ = ["finish_distributed", "local_device", "start_distributed", "wrap_distributed"]


def local_device() -> torch.device:
    """Return the device of this process: its own GPU if there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    return torch.device("cpu")


def start_distributed() -> None:
    """Join the process group of ``torchrun``, with NCCL on GPUs and gloo on CPUs.

    Raises:
        RuntimeError: if ``torchrun`` did not start the process.
    """
    if "RANK" not in os.environ:
        raise RuntimeError(
            "multi_gpu_train.json requires several processes. Start it with "
            "'torchrun --standalone --nproc_per_node=N -m monai.bundle run ...'."
        )
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def finish_distributed() -> None:
    """Leave the process group together with all other processes.

    A process that leaves early can break the connections of the others.
    """
    if dist.is_initialized():
        dist.barrier()
        # gloo's threads release the last exchange shortly after it has ended; an interpreter that exits before that
        # is aborted, although all its work is done
        time.sleep(0.5)
        dist.destroy_process_group()


def wrap_distributed(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Move a network or a loss to the device of this process and average its gradients over all processes.

    A module without trainable parameters, as most losses are, is only moved.
    """
    module = module.to(device)
    return DistributedDataParallel(module) if any(p.requires_grad for p in module.parameters()) else module
