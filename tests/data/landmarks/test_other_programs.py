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


"""Files as other programs write them: read, or refused with what they are and what to do; and points without position."""

from __future__ import annotations

import json

import numpy as np
import pytest

from monai_landmarks.data import convert_landmarks, make_datalists, pair_landmarks, read_landmark_table, read_landmarks
from monai_landmarks.data.landmarks.landmark_io import read_landmark_sets

NAN = float("nan")


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["outputpoints.txt", "moved.pts"])
@pytest.mark.parametrize("dims", [2, 3])
def test_output_of_transformix(tmp_path, name, dims):
    def entry(values):
        return f"[ {' '.join(map(str, values[:dims]))} ]"

    def line(number, index, point, output):
        return (
            f"Point\t{number}\t; InputIndex = {entry(index)}\t; InputPoint = {entry(point)}\t; OutputIndexFixed = {entry(index)}"
            f"\t; OutputPoint = {entry(output)}\t; Deformation = {entry(point)}\t; OutputIndexMoving = {entry(index)}"
        )

    lines = [
        line(0, [1, 2, 3], [1.0, 2.0, 3.0], [1.5, -2.25, 3.0]),
        line(1, [4, 5, 6], [4.0, 5.0, 6.0], ["4.000000", 5.5, 6]),
    ]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    landmarks = read_landmarks(tmp_path / name, names=["a", "b"])
    assert landmarks.coordinate_system == "LPS" and landmarks.names == ("a", "b")
    assert landmarks.points.tolist() == [[1.5, -2.25, 3.0][:dims], [4.0, 5.5, 6.0][:dims]]
    (tmp_path / name).write_text(f"{lines[0]}\nPoint\t1\t; InputIndex = [ 4 5\n")
    with pytest.raises(ValueError, match="line 2: .*expected 'Point'"):
        read_landmarks(tmp_path / name)


TPS = """LM=3
0.00000 0.00000
10.50000 29.00000
-1.00000 -1.00000
CURVES=1
POINTS=2
1.0 2.0
3.0 4.0
IMAGE=one.png
ID=0
SCALE=0.025

lm=3
1 2
3 4
5 6
IMAGE=C:\\photos\\two.png
ID=1
"""


def test_tps(tmp_path, write_picture):
    path = tmp_path / "points.tps"
    path.write_text(TPS)
    with pytest.raises(
        ValueError, match="line 1: y counts from the bottom of the image 'one.png'.* convert FILE .*--images"
    ):
        read_landmark_table(path)
    write_picture(tmp_path / "images" / "one.png", 20, 30)
    write_picture(tmp_path / "images" / "two.png", 20, 40)
    # the lower left pixel, and one of the first row; whole numbers are pixel centers
    one, two = [[0, 29], [10.5, 0], [NAN, NAN]], [[1, 37], [3, 35], [5, 33]]
    result = pair_landmarks(tmp_path / "images", path)
    assert result.faults == result.absent == []
    for case, expected in zip(result.cases, (one, two)):
        np.testing.assert_array_equal(case.landmarks.points, expected)
    # a datalist has the points, because the file cannot be read without its image
    (tmp_path / "single").mkdir()
    (tmp_path / "single" / "one.tps").write_text(TPS[: TPS.index("lm=")])
    alone = pair_landmarks([tmp_path / "images" / "one.png"], tmp_path / "single")
    [datalist] = make_datalists(alone.cases, spacing=1, val_frac=0.0)
    np.testing.assert_array_equal(datalist["training"][0]["label"][:2], one[:2])
    converted = convert_landmarks(path, tmp_path / "new.csv", images=tmp_path / "images", names=["a", "b", "c"])
    assert not converted.faults
    np.testing.assert_array_equal(read_landmark_table(tmp_path / "new.csv")["one.png"].points, one)
    write_picture(tmp_path / "one.png", 20, 30)
    write_picture(tmp_path / "two.png", 20, 40)  # next to the file
    np.testing.assert_array_equal(list(read_landmark_table(path).values())[1].points, two)


def test_tps_in_3d(tmp_path):
    path = tmp_path / "points.tps"
    path.write_text("LM3=2\n1 2 3\nNA NA NA\nID=skull\n")
    landmarks = read_landmark_sets(path, names=["a", "b"], coordinate_system="LPS")["skull"]
    np.testing.assert_array_equal(landmarks.points, [[1, 2, 3], [NAN] * 3])
    assert landmarks.coordinate_system == "LPS"


