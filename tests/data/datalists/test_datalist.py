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
import os
import unicodedata

import nibabel
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from monai_landmarks.data import (
    DatalistError,
    LandmarkSet,
    build_datalist,
    check_datalist,
    load_landmark_datalist,
    load_landmark_definition,
    load_landmark_pairs,
    read_item_landmarks,
    require_valid_datalist,
    save_datalist,
    split_images,
    write_landmark_table,
    write_landmarks,
)

NAN = float("nan")
NAMES = ("a", "b")


@pytest.fixture
def pictures(tmp_path):
    """Ten pictures of 30x20 pixels of five patients, and a table of their landmarks."""
    (tmp_path / "images").mkdir()
    table = {}
    for i in range(10):
        name = f"p{i // 2}_{i}.png"
        Image.fromarray(np.full((20, 30), i, np.uint8)).save(tmp_path / "images" / name)
        second = [NAN, NAN] if i == 3 else [29.5, 19.5]
        table[name] = LandmarkSet(NAMES, [[-0.5, i], second], "index", (NAMES,), name)
    write_landmark_table(tmp_path / "landmarks.csv", table)
    return tmp_path


def items(datalist):
    return [item for value in datalist.values() if isinstance(value, list) for item in value]


def test_build_from_table(pictures):
    output = pictures / "lists" / "datalist.json"
    datalist = build_datalist(
        pictures / "images",
        pictures / "landmarks.csv",
        output,
        val_frac=0.2,
        test_frac=0.2,
        group_pattern=r"p(\d+)_",
        spacing=0.5,
    )
    assert datalist["landmarks"] == {"names": ["a", "b"], "pairs": [["a", "b"]], "coordinate_system": "index"}
    assert [len(datalist[section]) for section in ("training", "validation", "testing")] == [6, 2, 2]
    patients = [{item["image"][11:13] for item in datalist[key]} for key in ("training", "validation", "testing")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 5
    third = next(item for item in items(datalist) if item["image"] == "../images/p1_3.png")
    assert third == {"image": "../images/p1_3.png", "label": [[-0.5, 3.0], [None, None]], "spacing": [0.5, 0.5]}
    text = output.read_text()
    assert "NaN" not in text and json.loads(text) == datalist
    require_valid_datalist(output)
    assert os.listdir(output.parent) == ["datalist.json"]

    loaded = load_landmark_datalist(output, "validation")
    assert [os.path.samefile(a["image"], output.parent / b["image"]) for a, b in zip(loaded, datalist["validation"])]
    assert all(os.path.isabs(item["image"]) and item["label_coordinate_system"] == "index" for item in loaded)
    assert all(item["label_names"] == ["a", "b"] for item in loaded)
    assert load_landmark_definition(output) == load_landmark_definition(datalist) == datalist["landmarks"]
    assert load_landmark_pairs(output) == load_landmark_pairs(datalist) == [["a", "b"]]
    assert load_landmark_pairs({"landmarks": {"names": ["a", "b"]}}) == []
    monai = load_decathlon_datalist(output, is_segmentation=True, data_list_key="validation")
    assert [item["label"] for item in monai] == [item["label"] for item in loaded]
    assert [item["image"] for item in monai] == [item["image"] for item in loaded]


def test_the_same_seed_draws_the_same_images_wherever_they_are(pictures):
    def drawn(seed, **kwargs):
        images = kwargs.pop("images", pictures / "images")
        datalist = build_datalist(images, pictures / "landmarks.csv", val_frac=0.3, seed=seed, check=False)
        return [os.path.basename(item["image"]) for item in datalist["validation"]]

    assert drawn(0) == drawn(0) and len(drawn(0)) == 3
    assert len({tuple(drawn(seed)) for seed in range(10)}) > 1
    before = drawn(0)
    os.rename(pictures / "images", pictures / "elsewhere")
    assert drawn(0, images=pictures / "elsewhere") == before


@pytest.mark.parametrize("suffix, system", [(".mrk.json", "LPS"), (".fcsv", "RAS"), (".csv", "index")])
def test_build_from_landmark_files(tmp_path, suffix, system):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for i in range(3):
        nibabel.save(nibabel.Nifti1Image(np.zeros((8, 9, 10), np.uint8), affine), tmp_path / f"case.{i}.nii.gz")
        landmarks = LandmarkSet(NAMES, [[1, 2, 3], [7, 8, 9]], "index")
        landmarks = landmarks if system == "index" else landmarks.to_world(affine).to(system)
        if i < 2:
            write_landmarks(tmp_path / f"case.{i}{suffix}", landmarks)
    with pytest.warns(UserWarning, match=r"1 of 3 images have no landmarks .*case\.2\.nii\.gz"):
        datalist = build_datalist(tmp_path, tmp_path, tmp_path / "datalist.json", pairs=[("a", "b")], val_frac=0.0)
    assert datalist["training"] == [
        {"image": f"case.{i}.nii.gz", "label": f"case.{i}{suffix}"} for i in range(2)
    ]  # NIfTI holds its spacing
    assert datalist["landmarks"] == {"names": ["a", "b"], "pairs": [["a", "b"]], "coordinate_system": system}
    item, _ = load_landmark_datalist(tmp_path / "datalist.json")
    assert item["label"] == str(tmp_path / f"case.0{suffix}")  # a file states these itself
    assert "label_coordinate_system" not in item and "label_names" not in item
    assert load_landmark_datalist(tmp_path / "datalist.json", base_dir="/data")[0]["image"] == "/data/case.0.nii.gz"


def test_build_from_files_that_are_told_by_what_they_hold(tmp_path, write_picture):
    """Files of LabelMe and elastix are in the folder of their images, with other files of the same suffixes."""
    landmarks = LandmarkSet(("1", "2"), [[1, 2], [7, 8]], "index")
    for name, suffix, format in (("a", ".json", "labelme"), ("b", ".txt", "elastix")):
        write_picture(tmp_path / f"{name}.png", 30, 20)
        write_landmarks(tmp_path / f"{name}{suffix}", landmarks, format=format)
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "README.txt").write_text("Read me.")
    datalist = build_datalist(tmp_path, tmp_path, tmp_path / "datalist.json", spacing=0.5, val_frac=0.0)
    assert [item["label"] for item in items(datalist)] == ["a.json", "b.txt"]
    # what is written stands among them, and is not a landmark file either
    assert build_datalist(tmp_path, tmp_path, tmp_path / "datalist.json", spacing=0.5, val_frac=0.0) == datalist
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text()[:50])
    with pytest.raises(ValueError, match=r"a\.json: line \d+: not valid JSON"):
        build_datalist(tmp_path, tmp_path, spacing=0.5)


