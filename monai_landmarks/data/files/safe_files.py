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

"""Atomic writing of files and folders, and reading of text with errors that name the file."""

from __future__ import annotations

import codecs
import errno
import os
import platform
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from .folder_walk import unreadable_folder
from .kept_files import keep_before_replacing

__all__ = [
    "atomic_folder",
    "atomic_write",
    "naming_file",
    "open_text",
    "path_fault",
    "printable",
    "read_lines",
    "read_text",
    "special_file_fault",
]

_MAX_MESSAGE = 1000
_LONGEST_NAME = 230  # bytes; file systems allow 255, and names of results add a suffix and while being written a prefix
_LONGEST_END = 40  # characters
# a temporary file names its process, so that a later one can tell a file that is being written from one that was left
_TEMPORARY = re.compile(r"\.writing-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}_")
_NODE = f"{zlib.crc32(platform.node().encode()):08x}"
_DAY = 24 * 60 * 60.0
_NO_SPACE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than this disk or its limit allows",
}
_LITTLE = 1 << 16  # bytes of free space

_open_files: set[str] = set()
_tidied: set[Path] = set()


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file completely or not at all.

    The context manager yields a temporary path in the same folder, with the same suffix. When the block ends without an
    error, the temporary file replaces ``path``; otherwise it is removed. The folder is created if it does not exist.
    Temporary files of a process that was killed are removed when another process writes to the folder for the first
    time. In the block of a :class:`~monai_landmarks.data.files.kept_files.KeptFiles`, a copy of the old file is kept.

    Raises:
        OSError: if there is no space for the file. The message says so and names the file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "note.txt") as temporary:
        ...     _ = temporary.write_text("all of it")
        >>> [file.name for file in folder.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    with _temporary_path(path) as temporary:
        yield temporary
        keep_before_replacing(path, temporary)
        os.replace(temporary, path)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Write a new folder completely or not at all, as :func:`atomic_write` does with a file.

    The context manager yields an empty temporary folder in the same place, which becomes ``path`` when the block ends
    without an error. ``path`` must not exist, or be an empty folder.

    Raises:
        OSError: if there is no space for the folder, or if it is not empty.
    """
    path = Path(path)
    with _temporary_path(path) as temporary:
        temporary.mkdir()
        yield temporary
        if path.is_dir():
            path.rmdir()
        temporary.rename(path)


@contextmanager
def _temporary_path(path: Path) -> Iterator[Path]:
    """Yield a path beside another one, and remove what is there at the end."""
    with _naming_space(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    start = f".writing-{_NODE}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary = path.with_name(f"{start}_{path.name[-_LONGEST_END:]}")
    _open_files.add(temporary.name)
    try:
        with _naming_space(path):
            yield temporary
    finally:
        _remove(temporary)
        _open_files.discard(temporary.name)


def _remove(path: str | os.PathLike) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of processes that have ended, once per folder and process."""
    resolved = folder.absolute()
    if resolved in _tidied:
        return
    _tidied.add(resolved)
    with suppress(OSError):  # they may belong to another user
        with os.scandir(folder) as entries:
            leftovers = [entry.path for entry in entries if _is_leftover(entry)]
        for path in leftovers:
            _remove(path)


def _is_leftover(entry: os.DirEntry[str]) -> bool:
    match = _TEMPORARY.match(entry.name)
    if match is None or entry.name in _open_files:
        return False
    node, process = match[1], int(match[2])
    if node != _NODE:  # another machine on a shared disk: its processes are not visible here
        try:
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _DAY
        except FileNotFoundError:
            return False
    return process == os.getpid() or not _is_running(process)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # pragma: no cover  # Windows only; there, os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


@contextmanager
def _naming_space(path: Path) -> Iterator[None]:
    """Turn an error for lack of space into one that says so and names the file."""
    try:
        yield
    except Exception as error:  # libraries report a failed write in their own words
        number = _lack_of_space(error, path.parent)
        if number is None:
            raise
        old = "The old file is unchanged." if path.exists() else "No part of it was kept."
        reason = f"{_NO_SPACE[number]}: the file could not be written. {old} Make space and run again"
        raise OSError(number, reason, str(path)) from error


def _lack_of_space(error: BaseException, folder: Path) -> int | None:
    """Return the error number if a write failed because there was no space, also if another error hides it."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        if isinstance(link, OSError) and link.errno in _NO_SPACE:
            return link.errno
        chain.append(link)
        link = link.__cause__ or link.__context__
    if not isinstance(error, (OSError, RuntimeError)):
        return None
    try:
        return errno.ENOSPC if shutil.disk_usage(folder).free < _LITTLE else None
    except OSError:
        return None


@contextmanager
def naming_file(path: str | os.PathLike) -> Iterator[None]:
    """Add the name of the file to the message of every ``ValueError`` that the block raises."""
    try:
        yield
    except UnicodeDecodeError:
        raise ValueError(f"{os.fspath(path)}: {_wrong_encoding(Path(path))}") from None
    except ValueError as error:
        message = str(error)
        if len(message) > _MAX_MESSAGE:  # a damaged file may contain cells and names of any length
            message = f"{message[: _MAX_MESSAGE // 2]} [...] {message[-_MAX_MESSAGE // 2 :]}"
        raise ValueError(f"{os.fspath(path)}: {message}") from error


def read_text(path: str | os.PathLike, limit: int = -1) -> str:
    """Read a text file, or its first ``limit`` characters; see :func:`open_text`. Line ends become ``\\n``."""
    with open_text(path) as file:
        return file.read(limit)


def read_lines(path: str | os.PathLike) -> list[str]:
    """Read the lines of a text file, each with its line end; see :func:`open_text`.

    Only line ends separate lines. ``str.splitlines`` also splits at other characters, which a name may contain.
    """
    with open_text(path) as file:
        return file.readlines()


def open_text(path: str | os.PathLike) -> TextIO:
    """Open a text file to read: UTF-8 with or without byte order mark, or UTF-16 or UTF-32 with byte order mark.

    Spreadsheet programs write UTF-16 as "Unicode text". A file in any other encoding raises ``UnicodeDecodeError`` when
    it is read: its bytes do not state which characters they are.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    return open(path, encoding=next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8-sig"))


def path_fault(path: str | os.PathLike, folder: str | os.PathLike = "") -> str:
    """Return why a file found in a folder cannot be used by its name or kind; empty if it can.

    Names that are not UTF-8 cannot be written into tables and datalists, and the
    names of results are longer than that of their image.

    Args:
        path: the file, or a folder that stands for one.
        folder: folder in which it was found. Its own name is not looked at.
    """
    found = os.path.relpath(path, folder) if folder else os.path.basename(path)
    if printable(found) != found:
        return "the name is not UTF-8 text; rename the file."
    length = max(len(os.fsencode(part)) for part in Path(found).parts or ("",))
    if length > _LONGEST_NAME:
        return (
            f"the name has {length} bytes, and those of its results would be too long; rename it to {_LONGEST_NAME} or"
            " fewer."
        )
    if os.path.islink(path) and not os.path.exists(path):
        return "there is no such file; its link points nowhere."
    if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
        return unreadable_folder()
    return special_file_fault(path)


def special_file_fault(path: str | os.PathLike) -> str:
    """Return why a pipe, socket or device cannot be read, for whose content a reader would wait; empty for others."""
    special = os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))
    return "not a file, but a pipe, socket or device." if special else ""


def printable(path: str | os.PathLike) -> str:
    """Return a path as text that can be printed and written; bytes that are not UTF-8 become escapes such as ``\\xe9``."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _wrong_encoding(path: Path) -> str:
    """Say what is wrong with a file whose bytes are not text, and what to do."""
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            return f"not {encoding.upper()} text, although it begins like it; the file may be cut short."
        place = f"byte {error.start} is not UTF-8 text"
        line = data[: error.start].count(b"\n")
        text = data.split(b"\n")[line].strip().decode("cp1252", errors="replace")[:80]
        if not text.isprintable():
            return f"{place}."
        return (
            f"{place}. If it is Windows-1252 or Latin-1, line {line + 1} is {text!r}, but other encodings give other letters;"
            " save the file as UTF-8 (in Excel, the file type 'CSV UTF-8')."
        )
    return "not UTF-8 text."


# the mark of UTF-16 is also the beginning of that of UTF-32
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
