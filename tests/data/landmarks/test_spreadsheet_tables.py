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


"""Tables as spreadsheet programs save them: read where they have one meaning, and otherwise refused with the reason."""

from __future__ import annotations

import csv
import io
import tracemalloc
import unicodedata

import numpy as np
import pytest

from monai_landmarks.data import (
    LandmarkSet,
    read_groups,
    read_landmark_table,
    read_landmarks,
    read_pairs,
    write_landmark_table,
    write_landmarks,
)
from monai_landmarks.data.files.csv_rows import NumberCells, TableRows, cell_text, text_cell
from monai_landmarks.data.landmarks.formats.napari import read_napari
from monai_landmarks.data.landmarks.formats.payer import read_payer
from monai_landmarks.data.landmarks.row_faults import read_past_faults

ROWS = [["a.png", "dot", "10.5", "20.25"], ["b.png", "dot", "-11.5", "3"]]
LONG = [["image", "landmark", "x", "y"], *ROWS]
WIDE = [["image", "dot_x", "dot_y"], *[[image, x, y] for image, _, x, y in ROWS]]
EXPECTED = {"a.png": [[10.5, 20.25]], "b.png": [[-11.5, 3]]}


def text_of(rows, delimiter=",", decimal="."):
    """A table as Python's own writer quotes it."""
    file = io.StringIO()
    rows = [
        rows[0],
        *[[cell if cell.endswith(".png") else cell.replace(".", decimal) for cell in row] for row in rows[1:]],
    ]
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()


def points_of(path):
    return {image: landmarks.points.tolist() for image, landmarks in read_landmark_table(path).items()}


