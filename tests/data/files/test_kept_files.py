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

"""Copies of replaced files: which files are known, and what a full disk leaves."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from monai_landmarks.data.files.kept_files import KeptFiles
from monai_landmarks.data.files.safe_files import atomic_write


def write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def test_a_record_whose_last_line_was_cut_off(tmp_path: Path) -> None:
    """What is added after it is known all the same."""
    record = tmp_path / "a.written"
    record.write_text("0123abc")
    with KeptFiles(record):
        write(tmp_path / "a.csv", "first")
    with KeptFiles(record) as kept:
        write(tmp_path / "a.csv", "second")
    assert kept.copies == [] and (tmp_path / "a.csv").read_text() == "second"


def test_a_record_beside_the_file_counts(tmp_path: Path) -> None:
    with KeptFiles(tmp_path / "pictures" / ".drawn.written"):
        write(tmp_path / "pictures" / "a.csv", "drawn")
    with KeptFiles(tmp_path / ".all.written") as kept:
        write(tmp_path / "pictures" / "a.csv", "second")
        write(tmp_path / "pictures" / "a.csv", "third")
    assert kept.copies == [] and kept.notes() == []


def test_the_outer_block_keeps_the_copies(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine")
    with KeptFiles() as outer, KeptFiles(tmp_path / "inner.written") as inner:
        write(tmp_path / "a.csv", "new")
    assert inner.copies == [] and [copy.read_text() for copy in outer.copies] == ["mine"]
    assert not (tmp_path / "inner.written").exists()


def test_a_full_disk_leaves_no_part_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("mine")

    def fail(_source: Path, target: Path) -> None:
        Path(target).write_text("mi")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", fail)
    with KeptFiles(), pytest.raises(OSError, match="full|No space"):
        write(tmp_path / "a.csv", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "mine"}
