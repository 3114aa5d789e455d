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

"""Search of images by name: a path, the end of a path, a file name, or a name without suffix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from .image_files import image_stem

__all__ = ["NameIndex"]


class NameIndex:
    """Find images by the names that tables and landmark files use.

    A name matches the images with the same file name, with or without suffix. If several images match, those are chosen
    whose folders agree with the folders of the name over the longest part, counted from the file name upward.

    Args:
        names: paths or names of the images.

    Example:
        >>> index = NameIndex(["left/hand.png", "right/hand.png", "right/foot.png"])
        >>> index.find("foot"), index.find("/data/right/hand.png"), index.find("right_hand"), index.find("hand")
        (['right/foot.png'], ['right/hand.png'], ['right/hand.png'], ['left/hand.png', 'right/hand.png'])
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._files: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._joined: dict[str, list[str]] = {}
        self._parts = {name: _parts(name) for name in names}
        for name, (*folders, file) in self._parts.items():
            self._files.setdefault(file, []).append(name)
            self._stems.setdefault(image_stem(file), []).append(name)
            for depth in range(1, len(folders) + 1):  # names of prediction files may begin with folders
                self._joined.setdefault("_".join([*folders[-depth:], image_stem(file)]), []).append(name)

    def find(self, name: str) -> list[str]:
        """Return the images that match the name best: none, one, or several that match equally well."""
        *folders, file = _parts(name)
        found = self._files.get(file) or self._stems.get(file) or self._stems.get(image_stem(file))
        found = found or self._joined.get(file) or self._joined.get(image_stem(file)) or []
        agreement = [_common_end(folders, self._parts[image][:-1]) for image in found]
        return [image for image, depth in zip(found, agreement) if depth == max(agreement)]


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip("/") for part in PurePosixPath(name.replace("\\", "/")).parts) or ("",)


def _common_end(first: list[str], second: tuple[str, ...]) -> int:
    depth = 0
    while depth < min(len(first), len(second)) and first[-1 - depth] == second[-1 - depth]:
        depth += 1
    return depth
