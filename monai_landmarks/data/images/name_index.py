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

import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from .image_files import image_stem

__all__ = ["NameIndex", "beside"]


class NameIndex:
    """Find images by the names that tables and landmark files use.

    A name matches the images with the same file name, with or without suffix. If there is none, the case of letters,
    the Unicode form of accents and spaces at the ends do not count; then neither do zeros before a number, which
    spreadsheet programs remove (``2`` for ``002.png``).

    The folders of a name must not contradict those of the image, so that the landmarks of ``site2/1.png`` are not those
    of ``site1/1.png``: the shorter path of folders must be the end of the longer one. A name may lack the folders, or
    have those of another machine before them. If several images match, those are chosen whose folders agree with the
    folders of the name over the longest part, counted from the file name upward.

    Args:
        names: paths or names of the images. Give paths relative to the folder of the images; of absolute paths, the
            folders that all of them share do not count.

    Example:
        >>> index = NameIndex(["left/hand.png", "right/hand.png", "right/foot.png"])
        >>> index.find("foot"), index.find("/data/right/hand.png"), index.find("right_hand"), index.find("hand")
        (['right/foot.png'], ['right/hand.png'], ['right/hand.png'], ['left/hand.png', 'right/hand.png'])
        >>> index.find("left/foot.png"), index.find_elsewhere("left/foot.png")
        ([], ['right/foot.png'])
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._parts = _below_shared({name: _parts(name) for name in names})
        self._exact = _Index(self._parts, str)
        self._above: tuple[str, ...] = ()  # folders above those of the images, which names must not contradict either

    @cached_property  # most names are found without it
    def _alike(self) -> _Index:
        return _Index(self._parts, _alike)

    @cached_property
    def _numbered(self) -> _Index:
        return _Index(self._parts, _number)

    def add_root(self, root_dir: str | os.PathLike, names: Iterable[str]) -> None:
        """Let the folders above the images count, too, as far up as one of the names has the same folders.

        Otherwise, ``site2/1.png`` in a table of all sites would be the image ``1.png`` of the folder ``site1``. If no
        name has the folders above the images, these may be called differently on this machine, and do not count.

        Args:
            root_dir: the folder to which the names of the images are relative.
            names: all names that will be searched.

        Example:
            >>> index = NameIndex(["1.png"])
            >>> index.add_root("/data/site1", ["site1/2.png", "site2/1.png"])
            >>> index.find("site1/1.png"), index.find("site2/1.png"), index.find_elsewhere("site2/1.png")
            (['1.png'], [], ['1.png'])
        """
        above = _parts(str(Path(root_dir).resolve()))
        own = {tuple(map(_alike, part[:-1])) for part in self._parts.values()}
        depth = 0
        for folders in {_parts(name)[:-1] for name in names}:
            written = tuple(map(_alike, folders))
            # the folders of images, or else those above them: the longest end that is the folder of an image
            start = next((start for start in range(len(written) + 1) if written[start:] in own), 0)
            depth = max(depth, _common_end(folders[:start], above, _alike))
        self._above = above[len(above) - depth :]

    def find(self, name: str) -> list[str]:
        """Return the images that match the name best: none, one, or several that match equally well."""
        *folders, file = _parts(name)
        found: list[str] = []
        for writing in ("_exact", "_alike", "_numbered"):
            found = found or self._agreeing(folders, *getattr(self, writing).find(file))
        # folders with the same writing come first
        for same in (str, _alike):
            agreement = [_common_end(folders, self._folders(image), same) for image in found]
            found = [image for image, depth in zip(found, agreement) if depth == max(agreement)]
        return found

    def find_elsewhere(self, name: str) -> list[str]:
        """Return the images that match the file name, but whose folders contradict those of the name."""
        return [] if self.find(name) else self.find(_parts(name)[-1])

    def _agreeing(self, folders: list[str], found: list[str], are_joined: bool) -> list[str]:
        """Return the images whose folders do not contradict those of a name."""
        if are_joined:  # the file name has the folders
            return found
        both = [(image, self._folders(image)) for image in found]
        return [image for image, own in both if _common_end(folders, own, _alike) == min(len(folders), len(own))]

    def _folders(self, image: str) -> tuple[str, ...]:
        return (*self._above, *self._parts[image][:-1])

    def find_beginning(self, name: str) -> tuple[str, str]:
        """Return the image whose name begins a longer name, up to a ``_``, ``-``, dot or space, and the rest of the name.

        The image with the longest name is meant. If several images have this name, none is. Without an image, both are
        empty.

        Example:
            >>> NameIndex(["a.png", "a_1.png"]).find_beginning("a_1_left")
            ('a_1.png', '_left')
        """
        *folders, file = _parts(name)
        for mark in reversed(list(re.finditer(r"[_\-. ]", file))):
            found = self.find("/".join([*folders, file[: mark.start()]])) if mark.start() else []
            if found:
                return (found[0], file[mark.start() :]) if len(found) == 1 else ("", "")
        return "", ""


def beside(file: str, stated: str) -> str:
    """Return the path of an image that a landmark file states, seen from where the path of that file is.

    Example:
        >>> beside("site2/1.json", "1.png"), beside("site2/1.json", "../1.png"), beside("1.json", "/data/1.png")
        ('site2/1.png', '1.png', '/data/1.png')
    """
    path = stated.replace("\\", "/")
    is_absolute = path.startswith("/") or path[1:2] == ":"
    return path if is_absolute else posixpath.normpath(posixpath.join(posixpath.dirname(file), path))


class _Index:
    """Images by file name, by file name without suffix, and by folders and file name, all in one writing."""

    def __init__(self, parts: Mapping[str, tuple[str, ...]], writing: Callable[[str], str]) -> None:
        self._writing = writing
        self._files: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._joined: dict[str, list[str]] = {}
        for name, (*folders, file) in parts.items():
            stem = image_stem(file)
            self._files.setdefault(writing(file), []).append(name)
            self._stems.setdefault(writing(stem), []).append(name)
            for depth in range(1, len(folders) + 1):  # names of prediction files may begin with folders
                self._joined.setdefault(writing("_".join([*folders[-depth:], stem])), []).append(name)

    def find(self, file: str) -> tuple[list[str], bool]:
        """Return the images of a file name, and whether it is joined from their folders and names."""
        whole, stem = self._writing(file), self._writing(image_stem(file))
        tables = ((self._files, whole), (self._stems, whole), (self._stems, stem), (self._joined, whole))
        hits = ((table[key], table is self._joined) for table, key in (*tables, (self._joined, stem)) if key in table)
        return next(hits, ([], False))


def _alike(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _number(name: str) -> str:
    """Return a whole number as spreadsheet programs write it, and any other name as it is."""
    digits = re.fullmatch(r"0*(\d+)(\.0+)?", name.strip(), flags=re.ASCII)
    return digits.group(1) if digits else name


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip("/") for part in PurePosixPath(name.replace("\\", "/")).parts) or ("",)


def _below_shared(parts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Cut the folders that all absolute paths share; they are the place of the images on this machine."""
    folders = [part[:-1] for part in parts.values()]
    if not all(folder and (folder[0] == "" or folder[0].endswith(":")) for folder in folders):
        return parts
    shared = len(os.path.commonprefix(folders))
    return {name: part[shared:] for name, part in parts.items()}


def _common_end(first: Sequence[str], second: tuple[str, ...], same: Callable[[str], str]) -> int:
    depth = 0
    while depth < min(len(first), len(second)) and same(first[-1 - depth]) == same(second[-1 - depth]):
        depth += 1
    return depth