@pytest.mark.parametrize(
    "file, text, system",
    [
        ("a.tps", "LM3=1\n1 2 3\nID=skull\n", "RAS"),
        ("a.csv", f"skull{',1,2,3' * 3}\n", "LPS"),
        ("a.csv", "landmark,x,y,z\na,1,2,3\n", "RAS"),
    ],
)
def test_an_assumed_coordinate_system_is_said(tmp_path, file, text, system, recwarn):
    """As a warning, or to a caller that asks; not if it is given, and not of pixels in 2-D."""
    (tmp_path / file).write_text(text)
    with pytest.warns(UserWarning, match=f"{file}: states no coordinate system, .* read as {system} in mm"):
        read_landmark_sets(tmp_path / file)
    said = []
    read_landmark_sets(tmp_path / file, assumptions=said)
    read_landmark_sets(tmp_path / file, coordinate_system="RAS", assumptions=said)
    (tmp_path / "b.csv").write_text("landmark,x,y\na,1,2\n")
    read_landmark_sets(tmp_path / "b.csv", assumptions=said)
    assert len(said) == 1 and said[0].startswith("states no") and len(recwarn) == 0


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "no line 'LM='"),
        ("1 2\n", "line 1: '1 2'; expected 'LM='"),
        ("ID=1\n", "line 1: 'ID=1'; expected 'LM='"),
        ("LM3=2\n1 2 3\nID=1\n", "line 1: 2 points are stated, but 1 follow"),
        ("LM3=1\n1 2\n", "line 2: the point is '1 2'; expected 3 numbers"),
        ("LM3=1\n1 b 2\n", "line 2: column 'y' is 'b'"),
        ("LM3=1\n1 2 3\nID=1\nLM3=1\n1 2 3\nID=1\n", "line 4: image '1' occurs twice"),
        ("LM3=1\n1 2 3\nID=1\nLM3=0\nID=2\n", "line 4: 0 points, but 1 in the first image"),
    ],
)
def test_faulty_tps(tmp_path, text, said):
    (tmp_path / "a.tps").write_text(text)
    with pytest.raises(ValueError, match=f"a.tps: {said}"):
        read_landmark_sets(tmp_path / "a.tps")


def shape(label, x, y, width=200, height=100, **more):
    return {
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"x": x, "y": y, "width": 0.5, "keypointlabels": [label]},
        "id": label,
        "from_name": "kp",
        "to_name": "image",
        "type": "keypointlabels",
        **more,
    }


def task(number, image, *results, **more):
    annotations = [{"id": number, "was_cancelled": False, "result": list(results)}]
    return {"id": number, "data": {"image": image}, "annotations": annotations, "predictions": [], **more}


def test_label_studio(tmp_path):
    rectangle = {"id": "r", "type": "rectanglelabels", "value": {"x": 1, "y": 2, "rectanglelabels": ["box"]}}
    tasks = [
        task(1, "/data/upload/3/0123abcd-one%20a.png", shape("a", 50.25, 0.5), shape("b", 0.25, 99.5), rectangle),
        task(2, "/data/local-files/?d=set/two.png", shape("b", 10, 20)),
        task(3, "/data/upload/3/0123abcd-three.png", annotations=[]),
    ]
    tasks[0]["annotations"].append({"id": 9, "was_cancelled": True, "result": []})
    path = write_json(tmp_path / "export.json", tasks)
    table = read_landmark_table(path)
    assert list(table) == ["one a.png", "two.png"]
    np.testing.assert_allclose(table["one a.png"].points, [[100, 0], [0, 99]])
    np.testing.assert_allclose(table["two.png"].points, [[NAN, NAN], [19.5, 19.5]])
    assert table["two.png"].image_size == (200, 100)


def test_label_studio_min(tmp_path):
    points = [
        {"x": 50.25, "y": 0.5, "width": 1, "keypointlabels": ["a"], "original_width": 200, "original_height": 100}
    ]
    tasks = [{"id": 1, "image": "/data/upload/1/0123abcd-1.png", "kp": points, "annotator": 1, "annotation_id": 2}]
    np.testing.assert_allclose(read_landmark_table(write_json(tmp_path / "a.json", tasks))["1.png"].points, [[100, 0]])


def test_label_studio_with_separate_labels(tmp_path):
    results = [shape("a", 50.25, 0.5, type="keypoint"), {"id": "a", "type": "labels", "value": {"labels": ["tip"]}}]
    del results[0]["value"]["keypointlabels"]
    path = write_json(tmp_path / "a.json", [task(1, "1.png", *results)])
    assert read_landmark_table(path)["1.png"].names == ("tip",)


@pytest.mark.parametrize(
    "tasks, said",
    [
        ([task(1, "1.png", shape("a", 1, 2), shape("a", 3, 4))], "two keypoints have the label 'a'"),
        ([task(1, "1.png", shape("a", 1, 2, image_rotation=90))], "the image was turned"),
        ([task(1, "1.png", shape("a", 1, 2, width=None))], "no original_width"),
        ([task(1, "1.png", shape("", 1, 2))], "expected one label"),
        ([task(1, "1.png", shape("a", 1, None))], "expected 2 numbers"),
        ([task(1, "1.png", annotations=[{"result": []}, {"result": []}])], "2 annotations; expected one"),
        ([task(1, "1.png", shape("a", 1, 2)), task(2, "1.png", shape("a", 1, 2))], "occurs twice"),
        ([task(1, "1.png", {"id": "r", "type": "rectanglelabels", "value": {}})], "but no keypoints"),
        ([task(1, "1.png", shape("a", 1, 2), shape("b", 1, 2, 300))], r"sizes \[\(200, 100\), \(300, 100\)\]"),
        ([task(1, "1.png", annotations=[{"result": None}])], "task 1: no list 'result' or no 'data'"),
        ([task(1, "1.png", shape("a", 1, 2), data=["1.png"])], "task 1: no list 'result' or no 'data'"),
        ([task(1, "1.png", shape("a", 1, 2), data={"x": "1.png", "y": "2.png"})], "2 texts .* are image files"),
        ([task(1, "1.png", shape("a", 1, 2), data={"x": "text"})], "0 texts .* are image files"),
    ],
)
def test_faulty_label_studio(tmp_path, tasks, said):
    with pytest.raises(ValueError, match=f"a.json: .*{said}"):
        read_landmark_table(write_json(tmp_path / "a.json", tasks))


