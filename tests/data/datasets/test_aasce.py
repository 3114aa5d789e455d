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
import logging
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import (
    AASCE_LANDMARKS,
    AASCE_PAIRS,
    LandmarkSet,
    aasce_datalist,
    check_datalist,
    convert_landmarks,
    find_landmark_files,
    load_landmark_datalist,
    read_landmark_table,
)

SIZE = (60, 400)  # pixels of the made images: width, height
TRAINING = [
    *(f"sunhl-1th-02-Jan-2017-162 {letter} AP.jpg" for letter in "ABC"),
    "sunhl-1th-03-Jan-2017-163 A AP.jpg",
    "sunhl-1th-22-Nov-2016-142 A AP (2).jpg",
    "sunhl-1th-22-Nov-2016-142 A AP.jpg",
    "sunhl-1th-10-Jan-2017-238 A AP.jpg",
    "sunhl-1th-11-Jan-2017-239 A AP.jpg",
    "sunhl-1th-20-Jul-2016-coronal1.jpg",
    "sunhl-1th-20-Jul-2016-coronal2.jpg",
    "sunhl-1th-25-Jul-2016-48 A AP.jpg",
]
TEST = ["sunhl-1th-01-Mar-2017-310 a ap.jpg", "sunhl-1th-22-Feb-2017-291 E AP2.jpg"]


def made_points(number):
    """Vertebrae 22 pixels apart, each 12 high and 20 wide; different for each image."""
    y = 10 + 22 * np.arange(17)[:, None] + np.array([0, 1, 12, 13])
    x = 15 + np.array([0, 20, 0, 20]) + np.full((17, 1), number)
    return np.stack([x, y], axis=-1).astype(float)  # (17, 4, 2)


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows)


def write_official(root, folder, files, points, angles, size=SIZE, header=()):
    """Images and tables of one part of the official layout; points (V, 4, 2) are pixel index."""
    for file in files:
        path = root / "boostnet_labeldata" / "data" / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(path)
    labels = root / "boostnet_labeldata" / "labels" / folder
    relative = [((p.reshape(-1, 2) + 0.5) / np.array(size)).T.reshape(-1) for p in points]
    write_csv(labels / "filenames.csv", [[file] for file in files])
    write_csv(labels / "landmarks.csv", relative)
    write_csv(labels / "angles.csv", [*header, *angles])
    return labels


@pytest.fixture
def official(tmp_path):
    root = tmp_path / "AASCE"
    write_official(root, "training", TRAINING, map(made_points, range(11)), [[n + 20, n, 2] for n in range(11)])
    write_official(root, "test", TEST, map(made_points, (3, 4)), [[9, 8, 7], [6, 5, 4]], header=[["MT", "PT", "TL"]])
    return root


def all_items(datalist, sections=("training", "validation")):
    return {os.path.basename(item["image"]): item for section in sections for item in datalist.get(section, [])}


def test_names_and_pairs():
    assert len(AASCE_LANDMARKS) == 68 and AASCE_LANDMARKS[:5] == ("T1_TL", "T1_TR", "T1_BL", "T1_BR", "T2_TL")
    assert AASCE_LANDMARKS[-1] == "L5_BR" and ("T12_BL", "T12_BR") in AASCE_PAIRS
    landmarks = LandmarkSet(AASCE_LANDMARKS, made_points(0).reshape(68, 2), "index", AASCE_PAIRS)
    assert landmarks.permutation().reshape(17, 4).tolist() == [[i + 1, i, i + 3, i + 2] for i in range(0, 68, 4)]


def test_official_layout(official):
    output = official.parent / "lists" / "aasce.json"
    datalist = aasce_datalist(official, output, val_frac=0.3, check=True)
    assert set(datalist) == {"name", "landmarks", "training", "validation", "testing"}
    assert json.loads(output.read_text()) == datalist
    assert datalist["landmarks"]["coordinate_system"] == "index" and len(datalist["landmarks"]["pairs"]) == 34
    assert list(all_items(datalist, ["testing"])) == TEST
    items = all_items(datalist)
    assert sorted(items) == sorted(TRAINING)
    for number, file in enumerate(TRAINING):
        np.testing.assert_allclose(items[file]["label"], made_points(number).reshape(68, 2), atol=1e-9)
        assert items[file]["cobb_angles"] == [number + 20, number, 2] and items[file]["spacing"] == [1, 1]
    testing = load_landmark_datalist(output, "testing")
    assert [item["cobb_angles"] for item in testing] == [[9, 8, 7], [6, 5, 4]]
    assert all(os.path.isfile(item["image"]) for item in testing)


