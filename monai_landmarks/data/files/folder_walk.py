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


"""All files of a folder and its subfolders, also through links to folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["walk_folder"]


def walk_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Find everything in a folder and its subfolders.

    ``Path.rglob`` leaves out links to folders. Here they are followed. A folder that is reached in several ways, or
    contains itself, is listed once.

    Args:
        folder: where to look.

    Yields:
        Path of each file and each subfolder, in no particular order.
    """
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        yield from (Path(place, name) for name in (*folders, *files))
