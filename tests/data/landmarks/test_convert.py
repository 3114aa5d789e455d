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
import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from monai_landmarks.data import (
    LandmarkSet,
    convert_landmarks,
    read_landmark_table,
    read_landmarks,
    write_landmark_table,
    write_landmarks,
)

NAN = float("nan")
AFFINE = np.array([[0, -2, 0, 5], [1.5, 0, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1.0]])


def volume(path, shape=(12, 14, 16)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), AFFINE), path)
    return path


def picture(path, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path)
    return path


def files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


TWO = {
    "1.png": LandmarkSet(("a", "b"), [[1, 2], [NAN, NAN]], "index", image="1.png"),
    "2.png": LandmarkSet(("a", "b"), [[3.5, 4], [5, 6]], "index", image="2.png"),
}


def write_two(path, **kwargs):
    write_landmark_table(path, TWO, **kwargs)
    return path


def test_one_file_to_another(tmp_path):
    landmarks = LandmarkSet(("a", "b"), [[1, 2, 3], [NAN] * 3], "RAS", scores=[0.5, NAN])
    write_landmarks(tmp_path / "a.mrk.json", landmarks)
    result = convert_landmarks(tmp_path / "a.mrk.json", tmp_path / "new" / "a.fcsv")
    assert result.faults == () and [file.path for file in result.written] == [tmp_path / "new" / "a.fcsv"]
    assert read_landmarks(tmp_path / "new" / "a.fcsv") == landmarks
    convert_landmarks(tmp_path / "a.mrk.json", tmp_path / "a.csv", coordinate_system="LPS")
    assert read_landmarks(tmp_path / "a.csv") == landmarks.to("LPS")


@pytest.mark.parametrize("format, suffix", [("coco", ".json"), ("csv", ".csv"), ("nnlandmark.json", ".json")])
@pytest.mark.parametrize("single", ["labelme", "napari", "csv"])
def test_a_table_to_files_and_back(tmp_path, format, suffix, single):
    table = write_two(tmp_path / f"table{suffix}", format=format)
    there = convert_landmarks(table, tmp_path / "files", destination_format=single)
    assert there.faults == () and [file.images for file in there.written] == [("1.png",), ("2.png",)]
    assert files(tmp_path / "files") == [f"{i}.{'json' if single == 'labelme' else 'csv'}" for i in (1, 2)]
    back = convert_landmarks(tmp_path / "files", tmp_path / f"back{suffix}", destination_format=format)
    assert back.faults == () and [len(file.images) for file in back.written] == [2]
    result = read_landmark_table(tmp_path / f"back{suffix}", format=format)
    keys = ["1", "2"] if single == "napari" else ["1.png", "2.png"]  # napari's files do not name the image
    assert list(result) == keys
    for key, expected in zip(keys, TWO.values()):
        np.testing.assert_array_equal(result[key].reorder(("a", "b")).points, expected.points)


def test_a_folder_keeps_its_folders(tmp_path):
    for name in ("x/1", "y/1"):
        write_landmarks(tmp_path / "in" / f"{name}.csv", LandmarkSet(("a",), [[1, 2]], "index"))
    result = convert_landmarks(tmp_path / "in", tmp_path / "out", destination_format="labelme")
    assert files(tmp_path / "out") == ["x/1.json", "y/1.json"] and result.faults == ()


def test_between_pixels_and_the_world_through_the_images(tmp_path):
    """Where SimpleITK puts the voxels, in LPS; and back."""
    index = LandmarkSet(("a", "b"), [[1.25, 3, 5], [NAN] * 3], "index")
    for name in ("case_1", "case_2"):
        volume(tmp_path / "images" / f"{name}.nii.gz")
        write_landmarks(tmp_path / "index" / f"{name}.csv", index)
    forth = convert_landmarks(
        tmp_path / "index",
        tmp_path / "world",
        destination_format="mrk.json",
        images=tmp_path / "images",
        coordinate_system="LPS",
    )
    assert forth.faults == () and files(tmp_path / "world") == ["case_1.mrk.json", "case_2.mrk.json"]
    world = read_landmarks(tmp_path / "world" / "case_2.mrk.json")
    image = SimpleITK.ReadImage(str(tmp_path / "images" / "case_2.nii.gz"))
    np.testing.assert_allclose(world.points[0], image.TransformContinuousIndexToPhysicalPoint((1.25, 3, 5)))
    assert world.coordinate_system == "LPS" and world.missing.tolist() == [False, True]
    back = convert_landmarks(
        tmp_path / "world", tmp_path / "back", destination_format="napari", images=tmp_path / "images"
    )
    assert back.faults == ()
    np.testing.assert_allclose(read_landmarks(tmp_path / "back" / "case_1.csv").points, [[1.25, 3, 5]])


