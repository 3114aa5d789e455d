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

"""The number of processes that read files at the same time."""

from __future__ import annotations

import os

__all__ = ["usual_workers"]

_MANY = 32  # files; for fewer, the start of processes takes longer than they save


def usual_workers(files: int) -> int:
    """Return one process per core that this process may use, and none for few files or one core.

    The processes of torchrun on one machine share its cores.

    Args:
        files: number of files to read.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if files < _MANY or cores < 2:
        return 0
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
