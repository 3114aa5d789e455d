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

import unicodedata
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from monai_landmarks.data import (
    LandmarkSet,
    convert_landmarks,
    make_datalists,
    pair_landmarks,
    read_landmark_table,
    write_landmark_table,
    write_landmarks,
)
from monai_landmarks.data.landmarks.row_faults import LandmarkRows, read_past_faults

POINTS = LandmarkSet(("a", "b"), [[1, 2], [3, 4]], "index")


@pytest.fixture
def folder(tmp_path, write_picture):
    """Images x/1.png, x/2.png, y/1.png."""
    for name in ("x/1", "x/2", "y/1"):
        write_picture(tmp_path / "images" / f"{name}.png", 9, 9)
    return tmp_path


def paired(pairing):
    return {case.name: case.source.name for case in pairing.cases}


def test_table(folder):
    table = folder / "t.csv"
    table.write_text("image,landmark,x,y\nx/1,a,1,2\nz/9.png,a,1,2\n2.png,a,1,2\n1.png,a,1,2\nimages/x/2.png,b,1,2\n")
    result = pair_landmarks(folder / "images", table)
    assert paired(result) == {"x/1.png": "t.csv", "x/2.png": "t.csv"} and result.names == ["a", "b"]
    assert result.unlabeled == [folder / "images" / "y/1.png"]
    assert result.absent == [f"{table}: line 3: 'z/9.png' is not among the images."]
    assert result.faults == [
        f"{table}: line 5: '1.png' fits more than one image: x/1.png, y/1.png.",
        f"{table}: line 6: {table}: line 4 holds landmarks of the same image, x/2.png.",
    ]


@pytest.mark.parametrize("corrected", [True, False])
def test_a_folder_of_predictions(folder, corrected):
    """Corrected points are in the files of the images. The tables beside them hold the old ones, and no points."""
    out, images = folder / "predictions", folder / "images"
    names = ("x/1.png", "x/2.png", "y/1.png")
    write_landmark_table(out / "predictions.csv", {str(images / name): POINTS for name in names})
    (out / "predictions_std.csv").write_text("image,landmark,std_x,std_y\nx/1.png,a,0.5,0.5\n")
    (out / "measurements.csv").write_text("image,measurement,value\nx/1.png,width,3\n")
    moved = replace(POINTS, points=POINTS.points + 1, coordinate_system="LPS")
    if corrected:
        for name in ("x_1", "x_2", "y_1"):
            write_landmarks(out / f"{name}.mrk.json", moved)
        (images / "x/1.png").rename(images / "x_1.png")
        (images / "x/2.png").rename(images / "x_2.png")
        (images / "y/1.png").rename(images / "y_1.png")
    result = pair_landmarks(images, out)
    assert len(result.cases) == 3 and result.faults == result.absent == []
    expected = moved.points if corrected else POINTS.points
    assert all(np.array_equal(case.landmarks.points[:, :2], expected) for case in result.cases)
    said = f"{out / 'predictions.csv'}: is left out, because the files beside it hold the points of single images"
    assert [note.startswith(said) for note in result.notes] == [True] * corrected
    with pytest.warns(UserWarning, match=r"predictions\.csv: is left out") if corrected else nullcontext():
        converted = convert_landmarks(out, folder / "all.csv")
    assert converted.faults == () and len(read_landmark_table(folder / "all.csv")) == 3
    assert np.array_equal(next(iter(read_landmark_table(folder / "all.csv").values())).points[:, :2], expected)


def test_a_table_that_ends_like_one_of_predictions_is_read(folder):
    write_landmark_table(folder / "points/mine_std.csv", {"x/1.png": POINTS})
    assert paired(pair_landmarks(folder / "images", folder / "points")) == {"x/1.png": "mine_std.csv"}
    write_landmark_table(folder / "points/mine.csv", {"y/1.png": POINTS})  # as predict writes two tables
    assert paired(pair_landmarks(folder / "images", folder / "points")) == {"y/1.png": "mine.csv"}


