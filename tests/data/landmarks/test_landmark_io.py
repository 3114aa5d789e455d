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

import numpy as np
import pytest

from monai_landmarks.data import (
    LandmarkSet,
    landmark_suffix,
    read_landmarks,
    register_format,
    write_landmark_table,
    write_landmarks,
)
from monai_landmarks.data.landmarks import landmark_io

NAN = float("nan")
SUFFIXES = (".csv", ".mrk.json", ".fcsv")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("system", ["RAS", "LPS"])
@pytest.mark.parametrize("scores", [None, [0.25, NAN, 1e-30]])
def test_round_trip(tmp_path, suffix, system, scores):
    points = [[1 / 3, -2e-17, 1e20], [NAN] * 3, [0, 0, 0]]
    landmarks = LandmarkSet(("left, lower", 'the "best"', "größer"), points, system, scores=scores)
    path = tmp_path / "new folder" / f"case.1{suffix.upper()}"
    write_landmarks(path, landmarks)
    assert read_landmarks(path) == landmarks
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_2d(tmp_path, suffix):
    landmarks = LandmarkSet(("a", "b"), [[1.5, 2], [NAN, NAN]], "LPS")
    write_landmarks(tmp_path / f"a{suffix}", landmarks)
    back = read_landmarks(tmp_path / f"a{suffix}")
    assert back.spatial_dims == (2 if suffix == ".csv" else 3)
    assert back.with_spatial_dims(2) == landmarks


@pytest.mark.parametrize("suffix", [".mrk.json", ".fcsv"])
def test_index_points_are_refused_and_the_old_file_stays(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("old")
    with pytest.raises(ValueError, match=rf"a{suffix}: the points are pixel index.*use to_world\(affine\)"):
        write_landmarks(path, LandmarkSet(("a",), [[1, 2, 3]], "index"))
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_longest_suffix_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(landmark_io, "_FORMATS", dict(landmark_io._FORMATS))
    register_format(".json", reader=lambda path: LandmarkSet(tuple(json.loads(path.read_text())), np.zeros((1, 2))))
    assert landmark_suffix("A.MRK.JSON") == ".mrk.json" and landmark_suffix("a.b.json") == ".json"
    (tmp_path / "a.json").write_text('["mine"]')
    assert read_landmarks(tmp_path / "a.json").names == ("mine",)
    with pytest.raises(ValueError, match=r"a\.json: this format can be read, but not written"):
        write_landmarks(tmp_path / "a.json", LandmarkSet((), np.zeros((0, 2))))
    (tmp_path / "b.json").write_text("cut [")
    with pytest.raises(ValueError, match=r"b\.json: Expecting value"):
        read_landmarks(tmp_path / "b.json")


def test_unknown_suffix_and_absent_file(tmp_path):
    with pytest.raises(ValueError, match=r"a\.doc: no landmark format has this suffix; known are .*'\.csv'"):
        read_landmarks("a.doc")
    with pytest.raises(FileNotFoundError):
        read_landmarks(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="begins with a dot"):
        register_format("csv")


def test_a_format_that_is_registered_again_replaces_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(landmark_io, "_FORMATS", dict(landmark_io._FORMATS))
    path = tmp_path / "a.tip"
    path.write_text("7")
    for name, x in (("one", 1), ("two", 2)):
        register_format(".tip", lambda path, x=x: LandmarkSet(("tip",), [[x, 0.0]]), name=name)
    assert read_landmarks(path).points[0, 0] == 2
    register_format(".tip", writer=lambda path, landmarks: None)
    with pytest.raises(ValueError, match=r"a\.tip: this format can be written, but not read"):
        landmark_io.read_landmark_sets(path)


def test_nothing_to_write(tmp_path):
    with pytest.raises(ValueError, match="no landmark sets to write"):
        write_landmark_table(tmp_path / "t.csv", {})
    assert list(tmp_path.iterdir()) == []


def test_a_companion_beside_a_broken_table_may_be_a_table_itself(tmp_path):
    """``angles.csv`` belongs to a table of AASCE 2019, if there is one in its folder."""
    (tmp_path / "angles.csv").write_text("image,landmark,x,y\n1.png,a,1,2\n")
    (tmp_path / "landmarks.csv").write_bytes(b"\xff\xfe\xff")
    assert tmp_path / "angles.csv" in landmark_io.find_landmark_files(tmp_path)
