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

import jsonschema
import numpy as np
import pytest
import SimpleITK
from markups_schema import MARKUPS_SCHEMA

from monai_landmarks.data import LandmarkSet, read_landmarks, write_landmarks

NAN = float("nan")


def control_point(label, position, status="defined", **kwargs):
    """A control point as Slicer 5 writes it."""
    return {
        "id": "1",
        "label": label,
        "description": "",
        "associatedNodeID": "vtkMRMLScalarVolumeNode1",
        "position": position,
        "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": status,
        **kwargs,
    }


def markups(*points, **kwargs):
    node = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": list(points),
        "measurements": [],
        "display": {"visibility": True, "opacity": 1.0},
        **kwargs,
    }
    return {key: value for key, value in node.items() if value is not None}


def save(path, *nodes):
    url = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    path.write_text(json.dumps({"@schema": url + "markups-schema-v1.0.3.json#", "markups": list(nodes)}))
    return path


@pytest.mark.parametrize("system", ["RAS", "LPS"])
@pytest.mark.parametrize("dims", [2, 3])
def test_written_markups_keep_the_schema(tmp_path, system, dims):
    landmarks = LandmarkSet(("a", "b"), [[1.0] * dims, [NAN] * dims], system, scores=[0.75, NAN])
    write_landmarks(tmp_path / "a.mrk.json", landmarks)
    content = json.loads((tmp_path / "a.mrk.json").read_text())
    jsonschema.validate(content, MARKUPS_SCHEMA)
    (node,) = content["markups"]
    assert node["type"] == "Fiducial" and node["coordinateSystem"] == system
    first, second = node["controlPoints"]
    assert first["position"] == [1.0, 1.0, 1.0 if dims == 3 else 0.0] and first["positionStatus"] == "defined"
    assert first["description"] == "score=0.75"
    assert "position" not in second and second["positionStatus"] == "undefined" and second["description"] == ""


def test_reads_what_slicer_writes(tmp_path):
    node = markups(
        control_point("nasion", [1.5, -2, 3]),
        control_point("unplaced", "", "undefined"),  # Slicer writes "" for no position
        control_point("hovering", [9, 9, 9], "preview"),
        control_point("skipped", "", "missing"),
        control_point("hidden", [4, 5, 6], visibility=False, description="by hand score=0.5"),
    )
    landmarks = read_landmarks(save(tmp_path / "F.mrk.json", node))
    assert landmarks.names == ("nasion", "unplaced", "hovering", "skipped", "hidden")
    assert landmarks.coordinate_system == "LPS"
    expected = [[1.5, -2, 3], [NAN] * 3, [NAN] * 3, [NAN] * 3, [4, 5, 6]]
    np.testing.assert_array_equal(landmarks.points, expected)
    np.testing.assert_array_equal(landmarks.scores, [NAN, NAN, NAN, NAN, 0.5])


def test_short_form_of_slicers_manual(tmp_path):
    node = {"type": "PointList", "controlPoints": [{"label": "F-1", "position": [1, 2, 3]}, {"label": "F-2"}]}
    landmarks = read_landmarks(save(tmp_path / "a.mrk.json", node))
    assert landmarks.coordinate_system == "LPS" and landmarks.scores is None
    np.testing.assert_array_equal(landmarks.points, [[1, 2, 3], [NAN] * 3])


def test_several_point_lists_become_one_set_in_one_space(tmp_path):
    one = markups(control_point("a", [1, 2, 3]), coordinateSystem="RAS")
    line = markups(control_point("end", [0, 0, 0]), type="Line")
    two = markups(control_point("b", [1000, 2000, 3000]), coordinateUnits="um")
    three = markups(control_point("c", [1, 2, 3]), coordinateUnits=["mm", "UCUM", "millimeter"])
    landmarks = read_landmarks(save(tmp_path / "a.mrk.json", one, line, two, three))
    assert landmarks.names == ("a", "b", "c") and landmarks.coordinate_system == "RAS"
    assert landmarks.points.tolist() == [[1, 2, 3], [-1, -2, 3], [-1, -2, 3]]


