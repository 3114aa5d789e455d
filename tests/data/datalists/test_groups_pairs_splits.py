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

from monai_landmarks.data import read_groups, read_pairs, read_sections
from monai_landmarks.data.datalists.groups_pairs_splits import read_splits

IMAGES = ["x/1.png", "x/2.png", "y/3.png"]


def test_groups_of_a_table_of_landmarks(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text(
        "# coordinate_system=index\nimage,landmark,x,y,Patient\n1,a,1,2,p\n1,b,1,2,p\n2.png,a,1,2,p\ny/3.png,a,1,2,q\n"
    )
    assert read_groups(table, "patient", IMAGES) == {"x/1.png": "p", "x/2.png": "p", "y/3.png": "q"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "line 1: no columns 'image' and 'patient'"),
        ("\nimage,person\n1,p", "line 2: no columns 'image' and 'patient' in 'image,person'"),
        ("image,patient\n1,p\n2,q", "no 'patient' of y/3.png"),
        ("image,patient\n1,p\n2,q\n3,\n", "no 'patient' of y/3.png"),
        ("image,patient\n1,p\n2,q\n3,r\n1,q", "line 5: patient of x/1.png is 'q', but 'p' in an earlier line"),
        ("image,patient\n1,p\n2\n3,r", "line 3: 1 columns; expected 2"),
    ],
)
def test_wrong_groups(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"t\.csv: {message}"):
        read_groups(tmp_path / "t.csv", "patient", IMAGES)


def test_pairs(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("landmark,mirror,residual\na,a,0.1\nb,c,0.2\nc,b,0.2\nd,e,0\nf,,\n")
    assert read_pairs(table, list("abcdef")) == [("b", "c"), ("d", "e")]
    table.write_text("b,c\nd,e\n")  # without a header
    assert read_pairs(table, list("abcde")) == [("b", "c"), ("d", "e")]
    for text, line in (("b,c\nd,f\n", 2), ("b,f\n", 1), ("left,right\nb\n", 2)):
        table.write_text(text)
        with pytest.raises(ValueError, match=rf"pairs\.csv: line {line}: .* are not two names of landmarks"):
            read_pairs(table, list("abcde"))


def test_pairs_of_real_data(mouse_skull_ct_root):
    names = [f"LM{n:02d}" for n in range(1, 52) if n not in (23, 26, 34, 35, 45, 48)]
    pairs = read_pairs(mouse_skull_ct_root / "mirror_pairs.csv", names)
    assert ("LM02", "LM03") in pairs and len({name for pair in pairs for name in pair}) == 2 * len(pairs)


def test_a_landmark_in_two_pairs(tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("left,right\na,b\nb,a\na,c\n")
    with pytest.raises(ValueError, match=r"pairs\.csv: line 4: landmark 'a' is also in a pair in line 2; expected one"):
        read_pairs(table, list("abc"))


def test_a_name_may_begin_with_the_mark_of_a_comment(tmp_path):
    """Comments are above the header only."""
    table = tmp_path / "t.csv"
    table.write_text("# by hand\nimage,split\n#one.png,train\nb.png,val\n")
    assert read_sections(table, ["#one.png", "b.png"]) == {"#one.png": "training", "b.png": "validation"}
    assert read_splits(table) == {"train": ["#one.png"], "val": ["b.png"]}


def test_a_table_of_all_sites_for_the_images_of_one(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("image,split,patient\nsite2/1.png,test,q\nsite1/1.png,train,p\nsite1/2.png,val,p\n")
    images = ["1.png", "2.png"]
    assert read_sections(table, images, tmp_path / "site1") == {"1.png": "training", "2.png": "validation"}
    assert read_groups(table, "patient", images, tmp_path / "site1") == {"1.png": "p", "2.png": "p"}