@pytest.mark.parametrize("root, named", [("images", "q/2"), ("images/x", "y/x/2"), ("images", "images/q/2.png")])
@pytest.mark.parametrize("is_table", [True, False])
def test_landmarks_of_another_folder_are_not_those_of_an_image(folder, root, named, is_table):
    """Unless all images lie in the folder that is given: it may have any name in the table."""
    if is_table:
        landmarks, where = folder / "t.csv", f"{folder / 't.csv'}: line 2: {named!r} is not among the images"
        landmarks.write_text(f"image,landmark,x,y\n{named},a,1,2\n")
    else:
        landmarks, file = folder / "points", folder / "points" / f"{named.removesuffix('.png')}.csv"
        write_landmarks(file, POINTS)
        where = f"{file}: no image has this name"
    result = pair_landmarks(folder / root, landmarks)
    if root == "images":
        assert paired(result) == {} and len(result.absent) == 1
        assert result.absent[0].startswith(f"{where}; x/2.png has another folder")
    else:
        assert list(paired(result)) == ["2.png"] and not result.absent


def test_an_image_that_a_landmark_file_states_is_seen_from_the_file(folder):
    for name, stated in (("x/a", "1.png"), ("y/b", "2.png"), ("c", "../images/y/1.png")):
        write_landmarks(folder / f"points/{name}.json", replace(POINTS, image=stated), format="labelme")
    converted = convert_landmarks(
        folder / "points", folder / "new", destination_format="mrk.json", images=folder / "images"
    )
    assert [fault.source.name for fault in converted.faults] == ["b.json"]
    result = pair_landmarks(folder / "images", folder / "points")
    assert paired(result) == {"x/1.png": "a.json", "y/1.png": "c.json"}
    assert len(result.absent) == 1 and "b.json" in result.absent[0]


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
        f"{points / 'table.csv'}: line 5: 'y/5.png' is not among the images.",
        f"{points / '3.csv'}: no image has this name; expected the name of an image.",
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
    table.write_text("\n".join([*rows[:3], '1,"b"c,1,2', *rows[6:]]) + "\n")
    sets, faults = read_past_faults(table)
    assert list(sets) == ["1", "2"] and "line 4: not comma-separated text" in faults[0]
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
    assert sets == {} and len(faults) == 51 and "there are 80 faulty rows" in faults[-1]
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


def write_jaws(folder, name, upper=("U1", "U2"), lower=("L1",)):
    """Two point lists of one scan, as programs that look for the landmarks of each jaw write them."""
    for part, names in (("U", upper), ("L", lower)):
        points = np.arange(3.0 * len(names)).reshape(-1, 3) * [1, 1, 0]
        write_landmarks(folder / f"{name}{part}.mrk.json", LandmarkSet(names, points, "LPS"))


@pytest.mark.parametrize("between", ["_lm_Pred_", "_", "-"])
def test_two_files_of_an_image_are_joined(tmp_path, between, write_picture):
    write_picture(tmp_path / "images" / "scan.png", 9, 9)
    write_picture(tmp_path / "images" / "scan_2.png", 9, 9)
    write_jaws(tmp_path / "points", f"scan{between}")
    write_jaws(tmp_path / "points", f"scan_2{between}")
    result = pair_landmarks(tmp_path / "images", tmp_path / "points")
    assert result.faults == result.absent == [] and len(result.notes) == 2
    for case in result.cases:
        assert case.landmarks.names == ("L1", "U1", "U2")
        np.testing.assert_array_equal(case.landmarks.points[1:], [[0, 1, 0], [3, 4, 0]])
        assert [part.source.name[-10] for part in case.parts] == ["L", "U"]
        assert case.origin("U2") == (case.parts[1].source, None)
    # a datalist can only hold one file per image: the points themselves
    [datalist] = make_datalists(result.cases, spacing=1, val_frac=0.0)
    assert datalist["training"][0]["label"] == [[0, 1, 0], [0, 1, 0], [3, 4, 0]]


def test_files_with_the_same_landmark_cannot_be_joined(tmp_path, write_picture):
    write_picture(tmp_path / "images" / "scan.png", 9, 9)
    write_jaws(tmp_path / "points", "scan_lm_", lower=("U2",))
    result = pair_landmarks(tmp_path / "images", tmp_path / "points")
    assert not result.cases and "both hold the landmark 'U2'" in result.faults[0]


