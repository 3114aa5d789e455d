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

"""Folders are walked through links, and each of them once."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from monai_landmarks.data import image_folder_items, pair_landmarks
from monai_landmarks.data.files.folder_walk import walk_folder
from monai_landmarks.data.landmarks.landmark_io import find_landmark_files


def test_links_are_followed_once(tmp_path: Path) -> None:
    images, store = tmp_path / "images", tmp_path / "store"
    for folder in (images / "a", store):
        folder.mkdir(parents=True)
        Image.new("L", (9, 9)).save(folder / f"{folder.name}.png")
        (folder / f"{folder.name}.csv").write_text("landmark,x,y\np,1,2\n")
    os.symlink(store, images / "b")
    os.symlink(store, images / "again")
    os.symlink(images, images / "a" / "itself")
    found = sorted(str(path.relative_to(images)) for path in walk_folder(images))
    assert found == ["a", "a/a.csv", "a/a.png", "a/itself", "again", "again/store.csv", "again/store.png", "b"]
    assert sorted(Path(item["image"]).name for item in image_folder_items(images)) == ["a.png", "store.png"]
    assert sorted(path.name for path in find_landmark_files(images)) == ["a.csv", "store.csv"]


def test_links_come_last(tmp_path: Path) -> None:
    for folder in ("a", "z"):
        (tmp_path / folder).mkdir()
    (tmp_path / "z" / "file").touch()
    os.symlink(tmp_path / "z", tmp_path / "a" / "early")
    assert sorted(str(path.relative_to(tmp_path)) for path in walk_folder(tmp_path)) == ["a", "a/early", "z", "z/file"]


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that cannot be read, beside an image and its landmarks. The tests may run as root, who reads all."""
    folder = tmp_path / "lost+found"
    folder.mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("landmark,x,y\np,1,2\n")
    scandir, access = os.scandir, os.access

    def refuse(path: str = ".") -> object:
        if os.fspath(path) == str(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(folder) and access(path, mode))
    return folder


def test_images_beside_a_folder_that_cannot_be_read(locked: Path) -> None:
    image, refused = image_folder_items(locked.parent)
    assert image == {"image": str(locked.parent / "a.png")}
    assert refused["image"] == str(locked) and "cannot be read" in refused["unreadable"]
    pairing = pair_landmarks(locked.parent, locked.parent / "a.csv")
    assert [case.name for case in pairing.cases] == ["a.png"] and pairing.unlabeled == []
    [note] = pairing.notes
    assert note.startswith(f"{locked}: is left out: the folder cannot be read")


def test_landmarks_in_a_folder_that_cannot_be_read_are_not_passed_over(locked: Path) -> None:
    with pytest.raises(ValueError, match=r"lost\+found: the folder cannot be read \(Permission denied\)"):
        find_landmark_files(locked.parent)


def test_a_file_that_cannot_be_opened_may_be_dicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "IM0001").touch()

    def refuse(path: str, *_: object) -> object:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("monai_landmarks.data.images.dicom_series.open", refuse, raising=False)
    assert image_folder_items(tmp_path) == [{"image": str(tmp_path / "IM0001")}]
