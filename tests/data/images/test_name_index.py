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

IMAGES = ["a/1.png", "b/1.png", "b/c/2.nii.gz", "b/case.3.png", "b/case.3.jpg", "d/c/4.png", "e/c/4.png"]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a/1.png", ["a/1.png"]),
        ("/elsewhere/b/1.png", ["b/1.png"]),
        ("C:\\elsewhere\\b\\1.png", ["b/1.png"]),
        ("b/1", ["b/1.png"]),
        ("b_1", ["b/1.png"]),  # as files of predictions are called
        ("1.png", ["a/1.png", "b/1.png"]),
        ("z/1.png", ["a/1.png", "b/1.png"]),
        ("2", ["b/c/2.nii.gz"]),
        ("z/2.nii.gz", ["b/c/2.nii.gz"]),
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


def test_every_image_finds_itself():
    index = NameIndex(IMAGES)
    assert all(index.find(name) == [name] for name in IMAGES)