@pytest.mark.parametrize("nodes", [(), (markups(),), (markups(controlPoints=None),)])
def test_point_list_without_points(tmp_path, nodes):
    landmarks = read_landmarks(save(tmp_path / "a.mrk.json", *nodes))
    assert len(landmarks) == 0 and landmarks.spatial_dims == 3


@pytest.mark.parametrize(
    "node, message",
    [
        (markups(type="ROI"), r"of type \['ROI'\], but no point list; expected type 'Fiducial'"),
        (markups(coordinateSystem="IJK"), r"markups\[0\]: coordinateSystem is 'IJK'; expected 'LPS' or 'RAS'"),
        (markups(coordinateUnits="cm"), r"coordinateUnits is 'cm'; expected one of"),
        (markups(control_point("a", [1, 2])), r"controlPoints\[0\] \('a'\): position is \[1, 2\]; expected 3"),
        (markups(control_point("a", [1, 2, "3"])), "expected 3 numbers"),
        (markups(control_point("a", [1, 2, NAN])), "expected 3 numbers"),
        (markups(control_point("a", "b")), "position is 'b'; expected 3 numbers"),
        (markups(control_point("", [1, 2, 3])), "no label"),
        (markups(control_point("a", [1, 2, 3], "maybe")), "positionStatus is 'maybe'; expected"),
        (markups(*[control_point("a", [1, 2, 3])] * 2), r"more than once: \['a'\]"),
        (markups(controlPoints={}) | {"controlPoints": {"a": 1}}, "controlPoints is not a list"),
        (7, "no list 'markups'"),
    ],
)
def test_malformed_markups(tmp_path, node, message):
    with pytest.raises(ValueError, match=rf"a\.mrk\.json: .*{message}"):
        read_landmarks(save(tmp_path / "a.mrk.json", node))