def test_slicer_points_of_pictures(pictures):
    """2-D points are 3-D in Slicer's files, and lie where ITK has the pixel: at LPS (spacing x, spacing y, 0)."""
    (pictures / "points").mkdir()
    for i, y in ((0, 19.5 * 0.5), (1, 19.6 * 0.5)):
        write_landmarks(pictures / "points" / f"p0_{i}.mrk.json", LandmarkSet(("a",), [[29 * 0.5, y]], "LPS"))
    with pytest.warns(UserWarning, match="8 of 10"), pytest.raises(DatalistError) as error:
        build_datalist(pictures / "images", pictures / "points", pictures / "datalist.json", spacing=0.5)
    assert len(error.value.faults) == 1
    assert "p0_1.png): landmark 'a' is at index [29.0, 19.6], outside the image of shape (30, 20)" in str(error.value)
    assert not (pictures / "datalist.json").exists()


def test_table_names_images_by_stem_or_path(tmp_path, write_picture):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_picture(tmp_path / folder / "1.png", 9, 9)
    (tmp_path / "t.csv").write_text("image,landmark,x,y\nx/1.png,a,1,2\ny/1.png,a,3,4\n")
    datalist = build_datalist(tmp_path, tmp_path / "t.csv", tmp_path / "d.json", spacing=(1, 2), val_frac=0.0)
    assert [(item["image"], item["label"]) for item in datalist["training"]] == [
        ("x/1.png", [[1, 2]]),
        ("y/1.png", [[3, 4]]),
    ]
    (tmp_path / "t.csv").write_text("image,landmark,x,y\n1,a,1,2\n")
    with pytest.raises(ValueError, match="'1' fits more than one"):
        build_datalist(tmp_path, tmp_path / "t.csv")
    datalist = build_datalist(tmp_path / "x", tmp_path / "t.csv", spacing=1, val_frac=0.0)
    assert datalist["training"][0]["image"] == str(tmp_path / "x" / "1.png")


