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
"""What a killed process leaves behind is removed by the next one, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monai_landmarks.data import atomic_write, write_hand_phantom
from monai_landmarks.data.files import safe_files
from monai_landmarks.data.files.safe_files import atomic_folder


@pytest.fixture
def sleeping() -> Iterator[int]:
    """Id of another process that runs."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process.pid
    process.kill()
    process.wait()


def ended() -> int:
    """Id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(folder: Path, process: int, node: str = safe_files._NODE, days: float = 0.0) -> Path:
    """A temporary file as a killed process leaves it."""
    path = folder / f".writing-{node}-{process}-0123abcd_overlays.png"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - 86400 * days,) * 2)
    return path


def test_only_files_of_ended_processes_are_removed(sleeping: int, tmp_path: Path) -> None:
    removed = [leave(tmp_path, ended()), leave(tmp_path, os.getpid()), leave(tmp_path, 7, "00000000", days=2)]
    kept = [leave(tmp_path, sleeping), leave(tmp_path, 7, "11111111", days=0.5), leave(tmp_path, 10**20)]
    for name in (".hidden", ".0123456789ab_overlays.png", ".writing", "writing-1-2-3_a", ".writing-x-1-0123abcd_a"):
        kept.append(tmp_path / name)
        kept[-1].write_text("of someone else")
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("all")
        with atomic_write(tmp_path / "b.txt") as second:
            second.write_text("all")
        assert temporary.exists()
    assert not any(path.exists() for path in removed)
    assert all(path.exists() for path in kept)
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b.txt", *(path.name for path in kept)}


def kept_files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(KeyError), atomic_folder(tmp_path / name) as temporary:
            (temporary / "half.txt").write_text("half")
            raise KeyError
        assert kept_files(tmp_path) == {}
        with atomic_folder(tmp_path / name) as temporary:
            (temporary / "sub").mkdir()
            (temporary / "sub" / "a.txt").write_text("all")
        assert kept_files(tmp_path / name) == {str(Path("sub", "a.txt")): "all"}
        with pytest.raises(OSError), atomic_folder(tmp_path / name) as temporary:
            (temporary / "b.txt").write_text("another")
        assert kept_files(tmp_path / name) == {str(Path("sub", "a.txt")): "all"}
        shutil.rmtree(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_left_is_removed(sleeping: int, tmp_path: Path) -> None:
    folders = [tmp_path / f".writing-{safe_files._NODE}-{process}-0123abcd_run" for process in (ended(), sleeping)]
    for folder in folders:
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "train.json").write_text("{")
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("all")
    assert [folder.exists() for folder in folders] == [False, True]


def test_another_process_may_remove_a_leftover_first(tmp_path: Path) -> None:
    path = leave(tmp_path, 7, "00000000", days=2)
    with os.scandir(tmp_path) as entries:
        [entry] = entries
        path.unlink()
    assert not safe_files._is_leftover(entry)


def test_the_lock_of_a_phantom_does_not_stay(tmp_path: Path) -> None:
    lock = tmp_path / ".writing.lock"
    for _ in range(2):
        lock.touch()
        write_hand_phantom(tmp_path, 1, size=(64, 64), val_frac=0)
        assert not lock.exists()
