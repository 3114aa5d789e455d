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

"""Landmark files converted from the command line."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from monai_landmarks.apps.convert import FORMATS
from monai_landmarks.apps.main import program
from monai_landmarks.data import landmark_formats, read_landmark_table, read_landmarks
from monai_landmarks.data.landmarks.landmark_io import landmark_format

TABLE = "image,landmark,x,y\n1.png,nose,10,20\n1.png,chin,30,40\n2.png,nose,5,6\n"


def convert(*arguments):
    return CliRunner().invoke(program, ["convert", *map(str, arguments)])


def test_the_help_has_every_format():
    assert list(FORMATS) == landmark_formats()
    lines = CliRunner().invoke(program, ["convert", "--help"]).stdout.splitlines()
    for name in FORMATS:
        [line] = [line for line in lines if line.split()[:1] == [name]]
        assert line.split()[1] == landmark_format(name).suffix


def test_a_table_to_files_and_back(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    done = convert(tmp_path / "table.csv", tmp_path / "files", "--to", "labelme")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{tmp_path / 'files' / f'{i}.json'}: {i}.png" for i in (1, 2)]
    shapes = json.loads((tmp_path / "files" / "1.json").read_text())["shapes"]
    assert {shape["label"]: shape["points"][0] for shape in shapes} == {"nose": [10.5, 20.5], "chin": [30.5, 40.5]}
    done = convert(tmp_path / "files", tmp_path / "back.csv")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'back.csv'}: 2 images\n")
    back = read_landmark_table(tmp_path / "back.csv")
    assert back["1.png"].points.tolist() == [[10, 20], [30, 40]] and back["2.png"].reorder(
        ["nose"]
    ).points.tolist() == [[5, 6]]


@pytest.mark.parametrize("option, scale", [((), 1), (("--spacing", "0.5"), 0.5)])
def test_pixels_to_slicer_through_the_image(tmp_path, option, scale):
    Image.new("L", (60, 50)).save(tmp_path / "2.png")
    (tmp_path / "2.txt").write_text("point\n2\n10 20\n30 40\n".replace("point", "index"))
    arguments = (tmp_path / "2.txt", tmp_path / "2.mrk.json", "--images", tmp_path / "2.png", *option)
    (tmp_path / "names.txt").write_text("nose\n\nchin\n")
    for names in ("nose,chin", tmp_path / "names.txt"):
        done = convert(*arguments, "--names", names)
        assert done.exit_code == 0, done.stderr
        slicer = read_landmarks(tmp_path / "2.mrk.json").to("LPS")  # where ITK has the pixels of a picture
        assert slicer.names == ("nose", "chin")
        np.testing.assert_allclose(slicer.points, scale * np.array([[10, 20, 0], [30, 40, 0]]))
        if scale == 1:
            assert done.stderr == ""
        else:  # 3D Slicer shows the pixels of this picture with 1 mm
            [note] = [line for line in done.stderr.splitlines() if line.startswith("note: 2.png")]
            assert "in use is 0.5 x 0.5 mm" in note and "show this .png file with 1 x 1 mm" in note


def test_a_third_value_of_the_spacing_is_not_ignored(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    done = convert(tmp_path / "table.csv", tmp_path / "out.csv", "--spacing", "1,1,2")
    assert done.exit_code == 1 and "the spacing 1,1,2 has 3 values" in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_what_is_assumed_about_the_source_is_said(tmp_path):
    """Also if the source is a folder; once per file, with the option of this command."""
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in/{name}.csv").write_text("landmark,x,y,z\nnose,1,2,3\n")
    done = convert(tmp_path / "in", tmp_path / "out", "--to", "mrk.json")
    assert done.exit_code == 0
    assert [line.partition(": states")[0] for line in done.stderr.splitlines()] == [
        f"note: {tmp_path / 'in' / name}.csv" for name in "ab"
    ]
    assert "read as RAS in mm" in done.stderr and "(--source-coordinate-system LPS, RAS or index)" in done.stderr
    done = convert(tmp_path / "in", tmp_path / "out", "--to", "mrk.json", "--source-coordinate-system", "RAS")
    assert (done.exit_code, done.stderr) == (0, "")


def test_coordinate_systems(tmp_path):
    (tmp_path / "ants.csv").write_text("image,landmark,x,y,z\nhead,nose,1,2,3\n")
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9)), np.diag([2, 2, 2, 1])), tmp_path / "head.nii")
    stated = ("--source-coordinate-system", "LPS", "--images", tmp_path / "head.nii")
    done = convert(tmp_path / "ants.csv", tmp_path / "index.csv", *stated, "--coordinate-system", "index")
    assert done.exit_code == 0, done.stderr
    [landmarks] = read_landmark_table(tmp_path / "index.csv").values()
    assert landmarks.points.tolist() == [[-0.5, -1, 1.5]]


def test_faults_are_listed_and_the_rest_is_done(tmp_path):
    (tmp_path / "in").mkdir()
    for name, text in {"1.csv": "landmark,x,y\nnose,1,2\n", "2.csv": "landmark,x,y\nnose,1,two\n", "3.csv": ""}.items():
        (tmp_path / "in" / name).write_text(f"# coordinate_system=index\n{text}" if text else "")
    done = convert(tmp_path / "in", tmp_path / "out", "--to", "npz")
    assert (done.exit_code, done.stdout) == (1, f"{tmp_path / 'out' / '1.npz'}: 1\n")
    faults = done.stderr.splitlines()
    assert faults[1] == "faults (2):" and "2.csv: line 3: column 'y' is 'two'" in faults[2] and "3.csv" in faults[3]
    # one file for all of them is written only if there is no fault
    done = convert(tmp_path / "in", tmp_path / "all.csv")
    assert (done.exit_code, done.stdout) == (1, "") and not (tmp_path / "all.csv").exists()


def test_replaced_files_are_not_lost(tmp_path):
    table, new = tmp_path / "points.csv", tmp_path / "new"
    table.write_text("image,landmark,x,y\n1.png,a,10,20\n2.png,a,30,40\n")
    new.mkdir()
    (new / "1.json").write_text("corrected in LabelMe")
    for _ in range(2):  # files with the same contents need no copies
        result = convert(table, new, "--to", "labelme")
        assert result.exit_code == 0
        assert {path.name for path in new.iterdir()} == {"1.json", "2.json", "1.json.bak"}
    assert (new / "1.json.bak").read_text() == "corrected in LabelMe" and "copies" not in result.stderr
    (new / "1.json").write_text("corrected again")
    assert f"copies of replaced files are kept: {new / '1.json.bak2'}." in convert(table, new, "--to", "labelme").stderr
    assert (new / "1.json.bak2").read_text() == "corrected again"


def test_many_names(tmp_path):
    """They are longer than a file name can be; and a name may hold what str.splitlines takes for the end of a line."""
    names = [f"landmark {i}" for i in range(100)]
    (tmp_path / "points.pts").write_text("point\n100\n" + "1 2 3\n" * 100)
    done = convert(tmp_path / "points.pts", tmp_path / "new.mrk.json", "--names", ",".join(names))
    assert done.exit_code == 0 and read_landmarks(tmp_path / "new.mrk.json").names == tuple(names), done.output
    names[0] = "left\x85right"
    (tmp_path / "names.txt").write_text("\n".join(names), encoding="utf-16")
    done = convert(tmp_path / "points.pts", tmp_path / "new.mrk.json", "--names", tmp_path / "names.txt")
    assert done.exit_code == 0 and read_landmarks(tmp_path / "new.mrk.json").names == tuple(names), done.output


def test_wrong_use(tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    assert convert(tmp_path / "table.csv", tmp_path / "out").stderr.startswith(
        f"Error: {tmp_path / 'out'}: the name has no suffix of a landmark format"
    )
    done = convert(tmp_path / "table.csv", tmp_path / "out", "--to", "aasce")
    assert done.stderr == "Error: files of format 'aasce' can be read, but not written.\n"
    assert convert(tmp_path / "table.csv", tmp_path / "out", "--to", "docx").exit_code == 2
    (tmp_path / "names.xls").write_bytes(b"\xd0\xcf\x11\xe0")
    done = convert(tmp_path / "table.csv", tmp_path / "out", "--names", tmp_path / "names.xls")
    assert done.exit_code == 2 and "names.xls is not a text file; expected one name per line." in done.stderr
    assert not (tmp_path / "out").exists()


def test_points_without_z_are_not_put_into_the_first_slice_of_a_volume(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 5), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "table.csv").write_text("image,landmark,x,y\na.nii.gz,p,1,2\n")
    done = convert(tmp_path / "table.csv", tmp_path / "out", "--to", "mrk.json", "--images", tmp_path / "a.nii.gz")
    assert done.exit_code == 1 and "are 2-D, but the image has the shape (9, 9, 5)" in done.stderr + done.stdout
    assert not list((tmp_path / "out").glob("*.mrk.json"))
