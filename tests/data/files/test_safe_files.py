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
"""Files that are written completely or not at all, names that can be used, and errors that name the file."""

from __future__ import annotations

import os

import pytest

from monai_landmarks.data.files.safe_files import atomic_write, naming_file, path_fault, printable


def test_atomic_write_leaves_all_or_nothing(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("one")
        assert not path.exists() and temporary.suffix == ".txt"
    with pytest.raises(RuntimeError):
        with atomic_write(path) as temporary:
            temporary.write_text("tw")
            raise RuntimeError
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["a.txt"]


def test_an_error_in_a_folder_that_was_removed_stays(tmp_path):
    """The free space is not known then."""
    with pytest.raises(RuntimeError, match="own words"), atomic_write(tmp_path / "a" / "b.txt") as temporary:
        temporary.parent.rmdir()
        raise RuntimeError("own words")


@pytest.mark.parametrize("length", [1, 100, 230, 231, 255])
def test_the_length_of_a_name_counts_in_bytes(tmp_path, length):
    name = "ä" * (length // 2) + "n" * (length % 2)
    (tmp_path / name).write_text("")
    assert bool(path_fault(tmp_path / name, tmp_path)) == (length > 230)
    assert printable(name) == name


def test_a_file_with_a_long_name_is_written_completely(tmp_path):
    with atomic_write(tmp_path / ("n" * 246 + ".mrk.json")) as temporary:
        assert temporary.name.endswith(".mrk.json")
        temporary.write_text("all")
    assert [len(file.name) for file in tmp_path.iterdir()] == [255]


def test_another_text_than_that_of_the_file(tmp_path):
    """The file is UTF-8, but holds text that is not, for example in hexadecimal digits."""
    (tmp_path / "a.txt").write_text("ff")
    with pytest.raises(ValueError, match="a.txt: not UTF-8 text"), naming_file(tmp_path / "a.txt"):
        bytes.fromhex((tmp_path / "a.txt").read_text()).decode()