def test_files_named_as_predictions_find_their_images(tmp_path):
    """The images have one name in different folders, which the files have in front."""
    for side in ("left", "right"):
        picture(tmp_path / "images" / side / "hand.png")
        world = LandmarkSet(("a",), [[4.0, 6.0, 0.0] if side == "left" else [8.0, 2.0, 0.0]], "LPS")
        write_landmarks(tmp_path / "found" / f"{side}_hand.mrk.json", world)
    options = {"images": tmp_path / "images", "spacing": (2, 2), "coordinate_system": "index"}
    result = convert_landmarks(tmp_path / "found", tmp_path / "index.csv", **options)
    assert result.faults == ()
    table = read_landmark_table(tmp_path / "index.csv")
    assert {name: s.points.tolist() for name, s in table.items()} == {
        "left/hand.png": [[2, 3]],
        "right/hand.png": [[4, 1]],
    }
    (tmp_path / "found" / "left_hand.mrk.json").rename(tmp_path / "found" / "hand.mrk.json")
    [fault] = convert_landmarks(tmp_path / "found", tmp_path / "index.csv", **options).faults
    assert "several images have this name" in fault.message


def test_a_picture_lies_in_the_world_by_its_spacing(tmp_path):
    picture(tmp_path / "images" / "1.png"), picture(tmp_path / "images" / "2.png")
    write_two(tmp_path / "table.csv")
    images = {"images": tmp_path / "images", "spacing": (0.5, 0.25)}
    convert_landmarks(tmp_path / "table.csv", tmp_path / "world", destination_format="mrk.json", **images)
    world = read_landmarks(tmp_path / "world" / "2.mrk.json").to("LPS")
    assert world.points.tolist() == [[1.75, 1, 0], [2.5, 1.5, 0]]
    result = convert_landmarks(tmp_path / "world", tmp_path / "back.json", destination_format="coco", **images)
    assert result.faults == ()
    back = read_landmark_table(tmp_path / "back.json")
    for image, expected in TWO.items():
        np.testing.assert_allclose(back[image].points, expected.points)
    # such a file states the sizes of the images, if they are given
    content = json.loads((tmp_path / "back.json").read_text())
    assert [(image["width"], image["height"]) for image in content["images"]] == [(60, 40)] * 2


def test_where_viewers_see_points_elsewhere_is_said_once(tmp_path, write_dicom_tags):
    """ITK ignores the PixelSpacing of a CR image."""
    (tmp_path / "t.csv").write_text("image,landmark,x,y\na.dcm,nose,5,3\nb.dcm,nose,5,3\nc.png,nose,5,3\n")
    for name in ("a.dcm", "b.dcm"):
        write_dicom_tags(tmp_path / "images" / name, np.arange(80).reshape(8, 10), t00280030="0.2\\0.2")
    picture(tmp_path / "images/c.png")
    for name in ("a.dcm", "c.png"):
        image = SimpleITK.ReadImage(str(tmp_path / "images" / name))
        assert image.GetSpacing()[:2] == (1, 1)  # in the viewer
    to_world = {"destination_format": "mrk.json", "images": tmp_path / "images", "spacing": 0.5}
    with pytest.warns(UserWarning) as told:
        convert_landmarks(tmp_path / "t.csv", tmp_path / "world", **to_world)
    texts = [str(warning.message) for warning in told if warning.filename.endswith("convert.py")]
    assert [text.partition(", but viewers")[0] for text in texts] == [
        "a.dcm and 1 more: The pixel size is 0.2 x 0.2 mm",
        "c.png: The pixel size in use is 0.5 x 0.5 mm",
    ]
    with pytest.warns(UserWarning) as told:
        convert_landmarks(tmp_path / "world", tmp_path / "back.json", **to_world | {"destination_format": "coco"})
    assert [str(warning.message) for warning in told if warning.filename.endswith("convert.py")] == texts
    (tmp_path / "c.csv").write_text("image,landmark,x,y\nc.png,nose,5,3\n")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="monai_landmarks")
        images = {"images": tmp_path / "images"}
        convert_landmarks(tmp_path / "t.csv", tmp_path / "same", destination_format="labelme", **images)
        convert_landmarks(tmp_path / "world", tmp_path / "world.csv", coordinate_system="LPS", **images)
        # by default, 1 mm is taken for a picture, as in the viewer
        convert_landmarks(tmp_path / "c.csv", tmp_path / "c.mrk.json", **images)