def test_what_to_know_about_the_landmarks_is_a_warning(pictures):
    table = pictures / "landmarks.csv"
    rows = table.read_text().splitlines()
    both = [f"{unicodedata.normalize(form, 'é')},1,2" for form in ("NFC", "NFD")]
    table.write_text("\n".join([*rows, f"p0_0.png,{both[0]}", f"p0_1.png,{both[1]}"]) + "\n")
    with pytest.warns(UserWarning, match="the name 'é' is written in 2 Unicode forms, which count as one landmark"):
        datalist = build_datalist(pictures / "images", table, spacing=0.5)
    assert datalist["landmarks"]["names"] == ["a", "b", "é"]


def test_build_errors(pictures):
    images, table = pictures / "images", pictures / "landmarks.csv"
    with pytest.raises(ValueError, match="no such folder"):
        build_datalist(pictures / "absent", table)
    with pytest.raises(ValueError, match="no image in it"):
        (pictures / "empty").mkdir()
        build_datalist(pictures / "empty", table)
    with pytest.raises(ValueError, match="no landmark file in it"):
        build_datalist(images, pictures / "empty")
    with pytest.raises(
        ValueError, match=r"landmarks\.csv has 9 fault.*\n.*csv: line 6: 'p0_1\.png' is not among the images"
    ):
        build_datalist([images / "p0_0.png"], table)
    with pytest.raises(ValueError, match=r"group pattern 'q' is not found in image name 'p0_0\.png'"):
        build_datalist(images, table, group_pattern="q")
    write_landmarks(pictures / "empty" / "q.csv", LandmarkSet(("a",), [[1, 2]], "index"))
    with pytest.raises(ValueError, match=r"q\.csv: no image has this name"):
        build_datalist(images, pictures / "empty")
    with pytest.raises(DatalistError, match=r"10 fault.*\n.*no 'spacing', and the file states none"):
        build_datalist(images, table)


