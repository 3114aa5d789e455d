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

"""Copies of files that are replaced, unless the program wrote them itself."""

from __future__ import annotations

import hashlib
import shutil
from contextvars import ContextVar, Token
from itertools import count
from pathlib import Path
from typing import Any

from .name_lists import some_names

__all__ = ["KeptFiles", "keep_before_replacing", "remove_file"]

_RECORD = ".written"
_keeper: ContextVar[KeptFiles | None] = ContextVar("keeper", default=None)


class KeptFiles:
    """Keep a copy of each file that ``atomic_write`` replaces or :func:`remove_file` removes in a ``with`` block.

    In a block inside another, the outer one keeps the copies.

    The copy of ``a.csv`` is ``a.csv.bak`` in the same folder, then ``a.csv.bak2`` and so on. There is none of a file that
    the program wrote itself and that is still the same, or if the new file has the same contents.

    Args:
        record: file to which the checksum of each new file is added, with the suffix ``.written``. Files whose checksum
            is in it, or in another record in its folder or in their own, were written by the program. None: every file
            may be of another origin.

    Attributes:
        copies: the copies.

    Example:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp()) / "a.csv"
        >>> _ = table.write_text("mine")
        >>> with KeptFiles() as kept:
        ...     remove_file(table)
        >>> [copy.name for copy in kept.copies], kept.copies[0].read_text()
        (['a.csv.bak'], 'mine')
    """

    def __init__(self, record: Path | None = None) -> None:
        if record is not None and record.suffix != _RECORD:
            raise ValueError(f"{record}: expected a name with the suffix {_RECORD}.")
        self.copies: list[Path] = []
        self._record = record
        self._known: set[str] = set()
        self._tokens: list[Token[KeptFiles | None]] = []

    def __enter__(self) -> KeptFiles:
        self._tokens.append(_keeper.set(_keeper.get() or self))
        return self

    def __exit__(self, *_error: Any) -> None:
        _keeper.reset(self._tokens.pop())

    def keep(self, path: Path, new: Path | None) -> None:
        """Keep a copy of a file if necessary.

        Args:
            path: the file, which need not exist.
            new: file that will replace it. None: it will be removed.
        """
        coming = "" if new is None else _checksum(new)
        if path.is_file() and (old := _checksum(path)) != coming and not self._is_own(old, path.parent):
            self._copy(path)
        # before the file is in its place, so that it is known even if the process is killed now
        if coming and self._record is not None and coming not in self._known:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with open(self._record, "a", encoding="ascii") as file:
                file.write(f"\n{coming}\n")  # on a line of its own, even if the disk was full at the last one
            self._known.add(coming)

    def notes(self) -> list[str]:
        """Return a sentence that names the copies, or nothing if there are none."""
        if not self.copies:
            return []
        return [
            "files that this program did not write, or that were changed since, were replaced; copies are kept: "
            f"{some_names([str(path) for path in self.copies])}."
        ]

    def _is_own(self, checksum: str, folder: Path) -> bool:
        if checksum not in self._known and self._record is not None:  # another process may have written it just now
            for place in {self._record.parent, folder}:
                for record in place.glob(f"*{_RECORD}"):
                    self._known.update(record.read_text(encoding="ascii", errors="replace").split())
        return checksum in self._known

    def _copy(self, path: Path) -> None:
        names = (path.with_name(f"{path.name}.bak{number if number > 1 else ''}") for number in count(1))
        copy = next(name for name in names if not name.exists())
        try:
            shutil.copy2(path, copy)
        except OSError:
            copy.unlink(missing_ok=True)
            raise
        self.copies.append(copy)


def keep_before_replacing(path: Path, new: Path) -> None:
    """Keep a copy of a file that is about to be replaced, in the block of a :class:`KeptFiles`."""
    if (keeper := _keeper.get()) is not None:
        keeper.keep(path, new)


def remove_file(path: Path) -> None:
    """Remove a file if it exists; in the block of a :class:`KeptFiles`, keep a copy if necessary."""
    if (keeper := _keeper.get()) is not None:
        keeper.keep(path, None)
    path.unlink(missing_ok=True)


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