def test_markups_cut_short(tmp_path):
    path = save(tmp_path / "a.mrk.json", markups(control_point("a", [1, 2, 3])))
    text = json.dumps(json.loads(path.read_text()), indent=1)
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"a\.mrk\.json: line \d\d+: not valid JSON .*cut short"):
        read_landmarks(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no list 'markups'"):
        read_landmarks(path)


COLUMNS = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
ROW = "vtkMRMLMarkupsFiducialNode_{},{},{},{},0,0,0,1,1,1,0,{},,vtkMRMLScalarVolumeNode1"


@pytest.mark.parametrize(
    "header, system",
    [
        ("# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n" + COLUMNS, "RAS"),
        ("# Markups fiducial file version = 4.10\n# CoordinateSystem = 1\n" + COLUMNS, "LPS"),
        ("# Markups fiducial file version = 4.10\n# CoordinateSystem = 2\n" + COLUMNS, "index"),
        ("# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n" + COLUMNS, "LPS"),
        ("# Markups fiducial file version = 5.6\n# CoordinateSystem = RAS\n" + COLUMNS, "RAS"),
        ("# Markups fiducial file version = 4.1\n" + COLUMNS, "RAS"),
        ("# Markups fiducial file version = 4.1\n", "RAS"),
    ],
)
@pytest.mark.parametrize("status", ["", ",2,0"])
def test_fcsv_of_every_version(tmp_path, header, system, status):
    path = tmp_path / "F.fcsv"
    rows = [ROW.format(1, 1.5, -2, "3e1", "F-1"), ROW.format(2, 4, 5, 6, '"left, ""lower"""')]
    path.write_bytes((header + "\n".join(row + status for row in rows) + "\n").replace("\n", "\r\n").encode())
    landmarks = read_landmarks(path)
    assert landmarks.names == ("F-1", 'left, "lower"') and landmarks.coordinate_system == system
    assert landmarks.points.tolist() == [[1.5, -2, 30], [4, 5, 6]]


def test_fcsv_missing_and_hidden(tmp_path):
    rows = [
        "1,1,2,3,0,0,0,1,0,1,0,hidden,score=0.5,,2,0",
        "2,0,0,0,0,0,0,1,1,1,0,undefined,,,0,0",
        "3,0,0,0,0,0,0,1,1,1,0,preview,,,1,0",
        "4,nan,nan,nan,0,0,0,1,1,1,0,nan,,",
    ]
    path = tmp_path / "F.fcsv"
    path.write_text("# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n" + COLUMNS + "\n".join(rows))
    landmarks = read_landmarks(path)
    assert landmarks.names == ("hidden", "undefined", "preview", "nan")
    assert landmarks.missing.tolist() == [False, True, True, True]
    assert landmarks.scores[0] == 0.5


def test_fcsv_of_slicer_3_and_of_other_columns(tmp_path):
    path = tmp_path / "F.fcsv"
    path.write_text("# name = F\n# numPoints = 1\nP1,1,2,3,1,1\n")
    assert read_landmarks(path).names == ("P1",) and read_landmarks(path).coordinate_system == "RAS"
    path.write_text("# columns = label,z,y,x\nP1,1,2,3\n")
    assert read_landmarks(path).points.tolist() == [[3, 2, 1]]
    path.write_text("# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n" + COLUMNS)
    assert len(read_landmarks(path)) == 0


@pytest.mark.parametrize(
    "text, message",
    [
        (COLUMNS + "1,1,2\n", "line 2: 3 columns; expected 14"),
        (COLUMNS + "\n" + ROW.format(1, 1, "two", 3, "a"), "line 3: column 'y' is 'two'"),
        (COLUMNS + ROW.format(1, 1, "", 3, "a"), "line 2: landmark 'a' is at"),
        (COLUMNS + ROW.format(1, 1, 2, 3, ""), "line 2: column 'label' is blank"),
        (
            COLUMNS + ROW.format(1, 1, 2, 3, "a") + "\n" + ROW.format(2, 1, 2, 3, "a"),
            "line 3: landmark 'a' occurs twice",
        ),
        (COLUMNS + ROW.format(1, 1, 2, 3, "a") + ",2,0,7\n", "line 2: 17 columns"),
        ("# CoordinateSystem = 7\n" + COLUMNS, "CoordinateSystem is '7'; expected one of"),
        ("# columns = label,x,y\na,1,2\n", "expected 'z' among them"),
        ("", "empty or cut short"),
        ("# Markups fiducial file version = 5.6\n# CoordinateSystem = LPS\n", "empty or cut short"),
    ],
)
def test_malformed_fcsv(tmp_path, text, message):
    (tmp_path / "a.fcsv").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.fcsv: .*{message}"):
        read_landmarks(tmp_path / "a.fcsv")


def test_picture_lies_where_itk_has_it(tmp_path, write_picture):
    """A landmark of a PNG with spacing s, brought to Slicer's LPS, lies where ITK puts its pixel."""
    from monai_landmarks.data.images.image_files import read_geometry

    spacing, pixel = (0.3, 0.5), (33, 7)
    write_picture(tmp_path / "a.png", 60, 40)
    image = SimpleITK.ReadImage(str(tmp_path / "a.png"))
    image.SetSpacing(spacing)
    expected = image.TransformIndexToPhysicalPoint(pixel)
    shape, affine = read_geometry(tmp_path / "a.png", spacing)
    assert shape == image.GetSize()
    write_landmarks(tmp_path / "a.mrk.json", LandmarkSet(("a",), [pixel], "index").to_world(affine).to("LPS"))
    (point,) = json.loads((tmp_path / "a.mrk.json").read_text())["markups"][0]["controlPoints"]
    np.testing.assert_allclose(point["position"][:2], expected)
    np.testing.assert_allclose(point["position"], [0.3 * 33, 0.5 * 7, 0])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_volume_lies_where_itk_has_it(tmp_path, suffix):
    from monai_landmarks.data.images.image_files import read_geometry, read_header

    image = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6), np.float32))
    image.SetSpacing((0.5, 2, 3))
    image.SetOrigin((-10, 20, 30))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
    shape, affine = read_geometry(tmp_path / f"a{suffix}")
    assert shape == (6, 5, 4)
    world = LandmarkSet(("a",), [[1, 2, 3]], "index").to_world(affine).to("LPS")
    np.testing.assert_allclose(world.points[0], image.TransformIndexToPhysicalPoint((1, 2, 3)), atol=1e-5)
    by_header = read_header(tmp_path / f"a{suffix}")
    assert by_header[0] == shape and np.array_equal(by_header[1], affine)
