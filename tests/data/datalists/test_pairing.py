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
"""Landmarks are paired with their images, and every fault names file and row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import LandmarkSet, make_datalists, pair_landmarks, write_landmark_table, write_landmarks
from monai_landmarks.data.landmarks.row_faults import LandmarkRows, read_past_faults

POINTS = LandmarkSet(("a", "b"), [[1, 2], [3, 4]], "index")


@pytest.fixture
def folder(tmp_path):
    """Images x/1.png, x/2.png, y/1.png."""
    for name in ("x/1", "x/2", "y/1"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def paired(pairing):
    return {case.name: case.source.name for case in pairing.cases}


def test_table(folder):
    table = folder / "t.csv"
    table.write_text("image,landmark,x,y\nx/1,a,1,2\nz/9.png,a,1,2\n2.png,a,1,2\n1.png,a,1,2\nq/2.png,b,1,2\n")
    result = pair_landmarks(folder / "images", table)
    assert paired(result) == {"x/1.png": "t.csv", "x/2.png": "t.csv"} and result.names == ["a", "b"]
    assert result.unlabeled == [folder / "images" / "y/1.png"]
    assert result.absent == [f"{table}: line 3: 'z/9.png' is not among the images."]
    assert result.faults == [
        f"{table}: line 5: '1.png' fits more than one image: x/1.png, y/1.png.",
        f"{table}: line 6: {table}: line 4 holds landmarks of the same image, x/2.png.",
    ]


def test_files_in_folders_like_those_of_the_images(folder):
    points = folder / "points"
    for name in ("x/1.csv", "x/2.fcsv", "y/1.mrk.json"):
        world = POINTS.to_world(np.eye(4)) if name != "x/1.csv" else POINTS
        write_landmarks(points / name, world)
    result = pair_landmarks(folder / "images", points)
    assert paired(result) == {"x/1.png": "1.csv", "x/2.png": "2.fcsv", "y/1.png": "1.mrk.json"}
    assert all(case.key is None for case in result.cases)

    write_landmarks(points / "2.csv", POINTS)
    write_landmarks(points / "3.csv", POINTS)
    (points / "cut.mrk.json").write_text("{")
    write_landmark_table(points / "table.csv", {"x/2.png": POINTS, "y/5.png": POINTS})
    result = pair_landmarks(folder / "images", points)
    assert paired(result) == {"x/1.png": "1.csv", "x/2.png": "2.csv", "y/1.png": "1.mrk.json"}
    assert result.absent == [
        f"{points / '3.csv'}: no image has this name; expected the name of an image.",
        f"{points / 'table.csv'}: line 5: 'y/5.png' is not among the images.",
    ]
    cut, table, twice = result.faults
    assert cut.startswith(f"{points / 'cut.mrk.json'}: line 1: not valid JSON")
    assert table == f"{points / 'table.csv'}: line 3: {points / '2.csv'} holds landmarks of the same image, x/2.png."
    assert twice == f"{points / 'x/2.fcsv'}: {points / '2.csv'} holds landmarks of the same image, x/2.png."


def test_table_of_files(folder):
    write_landmarks(folder / "points" / "F.csv", POINTS)
    write_landmarks(folder / "points" / "G.csv", POINTS)
    table = folder / "t.csv"
    table.write_text(
        "image,landmarks,by\nx/1.png,points/F.csv,me\ny/1.png,points/G.csv,me\nx/2.png,points/H.csv,me\n2,points/F.csv,me\n"
    )
    result = pair_landmarks(folder / "images", table)
    assert paired(result) == {"x/1.png": "F.csv", "y/1.png": "G.csv"}
    assert result.faults == [
        f"{table}: line 4: there is no file {folder / 'points/H.csv'}.",
        f"{table}: line 5: {folder / 'points/F.csv'} is the landmark file of 'x/1.png' already.",
    ]
    table.write_text("image,landmarks\nx/1.png\n")
    with pytest.raises(ValueError, match=r"t\.csv: line 2: expected 2 columns"):
        pair_landmarks(folder / "images", table)


def test_a_file_may_state_its_image(folder):
    write_landmarks(folder / "marks" / "first reader.csv", replace(POINTS, image="2.png"))
    assert paired(pair_landmarks(folder / "images", folder / "marks")) == {"x/2.png": "first reader.csv"}


def test_an_empty_table_is_a_fault(folder):
    (folder / "t.csv").write_text("")
    result = pair_landmarks(folder / "images", folder / "t.csv")
    assert result.cases == [] and len(result.faults) == 1 and "t.csv" in result.faults[0]


def test_one_file(folder):
    write_landmarks(folder / "2.mrk.json", POINTS.to_world(np.eye(4)))
    assert paired(pair_landmarks(folder / "images", folder / "2.mrk.json")) == {"x/2.png": "2.mrk.json"}


def test_coordinate_system_of_files_that_do_not_state_it(folder):
    (folder / "p").mkdir()
    (folder / "p" / "2.csv").write_text("landmark,x,y\na,1,2\n")
    [case] = pair_landmarks(folder / "images", folder / "p", "LPS").cases
    assert case.landmarks.coordinate_system == "LPS"
    # the file alone would be read as pixels: the datalist has to hold what was said of it
    [datalist] = make_datalists([case], spacing=1, inline=True, val_frac=0.0)
    assert datalist["landmarks"]["coordinate_system"] == "LPS" and datalist["training"][0]["label"] == [[1, 2]]
    write_landmarks(folder / "p" / "2.csv", POINTS)
    assert (
        "states coordinate_system=index, but LPS was asked for"
        in pair_landmarks(folder / "images", folder / "p", "LPS").faults[0]
    )


def test_every_faulty_row_is_told(tmp_path):
    table = tmp_path / "t.csv"
    rows = [
        "# coordinate_system=index",
        "image,landmark,x,y",
        "1,a,1,2",
        "1,b,one,2",
        "1,c,1",
        "1,a,3,4",
        "2,a,5,6",
        "2,,1,2",
        "2,b,,2",
    ]
    table.write_text("\n".join(rows) + "\n")
    sets, faults = read_past_faults(table)
    assert [fault.partition(": ")[2][:8] for fault in faults] == [f"line {n}: " for n in (4, 5, 6, 8, 9)]
    assert all(fault.startswith(f"{table}: line ") for fault in faults)
    assert {image: found.points[~found.missing].tolist() for image, found in sets.items()} == {
        "1": [[1, 2]],
        "2": [[5, 6]],
    }
    # and with these rows mended, none is left
    table.write_text("\n".join([*rows[:3], *[row for i, row in enumerate(rows[3:], 4) if i not in (4, 5, 6, 8, 9)]]))
    assert read_past_faults(table)[1] == []


@pytest.mark.parametrize(
    "text, message",
    [("image,x\n1,2\n", "line 1: no landmark in the header"), ("", "no header"), ("a,b\n1,2\n", "line 1: the header")],
)
def test_a_faulty_header_is_one_fault(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    sets, [fault] = read_past_faults(tmp_path / "t.csv")
    assert sets == {} and message in fault


def test_faults_without_end(tmp_path):
    (tmp_path / "t.csv").write_text("image,landmark,x,y\n" + "1,a,?,?\n" * 80)
    sets, faults = read_past_faults(tmp_path / "t.csv")
    assert sets == {} and len(faults) == 51 and "may be more faults" in faults[-1]
    assert read_past_faults(tmp_path / "absent.csv")[1][0].endswith(f"{str(tmp_path / 'absent.csv')!r}")
    (tmp_path / "latin.csv").write_bytes(b"image,landmark,x,y\n1,caf\xe9,1,2\n")
    assert "is not UTF-8 text" in read_past_faults(tmp_path / "latin.csv")[1][0]


@pytest.mark.parametrize("form", ["long", "wide"])
def test_rows(tmp_path, form):
    path = tmp_path / "t.csv"
    write_landmark_table(path, {"1": POINTS, "2": POINTS}, form)
    rows = LandmarkRows(path)
    line = {"long": 5, "wide": 4}[form]  # behind a comment and the header
    assert (
        rows.where("2", "a") == f"{path}: line {line}"
        and rows.where("2", "b") == f"{path}: line {line + (form == 'long')}"
    )
    assert rows.where("3") == f"{path}: image '3'"
    write_landmarks(tmp_path / "one.csv", POINTS)
    assert LandmarkRows(tmp_path / "one.csv").where(None, "b") == f"{tmp_path / 'one.csv'}: line 4"
    assert LandmarkRows(tmp_path / "one.csv").where(None) == str(tmp_path / "one.csv")