def test_a_slice_has_its_place_in_the_world(tmp_path):
    image = volume(tmp_path / "slice.nii.gz", (12, 14, 1))
    write_landmarks(tmp_path / "a.csv", LandmarkSet(("a",), [[2, 3]], "index"))
    convert_landmarks(tmp_path / "a.csv", tmp_path / "a.mrk.json", images=image)
    assert read_landmarks(tmp_path / "a.mrk.json").to("RAS").points.tolist() == [[-1, -3, 7]]
    result = convert_landmarks(tmp_path / "a.mrk.json", tmp_path / "b.json", destination_format="labelme", images=image)
    assert result.faults == () and read_landmarks(tmp_path / "b.json").points.tolist() == [[2, 3]]
    write_landmarks(tmp_path / "off.mrk.json", LandmarkSet(("a",), [[-1, -3, 10]], "RAS"))
    result = convert_landmarks(
        tmp_path / "off.mrk.json", tmp_path / "c.json", destination_format="labelme", images=image
    )
    assert (
        result.written == ()
        and "landmark 'a' of 'slice.nii.gz' is 1 pixels off the image's plane" in result.faults[0].message
    )


def test_verse_and_label_cubes_find_their_images(tmp_path):
    """Data sets name the image and its landmarks apart."""
    image = volume(tmp_path / "raw" / "sub-1_ct.nii.gz")
    marked = LandmarkSet(("T12", "L1"), [[3, 5, 11], [9, 9, 2]], "index")
    write_landmarks(tmp_path / "verse" / "sub-1_seg-subreg_ctd.json", marked, format="verse", image=image)
    result = convert_landmarks(
        tmp_path / "verse", tmp_path / "fcsv", destination_format="fcsv", images=tmp_path / "raw"
    )
    assert result.faults == ()
    found = read_landmarks(tmp_path / "fcsv" / "sub-1_seg-subreg_ctd.fcsv").to_index(AFFINE)
    np.testing.assert_allclose(found.points, marked.points, atol=1e-12)

    volume(tmp_path / "imagesTr" / "case_1_0000.nii.gz")
    write_landmarks(tmp_path / "points" / "case_1.csv", marked)
    result = convert_landmarks(
        tmp_path / "points", tmp_path / "labelsTr", destination_format="nnlandmark", images=tmp_path / "imagesTr"
    )
    assert result.faults == () and files(tmp_path / "labelsTr") == ["case_1.nii.gz", "name_to_label.json"]
    result = convert_landmarks(tmp_path / "labelsTr", tmp_path / "back.csv", "nnlandmark")
    assert result.faults == () and read_landmarks(tmp_path / "back.csv") == marked


def test_molars_find_their_volumes(tmp_path):
    source = tmp_path / "train"
    source.mkdir()
    np.save(source / "7_label.npy", np.array([[1, 2, 3], [-1, -1, -1]]))
    np.save(source / "7_spacing.npy", np.ones(3))
    image = SimpleITK.Image(5, 6, 7, SimpleITK.sitkInt16)
    image.SetSpacing((0.5, 0.6, 0.7))
    image.SetOrigin((10, 20, 30))
    SimpleITK.WriteImage(image, str(source / "7_volume.nrrd"))
    result = convert_landmarks(source, tmp_path / "new", destination_format="mrk.json", images=source)
    assert result.faults == () and files(tmp_path / "new") == ["7.mrk.json"]
    landmarks = read_landmarks(tmp_path / "new" / "7.mrk.json").to("LPS")
    np.testing.assert_allclose(landmarks.points, [[10.5, 21.2, 32.1], [NAN] * 3])


