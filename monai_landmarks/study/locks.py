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
"""Locks on files, so that several processes can work on one study."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: two processes must not work on one study there
    fcntl = None  # type: ignore[assignment]

__all__ = ["TAKEN", "held"]

TAKEN = object()


@contextlib.contextmanager
def held(path: Path, patient: bool = False) -> Iterator[Any]:
    """Hold a lock, and yield its file descriptor; or yield ``TAKEN`` if another process holds it.

    A program that inherits the file descriptor holds the lock, too. Therefore a training whose study was killed is not
    started a second time while it is still running.

    Args:
        path: file of the lock, which stays.
        patient: whether to wait for the lock.

    Raises:
        OSError: if the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield None
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
        except BlockingIOError:
            yield TAKEN
        except OSError as error:
            raise OSError(
                f"{path}: cannot be locked ({error}); put the study on a file system with locks (flock)."
            ) from error
        else:
            yield descriptor
    finally:
        os.close(descriptor)
