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
from pathlib import Path

import numpy as np
import pytest

from monai_landmarks.data import load_landmark_datalist, table_folder_datalist


def write_folder(folder: Path, splits: str = "image,split\na.png,train\nb.png,val\nc.png,test\n") -> Path:
    (folder / "images").mkdir(parents=True)
    for name in "abc":
        (folder / "images" / f"{name}.png").touch()
    rows = [
        f"{name}.png,{landmark},{i},{10 * j}" for i, name in enumerate("abc") for j, landmark in enumerate(("L", "R"))
    ]
    (folder / "landmarks.csv").write_text("image,landmark,x,y\n" + "\n".join(rows))
    (folder / "splits.csv").write_text(splits)
    (folder / "mirror_pairs.csv").write_text("landmark,mirror_landmark,residual\nL,R,0.1\n")
    return folder


def test_sections_names_and_pairs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data")
    datalist = table_folder_datalist(folder, tmp_path / "list.json", names=["R", "L"], coordinate_system="index")
    assert datalist["landmarks"] == {"names": ["R", "L"], "pairs": [["L", "R"]], "coordinate_system": "index"}
    assert json.loads((tmp_path / "list.json").read_text()) == datalist
    for number, section in enumerate(("training", "validation", "testing")):
        [item] = load_landmark_datalist(tmp_path / "list.json", section)
        assert item["image"] == str(folder / "images" / f"{'abc'[number]}.png")
        assert item["label"] == [[number, 10], [number, 0]] and item["label_coordinate_system"] == "index"


def test_a_landmark_that_an_image_lacks_is_missing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    table = (folder / "landmarks.csv").read_text()
    (folder / "landmarks.csv").write_text(table.replace("b.png,R,1,10\n", ""))
    [item] = table_folder_datalist(folder)["validation"]
    assert item["label"] == [[1, 0], [None, None]]


def test_a_part_that_is_kept_elsewhere_is_left_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "images" / "c.png").unlink()
    assert "testing" not in table_folder_datalist(folder)


@pytest.mark.parametrize(
    "splits, message",
    [
        ("image,part\na.png,train\n", "line 1: no columns"),
        ("image,split\na.png,training set\n", "the split of 'a.png' is 'training set'; expected one of"),
        ("image,split\na.png,train\na.png,val\n", "line 3: image 'a.png' occurs twice"),
        ("image,split\na.png\n", "line 2: 1 columns; expected 2"),
        ("image,split\n", "the table has no rows"),
        ("image,split\na.png,train\nd.png,train\n", r"d\.png: no such image"),
        ("image,split\nd.png,train\n", "none of the images"),
    ],
)
def test_faults_are_named(tmp_path: Path, splits: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        table_folder_datalist(write_folder(tmp_path, splits))
    assert str(tmp_path) in str(error.value)


def test_names_and_images_must_be_known(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "image,split\na.png,train\ne.png,train\n")
    (folder / "images" / "e.png").touch()
    with pytest.raises(ValueError, match="no landmarks of image 'e.png'"):
        table_folder_datalist(folder)
    with pytest.raises(ValueError, match=r"landmarks \['R', 'X'\] are missing or unknown"):
        table_folder_datalist(folder, names=["L", "X"])


@pytest.mark.parametrize("data, images, landmarks", [("lumbar_mri", (29, 5), 5), ("mouse_skull_ct", (31, 5), 45)])
def test_real_folders(data: str, images: tuple[int, int], landmarks: int, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{data}_root")
    datalist = table_folder_datalist(folder)
    assert tuple(len(datalist[section]) for section in ("training", "validation")) == images
    points = np.array(datalist["training"][0]["label"], dtype=float)
    assert points.shape == (landmarks, 3) and np.isfinite(points).all()
