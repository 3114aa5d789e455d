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

import os
from pathlib import Path

from PIL import Image

from monai_landmarks.data import image_folder_items
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