def test_the_official_table_as_a_landmark_file(official):
    """Recognized by what it holds; in order from top to bottom, as the datalist has it."""
    points = [made_points(0), np.roll(made_points(1), -1, axis=0)]
    labels = write_official(official, "more", ["a, b.jpg", "c.jpg"], points, [[9, 8, 7], [6, 5, 4]])
    for table in (
        read_landmark_table(labels / "landmarks.csv"),
        read_landmark_table(labels / "landmarks.csv", "index"),
    ):
        assert list(table) == ["a, b.jpg", "c.jpg"]
        for number, landmarks in enumerate(table.values()):
            assert landmarks.names == AASCE_LANDMARKS and landmarks.pairs == AASCE_PAIRS
            np.testing.assert_allclose(landmarks.points, made_points(number).reshape(68, 2), atol=1e-9)
    # the whole folder is three tables, not nine, unless a file called so stands alone
    assert {path.parent.name for path in find_landmark_files(official)} == {"more", "test", "training"}
    assert {path.name for path in find_landmark_files(official, "aasce")} == {"landmarks.csv"}
    result = convert_landmarks(official, official.parent / "new", destination_format="csv")
    assert result.faults == () and len(result.written) == len(TRAINING) + len(TEST) + 2
    (official / "filenames.csv").write_text("landmark,x,y\na,1,2\n")
    assert official / "filenames.csv" in find_landmark_files(official)
    datalist = aasce_datalist(official)
    table = read_landmark_table(labels.with_name("training") / "landmarks.csv", format="aasce")
    for name, item in all_items(datalist).items():
        np.testing.assert_array_equal(table[name].points, item["label"])


@pytest.mark.parametrize(
    "files, points, message",
    [
        (["a.jpg", "a.jpg"], 2, "'a.jpg' is in filenames.csv more than once"),
        (["a.jpg"], 2, "landmarks.csv: .*2 rows; expected 1"),
        (["a.jpg", "b.jpg", "c.jpg"], 2, "landmarks.csv: .*2 rows; expected 3"),
    ],
)
def test_the_official_table_alone_is_checked(official, files, points, message):
    labels = write_official(official, "more", files, [made_points(0)] * points, [])
    with pytest.raises(ValueError, match=message):
        read_landmark_table(labels / "landmarks.csv")
    (labels / "filenames.csv").unlink()
    with pytest.raises(ValueError, match="filenames.csv: no such file"):
        read_landmark_table(labels / "landmarks.csv")


def test_patients_stay_together(official):
    together = [TRAINING[:3], TRAINING[4:6], TRAINING[6:8], TRAINING[8:]]
    seen = set()
    for seed in range(12):
        datalist = aasce_datalist(official, val_frac=0.3, seed=seed)
        validation = set(all_items(datalist, ["validation"]))
        assert validation and all(len(validation & set(group)) in (0, len(group)) for group in together)
        seen.add(frozenset(validation))
    assert len(seen) > 4
    assert "validation" not in aasce_datalist(official, val_frac=0)


def test_folds_by_patient(official):
    """Each image is in one fold, and patients stay together."""
    together, found = [TRAINING[:3], TRAINING[4:6], TRAINING[6:8], TRAINING[8:]], []
    for fold in range(3):
        datalist = aasce_datalist(official, folds=3, fold=fold)
        training, validation = (set(all_items(datalist, [name])) for name in ("training", "validation"))
        assert not training & validation and all(len(validation & set(group)) in (0, len(group)) for group in together)
        found += [*validation]
        assert training | validation == set(all_items(aasce_datalist(official), ["training", "validation"]))
    assert len(found) == len(set(found)) == len(training | validation)
    for fold in (-1, 3):
        with pytest.raises(ValueError, match=f"fold is {fold}; expected a number from 0 to 2"):
            aasce_datalist(official, folds=3, fold=fold)


