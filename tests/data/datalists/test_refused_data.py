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


"""Names, spacings and images that would break a training are refused, in a sentence, before it begins."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_landmarks.data import LandmarkSet, check_data, check_datalist, load_landmark_datalist, write_landmark_table


@pytest.mark.parametrize("name", ["%train.json::x", "@x", "$x", " @x"])
def test_names_that_are_references(tmp_path, name, write_picture):
    write_picture(tmp_path / "images" / "a.png", 9, 9)
    write_landmark_table(tmp_path / "t.csv", {"a.png": LandmarkSet((name, "T1@x", "50 %"), np.ones((3, 2)), "index")})
    [fault] = check_data(tmp_path / "images", tmp_path / "t.csv", spacing=1).faults
    assert f"landmark {name.strip()!r} begins with {name.strip()[0]!r}" in fault and "rename" in fault
    datalist = {"landmarks": {"names": [name]}, "training": [{"image": "a.png", "label": [[1, 1]], "spacing": [1, 1]}]}
    assert len(check_datalist(datalist, tmp_path / "images")) == 1


@pytest.mark.parametrize(
    "name, reason", [("a@#b", "contains '@#'"), ("a%::b", "contains '%::'"), ("a\tb", "contains a tab")]
)
def test_names_that_files_cannot_hold(tmp_path, name, reason, write_picture):
    write_picture(tmp_path / "images" / "a.png", 9, 9)
    (tmp_path / "t.csv").write_text(f'image,landmark,x,y\na.png,"{name}",1,2\na.png,a#b::c,3,4\n')
    [fault] = check_data(tmp_path / "images", tmp_path / "t.csv", spacing=1).faults
    assert f"landmark {name!r} {reason}" in fault and "rename" in fault


@pytest.mark.parametrize("other", ["Sella", "sel-la", "se\u200blla", "\uff53ella", "s\u0435lla"])
def test_names_that_look_the_same(tmp_path, other, write_picture):
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / "images" / name, 9, 9)
    (tmp_path / "t.csv").write_text(f"image,landmark,x,y\na.png,sella,1,2\nb.png,{other},3,4\n", encoding="utf-8")
    notes = check_data(tmp_path / "images", tmp_path / "t.csv", spacing=1).notes
    assert any(note.startswith(f"landmarks ['sella', {ascii(other)}] count as different") for note in notes), notes


@pytest.mark.parametrize("spacing", [-1, 0, [-1, 1], [1, 0], "1", True, [], [1, None], float("nan")])
def test_a_spacing_that_is_none(tmp_path, spacing):
    datalist = {"landmarks": {"names": ["a"]}, "training": [{"image": "a.png", "label": [[1, 1]], "spacing": spacing}]}
    path = tmp_path / "d.json"
    path.write_text(json.dumps(datalist))
    with pytest.raises(ValueError, match=r"d.json: training\[0\] \(a.png\): spacing is .*expected positive numbers"):
        load_landmark_datalist(path)


@pytest.mark.parametrize("spacing", [0.5, 2, [0.5, 0.25], [1, 1, 3], None])
def test_a_spacing(spacing):
    datalist = {"landmarks": {"names": ["a"]}, "training": [{"image": "a.png", "label": [[1, 1]], "spacing": spacing}]}
    assert len(load_landmark_datalist(datalist)) == 1


@pytest.mark.parametrize("size", [(5, 4000), (4000, 5), (5, 500)])
def test_narrow_images(tmp_path, size, write_picture):
    write_picture(tmp_path / "images" / "a.png", *size)
    write_landmark_table(tmp_path / "t.csv", {"a.png": LandmarkSet(("a",), np.ones((1, 2)), "index")})
    faults = check_data(tmp_path / "images", tmp_path / "t.csv", spacing=1).faults
    datalist = {"landmarks": {"names": ["a"]}, "training": [{"image": "a.png", "label": [[1, 1]], "spacing": [1, 1]}]}
    faults += check_datalist(datalist, tmp_path / "images")
    assert len(faults) == (0 if size == (5, 500) else 2)
    assert all(f"has {size[0]} x {size[1]} pixels; expected sides that differ by" in fault for fault in faults)
