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

"""Peak memory of one call, from the operating system or CUDA, because Python's tracemalloc does not see torch."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["peak_memory"]


def _resident(field: str) -> int:
    """Read a field of /proc/self/status in bytes: VmRSS (memory in use) or VmHWM (its peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def _peak_resident(run: Callable[[], Any]) -> int:
    libc = ctypes.CDLL(None)
    # M_MMAP_THRESHOLD (-3): blocks from 64 KiB on go back to the system when freed, so that the next call's are seen
    libc.mallopt(-3, 65536)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes the present
    before = _resident("VmRSS")
    try:
        result = run()
        peak = _resident("VmHWM")
        del result
    finally:
        libc.mallopt(-3, 2**25)  # blocks are used again: new ones from the system would slow down what is timed next
    return peak - before


def peak_memory(run: Callable[[], Any], device: str = "cpu") -> int | None:
    """Measure the peak memory of a call in bytes, including its result.

    Args:
        run: the call.
        device: ``cpu`` or ``cuda``.

    Returns:
        bytes, or None where the system does not tell (the CPU's memory, outside Linux).
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        del result
        return peak
    try:
        return _peak_resident(run)
    except (OSError, AttributeError):
        return None