def test_no_test_images(official):
    shutil.rmtree(official / "boostnet_labeldata" / "labels" / "test")
    datalist = aasce_datalist(official)
    with pytest.raises(ValueError, match=r"no section 'testing'; there are \['training', 'validation'\]"):
        load_landmark_datalist(datalist, "testing")


def test_order_is_put_right(tmp_path, caplog):
    """The topmost vertebra stored last; a vertebra upside down; one corner above its upper neighbor."""
    points = [made_points(number) for number in range(5)]
    stored = [p.copy() for p in points]
    stored[0] = np.roll(stored[0], -1, axis=0)
    stored[1][4] = stored[1][4][[2, 3, 0, 1]]
    stored[2][7, [0, 2]] = stored[2][7, [2, 0]]
    stored[3] = np.roll(stored[3], -1, axis=0)[:, [2, 3, 0, 1]]
    write_official(tmp_path, "training", TRAINING[:5], stored, [[30, 20, 10]] * 5)
    output = tmp_path / "list.json"
    with caplog.at_level(logging.INFO):
        items = all_items(aasce_datalist(tmp_path, output))
    assert not caplog.records
    for file, expected in zip(TRAINING, points):
        np.testing.assert_allclose(items[file]["label"], expected.reshape(68, 2), atol=1e-9)
    # the table's second and third angle are those of the wrong order
    angles = [items[file]["cobb_angles"] for file in TRAINING[:5]]
    unknown, known = [30, np.nan, np.nan], [30, 20, 10]
    np.testing.assert_array_equal(angles, [unknown, known, known, unknown, known])
    loaded = {
        os.path.basename(item["image"]): item for item in load_landmark_datalist(output, ["training", "validation"])
    }
    np.testing.assert_array_equal([loaded[file]["cobb_angles"] for file in TRAINING[:5]], angles)


def test_implausible_images_are_left_out(tmp_path, caplog):
    stored = [made_points(number) for number in range(6)]
    stored[1][9] = stored[1][8] + 1.0  # the same vertebra twice
    stored[2] = stored[2][[0, 2, 1, *range(3, 17)]]
    stored[3][16, 1] = stored[3][16, 0]  # two corners in one place
    stored[4][0, :, 1] -= 12  # partly above the image
    write_official(tmp_path, "training", TRAINING[:6], stored, [[30, 20, 10]] * 6)
    with caplog.at_level(logging.WARNING):
        items = all_items(aasce_datalist(tmp_path))
    assert sorted(items) == sorted([TRAINING[0], TRAINING[5]])
    assert "4 images are left out" in caplog.text
    for file, reason in zip(
        TRAINING[1:5],
        ("T10 is not below T9", "T3 is not below T2", "left and right corners of L5", "T1_TL is outside the image"),
    ):
        assert f"{file} ({reason}" in caplog.text


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("landmarks.csv", lambda rows: rows[:-1], r"landmarks\.csv: 10 rows; expected 11, one per image"),
        (
            "landmarks.csv",
            lambda rows: [*rows[:2], rows[2][:-1], *rows[3:]],
            r"landmarks\.csv: line 3: 135 numbers.*136",
        ),
        (
            "landmarks.csv",
            lambda rows: [["a1", *rows[0][1:]], *rows[1:]],
            r"landmarks\.csv: line 1: column '1' is 'a1'",
        ),
        (
            "landmarks.csv",
            lambda rows: [*rows[:4], ["", *rows[4][1:]], *rows[5:]],
            r"landmarks\.csv: line 5: 135 numbers",
        ),
        ("angles.csv", lambda rows: [*rows[:1], ["1", "2"], *rows[2:]], r"angles\.csv: line 2: 2 numbers; expected 3"),
        ("angles.csv", lambda rows: None, r"angles\.csv: no such file"),
        ("filenames.csv", lambda rows: [["new.jpg"], *rows[1:]], r"new\.jpg: no such image, but the tables list it"),
    ],
)
def test_official_tables_are_checked(official, name, change, message):
    path = official / "boostnet_labeldata" / "labels" / "training" / name
    with open(path, newline="") as file:
        rows = change(list(csv.reader(file)))
    path.unlink() if rows is None else write_csv(path, rows)
    with pytest.raises(ValueError, match=message):
        aasce_datalist(official)


