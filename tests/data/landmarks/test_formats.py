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

import csv
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from scipy.ndimage import center_of_mass

from monai_landmarks.data import (
    LandmarkSet,
    find_landmark_files,
    landmark_formats,
    read_landmark_table,
    read_landmarks,
    register_format,
    write_landmark_table,
    write_landmarks,
)
from monai_landmarks.data.datasets.isbi2015.annotation_text import ISBI2015_LANDMARKS
from monai_landmarks.data.datasets.verse.centroids import VERSE_LANDMARKS
from monai_landmarks.data.landmarks import landmark_io
from monai_landmarks.data.landmarks.formats.afids import AFIDS_LANDMARKS
from monai_landmarks.data.landmarks.landmark_io import format_to_read, read_landmark_sets

NAN = float("nan")
EXAMPLES = Path(__file__).parent / "examples"


def example(name):
    return EXAMPLES / name


def volume(path, shape=(12, 14, 16), affine=None):
    affine = np.array([[-2, 0, 0, 5], [0, 1.5, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1.0]]) if affine is None else affine
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), path)
    return path


def bright_picture(path, x, y):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[y, x] = 255
    Image.fromarray(pixels).save(path)
    return path


def random_set(random, names, dims, system, missing=True, whole=False, image=None):
    scale = 10.0 ** random.randint(-3, 4, (len(names), dims))
    points = (
        random.randint(0, 12, (len(names), dims)) * 1.0 if whole else random.normal(size=(len(names), dims)) * scale
    )
    if missing:
        points[random.randint(len(names))] = NAN
    return LandmarkSet(names, points, system, image=image)


def present(landmarks):
    """Without the landmarks that are missing."""
    return landmarks.reorder([name for name, missing in zip(landmarks.names, landmarks.missing) if not missing])


def plain(landmarks):
    """Without what only some formats hold: pairs and the name of the image."""
    return LandmarkSet(landmarks.names, landmarks.points, landmarks.coordinate_system)


def close(first, second):
    """Half a pixel is taken off and added again, which rounds the last digit."""
    assert first.names == second.names and first.coordinate_system == second.coordinate_system
    np.testing.assert_allclose(first.points, second.points, rtol=1e-12, atol=1e-12)


NAMES = ("a", "left, lower", 'the "best"', "größer", "T1_x")