FOREIGN = {
    "idav.pts": ("Version 1.0\n2\nS000 1.0 2.0 3.0\nS001 4.0 5.0 6.0\n", "IDAV Landmark Editor.*CSV"),
    "ibug.pts": ("version: 1\nn_points:  68\n{\n30.5 40.5\n}\n", "layout of iBUG.*CSV"),
    "cvat.xml": (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>',
        "CVAT.*COCO Keypoints",
    ),
    "dlib.xml": ("<?xml version='1.0'?>\n<?xml-stylesheet type='text/xsl' href='a.xsl'?>\n<dataset>\n", "dlib.*CSV"),
    "via.csv": (
        "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n",
        "VIA.*CSV",
    ),
    "via.json": ('{"1.png123": {"filename": "1.png", "size": 123, "regions": [], "file_attributes": {}}}', "VIA.*CSV"),
    "project.json": ('{"_via_settings": {}, "_via_img_metadata": {}}', "VIA.*CSV"),
    "datumaro.json": ('{"info": {}, "categories": {"points": {}}, "items": []}', "Datumaro.*COCO Keypoints"),
    "coco.json": ('{"images": [{"id": 1, "file_name": "1.png"}], "categories": []}', "COCO without annotations"),
    "dlc.csv": ("scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\n1.png,1,2\n", "DeepLabCut.*CSV"),
    "mesh.vtk": ("# vtk DataFile Version 3.0\nvtk output\nASCII\n", "VTK"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_are_not_read_are_named(tmp_path, name, write_picture):
    text, said = FOREIGN[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: holds .*{said}"):
        read_landmark_sets(tmp_path / name)
    if not name.endswith((".pts", ".csv")):
        write_picture(tmp_path / "images" / "1.png", 4, 4)
        (tmp_path / "points").mkdir()
        (tmp_path / name).rename(tmp_path / "points" / name)
        with pytest.raises(ValueError, match=rf"no landmark file in it.*\n.*{name}: holds .*{said}"):
            pair_landmarks(tmp_path / "images", tmp_path / "points")


@pytest.mark.parametrize(
    "keypoints", [[], None, [0, 0, 0, 0, 0, 0], [None, None, 0, NAN, NAN, 0], [NAN, NAN, 2, 0, 0, 0]]
)
def test_coco_without_keypoints(tmp_path, keypoints):
    content = {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
        "categories": [{"id": 1, "name": "hand", "keypoints": ["a", "b"]}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 1]},
            {"id": 2, "image_id": 2, "category_id": 1, "keypoints": keypoints, "num_keypoints": 0},
        ],
    }
    table = read_landmark_table(write_json(tmp_path / "a.json", content))
    assert table["1.png"].points.tolist() == [[1, 2], [3, 4]] and table["2.png"].missing.all()


def test_labelme_without_type_and_without_position(tmp_path):
    shapes = [
        {"label": "a", "points": [[1.5, 2.5]]},
        {"label": "b", "points": [[3.5, 4.5]], "shape_type": None},
        {"label": "outline", "points": [[0, 0], [1, 1], [2, 0]]},
        {"label": "c", "points": [[NAN, NAN]], "shape_type": "point"},
        {"label": "d", "points": [], "shape_type": "point"},
        {"label": "e", "points": [[None, None]], "shape_type": "point"},
    ]
    landmarks = read_landmarks(write_json(tmp_path / "a.json", {"shapes": shapes}))
    assert landmarks.names == ("a", "b", "c", "d", "e")
    np.testing.assert_array_equal(landmarks.points, [[1, 2], [3, 4], [NAN, NAN], [NAN, NAN], [NAN, NAN]])


@pytest.mark.parametrize("position", [None, "", [], [None, None, None], [NAN, NAN, NAN]])
def test_markups_without_position(tmp_path, position):
    points = [{"label": "a", "position": [1, 2, 3]}, {"label": "b", "position": position, "positionStatus": "defined"}]
    content = {"markups": [{"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": points}]}
    landmarks = read_landmarks(write_json(tmp_path / "a.mrk.json", content))
    np.testing.assert_array_equal(landmarks.points, [[1, 2, 3], [NAN] * 3])
    points[1]["position"] = [1, None, 3]
    with pytest.raises(ValueError, match="expected 3 numbers"):
        read_landmarks(write_json(tmp_path / "a.mrk.json", content))