def test_names_without_patient(tmp_path):
    write_official(tmp_path, "training", ["spine1.jpg"], [made_points(0)], [[1, 2, 3]])
    with pytest.raises(ValueError, match=r"spine1\.jpg: the original name 'spine1.jpg' holds no patient number"):
        aasce_datalist(tmp_path)
    with pytest.raises(ValueError, match="expected the official boostnet_labeldata, or images, splits.csv"):
        aasce_datalist(tmp_path / "boostnet_labeldata" / "data")


TABLE = "image,split,original_file,cobb1,cobb2,cobb3\n"


def write_tables(root, splits, flags=None, corner="T1_TL", images=("1.png", "2.png", "3.png")):
    (root / "images").mkdir(exist_ok=True)
    rows = ["image,landmark,x,y"]
    for number, image in enumerate(images):
        Image.new("L", SIZE).save(root / "images" / image)
        names = [corner, *AASCE_LANDMARKS[1:]]
        rows += [f"{image},{name},{x},{y}" for name, (x, y) in zip(names, made_points(number).reshape(68, 2))]
    (root / "landmarks.csv").write_text("\n".join(rows))
    (root / "splits.csv").write_text(splits)
    if flags is not None:
        (root / "qc_flags.csv").write_text(flags)


def test_table_layout(tmp_path, caplog):
    rows = [
        "1.png,train,-2017-1 A AP.jpg,30,20,10",
        "2.png,train,-2017-2 A AP.jpg,31,21,11",
        "3.png,test,x.jpg,32,22,12",
    ]
    flags = "image,issue\n1.png,fixed: vertebra blocks re-sorted top to bottom\n3.png,check: by eye\n"
    write_tables(tmp_path, TABLE + "\n".join(rows), flags)
    datalist = aasce_datalist(tmp_path, val_frac=0.5, check=True)
    items = all_items(datalist, ["training", "validation", "testing"])
    np.testing.assert_allclose(items["2.png"]["label"], made_points(1).reshape(68, 2))
    angles = [items[image]["cobb_angles"] for image in ("1.png", "2.png", "3.png")]
    np.testing.assert_array_equal(angles, [[30, np.nan, np.nan], [31, 21, 11], [32, 22, 12]])
    assert len(datalist["testing"]) == 1 and not caplog.records
    (tmp_path / "qc_flags.csv").write_text("image,issue\n2.png,exclude: vertebra blocks out of order\n")
    assert set(all_items(aasce_datalist(tmp_path, val_frac=0))) == {"1.png"}
    assert "2.png (exclude: vertebra blocks out of order)" in caplog.text


@pytest.mark.parametrize(
    "splits, more, message",
    [
        ("image,split\n1.png,train\n", {}, r"splits\.csv: no column 'original_file'"),
        (TABLE + "1.png,train,-2017-1 A.jpg,1,2\n", {}, r"splits\.csv: line 2: 5 columns"),
        (
            TABLE + "1.png,train,-2017-1 A.jpg,1,2,3\n2.png,train,-2017-2 A.jpg,1,b,3\n",
            {},
            r"line 3: column 'cobb2' is 'b'",
        ),
        (TABLE + "9.png,train,-2017-1 A.jpg,1,2,3\n", {}, r"landmarks\.csv: no landmarks of image '9\.png'"),
        (TABLE + "1.png,test,x.jpg,1,2,3\n", {}, "no training image with plausible"),
        (TABLE + "1.png,train,-2017-1 A.jpg,1,2,3\n", {"corner": "T0_TL"}, r"'T0_TL'.* missing or unknown"),
        (TABLE + "1.png,train,-2017-1 A.jpg,1,2,3\n", {"flags": "image\n1.png\n"}, r"qc_flags\.csv: no column 'issue'"),
        (
            TABLE + "1.png,train,-2017-1 A.jpg,1,2,3\n2.png,train,-2017-1 A.jpg,1,2,3\n",
            {},
            "'-2017-1 A.jpg' is the original file of several",
        ),
    ],
)
def test_tables_are_checked(tmp_path, splits, more, message):
    write_tables(tmp_path, splits, **more)
    with pytest.raises(ValueError, match=message):
        aasce_datalist(tmp_path)


