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

from __future__ import annotations

import pytest

from monai_landmarks.data import NameIndex

IMAGES = ["a/1.png", "b/1.png", "b/c/2.nii.gz", "b/case.3.png", "b/case.3.jpg", "d/c/4.png", "e/c/4.png", "5.png"]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a/1.png", ["a/1.png"]),
        ("/elsewhere/b/1.png", ["b/1.png"]),
        ("C:\\elsewhere\\b\\1.png", ["b/1.png"]),
        ("b/1", ["b/1.png"]),
        ("b_1", ["b/1.png"]),  # as files of predictions are called
        ("1.png", ["a/1.png", "b/1.png"]),
        ("z/1.png", []),
        ("2", ["b/c/2.nii.gz"]),
        ("c/2", ["b/c/2.nii.gz"]),
        ("B/C/2", ["b/c/2.nii.gz"]),
        ("z/2.nii.gz", []),
        ("z/c/2.nii.gz", []),
        ("b/2.nii.gz", []),
        ("b/c/z/2.nii.gz", []),
        ("z/b/c/2.nii.gz", ["b/c/2.nii.gz"]),
        ("images/5", ["5.png"]),
        ("/elsewhere/b/5.png", ["5.png"]),
        ("z/b_1.png", ["b/1.png"]),
        ("2.dcm", ["b/c/2.nii.gz"]),  # converted since
        ("c_2", ["b/c/2.nii.gz"]),
        ("b_c_2", ["b/c/2.nii.gz"]),
        ("case.3.jpg", ["b/case.3.jpg"]),
        ("case.3", ["b/case.3.png", "b/case.3.jpg"]),
        ("case", []),
        ("d/c/4", ["d/c/4.png"]),
        ("c/4", ["d/c/4.png", "e/c/4.png"]),
        ("", []),
    ],
)
def test_find(name, expected):
    assert NameIndex(IMAGES).find(name) == expected


def test_an_image_in_another_folder_is_named_and_not_found():
    """However it is written; the folder decides first, and the writing of the file name then."""
    index = NameIndex(["site1/case1.png", "Site2/Case1.png"])
    assert index.find("site2/case1.png") == ["Site2/Case1.png"]
    assert index.find("site3/case1.png") == [] and index.find_elsewhere("site3/case1.png") == ["site1/case1.png"]
    assert index.find_elsewhere("site1/case1.png") == index.find_elsewhere("site1/case2.png") == []
    assert NameIndex(["002.png"]).find("site1/2") == ["002.png"]


@pytest.mark.parametrize("root", ["/here/", "C:\\here\\"])
def test_the_place_of_all_absolute_paths_does_not_count(root):
    index = NameIndex([f"{root}site1/1.png", f"{root}site2/2.png"])
    assert index.find("/there/site1/1.png") == index.find("site1/1") == [f"{root}site1/1.png"]
    assert index.find("/there/site2/1.png") == []
    assert NameIndex([f"{root}1.png", f"{root}2.png"]).find("images/1.png") == [f"{root}1.png"]


def test_every_image_finds_itself():
    index = NameIndex(IMAGES)
    assert all(index.find(name) == [name] for name in IMAGES)


@pytest.mark.parametrize(
    "names, found",
    [
        (["site1/1.png"], {"site1/1.png", "1.png", "/there/site1/1.png"}),
        (["Site1/9.png"], {"site1/1.png", "1.png", "/there/site1/1.png"}),  # an image that is not there shows it, too
        (["z/1.png", "1.png"], {"site1/1.png", "site2/1.png", "1.png", "/there/site1/1.png", "/there/site2/1.png"}),
    ],
)
def test_the_folder_of_the_images_counts_if_a_name_has_it(tmp_path, names, found):
    index = NameIndex(["1.png", "day/2.png"])
    index.add_root(tmp_path / "site1", names)
    every = ["site1/1.png", "site2/1.png", "1.png", "/there/site1/1.png", "/there/site2/1.png"]
    assert {name for name in every if index.find(name) == ["1.png"]} == found
    # below the folder
    assert index.find("day/2.png") == index.find("site1/day/2.png") == ["day/2.png"]
    assert bool(index.find("site2/day/2.png")) == ("site2/1.png" in found)


def test_folders_farther_above_the_images_count_if_a_name_has_them(tmp_path):
    index = NameIndex(["1.png"])
    index.add_root(tmp_path / "site1/images", ["/there/site1/images/2.png", "/there/site2/images/1.png"])
    assert index.find("site2/images/1.png") == [] and index.find_elsewhere("site2/images/1.png") == ["1.png"]
    assert index.find("site1/images/1.png") == index.find("images/1.png") == index.find("1") == ["1.png"]


def test_a_folder_of_images_with_the_name_of_the_folder_above(tmp_path):
    """The name of the lower folder shows nothing about the upper one."""
    index = NameIndex(["1.png", "hand/2.png"])
    index.add_root(tmp_path / "hand", ["hand/2.png"])
    assert index.find("other/1.png") == ["1.png"]