def test_every_fault_is_listed(pictures):
    (pictures / "broken.png").write_bytes(b"\x89PNG nothing")
    write_landmarks(pictures / "misspelled.csv", LandmarkSet(("a", "bb"), [[1, 2]] * 2, "index"))
    (pictures / "cut.mrk.json").write_text('{"markups": [')
    for name in ("1.nii", "2.nii"):
        nibabel.save(nibabel.Nifti1Image(np.zeros((8, 9, 10), np.uint8), np.eye(4)), pictures / name)
    label, spacing = [[1, 2], [3, 4]], [1, 1]
    datalist = {
        "landmarks": {"names": ["a", "b"], "pairs": [], "coordinate_system": "index"},
        "training": [
            {"image": "images/p0_0.png", "label": label},
            {"image": "images/p0_1.png", "label": [[1, 2], [30, 4]], "spacing": spacing},
            {"image": "images/p1_2.png", "label": [[1, 2]], "spacing": spacing},
            {"image": "images/p1_3.png", "label": [[1, 2], [3, None]], "spacing": spacing},
            {"image": "images/p2_4.png", "label": [[1, 2], ["x", 3]], "spacing": spacing},
            {"image": "images/p2_5.png", "spacing": spacing},
            {"image": "broken.png", "label": label, "spacing": spacing},
            {"image": "absent.png", "label": label, "spacing": spacing},
            {"label": label},
            {"image": "images/p3_6.png", "label": label, "spacing": [1, -1]},
        ],
        "validation": [
            {"image": "images/../images/p0_1.png", "label": label, "spacing": spacing},
            {"image": "images/p3_7.png", "label": "misspelled.csv", "spacing": spacing},
            {"image": "images/p4_8.png", "label": "cut.mrk.json", "spacing": spacing},
            {"image": "images/p4_9.png", "label": [[1, 2, 3], [4, 5, 6]], "spacing": spacing},
            {"image": "1.nii", "label": [[1, 2, 3], [4]]},
            {"image": "2.nii", "label": [[1, 2], [3, 4]]},
        ],
        "testing": [{"image": "images/p0_0.png", "spacing": spacing}],
    }
    expected = [
        ("training[0] (images/p0_0.png)", "no 'spacing'"),
        ("training[1]", "'b' is at index [30.0, 4.0], outside the image of shape (30, 20)"),
        ("training[2]", "label is 1 points; expected 2 points"),
        ("training[3]", "'b' is at [3.0, nan]"),
        ("training[4]", "landmark 'b' is ['x', 3]; expected [x, y]"),
        ("training[5]", "no 'label'"),
        ("training[6]", "the image cannot be read"),
        ("training[7]", "the image cannot be read"),
        ("training[8]", "no 'image'"),
        ("training[9]", "spacing is [1, -1]; expected positive numbers"),
        ("validation[0]", "the image is in training[1] already"),
        ("validation[1]", "landmarks ['bb'] are not among the names"),
        ("validation[2]", "not valid JSON"),
        ("validation[3]", "'b' lies 6.000 mm off the plane of the 2-D image"),
        ("validation[4]", "'b' is [4]; expected [x, y]"),
        ("validation[5]", "the points are 2-D, but the image is 3-D"),
        ("testing[0]", "the image is in training[0] already"),
    ]
    faults = check_datalist(datalist, pictures)
    assert len(faults) == len(expected), "\n".join(faults)
    for fault, (where, what) in zip(faults, expected):
        assert fault.startswith(where) and what in fault
    with pytest.raises(DatalistError, match=r"17 fault\(s\)") as error:
        require_valid_datalist(datalist, pictures)
    assert error.value.faults == faults


@pytest.mark.parametrize(
    "definition, message",
    [
        (None, "no 'landmarks' with 'names'"),
        ({"names": ["a", "a"]}, "distinct"),
        ({"names": ["a", "b"], "pairs": [["a", "c"]]}, "'c', which is not among"),
        ({"names": ["a"], "coordinate_system": "XYZ"}, "'XYZ' is unknown"),
        ({"names": ["a"], "pairs": 7}, "not iterable"),
    ],
)
def test_faults_of_the_definition(definition, message):
    first, second = check_datalist({"landmarks": definition})
    assert message in first and "no image in any section" in second


