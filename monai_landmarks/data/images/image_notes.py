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

"""What a user must know about the pixel size and the place of images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from .image_files import file_note, place_note

__all__ = ["image_notes", "join_notes"]


def image_notes(
    path: str | os.PathLike,
    in_world: bool = True,
    spacing: float | Sequence[float] | None = None,
    written: bool = False,
) -> list[str]:
    """Return the notes on one image, see ``file_note`` and ``place_note``.

    Args:
        path: image that can be read.
        in_world: whether its points are read or written in mm, so that it matters where readers place it.
        spacing: see ``place_note``.
        written: see ``place_note``.
    """
    return [note for note in (file_note(path), place_note(path, spacing, written) if in_world else "") if note]


def join_notes(notes: Iterable[tuple[str, str]]) -> list[str]:
    """Join notes that differ only in their numbers, so that a dataset has one per kind.

    Args:
        notes: name of the image, and note.

    Example:
        >>> join_notes([("a.dcm", "The size is 0.1 mm."), ("b.dcm", "The size is 0.2 mm."), ("c.dcm", "Turned.")])
        ['a.dcm and 1 more: The size is 0.1 mm.', 'c.dcm: Turned.']
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for name, note in notes:
        kinds.setdefault(re.sub(r"[\d.]+", "0", note), []).append((name, note))
    return [
        f"{found[0][0]}{f' and {len(found) - 1} more' if len(found) > 1 else ''}: {found[0][1]}"
        for found in kinds.values()
    ]