@pytest.mark.parametrize("rows", [LONG, WIDE], ids=["long", "wide"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("head", ["", "sep={}\r\n", '"sep={}"\r\n', "# coordinate_system=index{0}{0}\r\n\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_decimals_and_encodings(tmp_path, rows, delimiter, decimal, head, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes((head.format(delimiter) + text_of(rows, delimiter, decimal)).encode(encoding))
    assert points_of(path) == EXPECTED


def test_other_delimiters_have_to_be_stated(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("sep=|\n" + text_of(LONG, "|"))
    assert points_of(path) == EXPECTED


@pytest.mark.parametrize(
    "numbers, said",
    [
        (
            ["1,234", "2,500"],
            r"'1,234' in line 2 and of all other numbers may be a decimal comma or separate thousands",
        ),
        (["10,5", "20.5"], r"a comma \('10,5' in line 2\) and some a decimal point \('20.5' in line 2\)"),
        (["1.234,5", "2"], "line 2: column 'x' is '1.234,5'"),
        (["1,234,567", "2"], "line 2: column 'x' is '1,234,567'"),
        (["1'234", "2"], "line 2: column 'x' is \"1'234\""),
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_numbers_with_two_meanings(tmp_path, numbers, said, delimiter):
    path = tmp_path / "t.csv"
    path.write_text(text_of([LONG[0], ["a.png", "dot", *numbers]], delimiter))
    with pytest.raises(ValueError, match=said):
        read_landmark_table(path)


@pytest.mark.parametrize(
    "numbers, refused", [(["1.234", "987"], True), (["1.234", "987.5"], False), (["0.125", "9"], False)]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_points_that_may_separate_thousands(tmp_path, numbers, refused, delimiter):
    path = tmp_path / "t.csv"
    path.write_text(text_of([LONG[0], ["a.png", "dot", *numbers]], delimiter))
    if refused and delimiter != ",":
        with pytest.raises(ValueError, match="the point of '1.234' in line 2 .* may separate thousands"):
            read_landmark_table(path)
    else:
        assert points_of(path) == {"a.png": [[float(number) for number in numbers]]}


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(
    "read, rows", [(read_payer, ["a", "1.234", "987"]), (read_napari, None)], ids=["payer", "napari"]
)
def test_points_that_may_separate_thousands_in_tables_of_other_programs(tmp_path, read, rows, delimiter):
    path = tmp_path / "t.csv"
    path.write_text(text_of([rows] if rows else [["axis-0", "axis-1"], ["987", "1.234"]], delimiter))
    if delimiter == ";":
        with pytest.raises(ValueError, match="the point of '1.234' in line . .* may separate thousands"):
            read(path)
    else:
        read(path)


@pytest.mark.parametrize("name, said", [("t.xlsx", "save its table as 'CSV UTF-8'"), ("t.tsv", "suffix .csv")])
def test_other_suffixes(tmp_path, name, said):
    (tmp_path / name).write_text("landmark\tx\ty\n")
    with pytest.raises(ValueError, match=said):
        read_landmarks(tmp_path / name)


def test_decimal_commas_that_split_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image,landmark,x,y\na.png,dot,10,5,20,25\n")
    with pytest.raises(ValueError, match="line 2: 6 columns; expected 4 .*decimal commas"):
        read_landmark_table(path)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_bytes_without_an_encoding(tmp_path, encoding):
    path = tmp_path / "t.csv"
    path.write_bytes("image,landmark,x,y\nMüller.png,größte,1,2\n".encode(encoding))
    with pytest.raises(
        ValueError, match="byte 20 is not UTF-8 .*Windows-1252.* line 2 is 'Müller.png,größte,1,2'.*as UTF-8"
    ):
        read_landmark_table(path)


def test_utf_16_without_mark(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(text_of(LONG).encode("utf-16-le"))
    with pytest.raises(ValueError, match="save the file as UTF-8"):
        read_landmark_table(path)


def test_comments_that_a_spreadsheet_has_split_and_quoted(tmp_path):
    landmarks = LandmarkSet(("left", "right"), [[1.0, 2.0], [3.0, 4.0]], "RAS", (("left", "right"),))
    write_landmarks(tmp_path / "t.csv", landmarks)
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    for delimiter in ",;":
        width = max(map(len, rows))
        with open(tmp_path / "saved.csv", "w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([row + [""] * (width - len(row)) for row in rows])
        assert read_landmarks(tmp_path / "saved.csv") == landmarks


def test_groups_and_pairs_with_semicolons(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image;patient;x\n1.png;p, q;1,5\n2.png;r;2\n")
    assert read_groups(path, "patient", ["1.png", "2.png"]) == {"1.png": "p, q", "2.png": "r"}
    path.write_text("left;right\na, l;a, r\n")
    assert read_pairs(path, ["a, l", "a, r"]) == [("a, l", "a, r")]


def test_other_tables_with_semicolons_and_decimal_commas(tmp_path):
    path = tmp_path / "napari.csv"
    path.write_text("index;axis-0;axis-1;label\n0;12,5;40;nasion\n")
    assert read_landmarks(path).points.tolist() == [[40, 12.5]]
    path.write_text("1.png" + ";10,5;20" * 4 + "\n")
    assert points_of(path) == {"1.png": [[10.5, 20]] * 4}


NAMES = ["=1+1", "+1", "-1", "@SUM(A1)", "'=x", "''-x", "a;=cmd|' /C calc'!A0", "'", "it's", "left, -x", "T1-L", "-"]


@pytest.mark.parametrize("form", ["long", "wide"])
def test_names_that_begin_a_formula(tmp_path, form):
    path = tmp_path / "t.csv"
    sets = {
        image: LandmarkSet(NAMES, [[-1.5, 2]] * len(NAMES), "index", image=image) for image in ("=a.png", "\t@b.png")
    }
    write_landmark_table(path, sets, form)
    assert read_landmark_table(path) == sets
    for delimiter in ",;\t":
        for row in csv.reader(path.read_text().splitlines(), delimiter=delimiter):
            assert not [cell for cell in row if cell and cell[0] in "=+-@" and not cell.startswith("-1.5")]


def test_two_columns_of_one_landmark(tmp_path):
    forms = [unicodedata.normalize(form, "Ménton") for form in ("NFC", "NFD")]
    (tmp_path / "t.csv").write_text(f"image,{forms[0]}_x,{forms[0]}_y,{forms[1]}_x\n1.png,1,2,3\n")
    with pytest.raises(ValueError, match=f"line 1: landmark '{forms[0]}' has two columns 'x'"):
        read_landmark_table(tmp_path / "t.csv")


@pytest.mark.parametrize("format", ["napari", "payer"])
def test_names_that_begin_a_formula_in_other_tables(tmp_path, format):
    path = tmp_path / "t.csv"
    landmarks = LandmarkSet(NAMES[:4], np.ones((4, 2)), "index", image="=a.png")
    if format == "payer":
        write_landmark_table(path, {"=a.png": landmarks}, format=format)
        assert list(read_landmark_table(path)) == ["=a.png"]
    else:
        write_landmarks(path, landmarks, format=format)
        assert read_landmarks(path).names == landmarks.names
    assert "'=" in path.read_text() and ",=" not in path.read_text()


def test_any_text_comes_back_from_its_cell():
    random = np.random.RandomState(0)
    for _ in range(2000):
        text = "".join(random.choice(list("=+-@';,\t\nab"), random.randint(1, 8)))
        assert cell_text(text_cell(text)) == text


@pytest.mark.parametrize("suffix", [".csv", ".fcsv", ".mrk.json", ".npz"])
def test_spaces_at_the_ends_of_names_do_not_count(tmp_path, suffix):
    landmarks = LandmarkSet((" a ", "b\t"), [[1.0, 2, 3], [4, 5, 6]], "LPS", ((" a", "b"),))
    write_landmarks(tmp_path / f"t{suffix}", landmarks)
    assert read_landmarks(tmp_path / f"t{suffix}").names == landmarks.names == ("a", "b")
    assert landmarks.reorder(["b ", " a"]).points[0].tolist() == [4, 5, 6]
    with pytest.raises(ValueError, match="given more than once"):
        LandmarkSet(("a", "a "), [[1.0, 2, 3], [4, 5, 6]])


def test_columns_that_are_exchanged(tmp_path):
    path = tmp_path / "t.csv"
    with open(path, "w") as file:
        file.write("image,landmark,x,y\n")
        file.writelines(f"{i},{i},1,2\n" for i in range(4000))
    with pytest.raises(ValueError, match="4000 images and 4000 landmark names in 4000 rows"):
        read_landmark_table(path)


def test_a_table_is_read_row_by_row():
    def lines():
        yield "image,landmark,x,y\n"
        yield "a.png,dot,1,2\n"
        raise AssertionError("a later row is not needed yet")

    rows = iter(TableRows(lines()))
    assert next(rows) == (1, ["image", "landmark", "x", "y"])


def write_long_table(path, rows, per_image=20):
    with open(path, "w") as file:
        file.write("image,landmark,x,y\n")
        file.writelines(f"{i // per_image}.png,{i % per_image},{i},1.5\n" for i in range(rows))


@pytest.mark.parametrize(
    "per_image, most",  # bytes per row; a Python record for each row needs 900, and arrays of its own for each image 500
    [(20, 200), (1, 440)],
)
def test_a_long_table_costs_little_more_memory_than_its_numbers(tmp_path, per_image, most):
    write_long_table(tmp_path / "t.csv", 20_000, per_image)
    tracemalloc.start()
    sets = read_landmark_table(tmp_path / "t.csv")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(sets) == 20_000 // per_image and peak < most * 20_000


def test_what_images_share_is_checked_once(tmp_path, monkeypatch):
    checked = []
    check = LandmarkSet.__post_init__
    monkeypatch.setattr(LandmarkSet, "__post_init__", lambda self: checked.append(self) or check(self))
    write_long_table(tmp_path / "t.csv", 500, per_image=1)
    assert len(read_landmark_table(tmp_path / "t.csv")) == 500 and len(checked) < 5


def test_faulty_rows_do_not_cost_a_pass_each(tmp_path, monkeypatch):
    parsed = []
    parse = NumberCells.parse
    monkeypatch.setattr(NumberCells, "parse", lambda *args: parsed.append(args[1]) or parse(*args))
    write_long_table(tmp_path / "t.csv", 1000)
    with open(tmp_path / "t.csv", "a") as file:
        file.writelines(f"z.png,{i},?,1\n" for i in range(40))
    sets, faults = read_past_faults(tmp_path / "t.csv")
    assert len(faults) == 40 and len(sets) == 50 and len(parsed) <= 2 * 1040
