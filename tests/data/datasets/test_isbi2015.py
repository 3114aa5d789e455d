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

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import (
    ISBI2015_LANDMARKS,
    check_datalist,
    isbi2015_datalist,
    load_landmark_datalist,
    read_landmark_table,
)

NUMBERS = {"TrainingData": range(1, 6), "Test1Data": range(151, 153), "Test2Data": range(301, 302)}


def official_points(number, doctor):
    offset = {"senior": 0, "junior": 2}[doctor]
    return np.array([[100 + 10 * i + number + offset, 200 + 10 * i] for i in range(19)])


@pytest.fixture
def official(tmp_path):
    """The official layout with a few empty films."""
    root = tmp_path / "ISBI2015"
    for folder, numbers in NUMBERS.items():
        images = root / "Database" / "RawImage" / folder
        images.mkdir(parents=True)
        for number in numbers:
            Image.new("L", (1935, 2400)).save(images / f"{number:03d}.bmp")
            for doctor in ("senior", "junior"):
                path = root / "AnnotationsByMD" / f"400_{doctor}" / f"{number:03d}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = [f"{x},{y}" for x, y in official_points(number, doctor)]
                path.write_text("\r\n".join([*lines, *"13211111"]) + "\r\n")
    return root


@pytest.mark.parametrize("annotator, offset", [("mean", 1), ("senior", 0), ("junior", 2), ("challenge", 0)])
def test_official_layout(official, annotator, offset):
    output = official.parent / "lists" / f"{annotator}.json"
    datalist = isbi2015_datalist(official, output, annotator, val_frac=0.4, test2=True)
    assert {key: len(value) for key, value in datalist.items() if isinstance(value, list)} == {
        "training": 3,
        "validation": 2,
        "testing": 2,
        "test2": 1,
    }
    assert datalist["landmarks"] == {"names": list(ISBI2015_LANDMARKS), "pairs": [], "coordinate_system": "index"}
    assert annotator in datalist["name"] and json.loads(output.read_text()) == datalist
    for section in ("training", "validation", "testing", "test2"):
        for item in load_landmark_datalist(output, section):
            number = int(os.path.basename(item["image"])[:3])
            assert os.path.isfile(item["image"]) and item["spacing"] == [0.1, 0.1]
            np.testing.assert_array_equal(item["label"], official_points(number, "senior") + [offset, 0])
    assert "test2" not in isbi2015_datalist(official, val_frac=0.0)


def test_official_layout_is_checked(official):
    assert isbi2015_datalist(official, check=True, val_frac=0.0)["training"]
    path = official / "AnnotationsByMD" / "400_junior" / "002.txt"
    text = path.read_text()
    for wrong, message in [
        (text.replace("122,210", "122"), r"junior.002\.txt: line 2: '.*'; expected 'x,y'"),
        (text.replace("114,210", "114,a"), r"line 2: column 'y' is 'a'"),
        ("1,2\n" * 18, r"002\.txt: 18 lines; expected 19"),
    ]:
        path.write_text(wrong.replace("114,210", "114"))
        with pytest.raises(ValueError, match=message):
            isbi2015_datalist(official)
        isbi2015_datalist(official, annotator="senior")
    path.unlink()
    with pytest.raises(ValueError, match=r"002\.txt: no such annotation file"):
        isbi2015_datalist(official)
    image = next(official.rglob("001.bmp"))
    Image.new("L", (645, 800)).save(image)
    with pytest.raises(ValueError, match=r"001\.bmp: 645 pixels wide; expected 1935"):
        isbi2015_datalist(official, annotator="senior")


def test_neither_layout(tmp_path):
    with pytest.raises(ValueError, match="expected the official RawImage and AnnotationsByMD, or images, splits.csv"):
        isbi2015_datalist(tmp_path)
    with pytest.raises(ValueError, match="annotator is 'me'; expected one of mean, senior, junior, challenge"):
        isbi2015_datalist(tmp_path, annotator="me")


def test_real_tables_give_the_official_sections(isbi2015_root, tmp_path):
    datalist = isbi2015_datalist(isbi2015_root, tmp_path / "d.json", val_frac=0.2)
    assert [len(datalist[section]) for section in ("training", "validation", "testing")] == [120, 30, 150]
    first = next(item for item in datalist["training"] + datalist["validation"] if item["image"].endswith("/001.jpg"))
    assert first["label"][0] == [277.0, 330.83] and first["spacing"] == [0.3, 0.3]
    few = {key: value[:5] if isinstance(value, list) else value for key, value in datalist.items()}
    assert check_datalist(few, tmp_path) == []
    with pytest.raises(ValueError, match="no image has the split 'test2'"):
        isbi2015_datalist(isbi2015_root, test2=True)


def test_tables_that_disagree(isbi2015_root, tmp_path):
    (tmp_path / "images").mkdir()
    shutil.copy(isbi2015_root / "landmarks.csv", tmp_path)
    (tmp_path / "splits.csv").write_text("image,split\n001.jpg,train\n151.jpg,test1\n")
    with pytest.raises(ValueError, match=r"001\.jpg: no such image"):
        isbi2015_datalist(tmp_path)
    (tmp_path / "splits.csv").write_text("image,split\nnew.jpg,train\n")
    with pytest.raises(ValueError, match=r"landmarks\.csv: no landmarks of image 'new\.jpg'"):
        isbi2015_datalist(tmp_path)
    (tmp_path / "splits.csv").write_text("image,part\n001.jpg,train\n")
    with pytest.raises(ValueError, match=r"splits\.csv: line 1: no columns 'image' and 'split'"):
        isbi2015_datalist(tmp_path)
    (tmp_path / "landmarks.csv").write_text("image,landmark,x,y\n001.jpg,sela,1,2\n")
    (tmp_path / "splits.csv").write_text("image,split\n001.jpg,train\n")
    (tmp_path / "images" / "001.jpg").touch()
    with pytest.raises(ValueError, match="'sela'.*missing or unknown"):
        isbi2015_datalist(tmp_path)


@pytest.mark.parametrize("first, second, expected", [("mean", "challenge", 1.18), ("junior", "senior", 2.36)])
def test_doctors_differ_as_published(isbi2015_root, first, second, expected):
    """Mean distance of two truths on test1 in mm, known from the official files."""
    one, other = (
        isbi2015_datalist(isbi2015_root, annotator=annotator, val_frac=0.0)["testing"] for annotator in (first, second)
    )
    assert [item["image"] for item in one] == [item["image"] for item in other] and len(one) == 150
    offsets = np.array([item["label"] for item in one]) - np.array([item["label"] for item in other])
    distances = np.linalg.norm(offsets * one[0]["spacing"], axis=-1)
    assert abs(distances.mean() - expected) < 0.01


def test_landmarks_are_in_the_order_of_the_challenge(isbi2015_root):
    table = read_landmark_table(isbi2015_root / "landmarks.csv")
    assert next(iter(table.values())).names == ISBI2015_LANDMARKS
