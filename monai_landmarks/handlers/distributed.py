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

"""The process group of a training on several devices, started by ``torchrun``."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

__all__ = ["finish_distributed", "local_device", "start_distributed", "wrap_distributed"]


def local_device() -> torch.device:
    """The device of this process: its own GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
    return torch.device("cpu")


def start_distributed() -> None:
    """
    Join the process group that ``torchrun`` describes, with NCCL on GPUs and gloo on CPUs.

    Raises:
        RuntimeError: when the process was not started by ``torchrun``.
    """
    if "RANK" not in os.environ:
        raise RuntimeError(
            "multi_gpu_train.json is for several processes: start it with "
            "'torchrun --standalone --nproc_per_node=N -m monai.bundle run ...'."
        )
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def finish_distributed() -> None:
    """Leave the process group, all processes together: one that leaves early can break the others' connections."""
    if dist.is_initialized():
        dist.barrier()
        # gloo's threads let go of the last exchange a moment after it is over; an interpreter that ends in that moment
        # is aborted, although all its work is done
        time.sleep(0.5)
        dist.destroy_process_group()


def wrap_distributed(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """
    A network or a loss on the device of this process, whose gradients are averaged over all processes.

    A module without trainable parameters, such as most losses, has nothing to average and is only moved.
    """
    module = module.to(device)
    return DistributedDataParallel(module) if any(p.requires_grad for p in module.parameters()) else module