def test_names_for_files_without(tmp_path):
    (tmp_path / "a.pts").write_text("point\n2\n1 2 3\n4 5 6\n")
    convert_landmarks(tmp_path / "a.pts", tmp_path / "a.fcsv", names=("tip", "base"))
    assert read_landmarks(tmp_path / "a.fcsv") == LandmarkSet(("tip", "base"), [[1, 2, 3], [4, 5, 6]], "LPS")
    convert_landmarks(tmp_path / "a.pts", tmp_path / "b.fcsv")
    assert read_landmarks(tmp_path / "b.fcsv").names == ("1", "2")


def test_coordinate_system_of_a_source_that_does_not_say_it(tmp_path):
    (tmp_path / "a.csv").write_text("landmark,x,y,z\na,1,2,3\n")
    convert_landmarks(tmp_path / "a.csv", tmp_path / "a.fcsv", source_coordinate_system="LPS")
    assert read_landmarks(tmp_path / "a.fcsv") == LandmarkSet(("a",), [[1, 2, 3]], "LPS")


# faults


def test_a_folder_with_faults_gives_what_it_can(tmp_path):
    source = tmp_path / "in"
    for name in ("1", "2"):
        write_landmarks(source / f"{name}.csv", LandmarkSet(("a",), [[1, 2]], "index"))
    (source / "bad.csv").write_text("landmark,x,y\na,1,2\nb,one,2\n")
    (source / "cut.json").write_text('{"shapes": [')
    (source / "notes.txt").write_text("not landmarks")
    result = convert_landmarks(source, tmp_path / "out", destination_format="labelme")
    assert files(tmp_path / "out") == ["1.json", "2.json"] and len(result.written) == 2
    assert [fault.source.name for fault in result.faults] == ["bad.csv", "cut.json"]
    assert "bad.csv: line 3: column 'x' is 'one'" in result.faults[0].message
    assert "cut.json: line 1: not valid JSON" in result.faults[1].message
    # one file for all would be less than it seems
    result = convert_landmarks(source, tmp_path / "all.csv")
    assert result.written == () and len(result.faults) == 2 and not (tmp_path / "all.csv").exists()


def test_a_row_that_cannot_be_written_is_a_fault_of_its_own(tmp_path):
    sets = {"1.png": TWO["2.png"], "2.png": LandmarkSet(("a", "b"), [[1, 1], [NAN, NAN]], "index")}
    write_landmark_table(tmp_path / "t.csv", sets)
    result = convert_landmarks(
        tmp_path / "t.csv", tmp_path / "out", destination_format="elastix", coordinate_system="index"
    )
    assert files(tmp_path / "out") == [] and len(result.faults) == 2
    assert "elastix rounds" in result.faults[0].message and "cannot leave a point out" in result.faults[1].message


def test_points_that_need_an_image(tmp_path):
    write_two(tmp_path / "t.csv")
    picture(tmp_path / "images" / "1.png")
    result = convert_landmarks(
        tmp_path / "t.csv", tmp_path / "out", destination_format="fcsv", images=tmp_path / "images"
    )
    assert files(tmp_path / "out") == ["1.fcsv"]
    (fault,) = result.faults
    assert fault.source == tmp_path / "t.csv"
    assert "the points of '2.png' are in index and cannot be converted to RAS without the image" in fault.message
    (tmp_path / "images" / "1.png").write_text("no image")
    result = convert_landmarks(
        tmp_path / "t.csv", tmp_path / "new", destination_format="fcsv", images=tmp_path / "images"
    )
    assert "1.png cannot be read" in result.faults[0].message and not (tmp_path / "new").exists()


def test_one_image_for_many_is_not_taken(tmp_path):
    write_two(tmp_path / "t.csv")
    other = picture(tmp_path / "other.png")
    result = convert_landmarks(tmp_path / "t.csv", tmp_path / "out", destination_format="fcsv", images=other)
    assert result.written == () and len(result.faults) == 2


TRICKS = [
    "../up.png",
    "/etc/passwd",
    "a/../../b.png",
    "C:\\windows\\c.png",
    "..",
    "",
    ".",
    "x\x00y",
    "a\nb.png",
    "sub/d.png",
    "..\\e.png",
]


