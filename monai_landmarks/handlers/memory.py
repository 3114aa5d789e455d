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


"""Keep freed memory in the process, so that each training step does not get it from the system again."""

from __future__ import annotations

import ctypes
import logging
import sys

__all__ = ["keep_freed_memory"]

logger = logging.getLogger(__name__)

# options of glibc's mallopt, from malloc.h
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Let the allocator of the C library keep the memory that torch frees on a CPU.

    By default, glibc returns large blocks to the system at once. Each feature map of a training step is such a block.
    The next step gets it again page by page, and the system fills each page with zeros, which takes time. With this
    setting, the process keeps its largest amount of memory until it ends. GPU memory is not affected.

    Returns:
        True if the C library accepts the setting, as glibc does on Linux. Elsewhere nothing happens.

    Example:
        >>> accepted = keep_freed_memory()  # doctest: +SKIP
    """
    if not sys.platform.startswith("linux"):
        return False
    # musl has no mallopt
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # no blocks of their own for large sizes, and no return of the free end of the heap
    accepted = mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
    if accepted:
        logger.info("Freed memory stays in the process.")
    return accepted