# format, suffix, dims, coordinate system, names, whether it can leave a landmark out and still name it
SINGLE = [
    ("csv", ".csv", 2, "index", NAMES, "kept"),
    ("csv", ".csv", 3, "LPS", NAMES, "kept"),
    ("mrk.json", ".mrk.json", 3, "LPS", NAMES, "kept"),
    ("mrk.json", ".json", 3, "RAS", NAMES, "kept"),
    ("fcsv", ".fcsv", 3, "RAS", NAMES, "kept"),
    ("afids", ".fcsv", 3, "LPS", AFIDS_LANDMARKS, "kept"),
    ("elastix", ".pts", 2, "LPS", ("1", "2", "3"), "refused"),
    ("elastix", ".txt", 3, "LPS", ("1", "2", "3", "4"), "refused"),
    ("labelme", ".json", 2, "index", NAMES, "left out"),
    ("napari", ".csv", 2, "index", NAMES, "left out"),
    ("napari", ".csv", 3, "index", NAMES, "left out"),
    ("isbi2015", ".txt", 2, "index", ISBI2015_LANDMARKS, "refused"),
    ("verse", ".json", 3, "index", ("T12", "L1", "T13", "sacrum"), "left out"),
    ("npz", ".npz", 2, "index", NAMES, "kept"),
    ("npz", ".npz", 3, "RAS", NAMES, "kept"),
]
TABLES = [
    ("csv", ".csv", 3, "RAS"),
    ("coco", ".json", 2, "index"),
    ("payer", ".csv", 2, "index"),
    ("payer", ".csv", 3, "LPS"),
    ("nnlandmark.json", ".json", 2, "index"),
    ("nnlandmark.json", ".json", 3, "index"),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("format, suffix, dims, system, names, missing", SINGLE)
def test_round_trip_of_one_image(tmp_path, format, suffix, dims, system, names, missing, seed):
    random = np.random.RandomState(seed)
    landmarks = random_set(random, names, dims, system, missing=missing != "refused")
    image = volume(tmp_path / "image.nii.gz") if format == "verse" else None
    path = tmp_path / "new" / f"case.1{suffix}"
    write_landmarks(path, landmarks, format=format, image=image)
    back = plain(read_landmarks(path, format=format, image=image))
    close(back, present(landmarks) if missing == "left out" else landmarks)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    if format != "fcsv" or "AC" not in names:  # what was written is recognized without a name
        assert plain(read_landmarks(path, image=image)) == back


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("format, suffix, dims, system", TABLES)
def test_round_trip_of_many_images(tmp_path, format, suffix, dims, system, seed):
    random = np.random.RandomState(seed)
    images = ("1.png", "sub/2,3.nii.gz", "größer.png")
    sets = {image: random_set(random, NAMES, dims, system, image=image) for image in images}
    path = tmp_path / f"table{suffix}"
    write_landmark_table(path, sets, format=format)
    back = read_landmark_table(path, format=format, names=NAMES if format == "payer" else None)
    assert {image: landmarks.reorder(NAMES) for image, landmarks in back.items()} == sets
    if format != "payer":  # its table is only recognized with more than five points
        assert read_landmark_table(path) == back


@pytest.mark.parametrize("system", ["LPS", "RAS"])
@pytest.mark.parametrize("format", ["labelme", "napari", "coco", "nnlandmark.json", "nnlandmark", "verse", "isbi2015"])
def test_pixel_formats_refuse_the_world(tmp_path, format, system):
    names = {"isbi2015": ISBI2015_LANDMARKS, "verse": ("L1", "L2")}.get(format, ("a", "b"))
    landmarks = LandmarkSet(names, np.zeros((len(names), 2)), system, image="1.png")
    with pytest.raises(ValueError, match=rf"a\.x: the points are {system} in mm, and .* use to_index\(affine\)"):
        write_landmarks(tmp_path / "a.x", landmarks, format=format)
    assert list(tmp_path.iterdir()) == []


# files as the tools write them


def test_elastix_files():
    world = read_landmarks(example("elastix_world.pts"))
    assert world.names == ("1", "2", "3") and world.coordinate_system == "LPS"
    assert world.points.tolist() == [[-12.5, 30.25, 100], [0, 0.5, -7.125], [4, 5, 6]]
    index = read_landmarks(example("elastix_index.txt"), names=("left", "right"))
    assert index == LandmarkSet(("left", "right"), [[33, 7], [0, 59]], "index")


@pytest.mark.parametrize("text", ["2\n1 2\n3 4\n", "index 2\n1 2\n3 4\n", "index\n\n2\n1 2\n\n3 4"])
def test_elastix_header_in_other_forms(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    assert read_landmarks(tmp_path / "a.txt") == LandmarkSet(("1", "2"), [[1, 2], [3, 4]], "index")


def test_elastix_writes_world_points_in_lps_and_whole_indices(tmp_path):
    write_landmarks(tmp_path / "a.pts", LandmarkSet(("a",), [[1, -2, 3]], "RAS"))
    assert (tmp_path / "a.pts").read_text().split() == ["point", "1", "-1.0", "2.0", "3.0"]
    write_landmarks(tmp_path / "a.pts", LandmarkSet(("a",), [[1, 2]], "index"))
    assert (tmp_path / "a.pts").read_text().split() == ["index", "1", "1.0", "2.0"]
    with pytest.raises(ValueError, match="elastix rounds to whole pixels"):
        write_landmarks(tmp_path / "a.pts", LandmarkSet(("a",), [[1.5, 2]], "index"))
    with pytest.raises(ValueError, match=r"\['b'\] are missing, and elastix's point files cannot leave a point out"):
        write_landmarks(tmp_path / "a.pts", LandmarkSet(("a", "b"), [[1, 2], [NAN, NAN]], "LPS"))


def test_labelme_file():
    landmarks = read_landmarks(example("labelme.json"))
    assert landmarks.names == ("sella", "corner_1", "corner_2") and landmarks.coordinate_system == "index"
    assert landmarks.points.tolist() == [[33, 7], [9.5, 19.75], [11.5, 19.75]]
    assert landmarks.image == "..\\images\\001.png"


def test_labelme_measures_from_the_corner_of_the_image(tmp_path):
    """LabelMe draws pixel (x, y) over the square from (x, y) to (x + 1, y + 1)."""
    picture = bright_picture(tmp_path / "images" / "a.png" if (tmp_path / "images").mkdir() is None else "", 33, 7)
    landmarks = LandmarkSet(("tip", "gone"), [[33, 7], [NAN, NAN]], "index")
    write_landmarks(tmp_path / "json" / "a.json", landmarks, format="labelme", image=picture)
    content = json.loads((tmp_path / "json" / "a.json").read_text())
    (shape,) = content["shapes"]
    ((x, y),) = shape["points"]
    assert shape["label"] == "tip" and shape["shape_type"] == "point"
    pixels = Image.open(tmp_path / "json" / content["imagePath"])
    assert pixels.size == (content["imageWidth"], content["imageHeight"]) == (60, 40)
    assert pixels.getpixel((int(x), int(y))) == 255 and (x % 1, y % 1) == (0.5, 0.5)


def test_napari_counts_along_the_axes_of_the_array(tmp_path):
    picture = bright_picture(tmp_path / "a.png", 33, 7)
    write_landmarks(tmp_path / "a.csv", LandmarkSet(("tip", "gone"), [[33, 7], [NAN, NAN]], "index"), format="napari")
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    assert np.asarray(Image.open(picture))[int(float(row["axis-0"])), int(float(row["axis-1"]))] == 255
    assert row["label"] == "tip" and row["index"] == "0"


def test_napari_files():
    landmarks = read_landmarks(example("napari.csv"))
    assert landmarks == LandmarkSet(("1", "2"), [[33, 7], [0.25, 59.5]], "index")
    assert read_landmarks(example("napari.csv"), names=("a", "b")).names == ("a", "b")
    landmarks = read_landmarks(example("napari_named.csv"))
    assert landmarks == LandmarkSet(("nasion", "left, lower"), [[33, 7, 4], [2, 1.5, 0]], "index")


def test_coco_file():
    table = read_landmark_table(example("coco.json"))
    assert list(table) == ["000000037777.jpg", "000000397133.jpg"]
    names = ("nose", "left_eye", "right_eye")
    first, second = table.values()
    assert first == LandmarkSet(
        names, [[110, 120], [NAN, NAN], [131, 157]], "index", image="000000037777.jpg", image_size=(352, 230)
    )
    assert second.points.tolist() == [[1.5, 2.25], [3, 4], [5, 6]]


def test_coco_names_of_several_categories(tmp_path):
    content = json.loads(example("coco.json").read_text())
    content["categories"][1]["keypoints"] = ["nose"]
    content["annotations"][2]["keypoints"] = [8, 9, 2]
    (tmp_path / "a.json").write_text(json.dumps(content))
    table = read_landmark_table(tmp_path / "a.json")
    assert table["000000252219.jpg"].reorder(["bottle_nose"]).points.tolist() == [[8, 9]]
    assert table["000000037777.jpg"].names == ("person_nose", "person_left_eye", "person_right_eye", "bottle_nose")


def test_coco_says_what_its_readers_ask_for(tmp_path):
    picture = bright_picture(tmp_path / "a.png", 33, 7)
    sets = {"a.png": LandmarkSet(("p", "q", "r"), [[1, 2], [NAN, NAN], [4, 6]], "index")}
    write_landmark_table(tmp_path / "a.json", sets, format="coco", images={"a.png": picture})
    content = json.loads((tmp_path / "a.json").read_text())
    (image,), (annotation,), (category,) = content["images"], content["annotations"], content["categories"]
    assert (image["file_name"], image["width"], image["height"]) == ("a.png", 60, 40)
    assert annotation["keypoints"] == [1, 2, 2, 0, 0, 0, 4, 6, 2] and annotation["num_keypoints"] == 2
    assert annotation["bbox"] == [1, 2, 3, 4] and annotation["area"] == 12 and annotation["iscrowd"] == 0
    assert annotation["image_id"] == image["id"] and annotation["category_id"] == category["id"]
    assert category["keypoints"] == ["p", "q", "r"]


def test_payer_files(tmp_path):
    table = read_landmark_table(example("payer.csv"))
    assert list(table) == ["3142", "3143"] and table["3142"].coordinate_system == "index"
    np.testing.assert_array_equal(table["3143"].points[2:], [[NAN, NAN], [452, 1889], [-3.5, 1926]])
    assert read_landmark_table(example("payer.csv"), "LPS", names=list("abcde"))["3142"].names == tuple("abcde")
    numbers = ",".join(map(str, range(12)))
    (tmp_path / "a.csv").write_text(f"1,{numbers}\n")
    with pytest.raises(ValueError, match="may be 6 2-D points or 4 3-D points; give the names"):
        read_landmark_table(tmp_path / "a.csv")
    world = read_landmark_table(tmp_path / "a.csv", names=list("abcd"))["1"]
    assert world == LandmarkSet(tuple("abcd"), np.arange(12).reshape(4, 3), "LPS", image="1")
    write_landmark_table(tmp_path / "b.csv", {"1": world.to("RAS")}, format="payer")
    assert read_landmark_table(tmp_path / "b.csv", names=list("abcd"))["1"] == world
    for dims, system in ((2, "LPS"), (3, "index")):  # which the file cannot state
        with pytest.raises(ValueError, match=rf"tables of {dims}-D points hold"):
            sets = {"1": LandmarkSet(("a",), np.zeros((1, dims)), system)}
            write_landmark_table(tmp_path / "c.csv", sets, format="payer")


def test_real_payer_table(hand_landmarks_root):
    table = read_landmark_table(hand_landmarks_root / "all.csv")
    assert len(table) == 910 and {landmarks.points.shape for landmarks in table.values()} == {(37, 2)}
    assert table["3142"].points[0].tolist() == [297, 1913]


def test_isbi2015_file():
    landmarks = read_landmarks(example("isbi2015.txt"))
    assert landmarks.names == ISBI2015_LANDMARKS and landmarks.coordinate_system == "index"
    assert landmarks.points.tolist() == [[835 + 11 * i, 996 - 7 * i] for i in range(19)]


def test_isbi2015_holds_all_points_and_no_others(tmp_path):
    points = np.ones((19, 2))
    points[3] = NAN
    with pytest.raises(ValueError, match=r"\['porion'\] are missing, and annotations of the challenge cannot leave"):
        write_landmarks(tmp_path / "a.txt", LandmarkSet(ISBI2015_LANDMARKS, points, "index"), format="isbi2015")
    with pytest.raises(ValueError, match=r"\['chin'\] are no landmarks of the ISBI 2015 challenge"):
        write_landmarks(tmp_path / "a.txt", LandmarkSet(("chin",), [[1, 2]], "index"), format="isbi2015")


def test_afids_file(tmp_path):
    landmarks = read_landmarks(example("afids.fcsv"))
    assert landmarks.names == AFIDS_LANDMARKS and landmarks.coordinate_system == "RAS"
    assert landmarks.points.tolist() == [[i * 0.5, -i - 0.25, i * 2] for i in range(1, 33)]
    assert all({left[0], right[0]} == {"L", "R"} and left[1:] == right[1:] for left, right in landmarks.pairs)
    assert len(landmarks.pairs) == sum(name[:2] in ("L ", "R ") for name in AFIDS_LANDMARKS) / 2 == 11
    # as any other point list, it has the numbers for names
    assert read_landmarks(example("afids.fcsv"), format="fcsv").names[:2] == ("1", "2")
    # rows in another order, one not there, a description that is not the official one
    lines = example("afids.fcsv").read_text().splitlines()
    rows = [line.replace("Culmen", "culmen (vermis)") for line in lines[:2:-1] if ",2,PC," not in line]
    (tmp_path / "a.fcsv").write_text("\n".join(lines[:3] + rows))
    again = read_landmarks(tmp_path / "a.fcsv")
    assert again.names == AFIDS_LANDMARKS and again.missing.tolist() == [name == "PC" for name in AFIDS_LANDMARKS]
    assert again.points[9].tolist() == [5, -10.25, 20]


def test_afids_are_written_under_their_numbers(tmp_path):
    write_landmarks(tmp_path / "a.fcsv", LandmarkSet(("PC", "AC"), [[1, 2, 3], [4, 5, 6]], "LPS"), format="afids")
    rows = [line.split(",") for line in (tmp_path / "a.fcsv").read_text().splitlines() if line[0] != "#"]
    assert [(row[1], row[11], row[12]) for row in rows] == [("4.0", "1", "AC"), ("1.0", "2", "PC")]
    with pytest.raises(ValueError, match=r"\['nasion'\] are no AFIDs"):
        write_landmarks(tmp_path / "a.fcsv", LandmarkSet(("nasion",), [[1, 2, 3]], "LPS"), format="afids")


def test_verse_labels():
    assert [VERSE_LANDMARKS[label - 1] for label in (1, 7, 8, 19, 20, 25, 28)] == "C1 C7 T1 T12 L1 L6 T13".split()


@pytest.mark.parametrize("direction", ["PIR", "LPS", "RAS", "SAL", "ILP", "ARS"])
def test_verse_counts_along_its_directions(tmp_path, direction):
    """A voxel is marked, and found where ITK puts it when it turns the image to the directions of the centroid."""
    path, marked = volume(tmp_path / "ct.nii.gz"), (3, 5, 11)
    image = SimpleITK.ReadImage(str(path))
    image[marked] = 1
    turned = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(image, direction)).transpose(2, 1, 0)
    centroid = dict(zip("XYZ", map(float, np.argwhere(turned)[0])))
    (tmp_path / "a.json").write_text(json.dumps([{"direction": list(direction)}, {"label": 20, **centroid}]))
    assert read_landmarks(tmp_path / "a.json", image=path) == LandmarkSet(("L1",), [marked], "index")


def test_verse_files(tmp_path):
    image = volume(
        tmp_path / "ct.nii.gz", (8, 9, 10), nib.orientations.inv_ornt_aff([[1, -1], [2, -1], [0, 1]], (8, 9, 10))
    )
    direction = nib.aff2axcodes(nib.load(image).affine)
    text = example("verse_ctd.json").read_text().replace('"P", "I", "R"', '"{}", "{}", "{}"'.format(*direction))
    (tmp_path / "a.json").write_text(text)
    landmarks = read_landmarks(tmp_path / "a.json", image=image)
    assert landmarks == LandmarkSet(("T12", "L1", "T13"), [[3, 1, 2], [2.5, 4, 2.1], [NAN] * 3], "index")
    with pytest.raises(
        ValueError, match=r"a\.json: VerSe's centroids are voxels along .* give image=.* or .* convert FILE .*--images"
    ):
        read_landmarks(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"iso-ctd\.json: 0 entries 'direction'.*challenge"):
        read_landmarks(example("verse_iso-ctd.json"), image=image)


# label maps


def label_map(path, points, shape=(12, 14, 16), dtype=np.uint8):
    """Cubes as nnLandmark's converters draw them."""
    labels = np.zeros(shape, dtype)
    for label, point in points.items():
        labels[tuple(slice(i - 1, i + 2) for i in point)] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.diag([0.5, 0.5, 0.5, 1])), path)
    return path