def test_pixels_and_world_points_cannot_be_joined(tmp_path, write_picture):
    """The affine of the image is not known here."""
    write_picture(tmp_path / "images" / "scan.png", 9, 9)
    write_jaws(tmp_path / "points", "scan_lm_")
    (tmp_path / "points" / "scan_lm_L.mrk.json").unlink()
    write_landmarks(tmp_path / "points" / "scan_lm_L.csv", POINTS)
    result = pair_landmarks(tmp_path / "images", tmp_path / "points")
    assert not result.cases and "belong to the image scan.png, but cannot be joined: " in result.faults[0]


def test_a_part_beside_the_file_of_the_image_is_a_fault(tmp_path, write_picture):
    write_picture(tmp_path / "images" / "scan.png", 9, 9)
    write_jaws(tmp_path / "points", "scan_lm_")
    (tmp_path / "points" / "scan_lm_L.mrk.json").unlink()
    write_landmarks(tmp_path / "points" / "scan.csv", POINTS)
    result = pair_landmarks(tmp_path / "images", tmp_path / "points")
    assert paired(result) == {"scan.png": "scan.csv"}
    [fault] = result.faults
    assert "scan_lm_U.mrk.json: " in fault and "scan.csv holds landmarks of the same image, scan.png" in fault
    (tmp_path / "points" / "scan.csv").unlink()
    assert paired(pair_landmarks(tmp_path / "images", tmp_path / "points")) == {"scan.png": "scan_lm_U.mrk.json"}


def test_a_longer_name_may_be_that_of_another_image(tmp_path, write_picture):
    write_picture(tmp_path / "images" / "scan.png", 9, 9)
    write_jaws(tmp_path / "points", "scan_lm_")
    (tmp_path / "points" / "scan_lm_U.mrk.json").unlink()
    (tmp_path / "points" / "scan_lm_L.mrk.json").rename(tmp_path / "points" / "scan_7.mrk.json")
    result = pair_landmarks(tmp_path / "images", tmp_path / "points")
    assert not result.cases and "scan_7.mrk.json: no image has this name" in result.absent[0]


def test_a_list_may_name_two_files_of_an_image(tmp_path, write_picture):
    write_picture(tmp_path / "images" / "7.png", 9, 9)
    write_jaws(tmp_path, "")
    (tmp_path / "list.csv").write_text("image;landmarks\n7;U.mrk.json\n7;L.mrk.json\n")
    [case] = pair_landmarks(tmp_path / "images", tmp_path / "list.csv").cases
    assert case.landmarks.names == ("U1", "U2", "L1")


@pytest.mark.parametrize("file", ["F.mrk.json", "F_1.mrk.json", "F.fcsv", "markers.csv"])
@pytest.mark.parametrize("together", [True, False])
def test_the_folders_of_slicer(tmp_path, file, together, write_picture):
    points = tmp_path if together else tmp_path / "points"
    images = tmp_path if together else tmp_path / "images"
    for number in (1, 2):
        write_picture(images / f"sub-{number}" / "ct.png", 9, 9)
        write_landmarks(points / f"sub-{number}" / file, LandmarkSet(("a",), [[number, 2.0]], "RAS"))
    result = pair_landmarks(images, points)
    assert {case.name: case.landmarks.points[0, 0] for case in result.cases} == {"sub-1/ct.png": 1, "sub-2/ct.png": 2}
    assert result.faults == result.absent == []


def test_a_name_that_a_folder_overrules_is_said(tmp_path, write_picture):
    """Slicer's usual names say nothing, but 2 may be another image than 1."""
    for folder, file in (("x", "F"), ("y", "2")):
        write_picture(tmp_path / folder / "1.png", 9, 9)
        write_landmarks(tmp_path / folder / f"{file}.mrk.json", LandmarkSet(("a",), [[1.0, 2.0]], "RAS"))
    [note] = pair_landmarks(tmp_path, tmp_path).notes
    assert note == f"{tmp_path / 'y' / '2.mrk.json'}: is taken for the landmarks of y/1.png, the only image there."


