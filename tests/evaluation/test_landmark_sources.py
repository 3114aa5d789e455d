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

"""Landmarks of many images, and the space in which they are compared."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import LandmarkSet, datalist_item, save_datalist, write_landmark_table, write_landmarks
from monai_landmarks.evaluation import evaluate_predictions
from monai_landmarks.evaluation.landmark_sources import (
    ImageGeometry,
    match_predictions,
    read_annotations,
    to_common_space,
)


def test_each_picture_has_the_pixel_size_of_its_datalist(tmp_path):
    """The table has the points, and the datalist of other landmarks names the images and their pixel sizes."""
    spacings = {"a.png": (0.25, 0.5), "b.png": (2.0, 2.0)}
    points = {name: LandmarkSet(("tip",), [[8.0, 4.0]], "index") for name in spacings}
    for name in spacings:
        Image.new("L", (20, 10)).save(tmp_path / name)
    items = [datalist_item(name, points[name], spacing) for name, spacing in spacings.items()]
    definition = {"names": ("tip",), "pairs": [], "coordinate_system": "index"}
    save_datalist(tmp_path / "datalist.json", {"landmarks": definition, "training": items})
    write_landmark_table(tmp_path / "points.csv", points)
    read = read_annotations(tmp_path / "points.csv", images=tmp_path / "datalist.json", spacing=7.0)
    for name, (x, y) in spacings.items():
        assert not read[name].geometry.in_pixels
        np.testing.assert_array_equal(read[name].geometry.affine(), np.diag([-x, -y, 1, 1]))
        moved = LandmarkSet(("tip",), [[9.0, 6.0]], "index")
        (first, second), unit = to_common_space([moved, read[name].landmarks], read[name].geometry)
        assert unit == "mm" and np.abs(first.points - second.points).tolist() == [[x, 2 * y]]


@pytest.mark.parametrize("spacing, unit", [(None, "px"), (1, "px"), ((1, 1), "px"), ((1, 2), "mm"), (0.5, "mm")])
def test_lengths_are_in_pixels_where_nothing_else_is_known(spacing, unit):
    sets = [LandmarkSet(("tip",), [point], "index") for point in ((0.0, 0.0), (3.0, 4.0))]
    (first, second), found = to_common_space(sets, ImageGeometry(spacing=spacing))
    steps = np.ones(2) if spacing is None else np.broadcast_to(spacing, 2)
    assert found == unit
    assert np.linalg.norm(first.points - second.points) == pytest.approx(np.linalg.norm((3, 4) * steps))


def test_voxels_of_a_volume_have_no_mm_by_the_pixel_size_of_a_picture():
    """The size along z is not known, unless it is given, too."""
    sets = [LandmarkSet(("tip",), [[0.0, 0.0, z]], "index") for z in (0.0, 4.0)]
    with pytest.raises(ValueError, match="voxels of a volume.*has no z; give the images"):
        to_common_space(sets, ImageGeometry(spacing=(0.5, 0.5)))
    (first, second), unit = to_common_space(sets, ImageGeometry(spacing=(0.5, 0.5, 2.0)))
    assert unit == "mm" and np.linalg.norm(first.points - second.points) == 8
    (first, second), unit = to_common_space([sets[0], sets[0]], ImageGeometry(spacing=0.5))  # a table with z = 0
    assert unit == "mm" and first.spatial_dims == second.spatial_dims == 2


@pytest.mark.parametrize("height, apart", [(37.0, 0), (None, 37)], ids=["a slice", "a volume"])
def test_points_in_mm_of_a_slice_with_and_without_z(height, apart):
    """Without a z, points lie in the plane of those with one, if this is a plane."""
    flat = LandmarkSet(("tip", "root"), [[1.0, 2.0], [3.0, 4.0]])
    z = [37.0, 38.0 if height is None else height]
    solid = LandmarkSet(flat.names, [[1.0, 2.0, z[0]], [3.0, 4.0, z[1]]]).to("LPS")
    for order in ([flat, solid], [solid, flat]):
        sets, unit = to_common_space(order, ImageGeometry())
        first, second = (one.to("RAS").with_spatial_dims(3).points for one in sets)
        assert unit == "mm" and np.linalg.norm(first - second, axis=1)[0] == apart


def test_what_is_assumed_about_tables_of_volumes_is_said(tmp_path):
    """Of each file once, with the reading in which the points would lie inside of their images."""
    affine = np.array([[1.0, 0, 0, 100], [0, 1, 0, 200], [0, 0, 1, 300], [0, 0, 0, 1]])
    (tmp_path / "images").mkdir()
    for i in range(2):
        nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine), tmp_path / f"images/{i}.nii.gz")
    for name in ("true", "pred"):
        (tmp_path / f"{name}.csv").write_text("image,landmark,x,y,z\n0,a,1,2,3\n1,a,2,2,3\n")
    result = evaluate_predictions(tmp_path / "pred.csv", tmp_path / "true.csv", images=tmp_path / "images")
    said = [note for note in result.notes if "coordinate system" in note]
    assert [note.partition(":")[0] for note in said] == [str(tmp_path / "true.csv"), str(tmp_path / "pred.csv")]
    assert all("read as RAS in mm" in note and "--coordinate-system" in note for note in said)
    assert all("Read as index instead, all points of 2 images would lie inside" in note for note in said)
    with pytest.warns(UserWarning, match="true.csv: states no coordinate system"):
        read_annotations(tmp_path / "true.csv")
    result = evaluate_predictions(tmp_path / "pred.csv", tmp_path / "true.csv", coordinate_system="RAS")
    assert not any("coordinate system" in note for note in result.notes)
    # the predictions state their own system, as those of `predict` do
    stated = "# coordinate_system=LPS\nimage,landmark,x,y,z\n0,a,-1,-2,3\n1,a,-2,-2,3\n"
    (tmp_path / "pred.csv").write_text(stated)
    result = evaluate_predictions(tmp_path / "pred.csv", tmp_path / "true.csv", coordinate_system="RAS")
    assert result.errors.max() == 0


def test_an_image_of_another_folder_is_not_that_of_the_landmarks(tmp_path):
    """Its pixel size does not count, nor does its annotation."""
    for name in ("site1/1.png", "site1/2.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 10)).save(tmp_path / "images" / name)
    sets = {name: LandmarkSet(("tip",), [[8.0, 4.0]], "index") for name in ("pics/site1/1.png", "site2/2.png")}
    write_landmark_table(tmp_path / "true.csv", sets)
    read = read_annotations(tmp_path / "true.csv", images=tmp_path / "images", notes=[])
    assert read["pics/site1/1.png"].geometry.image == tmp_path / "images" / "site1" / "1.png"
    assert read["site2/2.png"].geometry.image is None
    predicted = {"site1/1": sets["site2/2.png"], "site1/2": sets["site2/2.png"]}
    write_landmark_table(tmp_path / "pred.csv", predicted)
    matched, unknown = match_predictions(tmp_path / "pred.csv", read)
    assert list(matched) == ["pics/site1/1.png"] and unknown == ["site1/2"]


def test_points_from_the_bottom_of_an_image_need_the_images(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "images" / "1.png")
    for name, y in (("true", 2), ("pred", 5)):
        (tmp_path / f"{name}.tps").write_text(f"LM=1\n4 {y}\nIMAGE=1.png\n")
    files = tmp_path / "pred.tps", tmp_path / "true.tps"
    with pytest.raises(ValueError, match="true.tps: .*'1.png'.* 'monai-landmarks convert FILE points.csv --images"):
        evaluate_predictions(*files)
    result = evaluate_predictions(*files, images=tmp_path / "images")
    assert result.cases[0].true.points.tolist() == [[4, 7]] and result.errors.tolist() == [[3.0]]


def test_a_datalist_of_predictions(tmp_path):
    sets = {name: LandmarkSet(("tip",), [[float(i), 2.0]], "index") for i, name in enumerate(("a.png", "b.png"))}
    write_landmark_table(tmp_path / "truth.csv", sets)
    items = [datalist_item(name, landmarks, 1) for name, landmarks in sets.items()]
    definition = {"names": ("tip",), "pairs": [], "coordinate_system": "index"}
    save_datalist(tmp_path / "datalist.json", {"landmarks": definition, "training": items[:1], "validation": items[1:]})
    found, unknown = match_predictions(tmp_path / "datalist.json", read_annotations(tmp_path / "truth.csv"))
    assert unknown == [] and {name: s.points.tolist() for name, s in found.items()} == {
        "a.png": [[0, 2]],
        "b.png": [[1, 2]],
    }


def test_images_without_landmarks_in_a_datalist(tmp_path):
    items = [datalist_item("a.png", LandmarkSet(("tip",), [[3.0, 2.0]], "index"), 1), {"image": "b.png", "label": None}]
    definition = {"names": ("tip",), "pairs": [], "coordinate_system": "index"}
    save_datalist(tmp_path / "datalist.json", {"landmarks": definition, "training": items, "testing": [{"image": "c"}]})
    assert list(read_annotations(tmp_path / "datalist.json")) == ["a.png"]


def test_json_that_is_no_datalist(tmp_path):
    shape = {"label": "tip", "shape_type": "point", "points": [[3.5, 2.5]]}
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "a.png"}))
    [found] = read_annotations(tmp_path / "a.json").values()
    assert found.landmarks.points.tolist() == [[3, 2]]
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match=r"b\.json"):
        read_annotations(tmp_path / "b.json")


TIP = LandmarkSet(("tip",), [[1.0, 2.0]], "LPS")


@pytest.mark.parametrize(
    "files, images, message",
    [
        (("a.mrk.json", "a.fcsv"), (), "landmarks of a are in two files of different formats"),
        (("a.fcsv", "a.FCSV"), (), "landmarks of a are in another file, too"),
        (("a.fcsv",), ("x/a.png", "y/a.png"), "'a' matches more than one image: .*x/a.png, .*y/a.png"),
    ],
)
def test_what_could_be_of_two_images_or_in_two_files(tmp_path, files, images, message):
    for file in files:
        write_landmarks(tmp_path / "marks" / file, TIP)
    for image in images:
        (tmp_path / "images" / image).parent.mkdir(parents=True)
        Image.new("L", (20, 10)).save(tmp_path / "images" / image)
    if len(list((tmp_path / "marks").iterdir())) < len(files):
        pytest.skip("this file system does not distinguish upper and lower case")
    with pytest.raises(ValueError, match=message):
        read_annotations(tmp_path / "marks", images=tmp_path / "images" if images else None)


def _one(shift):
    return LandmarkSet(("tip", "root"), [[10.0 + shift, 5.0], [20.0 + shift, 5.0]], "LPS")


@pytest.mark.parametrize("name", ["ceph", "scan"])  # before and after "predictions.csv"
def test_files_of_single_images_are_preferred_to_a_table(tmp_path, name):
    """A person may have corrected them."""
    folder = tmp_path / "results"
    folder.mkdir()
    write_landmark_table(tmp_path / "truth.csv", {f"{name}.png": _one(0)})
    write_landmark_table(folder / "predictions.csv", {f"{name}.png": _one(7)})
    write_landmarks(folder / f"{name}.mrk.json", _one(1))
    result = evaluate_predictions(folder, tmp_path / "truth.csv")
    np.testing.assert_allclose(result.errors, [[1.0, 1.0]], atol=1e-9)
    [note] = [note for note in result.notes if "may have corrected" in note]
    assert note.startswith(f"{folder}: the points of the .mrk.json files are taken") and f"{name}.png" in note
    write_landmark_table(folder / "predictions.csv", {f"{name}.png": _one(1.001)})  # the same, with fewer digits
    assert not any("are taken" in note for note in evaluate_predictions(folder, tmp_path / "truth.csv").notes)
    # in pixels, the table is preferred, and a correction is not used without a word
    index = LandmarkSet(("tip", "root"), [[10.0, 5.0], [20.0, 5.0]], "index")
    write_landmark_table(tmp_path / "truth.csv", {f"{name}.png": index})
    write_landmark_table(folder / "predictions.csv", {f"{name}.png": index})
    result = evaluate_predictions(folder, tmp_path / "truth.csv")
    assert result.errors.max() == 0
    [note] = [note for note in result.notes if "are taken" in note]
    assert "the points of predictions.csv are taken, in the space of the ground truth; those of the .mrk.json" in note


def test_two_tables_with_different_points_of_an_image(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    write_landmark_table(tmp_path / "truth.csv", {"scan.png": _one(0)})
    for name in "ab":
        write_landmark_table(folder / f"{name}.csv", {"scan.png": _one(7)})
    assert evaluate_predictions(folder, tmp_path / "truth.csv").errors.tolist() == [[7.0, 7.0]]
    write_landmark_table(folder / "b.csv", {"scan.png": _one(1)})
    with pytest.raises(ValueError, match=r"b.csv and .*a.csv hold different points of scan.png; expected one table"):
        evaluate_predictions(folder, tmp_path / "truth.csv")


def test_annotated_images_that_are_not_in_the_folder_of_images(tmp_path):
    """Their pixel size would not be known."""
    (tmp_path / "images").mkdir()
    sets = {name: LandmarkSet(("tip",), [[3.0, 2.0]], "index") for name in ("a.png", "b.png")}
    write_landmark_table(tmp_path / "truth.csv", sets)
    Image.new("L", (20, 10)).save(tmp_path / "images" / "c.png")
    with pytest.raises(ValueError, match="images: none of its images is among the 2 of .*truth.csv.*for example a.png"):
        read_annotations(tmp_path / "truth.csv", images=tmp_path / "images")
    Image.new("L", (20, 10)).save(tmp_path / "images" / "a.png")
    notes = []
    read_annotations(tmp_path / "truth.csv", images=tmp_path / "images", notes=notes)
    assert notes == [f"{tmp_path / 'truth.csv'}: 1 of 2 images are not in {tmp_path / 'images'} (b.png)."]