def test_names_of_images_lead_nowhere_else(tmp_path):
    points = {name: {"a": [1, 2]} for name in TRICKS}
    (tmp_path / "in.json").write_text(json.dumps(points))
    result = convert_landmarks(tmp_path / "in.json", tmp_path / "deep" / "out", destination_format="labelme")
    assert files(tmp_path) == [
        "deep/out/" + name for name in ("b.json", "c.json", "e.json", "passwd.json", "sub/d.json", "up.json")
    ] + ["in.json"]
    assert sum("cannot be the name of a file" in fault.message for fault in result.faults) == 5 == len(result.faults)


def test_distinct_images_stay_apart(tmp_path):
    write_landmark_table(tmp_path / "t.csv", {"x/1.png": TWO["1.png"], "x/1.jpg": TWO["2.png"]})
    result = convert_landmarks(tmp_path / "t.csv", tmp_path / "out", destination_format="labelme")
    assert len(result.written) == 1 and "was written for another image already" in result.faults[0].message
    for folder in "xy":
        write_landmarks(tmp_path / "in" / folder / "1.json", TWO["1.png"], format="labelme")
    result = convert_landmarks(tmp_path / "in", tmp_path / "all.csv")
    assert result.written == () and "image '1.png' has landmarks more than once" in result.faults[0].message


def test_a_source_is_never_replaced(tmp_path):
    write_landmarks(tmp_path / "a.csv", LandmarkSet(("a",), [[1, 2]], "index"))
    before = (tmp_path / "a.csv").read_bytes()
    for destination, format in (
        (tmp_path / "a.csv", None),
        (tmp_path / "a.csv", "napari"),
        (tmp_path, "csv"),
        (tmp_path / "." / "x" / ".." / "a.csv", None),
    ):
        result = convert_landmarks(tmp_path / "a.csv", destination, destination_format=format)
        assert result.written == () and "this file is a source" in result.faults[0].message
    assert (tmp_path / "a.csv").read_bytes() == before and files(tmp_path) == ["a.csv"]


def test_what_is_asked_for_must_be_clear(tmp_path):
    write_two(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such file or folder"):
        convert_landmarks(tmp_path / "nowhere", tmp_path / "out.csv")
    with pytest.raises(ValueError, match="out: the name has no suffix .* give destination_format"):
        convert_landmarks(tmp_path / "t.csv", tmp_path / "out")
    with pytest.raises(ValueError, match=r"out\.json: this suffix belongs to the formats"):
        convert_landmarks(tmp_path / "t.csv", tmp_path / "out.json")
    with pytest.raises(ValueError, match="format 'cocoa' is unknown"):
        convert_landmarks(tmp_path / "t.csv", tmp_path / "out", destination_format="cocoa")
    with pytest.raises(ValueError, match="'MNI' is unknown"):
        convert_landmarks(tmp_path / "t.csv", tmp_path / "out.csv", coordinate_system="MNI")
    with pytest.raises(ValueError, match="no image in it|no such folder"):
        convert_landmarks(tmp_path / "t.csv", tmp_path / "out.csv", images=tmp_path / "images")
    result = convert_landmarks(tmp_path / "t.csv", tmp_path / "out.mrk.json", coordinate_system="index")
    assert "2 images, but a file of format 'mrk.json' holds one; give a folder" in result.faults[0].message
    (tmp_path / "empty").mkdir()
    result = convert_landmarks(tmp_path / "empty", tmp_path / "out.csv")
    assert result.written == () and "it holds no landmarks" in result.faults[0].message
    assert files(tmp_path) == ["t.csv"]


def test_points_of_a_plane_in_a_volume_are_a_fault(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9)), np.eye(4)), tmp_path / "a.nii")
    write_landmark_table(tmp_path / "t.csv", {"a.nii": LandmarkSet(("tip",), [[1.0, 2.0]], "RAS")})
    done = convert_landmarks(
        tmp_path / "t.csv", tmp_path / "out.csv", images=tmp_path / "a.nii", coordinate_system="index"
    )
    [fault] = done.faults
    assert "the points of 'a.nii' are 2-D, but the image has the shape (9, 9, 9)" in str(fault)