def test_images_of_the_tables_are_there(tmp_path):
    write_tables(tmp_path, TABLE + "1.png,train,-2017-1 A.jpg,1,2,3\n")
    (tmp_path / "images" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"1\.png: no such image, but the tables list it"):
        aasce_datalist(tmp_path)


@pytest.fixture(scope="module")
def real(aasce_spine_root):
    return aasce_datalist(aasce_spine_root)


@pytest.fixture(scope="module")
def splits(aasce_spine_root):
    with open(aasce_spine_root / "splits.csv", newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def flags(aasce_spine_root):
    with open(aasce_spine_root / "qc_flags.csv", newline="") as file:
        return {row["image"]: row["issue"] for row in csv.DictReader(file)}


def test_real_images_left_out(real, splits, flags):
    """All images that the table excludes or marks for review, and three in which a vertebra was annotated twice."""
    kept = all_items(real)
    flagged = {image for image, issue in flags.items() if issue.startswith(("exclude", "check"))}
    assert set(splits) - set(kept) == flagged | {f"training_{number}.jpg" for number in (376, 380, 398)}
    assert len(kept) == 471 and set(real) == {"name", "landmarks", "training", "validation"}
    assert 0.18 < len(real["validation"]) / 471 < 0.26


def test_real_patients_stay_together(real, splits):
    def patients(section):
        names = [splits[os.path.basename(item["image"])]["original_file"] for item in real[section]]
        return {re.split("-20..-", name)[1].split()[0] for name in names if "coronal" not in name}

    assert not patients("training") & patients("validation") and len(patients("validation")) > 30
    # the same pictures under two numbers
    for first, second in (("77", "141"), ("78", "153"), ("79", "157"), ("238", "239")):
        assert len({first, second} & patients("training")) != 1


def test_real_points_lie_in_their_images(real, aasce_spine_root):
    few = {key: value[:4] if isinstance(value, list) else value for key, value in real.items()}
    assert check_datalist(few) == []
    item = next(item for item in real["training"] + real["validation"] if item["image"].endswith("_000.jpg"))
    assert item["label"][0] == [130.03, 25.52] and item["cobb_angles"] == [41.139, 14.63, 40.147]


def test_both_layouts_agree(real, splits, flags, aasce_spine_root, tmp_path):
    """The official files again, from the tables: relative coordinates, and the order of vertebrae that they have."""
    table = read_landmark_table(aasce_spine_root / "landmarks.csv")
    base = tmp_path / "boostnet_labeldata"
    (base / "data" / "training").mkdir(parents=True)
    landmarks = []
    for image, row in splits.items():
        (base / "data" / "training" / row["original_file"]).symlink_to(aasce_spine_root / "images" / image)
        points = (table[image].reorder(AASCE_LANDMARKS).points + 0.5) / [int(row["width"]), 768]
        points = np.roll(points, -4, axis=0) if "re-sorted" in flags.get(image, "") else points
        landmarks.append(points.T.reshape(-1))
    labels = base / "labels" / "training"
    write_csv(labels / "landmarks.csv", landmarks)
    write_csv(labels / "filenames.csv", [[row["original_file"]] for row in splits.values()])
    write_csv(labels / "angles.csv", [[row[f"cobb{i}"] for i in (1, 2, 3)] for row in splits.values()])
    datalist = aasce_datalist(tmp_path)
    assert set(datalist) == set(real)
    for section in ("training", "validation"):
        assert len(datalist[section]) == len(real[section])
        for item, expected in zip(datalist[section], real[section]):
            original = splits[os.path.basename(expected["image"])]["original_file"]
            assert os.path.basename(item["image"]) == original
            np.testing.assert_allclose(item["label"], expected["label"], atol=1e-6)
            np.testing.assert_array_equal(item["cobb_angles"], expected["cobb_angles"])