def test_folders_with_more_than_one_choice(tmp_path, write_picture):
    for name in ("one/ct", "two/ct", "two/mr", "three/ct", "four/ct"):
        write_picture(tmp_path / f"{name}.png", 9, 9)
    world = POINTS.to_world(np.eye(4))
    for name in ("one/F", "one/spare", "two/F", "three/a", "three/b", "four/F", "four/F_1"):
        write_landmarks(tmp_path / f"{name}.mrk.json", world)
    result = pair_landmarks(tmp_path, tmp_path)
    assert paired(result) == {"one/ct.png": "F.mrk.json"}
    left = sorted(sentence.partition(": ")[0].removeprefix(f"{tmp_path}/") for sentence in result.absent)
    assert left == [f"{name}.mrk.json" for name in ("four/F", "four/F_1", "one/spare", "three/a", "three/b", "two/F")]
    assert "2 image(s) and 1 landmark file(s)" in next(text for text in result.absent if "two/F" in text)


def test_names_that_a_spreadsheet_or_a_system_has_changed(tmp_path, write_picture):
    for name in ("002", "010", "IMG_7", unicodedata.normalize("NFD", "Müller")):
        write_picture(tmp_path / "images" / f"{name}.png", 9, 9)
    table = tmp_path / "t.csv"
    table.write_text("image,landmark,x,y\n2,a,1,2\n10.0,a,3,4\nimg_7.PNG,a,5,6\nMüller,a,7,8\n1.2E+10,a,1,1\n")
    result = pair_landmarks(tmp_path / "images", table)
    assert {unicodedata.normalize("NFC", case.name): case.landmarks.points[0, 0] for case in result.cases} == {
        "002.png": 1,
        "010.png": 3,
        "IMG_7.png": 5,
        "Müller.png": 7,
    }
    assert "a spreadsheet program may have rounded this number" in result.absent[0]


def test_a_landmark_in_two_unicode_forms_is_one_and_said(tmp_path, write_picture):
    write_picture(tmp_path / "a.png", 9, 9)
    write_picture(tmp_path / "b.png", 9, 9)
    forms = [unicodedata.normalize(form, "Ménton") for form in ("NFC", "NFD")]
    (tmp_path / "t.csv").write_text(f"image,landmark,x,y\na.png,{forms[0]},1,2\nb.png,{forms[1]},3,4\n")
    result = pair_landmarks(tmp_path, tmp_path / "t.csv")
    assert result.names == [forms[0]] and [case.landmarks.points[0, 0] for case in result.cases] == [1, 3]
    assert len(result.notes) == 1 and "2 Unicode forms" in result.notes[0]
    # a wide table has a column per landmark, and the reader of landmarks reports what is no table
    for text in (f"image,{forms[0]}_x,{forms[0]}_y\na.png,1,2\n", f"{forms[0]}\0,landmark\n"):
        (tmp_path / "t.csv").write_text(text)
        assert LandmarkRows(tmp_path / "t.csv").notes() == []