def test_bad_files(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('{"training": [')
    with pytest.raises(ValueError, match=r"d\.json: line 1: not valid JSON \(Expecting value\)"):
        require_valid_datalist(path)
    with pytest.raises(ValueError, match=r"d\.json: line 1: not valid JSON .* Expected a datalist, which 'monai-landm"):
        load_landmark_definition(path)
    path.write_text("[]")
    assert check_datalist(path) == ["not a JSON object; expected one with 'landmarks' and sections such as 'training'."]
    for load in (load_landmark_datalist, load_landmark_definition):
        with pytest.raises(ValueError, match=r"d\.json: not a JSON object"):
            load(path)
    path.write_text('{"training": [], "landmarks": {}}')
    with pytest.raises(ValueError, match=r"d\.json: no section 'testing'; there are \['training'\]"):
        load_landmark_datalist(path, "testing")
    with pytest.raises(ValueError, match=r"d\.json: no 'landmarks' with 'names'"):
        load_landmark_definition(path)


def test_save_writes_nan_as_null(tmp_path):
    datalist = {
        "landmarks": {"names": ["ä"]},
        "training": [{"image": "1", "label": np.array([[NAN, 1.5]])}],
        "empty": [],
    }
    save_datalist(tmp_path / "d.json", datalist)
    expected = {"landmarks": {"names": ["ä"]}, "training": [{"image": "1", "label": [[None, 1.5]]}], "empty": []}
    assert json.loads((tmp_path / "d.json").read_text(encoding="utf-8")) == expected
    with pytest.raises(ValueError):
        save_datalist(tmp_path / "d.json", {"training": [float("inf")]})
    assert json.loads((tmp_path / "d.json").read_text(encoding="utf-8")) == expected


def test_split_keeps_groups_and_counts():
    images = [f"{i // 3}_{i}" for i in range(30)]
    validation, testing, rest = split_images(images, [0.2, 0.1], seed=3, group_pattern=r"^\d+")
    assert sorted(validation + testing + rest) == sorted(images)
    assert (len(validation), len(testing), len(rest)) == (6, 3, 21)
    patients = [{image.split("_")[0] for image in part} for part in (validation, testing, rest)]
    assert sum(map(len, patients)) == 10 == len(set.union(*patients))
    assert split_images(images[::-1], [0.2, 0.1], 3, r"^\d+")[0] == validation[::-1]
    assert split_images(images, [0.0])[0] == [] and split_images([], [0.5]) == [[], []]
    for fractions in ([0.5, 0.5], [-0.1]):
        with pytest.raises(ValueError, match="sum is below 1"):
            split_images(images, fractions)
    with pytest.raises(ValueError, match="no image remains"):
        split_images(["1_a", "1_b"], [0.5], group_pattern=r"\d")


@pytest.mark.parametrize("name", ["mouse_skull_ct", "lumbar_mri"])
def test_real_volumes(name, request):
    root = request.getfixturevalue(f"{name}_root")
    datalist = build_datalist(root / "images", root / "landmarks.csv", val_frac=0.1, check=False)
    assert datalist["landmarks"]["coordinate_system"] == "RAS"
    few = {"landmarks": datalist["landmarks"], "training": datalist["validation"]}
    assert check_datalist(few) == []
    few["landmarks"] = {**datalist["landmarks"], "coordinate_system": "index"}  # the check sees a wrong space
    assert "outside the image" in check_datalist(few)[0]


def test_real_pictures_of_unknown_spacing(aasce_spine_root):
    datalist = build_datalist(
        aasce_spine_root / "images", aasce_spine_root / "landmarks.csv", val_frac=0.02, spacing=1, check=False
    )
    few = {"landmarks": datalist["landmarks"], "training": datalist["validation"]}
    assert check_datalist(few) == []


def test_items_of_a_datalist_in_memory_are_those_of_its_file(pictures):
    # built without an output, the paths are absolute, so both ways lead to the same images
    datalist = build_datalist(pictures / "images", pictures / "landmarks.csv", spacing=1.0, val_frac=0.0)
    save_datalist(pictures / "datalist.json", datalist)
    assert load_landmark_datalist(datalist, "training") == load_landmark_datalist(
        pictures / "datalist.json", "training"
    )


def test_several_sections_follow_each_other(pictures):
    datalist = build_datalist(pictures / "images", pictures / "landmarks.csv", spacing=1.0, val_frac=0.2)
    both = load_landmark_datalist(datalist, ["validation", "training"])
    assert both == load_landmark_datalist(datalist, "validation") + load_landmark_datalist(datalist, "training")
    with pytest.raises(ValueError, match="no section 'test'"):
        load_landmark_datalist(datalist, ["training", "test"])


def test_labels_without_names_and_tables_of_several_images(tmp_path):
    """A datalist of other programs may have points without names; a label must be of one image."""
    datalist = {"training": [{"image": "1.png", "label": [[1, 2]]}, {"image": "2.png"}]}
    first, second = load_landmark_datalist(datalist, base_dir=tmp_path)
    assert "label_names" not in first and first["label_coordinate_system"] == "index"
    assert read_item_landmarks(second) is None
    (tmp_path / "t.csv").write_text("image,landmark,x,y\n1.png,a,1,2\n2.png,a,1,2\n")
    with pytest.raises(ValueError, match="t.csv: holds 2 images; expected the landmarks of one"):
        read_item_landmarks({"image": "1.png", "label": str(tmp_path / "t.csv")})


def test_points_are_not_judged_without_names(pictures):
    datalist = {"landmarks": {}, "training": [{"image": "nowhere.png", "label": [[1, 2]], "spacing": [1, 1]}]}
    definition, image = check_datalist(datalist, pictures)
    assert "no 'landmarks' with 'names'" in definition and "the image cannot be read" in image
