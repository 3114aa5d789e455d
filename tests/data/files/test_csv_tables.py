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
"""Tables of results, read back with the csv module."""

from __future__ import annotations

import csv
import os

import pytest

from monai_landmarks.data.files.csv_tables import write_rows


@pytest.mark.parametrize(
    ("value", "cell"),
    [(0.000712, "0.000712"), (-0.0071249, "-0.00712"), (0.01, "0.0100"), (13.46678, "13.4668"), (0.0, "0.0000")]
    + [(3, "3"), (float("nan"), ""), ("a,b", "a,b"), ("=1+1", "'=1+1")],
)
def test_cells(value, cell, tmp_path):
    path = write_rows(tmp_path / "table.csv", [{"name": "x", "value": value}])
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["name", "value"], ["x", cell]]


def test_without_rows_the_headings_stay(tmp_path):
    assert write_rows(tmp_path / "table.csv", [], ["image", "error"]).read_text().split() == ["image,error"]


def test_a_name_that_is_not_utf_8(tmp_path):
    path = write_rows(tmp_path / "table.csv", [{"image": os.fsdecode(b"sch\xe4del"), "error": 1}])
    assert path.read_text(encoding="utf-8").splitlines()[1] == r"sch\udce4del,1"
