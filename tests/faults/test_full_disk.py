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
"""A full disk: the message says so and names the file, nothing is damaged, and the training continues later."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_training import EPOCHS, check_files, load, run

from monai_landmarks.data import LandmarkSet, atomic_write, write_landmarks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this process may not mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def continues(folder: Path, report: Path, tmp_path: Path, **options) -> None:
    assert run(tmp_path / "whole", report, **options) == 0
    assert run(folder, report, **options) == 0, report.read_text()
    for name in ("model.pt", "model_final.pt"):
        torch.testing.assert_close(load(folder / name), load(tmp_path / "whole" / name), rtol=0, atol=0)


def files(folder: Path, pattern: str = "*") -> dict[Path, bytes]:
    """All files, also temporary ones, except the lists of checksums, which grow."""
    return {path: path.read_bytes() for path in folder.rglob(pattern) if path.is_file() and path.suffix != ".written"}


def test_full_disk(small_disk: Path, tmp_path: Path) -> None:
    folder, report, ballast = small_disk / "run", tmp_path / "report.txt", small_disk / "ballast"
    assert run(folder, report, die_in_save=5, size=40) < 0  # after two epochs; the network has 40 kB
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    before = files(folder, "[!.]*")
    assert run(folder, report, size=40) == 1
    assert "the disk is full: the file could not be written. The old file is unchanged" in report.read_text()
    assert str(folder / "model.pt") in report.read_text()
    assert before and before == files(folder)
    check_files(folder)
    ballast.unlink()
    continues(folder, report, tmp_path, size=40)


def test_limited_file_size(tmp_path: Path) -> None:
    """The same where no disk may be mounted: the state, with the optimizer, is larger than the weights."""
    folder, report = tmp_path / "run", tmp_path / "report.txt"
    assert run(folder, report, size=40, file_size=60_000) == 1
    text = report.read_text()
    assert "the file is larger than this disk or its limit allows" in text
    assert str(folder / "training_state.pt") in text
    assert not (folder / "training_state.pt").exists() and load(folder / "model.pt")
    continues(folder, report, tmp_path, size=40)
    assert load(folder / "training_state.pt")["trainer"]["epoch"] == EPOCHS


def test_the_error_of_any_writer_says_that_the_disk_is_full(small_disk: Path) -> None:
    path = small_disk / "points.mrk.json"
    write_landmarks(path, LandmarkSet(("a",), [[1.0, 2.0, 3.0]]))
    old = path.read_bytes()
    many = LandmarkSet(tuple(f"landmark {i}" for i in range(9000)), torch.zeros(9000, 3).numpy())
    with pytest.raises(OSError, match="the disk is full") as caught:
        write_landmarks(path, many)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert path.read_bytes() == old and [file.name for file in small_disk.iterdir()] == [path.name]
    with pytest.raises(OSError, match="the disk is full"):  # a library that has its own error for it
        with atomic_write(small_disk / "weights.pt") as temporary:
            torch.save(torch.zeros(400_000), temporary)