def test_lines_of_a_table_that_cannot_be_read(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,landmark,x,y\n\xff")
    assert LandmarkRows(tmp_path / "t.csv").where("1.png") == f"{tmp_path / 't.csv'}: image '1.png'"


@pytest.fixture
def numbered(tmp_path, write_picture):
    """Images 1.png, 2.png and 12.png."""
    for name in ("1", "2", "12"):
        write_picture(tmp_path / "images" / f"{name}.png", 9, 9)
    return tmp_path


@pytest.mark.parametrize("is_coco", [False, True])
def test_a_file_of_one_image_that_says_another_one_than_its_name(numbered, is_coco):
    """A table of a batch may hold a single image, and have a number that is the name of another one."""
    suffix, where, format = (".json", "image '12.png'", "coco") if is_coco else (".csv", "line 3", None)
    write_landmark_table(numbered / f"lm/1{suffix}", {"1.png": POINTS, "2.png": POINTS}, format=format)
    write_landmark_table(numbered / f"lm/2{suffix}", {"12.png": POINTS}, format=format)
    result = pair_landmarks(numbered / "images", numbered / "lm")
    assert paired(result) == {"1.png": f"1{suffix}", "2.png": f"1{suffix}"} and result.absent == []
    assert result.faults == [
        f"{numbered / 'lm' / f'2{suffix}'}: {where}: the landmarks are of '12.png' (12.png), but its name says '2' (2.png);"
        " correct the image in the file, or rename the file."
    ]
    (numbered / f"lm/2{suffix}").rename(numbered / f"lm/batch{suffix}")
    result = pair_landmarks(numbered / "images", numbered / "lm")
    assert paired(result)["12.png"] == f"batch{suffix}" and result.faults == []


def test_a_listed_file_that_says_another_image(numbered):
    write_landmark_table(numbered / "b.csv", {"12.png": POINTS})
    (numbered / "list.csv").write_text("image,landmarks\n2.png,b.csv\n")
    result = pair_landmarks(numbered / "images", numbered / "list.csv")
    [fault] = result.faults
    assert result.cases == [] and f"'12.png' (12.png), but {numbered / 'list.csv'} says '2.png' (2.png)" in fault
    (numbered / "list.csv").write_text("image,landmarks\n12.png,b.csv\n")
    assert paired(pair_landmarks(numbered / "images", numbered / "list.csv")) == {"12.png": "b.csv"}


@pytest.mark.parametrize("stated", ["tmp_8f3.png", "2", "/elsewhere/images/2.png", "3.png"])
def test_a_file_of_one_image_with_an_older_name_in_it(numbered, stated):
    """The same image in other words, or one that is not there, contradicts nothing."""
    write_landmark_table(numbered / "lm/2.csv", {stated: POINTS})
    result = pair_landmarks(numbered / "images", numbered / "lm")
    assert paired(result) == {"2.png": "2.csv"} and result.faults == []


def test_a_name_in_a_file_chooses_between_images_of_its_name(folder, write_picture):
    write_picture(folder / "images/x/2.jpg", 9, 9)
    write_landmark_table(folder / "lm/2.csv", {"2.jpg": POINTS})
    result = pair_landmarks(folder / "images", folder / "lm")
    assert paired(result) == {"x/2.jpg": "2.csv"} and result.faults == []


@pytest.mark.parametrize("kind", ["table", "files", "tables"])
def test_landmarks_of_all_sites_for_the_images_of_one(tmp_path, kind, write_picture):
    for name in ("case1", "case2"):
        write_picture(tmp_path / f"data/site1/{name}.png", 9, 9)
    names = ("site0/case2", "site1/case1", "site2/case2")
    if kind == "table":
        write_landmark_table(tmp_path / "lm.csv", {f"{name}.png": POINTS for name in names})
    for name in names:
        if kind == "files":
            write_landmarks(tmp_path / f"lm/{name}.csv", POINTS)
        elif kind == "tables":  # the first one alone does not show what its folders are
            write_landmark_table(tmp_path / f"lm/table_{name[:5]}.csv", {f"{name}.png": POINTS, f"{name}b.png": POINTS})
    result = pair_landmarks(tmp_path / "data/site1", tmp_path / ("lm.csv" if kind == "table" else "lm"))
    assert list(paired(result)) == ["case1.png"] and result.faults == []
    assert result.unlabeled == [tmp_path / "data/site1/case2.png"]
    assert sum("; case2.png has another folder" in sentence for sentence in result.absent) == 2


def test_a_folder_of_images_may_have_another_name_in_a_table(numbered):
    write_landmark_table(numbered / "t.csv", {"a/1.png": POINTS, "b/2.png": POINTS})
    assert set(paired(pair_landmarks(numbered / "images", numbered / "t.csv"))) == {"1.png", "2.png"}


def test_a_word_for_landmarks_follows_the_name_as_it_is_written(tmp_path, write_picture):
    """Without the zeros of the image's name, in another Unicode form, or with its folder."""
    for name in ("001", "002", unicodedata.normalize("NFD", "Müller"), "x/7"):
        write_picture(tmp_path / "images" / f"{name}.png", 9, 9)
    for name in ("1_2_points", "2_points", unicodedata.normalize("NFC", "Müller_F"), "x_7_points"):
        write_landmarks(tmp_path / "lm" / f"{name}.csv", POINTS)
    result = pair_landmarks(tmp_path / "images", tmp_path / "lm")
    assert {unicodedata.normalize("NFC", name) for name in paired(result)} == {"002.png", "Müller.png", "x/7.png"}
    assert len(result.absent) == 1 and "1_2_points.csv: no image has this name" in result.absent[0]