@pytest.mark.parametrize("folder", ["", "labelsTr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_label_cubes_and_their_names(tmp_path, folder, dtype):
    path = label_map(tmp_path / folder / "case_1.nii.gz", {1: (3, 4, 5), 3: (9, 9, 9)}, dtype=dtype)
    numbered = read_landmarks(path, format="nnlandmark")
    assert numbered == LandmarkSet(("1", "3"), [[3, 4, 5], [9, 9, 9]], "index")
    shutil.copy(example("nnlandmark/dataset.json"), tmp_path)
    named = read_landmarks(path, format="nnlandmark")
    expected = [[3, 4, 5], [NAN] * 3, [9, 9, 9]]
    assert named == LandmarkSet(("landmark_1", "landmark_2", "landmark_3"), expected, "index")
    assert read_landmarks(path, format="nnlandmark", names=("a", "b", "c")).names == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"case_1\.nii\.gz: labels \[3\] have no name"):
        read_landmarks(path, format="nnlandmark", names=("a", "b"))


@pytest.mark.parametrize("dims", [2, 3])
def test_label_cubes_round_trip(tmp_path, dims):
    random = np.random.RandomState(dims)
    affine = np.array([[0, -2, 0, 5], [1.5, 0, 0, -6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    image = volume(tmp_path / "image.nii.gz", (30, 34, 36)[:dims], affine)
    names = ("a", "b", "c", "d")
    whole = np.array([[3, 4, 5], [9, 9, 9], [NAN] * 3, [20, 30, 28]])[:, :dims]
    landmarks = LandmarkSet(names, whole + random.uniform(-0.49, 0.49, whole.shape), "index")
    write_landmarks(tmp_path / "new" / "a.nii.gz", landmarks, format="nnlandmark", image=image)
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["a.nii.gz", "name_to_label.json"]
    back = read_landmarks(tmp_path / "new" / "a.nii.gz", format="nnlandmark")
    assert back == LandmarkSet(names, whole, "index")
    written = nib.load(tmp_path / "new" / "a.nii.gz")
    labels = np.asarray(written.dataobj)
    assert (np.bincount(labels.ravel())[1:] == [3**dims, 3**dims, 0, 3**dims]).all()
    np.testing.assert_allclose(center_of_mass(labels == 4), whole[3])
    if dims == 2:  # viewers put a 2-D image at z = 0
        affine[2] = [0, 0, 1, 0]
    np.testing.assert_allclose(written.affine, affine)


def test_label_cubes_of_a_folder_have_the_same_labels(tmp_path):
    image, folder = volume(tmp_path / "image.nii.gz"), tmp_path / "labelsTr"
    write_landmarks(
        folder / "1.nii.gz", LandmarkSet(("a", "b"), [[3, 4, 5], [9, 9, 9]], "index"), format="nnlandmark", image=image
    )
    write_landmarks(
        folder / "2.nii.gz", LandmarkSet(("c", "b"), [[3, 4, 5], [8, 8, 8]], "index"), format="nnlandmark", image=image
    )
    assert json.loads((folder / "name_to_label.json").read_text()) == {"a": 1, "b": 2, "c": 3}
    first, second = (read_landmarks(folder / f"{i}.nii.gz", format="nnlandmark") for i in (1, 2))
    assert first.reorder("abc").missing.tolist() == [False, False, True]
    np.testing.assert_array_equal(second.points, [[NAN] * 3, [8, 8, 8], [3, 4, 5]])
    # the labels of a data set are stated already: nothing is added to them
    shutil.copy(example("nnlandmark/dataset.json"), tmp_path)
    other = tmp_path / "labelsTs"
    with pytest.raises(ValueError, match=r"\['a'\] have no label in .*dataset\.json"):
        write_landmarks(other / "1.nii.gz", LandmarkSet(("a",), [[3, 4, 5]], "index"), format="nnlandmark", image=image)
    assert list(other.iterdir()) == []
    landmarks = LandmarkSet(("landmark_3",), [[3, 4, 5]], "index")
    write_landmarks(other / "1.nii.gz", landmarks, format="nnlandmark", image=image)
    assert np.unique(nib.load(other / "1.nii.gz").dataobj).tolist() == [0, 3]


@pytest.mark.parametrize(
    "points, message",
    [
        ([[3, 4, 5], [5, 6, 7]], "'a' and 'b' are so close that their cubes overlap"),
        ([[3, 4, 5], [-0.6, 4, 5]], r"'b' is at index \[-1.0, 4.0, 5.0\], outside the image of shape \(12, 14, 16\)"),
        ([[3, 4, 5], [3, 13.6, 5]], "'b' is at index"),
        ([[3, 4, 5], [1e300, 4, 5]], "'b' is at index"),
        ([[3, 4], [9, 9]], "the points are 2-D, but the image has the shape"),
    ],
)
def test_cubes_that_cannot_be_drawn(tmp_path, points, message):
    image = volume(tmp_path / "image.nii.gz")
    with pytest.raises(ValueError, match=message):
        write_landmarks(
            tmp_path / "new/a.nii.gz", LandmarkSet(("a", "b"), points, "index"), format="nnlandmark", image=image
        )
    assert list((tmp_path / "new").iterdir()) == []


def test_label_maps_that_cannot_be_read(tmp_path):
    good = label_map(tmp_path / "good.nii.gz", {1: (3, 4, 5)})
    (tmp_path / "cut.nii.gz").write_bytes(good.read_bytes()[:-30])
    (tmp_path / "text.nii").write_text("no image at all")
    image = np.zeros((4, 4, 4), np.float32)
    image[1, 1, 1] = 0.5
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "ct.nii")
    header = bytearray((tmp_path / "ct.nii").read_bytes())
    header[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()  # shape in the header of NIfTI-1
    (tmp_path / "vast.nii").write_bytes(header)
    for name, message in [
        ("cut.nii.gz", "cannot be read as a NIfTI label map"),
        ("text.nii", "cannot be read as a NIfTI label map"),
        ("vast.nii", r"the header states the shape \(30000, 30000, 30000\), which is more than \d+ bytes can hold"),
        ("ct.nii", "holds values other than whole numbers from 0"),
    ]:
        with pytest.raises(ValueError, match=f"{name}: {message}"):
            read_landmarks(tmp_path / name, format="nnlandmark")


def test_voxel_table():
    table = read_landmark_table(example("nnlandmark/all_landmarks_voxel.json"))
    assert list(table) == ["case_1", "case_2"]
    np.testing.assert_array_equal(table["case_2"].points, [[7, 4, 5], [NAN] * 3, [1, 2, 3]])
    assert table["case_1"].names == ("landmark_1", "landmark_2", "landmark_3")
    assert table["case_1"].points[2].tolist() == [1.25, 2.5, 10.75]


# which format a file has

RECOGNIZED = {
    "afids.fcsv": "afids",
    "coco.json": "coco",
    "elastix_index.txt": "elastix",
    "elastix_world.pts": "elastix",
    "isbi2015.txt": "isbi2015",
    "labelme.json": "labelme",
    "napari.csv": "napari",
    "napari_named.csv": "napari",
    "payer.csv": "payer",
    "verse_ctd.json": "verse",
    "verse_iso-ctd.json": "verse",
    "nnlandmark/all_landmarks_voxel.json": "nnlandmark.json",
}


def test_npz_needs_numpy_alone(tmp_path):
    landmarks = LandmarkSet(("a", "b"), [[1.5, 2], [NAN, NAN]], "index", (("a", "b"),), "1.png", [0.25, NAN])
    write_landmarks(tmp_path / "1.npz", landmarks)
    with np.load(tmp_path / "1.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"names", "points", "coordinate_system", "pairs", "image", "scores"}
        assert dict(zip(arrays["names"], arrays["points"].tolist()))["a"] == [1.5, 2]
        assert str(arrays["coordinate_system"]) == "index" and arrays["scores"][0] == 0.25
    assert read_landmarks(tmp_path / "1.npz") == landmarks
    matrices = np.array([[[2.0, 0.5], [0.5, 1.0]], [[NAN, NAN], [NAN, NAN]]])
    stated = replace(landmarks, covariances=matrices, regions=3 * matrices, coverage=0.9)
    write_landmarks(tmp_path / "1.npz", stated)
    assert read_landmarks(tmp_path / "1.npz") == stated != landmarks


def test_npz_keeps_the_name_of_the_file(tmp_path):
    """NumPy would add .npz to it."""
    landmarks = LandmarkSet(("a",), [[1.5, 2]], "index")
    write_landmarks(tmp_path / "1.NPZ", landmarks)
    assert [path.name for path in tmp_path.iterdir()] == ["1.NPZ"] and read_landmarks(tmp_path / "1.NPZ") == landmarks


def forged(header, data=bytes(8)):
    """A member of an archive with this header."""
    text = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


NPZ = {"names": np.array(["a"]), "points": np.zeros((1, 2)), "coordinate_system": np.array("RAS")}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"points": None}, "no array 'points'"),
        ({"points": np.array([["1", "2"]])}, "'points' holds <U1; expected numbers"),
        ({"names": np.array([1.0])}, "'names' holds float64; expected text"),
        ({"points": np.zeros(2)}, "'points' has the shape"),
        ({"points": np.zeros((2, 2))}, r"shape \(2, 2\); expected \(1, 2\)"),
        ({"scores": np.zeros(3)}, "scores has shape"),
        ({"covariances": -np.eye(2)[None]}, "covariances of landmark 'a'"),
        ({"coverage": np.zeros(3)}, "'coverage' has the shape"),
        ({"coordinate_system": np.array("MNI")}, "'MNI' is unknown"),
        ({"names": np.array(["a"], dtype=object)}, "the archive of arrays cannot be read"),
        ({"points": forged("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 2)}")}, "is too large"),
        ({"points": forged("{'descr': '<f8', 'fortran_order': False, 'shape': 9**9**9}")}, "the archive of arrays"),
        (
            {"names": forged("{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}", b"\xff" * 8)},
            "the archive of arrays",
        ),
        ({"points": bytes(1 << 27)}, "the archive of arrays cannot be read"),
    ],
)
def test_npz_holds_arrays_of_the_right_kind(tmp_path, change, message):
    with zipfile.ZipFile(tmp_path / "1.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in {**NPZ, **change}.items():
            if isinstance(value, np.ndarray):
                with archive.open(f"{key}.npy", "w") as file:
                    np.lib.format.write_array(file, value)
            elif value is not None:
                archive.writestr(f"{key}.npy", value)
    with pytest.raises(ValueError, match=message) as error:
        read_landmarks(tmp_path / "1.npz")
    assert "1.npz" in str(error.value)


def test_formats_are_told_apart_by_what_files_hold(tmp_path):
    assert {name: format_to_read(example(name)).name for name in RECOGNIZED} == RECOGNIZED
    # of the other files of a folder, neither nnLandmark's settings nor an image are landmarks
    volume(tmp_path / "image.nii.gz")
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    (tmp_path / "README.txt").write_text("Read me.")
    (tmp_path / "latin.txt").write_bytes("Größe".encode("latin-1"))
    (tmp_path / ".hidden.csv").write_text("")
    (tmp_path / "cut.json").write_text("{")  # the reader states what is wrong
    found = {path.relative_to(tmp_path).as_posix(): suffix for path, suffix in find_landmark_files(tmp_path).items()}
    assert set(found) == {"cut.json"} | {f"examples/{name}" for name in RECOGNIZED}
    assert found["examples/afids.fcsv"] == ".fcsv" and found["examples/coco.json"] == ".json"
    only = find_landmark_files(tmp_path, format="nnlandmark")
    assert [path.name for path in only] == ["image.nii.gz"] and list(only.values()) == [".nii.gz"]


def test_slicer_json_without_its_own_suffix(tmp_path):
    landmarks = LandmarkSet(("a",), [[1, 2, 3]], "LPS")
    write_landmarks(tmp_path / "a.mrk.json", landmarks)
    (tmp_path / "a.mrk.json").rename(tmp_path / "a.json")
    assert read_landmarks(tmp_path / "a.json") == landmarks


def test_format_that_cannot_be_told(tmp_path, monkeypatch):
    landmarks = LandmarkSet(("a",), [[1, 2]], "index", image="1.png")
    with pytest.raises(
        ValueError, match=r"a\.json: this suffix belongs to the formats \['mrk.json', 'labelme', .*format="
    ):
        write_landmarks(tmp_path / "a.json", landmarks)
    (tmp_path / "a.json").write_text('{"what": "else"}')
    with pytest.raises(
        ValueError, match=r"a\.json: its content fits none of the formats of this suffix, \['mrk.json', 'labelme'"
    ):
        read_landmarks(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"shapes": [], "images": [], "annotations": [], "categories": []}')
    with pytest.raises(
        ValueError, match=r"a\.json: its content fits the formats \['labelme', 'coco'\]; choose one with format="
    ):
        read_landmarks(tmp_path / "a.json")
    assert read_landmark_table(tmp_path / "a.json", format="coco") == {}
    with pytest.raises(ValueError, match="format 'cocoa' is unknown; known are .*'coco'"):
        read_landmarks(tmp_path / "a.json", format="cocoa")
    with pytest.raises(ValueError, match=r"image\.nii\.gz: no landmark format has this suffix"):
        read_landmarks(volume(tmp_path / "image.nii.gz"))
    with pytest.raises(ValueError, match="give names only for other formats"):
        read_landmarks(example("labelme.json"), names=("a",))
    with pytest.raises(ValueError, match=r"payer\.csv: holds 2 images; read it with read_landmark_table"):
        read_landmarks(example("payer.csv"))
    with pytest.raises(ValueError, match=r"labelme\.json: holds the landmark set of one image"):
        read_landmark_table(example("labelme.json"))
    with pytest.raises(ValueError, match="hold the landmark set of one image; use write_landmarks"):
        write_landmark_table(tmp_path / "a.json", {"1.png": landmarks}, format="labelme")
    with pytest.raises(ValueError, match=r"coco\.json: holds points in index, but LPS was asked for"):
        read_landmark_table(example("coco.json"), "LPS")
    assert "coco" in landmark_formats()


def test_a_format_of_ones_own_shares_a_suffix(tmp_path, monkeypatch):
    monkeypatch.setattr(landmark_io, "_FORMATS", dict(landmark_io._FORMATS))
    register_format(
        ".json",
        reader=lambda path: LandmarkSet(tuple(json.loads(path.read_text())["mine"]), np.zeros((1, 2))),
        name="mine",
        fits=lambda content: "mine" in content,
    )
    (tmp_path / "a.json").write_text('{"mine": ["tip"]}')
    assert read_landmarks(tmp_path / "a.json").names == ("tip",)
    assert read_landmarks(example("labelme.json")).names[0] == "sella"


def test_one_image_in_the_format_of_many(tmp_path):
    landmarks = LandmarkSet(("a",), [[1, 2]], "index")
    with pytest.raises(ValueError, match="has no image name"):
        write_landmarks(tmp_path / "a.json", landmarks, format="coco")
    picture = bright_picture(tmp_path / "1.png", 3, 4)
    write_landmarks(tmp_path / "a.json", landmarks, format="coco", image=picture)
    expected = LandmarkSet(("a",), [[1, 2]], "index", image="1.png", image_size=(60, 40))
    assert read_landmark_sets(tmp_path / "a.json") == {"1.png": expected}
    assert read_landmarks(tmp_path / "a.json").image == "1.png"


# what is wrong with a file


def changed(name, *changes):
    text = example(name).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


MALFORMED = [
    ("pts", lambda: "", "line 1: ''; expected 'point' or 'index', and then the number"),
    ("pts", lambda: "points\n1\n1 2\n", "line 1: 'points'; expected 'point' or 'index'"),
    ("pts", lambda: "point\nthree\n1 2 3\n", "line 2: 'point three'; expected"),
    ("pts", lambda: "point\n", "line 1: 'point'; expected 'point' or 'index', and then"),
    ("pts", lambda: "point\n3\n1 2 3\n", "holds 1 points, but states 3; the file may be cut short"),
    ("pts", lambda: "point\n1\n1 2 3\n4 5 6\n", "holds 2 points, but states 1"),
    ("pts", lambda: "point\n2\n1 2 3\n4 5\n", "line 4: 2 numbers; expected 3"),
    ("pts", lambda: "point\n1\n1 2 3 4\n", "line 3: 4 numbers; expected 2 or 3"),
    ("pts", lambda: "point\n1\n1 x 3\n", "line 3: column 'y' is 'x'"),
    ("pts", lambda: "point\n1\n1 nan 3\n", "line 3: the point is 1 nan 3; expected 3 numbers"),
    ("pts", lambda: "point\n99999999999\n", "expected 'point' or 'index'"),
    ("txt", lambda: changed("isbi2015.txt", ("857,982", "857")), "line 3: '857'; expected 'x,y'"),
    ("txt", lambda: changed("isbi2015.txt", ("857,982", "857,x")), "line 3: column 'y' is 'x'"),
    ("txt", lambda: "1,2\n3,4\n", "2 lines; expected 19 lines 'x,y'"),
    ("json", lambda: changed("labelme.json", ('"sella"', '" "')), r"shapes\[0\]: no label"),
    (
        "json",
        lambda: changed("labelme.json", ('"group_id": 2', '"group_id": 1')),
        r"shapes\[2\]: landmark 'corner_1' is in",
    ),
    (
        "json",
        lambda: changed("labelme.json", ("33.5", '"33.5"')),
        r"shapes\[0\] \('sella'\): the point is \['33.5', 7.5\]",
    ),
    ("json", lambda: changed("labelme.json", ("33.5", "NaN")), r"shapes\[0\] \('sella'\): the point is \[nan, 7.5\]"),
    ("json", lambda: changed("labelme.json", ("33.5", "1" + "0" * 400)), "expected 2 numbers"),
    ("json", lambda: changed("labelme.json", ("33.5", "1e999")), "expected 2 numbers"),
    (
        "json",
        lambda: changed("labelme.json", ('"label": "sella"', '"label": "a", "label": "b"')),
        "'label' is given twice",
    ),
    ("json", lambda: '{"shapes": [{"shape_type": "polygon"}]}', r"shapes of type \['polygon'\], but no point"),
    ("json", lambda: '{"shapes": [3]}', r"shapes\[0\] is not an object"),
    ("json", lambda: example("labelme.json").read_text()[:300], r"line \d+: not valid JSON .*cut short"),
    ("json", lambda: "[" * 100_000, "nested too deeply"),
    ("json", lambda: "9" * 5_000, "too many digits"),
    (
        "json",
        lambda: changed("coco.json", ('"image_id": 37777', '"image_id": 1')),
        r"annotations\[0\]: image_id is 1, which is not",
    ),
    ("json", lambda: changed("coco.json", ('"image_id": 37777', '"image_id": [1]')), "image_id is"),
    (
        "json",
        lambda: changed("coco.json", ('"image_id": 397133', '"image_id": 37777')),
        r"annotations\[1\]: a second annotation",
    ),
    (
        "json",
        lambda: changed("coco.json", ("131, 157, 1", "131, 157, 3")),
        "visibility of 'right_eye' is 3; expected 0, 1 or 2",
    ),
    (
        "json",
        lambda: changed("coco.json", ("131, 157, 1", "131, 157")),
        r"\('000000037777.jpg'\): keypoints is .*expected 9 numbers",
    ),
    (
        "json",
        lambda: changed("coco.json", ('"id": 37777', '"id": 397133')),
        r"images\[1\]: id is 397133; expected .*no other",
    ),
    (
        "json",
        lambda: changed("coco.json", ("000000037777", "000000397133")),
        "file_name '000000397133.jpg' is given more than once",
    ),
    ("json", lambda: changed("coco.json", ('"left_eye"', '"nose"')), "keypoint 'person_nose' is given more than once"),
    (
        "json",
        lambda: '{"images": [], "annotations": [{"id": 1}], "categories": []}',
        "annotations, but none with 'keypoints'",
    ),
    ("json", lambda: '{"images": [], "annotations": []}', "no list 'categories'"),
    (
        "json",
        lambda: changed("verse_ctd.json", ('"label": 20', '"label": 19')),
        r"\[2\]: label 19 \(T12\) is in the file already",
    ),
    (
        "json",
        lambda: changed("verse_ctd.json", ('"label": 20', '"label": 29')),
        r"\[2\]: label is 29; expected a vertebra, 1 to 28",
    ),
    (
        "json",
        lambda: changed("verse_ctd.json", ('"P", "I"', '"P", "A"')),
        r"direction is \['P', 'A', 'R'\]; expected three letters",
    ),
    (
        "json",
        lambda: changed("verse_ctd.json", ('"Y": 4.0', '"Y": NaN')),
        r"\[2\] \(L1\): X, Y, Z is \[2.5, nan, 2.1\]",
    ),
    ("json", lambda: '{"case": {"a": [1, 2, 3], "b": [1, 2]}}', "'case': 'b' is .*expected 3 numbers"),
    ("csv", lambda: "index,axis-0\n0,1\n", "the header is 'index,axis-0'"),
    ("csv", lambda: "index,shape-type,vertex-index,axis-0,axis-1\n0,line,0,1,2\n", "expected that of a points layer"),
    (
        "csv",
        lambda: "index,axis-0,axis-1,axis-2,axis-3\n0,1,2,3,4\n",
        "the points have the axes .* expected axis-0, axis-1 and",
    ),
    (
        "csv",
        lambda: "index,axis-0,axis-1,label\n0,1,2,a\n1,1,2,a\n",
        "line 3: the name is 'a'; expected distinct names",
    ),
    ("csv", lambda: "index,axis-0,axis-1\n0,1,\n", "line 2: the point has no number for one of its axes"),
    ("csv", lambda: "index,axis-0,axis-1\n0,1\n", "line 2: 2 columns; expected 3"),
    ("csv", lambda: changed("payer.csv", ("nan,nan", "nan,3")), "line 2: landmark '3' has fewer than 2 numbers"),
    (
        "csv",
        lambda: changed("payer.csv", ("3143", "3142")),
        "line 2: the image is '3142'; expected a name that no earlier",
    ),
    ("csv", lambda: changed("payer.csv", (",1926", "")), "line 2: 9 numbers; expected 10"),
    ("csv", lambda: changed("payer.csv", ("1926", "one")), "line 2: column 'number 10' is 'one'"),
    ("fcsv", lambda: changed("afids.fcsv", (",32,L olf", ",33,L olf")), r"\['33'\] are no labels of AFIDs"),
    ("fcsv", lambda: changed("afids.fcsv", (",2,PC,", ",1,PC,")), "line 5: landmark '1' occurs twice"),
]


@pytest.mark.parametrize("suffix, text, message", MALFORMED)
def test_malformed_file_is_named_with_its_place(tmp_path, suffix, text, message):
    path = tmp_path / f"bad.{suffix}"
    path.write_text(text())
    with pytest.raises(ValueError, match=rf"bad\.{suffix}: .*{message}"):
        read_landmark_sets(path, image=volume(tmp_path / "image.nii.gz"))


@pytest.mark.parametrize("name", ["labelme.json", "napari_named.csv", "elastix_index.txt", "afids.fcsv"])
def test_other_encodings(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(example(name).read_text().encode("utf-16"))
    assert read_landmarks(path) == read_landmarks(example(name))
    path.write_bytes(example(name).read_bytes() + b"\xe9")
    with pytest.raises(ValueError, match=rf"{name}: byte \d+ is not UTF-8 text"):
        read_landmarks(path)
