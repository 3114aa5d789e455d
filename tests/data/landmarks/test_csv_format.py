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

import numpy as np
import pytest

from monai_landmarks.data import LandmarkSet, read_landmark_table, read_landmarks, write_landmark_table, write_landmarks

NAN = float("nan")


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("form", ["long", "wide"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("system", ["RAS", "LPS", "index"])
@pytest.mark.parametrize("scored", [False, True])
def test_table_round_trip(tmp_path, form, dims, system, scored):
    random = np.random.RandomState(0)
    names = ("T1_x", 'quo"ted', "with, comma", "ä ö", "#5")
    sets = {}
    for image in ("1.png", "sub/2,3.png"):
        points = random.normal(size=(5, dims)) * 10.0 ** random.randint(-12, 12, (5, dims))
        points[random.randint(5)] = NAN
        scores = np.array([0.5, NAN, 1, 1e-9, 0]) if scored else None
        sets[image] = LandmarkSet(names, points, system, (("T1_x", "ä ö"), ("#5", "with, comma")), image, scores)
    write_landmark_table(tmp_path / "new" / "table.csv", sets, form)
    assert read_landmark_table(tmp_path / "new" / "table.csv") == sets
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["table.csv"]


def test_differing_names_are_missing_in_long_form(tmp_path):
    path = write(tmp_path / "a.csv", "image,landmark,x,y\n1,a,1,2\n1,b,3,4\n2,c,5,6\n2,a,7,8\n")
    table = read_landmark_table(path)
    assert all(landmarks.names == ("a", "b", "c") for landmarks in table.values())
    np.testing.assert_array_equal(table["1"].points, [[1, 2], [3, 4], [NAN, NAN]])
    np.testing.assert_array_equal(table["2"].points, [[7, 8], [NAN, NAN], [5, 6]])


def test_text_as_other_programs_write_it(tmp_path):
    text = (
        "# coordinate_system = lps,,,,\r\n# made by hand\r\n\r\nImage,Landmark,X,Y,Z\r\n"
        ' 1.nii ,a,1e1, -2.5E-3 ,+3\r\n\r\n,,,,\r\n1.nii,"b, too",NaN,,na\r\n'
    )
    (landmarks,) = read_landmark_table(write(tmp_path / "a.csv", text, "utf-8-sig")).values()
    assert landmarks.names == ("a", "b, too") and landmarks.coordinate_system == "LPS"
    np.testing.assert_array_equal(landmarks.points, [[10, -0.0025, 3], [NAN] * 3])


@pytest.mark.parametrize("header, system", [("landmark,x,y", "index"), ("landmark,x,y,z", "RAS")])
def test_coordinate_system_where_the_file_states_none(tmp_path, header, system):
    path = write(tmp_path / "a.csv", f"{header}\na,1,2{',3' * header.count('z')}\n")
    assert read_landmarks(path).coordinate_system == system


@pytest.mark.parametrize("size", ["pixel_size", "Spacing", "pixel spacing", "voxel_size_mm", "image_size", "pixdim"])
def test_a_pixel_size_is_no_landmark(tmp_path, size):
    """Neither in its own columns nor as the dimension of the points; the user is told."""
    text = f"image,nasion_x,nasion_y,{size}_x,{size}_y,{size}_z\n1,3,4,0.5,0.5,2\n"
    path = write(tmp_path / "a.csv", text)
    with pytest.warns(UserWarning, match=f"a.csv: the columns {size}_x, {size}_y, {size}_z are not .*--spacing"):
        landmarks = read_landmark_table(path)["1"]
    assert landmarks.names == ("nasion",) and landmarks.points.tolist() == [[3, 4]]
    sets = {"1": LandmarkSet((size,), [[1.0, 2.0]], "index")}
    with pytest.raises(ValueError, match="taken for a pixel size"):
        write_landmark_table(tmp_path / "b.csv", sets, "wide")
    write_landmark_table(tmp_path / "b.csv", sets)
    assert read_landmark_table(tmp_path / "b.csv")["1"].names == (size,)


def test_coordinate_system_can_be_given_but_not_contradicted(tmp_path):
    plain = write(tmp_path / "a.csv", "image,landmark,x,y\n1,a,1,2\n")
    assert read_landmark_table(plain, "LPS")["1"].coordinate_system == "LPS"
    stated = write(tmp_path / "b.csv", "# coordinate_system=RAS\nimage,landmark,x,y\n1,a,1,2\n")
    with pytest.raises(ValueError, match="b.csv: states coordinate_system=RAS, but LPS was asked for"):
        read_landmark_table(stated, "LPS")


def test_other_columns_are_ignored(tmp_path):
    path = write(tmp_path / "a.csv", "patient,image,i,landmark,y,x\n7,1,0,a,2,1\n")
    assert read_landmark_table(path)["1"].points.tolist() == [[1, 2]]
    path = write(tmp_path / "b.csv", "image,age,a_y,a_x,A_x,A_y,,\n1,50,2,1,3,4,,\n")
    assert read_landmark_table(path)["1"].points.tolist() == [[1, 2], [3, 4]]


def test_one_set_keeps_its_image(tmp_path):
    for image in (None, "1.png"):
        landmarks = LandmarkSet(("a",), [[1, 2]], "index", image=image)
        write_landmarks(tmp_path / "a.csv", landmarks)
        assert read_landmarks(tmp_path / "a.csv") == landmarks


def test_header_alone_is_no_landmarks(tmp_path):
    assert read_landmark_table(write(tmp_path / "a.csv", "image,landmark,x,y\n")) == {}


MALFORMED = [
    ("", "no header"),
    ("# only a comment\n", "no header"),
    ("name,x,y\na,1,2\n", "line 1: the header is 'name,x,y'; expected"),
    ("image,landmark,x,x,y\n", "occurs twice"),
    ("image,landmark,X,x,y\n", "occurs twice"),
    ("image,landmark,x,y\n1,a,1,2\n1,b,one,2\n", "line 3: column 'x' is 'one'; expected a number"),
    ("image,landmark,x,y\n1,a,1_0,2\n", "line 2: column 'x' is '1_0'"),
    ("image,landmark,x,y\n1,a,inf,2\n", "line 2: column 'x' is 'inf'"),
    ("# comment\n\nimage,landmark,x,y\n\n1,a,1\n", "line 5: 3 columns; expected 4"),
    ("image,landmark,x,y\n1,a,1,2,3\n", "line 2: 5 columns; expected 4"),
    ("image,landmark,x,y\n1,a,1,2\n2,a,1,2\n1,a,3,4\n", "line 4: landmark 'a' of image '1' is also in line 2"),
    ("image,landmark,x,y\n1,a,1,\n", "line 2: landmark 'a' is at .*expected 2 numbers, or none"),
    ("image,landmark,x,y\n,a,1,2\n", "line 2: column 'image' is blank"),
    ("image,landmark,x,y\n1,,1,2\n", "line 2: column 'landmark' is blank"),
    ("# coordinate_system=MNI\nimage,landmark,x,y\n1,a,1,2\n", "'MNI' is unknown; expected one of RAS, LPS, index"),
    ("# pairs=a-b\nimage,landmark,x,y\n1,a,1,2\n", "pairs is 'a-b'; expected"),
    ('# pairs=[["a","b"]]\nimage,landmark,x,y\n1,a,1,2\n', "names 'b', which is not among"),
    ('image,landmark,x,y\n1,"a,1,2\n', "not comma-separated text"),
    ("image,a_x,a_y\n1,1,2\n1,3,4\n", "line 3: image '1' is also in line 2"),
    ("image,a_x,b_y\n1,1,2\n", "line 1: landmark 'a' has no column 'a_y'"),
    ("image,a_x,a_y,a_z,b_x,b_y\n", "line 1: landmark 'b' has no column 'b_z'"),
    ("image,a_x,a_y\n1,1,bad\n", "line 2: column 'a_y' is 'bad'"),
    ("image,a_x,a_y\n,1,2\n", "line 2: column 'image' is blank"),
    ("image,x,y\n1,1,2\n", "no landmark in the header"),
    ("landmark,x,y\na,1,2\n", "use read_landmarks"),
]


@pytest.mark.parametrize("text, message", MALFORMED)
def test_malformed_table_names_file_and_line(tmp_path, text, message):
    path = write(tmp_path / "bad.csv", text)
    with pytest.raises(ValueError, match=rf"bad\.csv: .*{message}"):
        read_landmark_table(path)


def test_other_errors(tmp_path):
    latin = write(tmp_path / "latin.csv", "landmark,x,y\nä,1,2\n", "latin-1")
    with pytest.raises(ValueError, match=r"latin\.csv: byte 13 is not UTF-8"):
        read_landmarks(latin)
    many = write(tmp_path / "many.csv", "image,landmark,x,y\n1,a,1,2\n2,a,1,2\n")
    with pytest.raises(ValueError, match=r"many\.csv: holds 2 images; read it with read_landmark_table"):
        read_landmarks(many)
    one, other = (LandmarkSet(("a",), [[1, 2]], system) for system in ("RAS", "index"))
    with pytest.raises(ValueError, match="expected one coordinate system"):
        write_landmark_table(tmp_path / "new.csv", {"1": one, "2": other})
    with pytest.raises(ValueError, match="some landmark sets are 2-D and some 3-D"):
        write_landmark_table(tmp_path / "new.csv", {"1": one, "2": one.with_spatial_dims(3)})
    with pytest.raises(ValueError, match="form is 'tall'"):
        write_landmark_table(tmp_path / "new.csv", {"1": one}, form="tall")
    assert not (tmp_path / "new.csv").exists()


def test_real_tables(mouse_skull_ct_root, isbi2015_root):
    mice = read_landmark_table(mouse_skull_ct_root / "landmarks.csv")
    assert len(mice) == 36 and {landmarks.points.shape for landmarks in mice.values()} == {(45, 3)}
    heads = read_landmark_table(isbi2015_root / "landmarks.csv")
    assert len(heads) == 300 and heads["001.jpg"].points[0].tolist() == [277.0, 330.83]


@pytest.mark.parametrize(
    "comment", ["coordinate_system=LPS", "CoordinateSystem = LPS", "coordinatesystem=LPS", "Coordinate System: LPS"]
)
def test_spellings_of_the_coordinate_system(tmp_path, comment):
    path = tmp_path / "points.csv"
    path.write_text(f"# {comment}\nlandmark,x,y,z\na,1,2,3\n")
    assert read_landmarks(path).coordinate_system == "LPS"
