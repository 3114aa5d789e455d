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

"""Atomic writing, and reading of text with errors that name the file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_write", "naming_file", "read_lines", "read_text"]

_MAX_MESSAGE = 1000


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file completely or not at all.

    The context manager yields a temporary path in the same folder, with the same suffix. When the block ends without an
    error, the temporary file replaces ``path``; otherwise it is removed. The folder is created if it does not exist.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:12]}_{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_file(path: str | os.PathLike) -> Iterator[None]:
    """Add the name of the file to the message of every ``ValueError`` that the block raises."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{os.fspath(path)}: byte {error.start} is not UTF-8 text.") from error
    except ValueError as error:
        message = str(error)
        if len(message) > _MAX_MESSAGE:  # a damaged file may contain cells and names of any length
            message = f"{message[: _MAX_MESSAGE // 2]} [...] {message[-_MAX_MESSAGE // 2 :]}"
        raise ValueError(f"{os.fspath(path)}: {message}") from error


def read_text(path: str | os.PathLike) -> str:
    """Read a UTF-8 text file, with or without byte order mark. Line ends become ``\\n``."""
    return Path(path).read_text(encoding="utf-8-sig")


def read_lines(path: str | os.PathLike) -> list[str]:
    """Read the lines of a UTF-8 text file, each with its line end.

    Only line ends separate lines. ``str.splitlines`` also splits at other characters, which a name may contain.
    """
    with open(path, encoding="utf-8-sig") as file:
        return file.readlines()
