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

__all__ = ["unreadable_folder", "walk_folder"]


def unreadable_folder(reason: str = "") -> str:
    """Return the sentence for a folder that cannot be read."""
    return f"the folder cannot be read{f' ({reason})' if reason else ''}; allow access to it, or move it away."


def walk_folder(folder: str | os.PathLike, unreadable: dict[Path, str] | None = None) -> Iterator[Path]:
    """Find everything in a folder and its subfolders.

    ``Path.rglob`` leaves out links to folders. Here they are followed. A folder that is reached in several ways, or
    contains itself, is listed once, and not through a link if there is another way.

    Args:
        folder: where to look.
        unreadable: gets the folders that cannot be read, each with the reason. By default the first is an error.

    Yields:
        Path of each file and each subfolder, in no particular order.

    Raises:
        ValueError: if a folder cannot be read.
    """

    def report(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # it was removed meanwhile
            return
        fault = unreadable_folder(error.strerror or "")
        if unreadable is None:
            raise ValueError(f"{error.filename}: {fault}") from error
        unreadable[Path(error.filename)] = fault

    seen: set[str] = set()
    tops = [os.fspath(folder)]
    for top in tops:  # links to folders are added while it runs, so that they come last
        for place, folders, files in os.walk(top, onerror=report):
            real = os.path.realpath(place)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            tops += [path for name in folders if os.path.islink(path := os.path.join(place, name))]
            yield from (Path(place, name) for name in (*folders, *files))
