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
"""``monai-landmarks check`` from a folder to a datalist that a training can read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from monai_landmarks.apps.main import program
from monai_landmarks.data import (
    load_landmark_datalist,
    load_landmark_definition,
    make_datalists,
    pair_landmarks,
    read_landmarks,
    require_valid_datalist,
    write_hand_phantom,
    write_landmarks,
    write_spine_phantom,
)


def check(*args):
    return CliRunner().invoke(program, ["check", *map(str, args)])


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hand")
    write_hand_phantom(folder, 8, size=(48, 48), val_frac=0.15)
    return folder


@pytest.fixture(scope="module")
def spine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spine")
    write_spine_phantom(folder, 3, size=(24, 24, 36), spacing=(5, 5, 5), val_frac=0.15)
    return folder


def test_phantom_to_datalist(hand, tmp_path):
    result = check(hand / "images", hand / "landmarks.csv", "--spacing", "0.9", "--val-frac", 0.25, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "images       8, 8 of them with landmarks" in result.stdout and "spacing      0.9 x 0.9 mm" in result.stdout
    assert f"{tmp_path / 'datalist.json'}: 6 training, 2 validation, 0 testing" in result.stdout
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["contact_sheet.png", "datalist.json"]
    require_valid_datalist(tmp_path / "datalist.json")
    phantom = {
        item["image"]: item
        for s in ("training", "validation", "testing")
        for item in load_landmark_datalist(hand / "datalist.json", s)
    }
    for section in ("training", "validation"):
        for item in load_landmark_datalist(tmp_path / "datalist.json", section):
            np.testing.assert_array_equal(item["label"], phantom[item["image"]]["label"])
            assert item["spacing"] == [0.9, 0.9]
    assert (
        check(
            hand / "images", hand / "landmarks.csv", "--spacing", "0.9", "--val-frac", 0.25, "--out", tmp_path
        ).exit_code
        == 0
    )


def test_missing_landmarks_are_counted(tmp_path):
    (tmp_path / "images").mkdir()
    for name in "123":
        Image.new("L", (20, 20), int(name)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "t.csv").write_text("image,landmark,x,y\n1.png,a,1,2\n1.png,b,3,4\n2.png,a,5,6\n3.png,a,7,8\n")
    result = check(tmp_path / "images", tmp_path / "t.csv", "--spacing", "1", "--sheet", 0, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["landmark", "present", "missing"] in rows and ["b", "1", "2"] in rows and ["a", "3", "0"] not in rows


def test_the_pixel_size_of_pictures_must_be_given(hand, tmp_path):
    result = check(hand / "images", hand / "landmarks.csv", "--out", tmp_path)
    assert result.exit_code == 1
    assert (
        result.stdout.count("  - ") == 1
        and "pixel size not known: 8 images, for example hand_0000.png" in result.stdout
    )
    assert result.stderr == "\nNo datalist is written, because there are faults (1).\n"
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["contact_sheet.png"]


def test_folds_by_a_column(hand, tmp_path):
    names = sorted(path.name for path in (hand / "images").iterdir())
    (tmp_path / "patients.csv").write_text(
        "image,patient\n" + "".join(f"{name},{i // 2}\n" for i, name in enumerate(names))
    )
    (tmp_path / "pairs.csv").write_text("radius_styloid,ulna_styloid\n")
    arguments = [hand / "images", hand / "landmarks.csv", "--spacing", 1, "--folds", 3, "--test-frac", 0.25]
    arguments += [
        "--group-column",
        "patient",
        "--group-table",
        tmp_path / "patients.csv",
        "--pairs",
        tmp_path / "pairs.csv",
    ]
    result = check(*arguments, "--sheet", 0, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == [f"datalist_fold{k}.json" for k in range(3)]
    folds = [json.loads((tmp_path / "out" / f"datalist_fold{k}.json").read_text()) for k in range(3)]
    parts = [
        {
            s: {names.index(item["image"].rsplit("/")[-1]) for item in fold[s]}
            for s in ("training", "validation", "testing")
        }
        for fold in folds
    ]
    testing = parts[0]["testing"]
    assert len(testing) == 2 and all(part["testing"] == testing for part in parts)
    assert set.union(*(part["validation"] for part in parts)) | testing == set(range(8))
    assert sum(len(part["validation"]) for part in parts) == 6
    for part in parts:
        assert part["training"] == set(range(8)) - part["validation"] - testing
        patients = [{i // 2 for i in part[s]} for s in part]
        assert sum(map(len, patients)) == len(set.union(*patients))
    assert folds[0]["landmarks"]["pairs"] == [["radius_styloid", "ulna_styloid"]]


@pytest.mark.parametrize("folds", [0, 3])
def test_a_given_split(hand, tmp_path, folds):
    """Rows of images that do not exist are ignored; with folds, only the images for testing are fixed."""
    names = sorted(path.name for path in (hand / "images").iterdir())
    splits = ["test", "train", "val", "Train", "training", "train", "val", "test"]
    rows = [*zip(names, splits), ("elsewhere.png", "test"), (names[1], "Training")]
    table = tmp_path / "splits.csv"
    table.write_text("image,age,split\n" + "".join(f"{name},40,{split}\n" for name, split in rows))
    arguments = [hand / "images", hand / "landmarks.csv", "--spacing", 1, "--sheet", 0, "--split-table", table]
    result = check(*arguments, *(["--folds", folds] if folds else []), "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = [
        {section: {names.index(Path(item["image"]).name) for item in items} for section, items in datalist.items()}
        for path in sorted((tmp_path / "out").glob("[!.]*"))
        if (datalist := json.loads(path.read_text())).pop("landmarks")
    ]
    assert all(parts["testing"] == {0, 7} for parts in found)
    if folds:
        assert sorted(image for parts in found for image in parts["validation"]) == [1, 2, 3, 4, 5, 6]
        assert all(parts["training"] == {1, 2, 3, 4, 5, 6} - parts["validation"] for parts in found)
    else:
        assert [(parts["training"], parts["validation"]) for parts in found] == [({1, 3, 4, 5}, {2, 6})]


def test_sections_of_a_datalist_are_checked(hand, tmp_path):
    cases = pair_landmarks(hand / "images", hand / "landmarks.csv").cases
    names = [case.name for case in cases]
    for sections, message in (
        (dict.fromkeys(names, "val"), "the section is 'val'; expected 'training', 'validation' or 'testing'"),
        (dict.fromkeys(names[1:], "training"), f"{names[0]}: the section is None"),
    ):
        with pytest.raises(ValueError, match=message):
            make_datalists(cases, tmp_path, spacing=1, sections=sections)


@pytest.mark.parametrize(
    ("splits", "more", "message"),
    [
        (
            "train " * 7 + "later",
            [],
            r"Error: \S+splits.csv: the split of '\S+.png' is 'later'; expected one of train, ",
        ),
        ("train " * 7, [], r"Error: \S+splits.csv: no 'split' of \S+.png"),
        ("test " * 4 + "val " * 4, [], "none of the 8 images is for training"),
        ("train " * 7 + "test", ["--group-pattern", "."], "is in the sections training and testing"),
        ("train " * 8, ["--val-frac", 0.2], "leave out --val-frac"),
    ],
)
def test_wrong_splits(hand, tmp_path, splits, more, message):
    names = sorted(path.name for path in (hand / "images").iterdir())
    table = tmp_path / "splits.csv"
    table.write_text("image,split\n" + "".join(f"{name},{split}\n" for name, split in zip(names, splits.split())))
    arguments = [hand / "images", hand / "landmarks.csv", "--spacing", 1, "--sheet", 0, "--split-table", table]
    result = check(*arguments, *more, "--out", tmp_path / "out")
    assert result.exit_code and re.search(message, result.stderr) and not (tmp_path / "out").exists()


def test_a_datalist_states_the_coordinate_system_that_its_files_do_not(spine, tmp_path):
    """Each file is told of only once, and no more during the training."""
    for file in (spine / "points").iterdir():
        path = tmp_path / "points" / file.name.replace(".mrk.json", ".csv")
        write_landmarks(path, read_landmarks(file).to("RAS"))
        path.write_text(path.read_text().partition("\n")[2])
    result = check(spine / "images", tmp_path / "points", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "csv and 2 more: states no coordinate system" in result.stdout
    assert result.output.count("states no coordinate system") == 1
    assert load_landmark_definition(tmp_path / "out" / "datalist.json")["coordinate_system"] == "RAS"
    [item] = load_landmark_datalist(tmp_path / "out" / "datalist.json", "validation")
    assert isinstance(item["label"], list)


def test_volumes_with_a_file_each(spine, tmp_path):
    result = check(spine / "images", spine / "points", "--out", tmp_path, "--group-pattern", r"_(\d+)")
    assert result.exit_code == 0, result.output
    assert "size         24 x 24 x 36" in result.stdout and "orientation  RAS" in result.stdout
    require_valid_datalist(tmp_path / "datalist.json")
    [item] = load_landmark_datalist(tmp_path / "datalist.json", "validation")
    assert item["label"].endswith(".mrk.json")
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.size[0] == 1800


def test_real_radiographs(hand9_root, tmp_path):
    """The table is of pictures that are not all there."""
    arguments = [hand9_root / "images", hand9_root / "landmarks.csv", "--spacing", 1, "--out", tmp_path / "out"]
    with open(hand9_root / "landmarks.csv") as file:
        named = {line.partition(",")[0] for line in file} - {"image"}
    absent = named - {path.name for path in (hand9_root / "images").iterdir()}
    result = check(*arguments)
    assert result.exit_code == bool(absent) and result.stdout.count("is not among the images") == len(absent)
    assert check(*arguments, "--partial").exit_code == 0
    require_valid_datalist(tmp_path / "out" / "datalist.json")


def test_a_third_value_of_the_spacing_is_refused(hand, tmp_path):
    result = check(hand / "images", hand / "landmarks.csv", "--spacing", "1,1,2", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == "Error: the spacing 1,1,2 has 3 values; expected one, or two for x and y.\n"


def test_wrong_usage(hand, tmp_path):
    images, table = hand / "images", hand / "landmarks.csv"
    for arguments, message in (
        ([images, table, "--out", images / "checked"], "would be read as an image"),
        ([images, table, "--group-table", table, "--out", tmp_path], "--group-table needs --group-column"),
        ([images, images, "--group-column", "patient", "--out", tmp_path], "--group-column needs --group-table"),
        ([images, table, "--out", tmp_path / "datalist.json"], "names a folder"),
        ([images, table, "--spacing", "wide"], "is not a pixel size"),
        ([images, table, "--folds", 1], "not in the range"),
    ):
        result = check(*arguments)
        assert result.exit_code == 2 and message in result.stderr
    result = check(images, table, "--spacing", 1, "--sheet", 0, "--out", tmp_path, "--group-pattern", "patient")
    assert result.exit_code == 1 and "Error: group pattern 'patient' is not found" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unusual_shape_is_shown_and_is_no_fault(hand, tmp_path):
    """Two landmarks exchanged in one of eight hands."""
    table = (hand / "landmarks.csv").read_text()
    lines = table.splitlines()
    first, second = (
        next(i for i, line in enumerate(lines) if line.startswith(f"hand_0002.png,{name},"))
        for name in ("radius_styloid", "ulna_styloid")
    )
    lines[first], lines[second] = (
        lines[first].replace("radius_styloid", "ulna_styloid"),
        lines[second].replace("ulna_styloid", "radius_styloid"),
    )
    (tmp_path / "t.csv").write_text("\n".join(lines))
    arguments = ["--spacing", 0.9, "--sheet", 0, "--out", tmp_path / "out"]
    result = check(hand / "images", tmp_path / "t.csv", *arguments)
    assert result.exit_code == 0, result.output
    assert "shapes       8 compared, 1 of them unusual" in result.stdout
    [warning] = [line for line in result.stdout.splitlines() if line.startswith("  - ")]
    assert "warnings (look at these images):" in result.stdout and "hand_0002.png" in warning
    assert "'radius_styloid' and 'ulna_styloid' look exchanged" in warning
    good = check(hand / "images", hand / "landmarks.csv", *arguments)
    assert "shapes       8 compared, none of them unusual" in good.stdout and "warnings" not in good.stdout


def test_the_datalist_of_an_earlier_check_is_named(hand, tmp_path):
    images, table = hand / "images", hand / "landmarks.csv"
    assert check(images, table, "--spacing", 1, "--sheet", 0, "--out", tmp_path / "out").exit_code == 0
    result = check(images, table, "--sheet", 0, "--out", tmp_path / "out")  # the pixel size is a fault
    assert result.exit_code == 1 and "datalist.json: from an earlier check, not of these landmarks" in result.stderr


def test_datalists_of_another_division_are_named(hand, tmp_path):
    """And are not deleted, nor is a datalist with a name that the command does not give spoken of."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "datalist_mine.json").write_text("{}")
    arguments = [hand / "images", hand / "landmarks.csv", "--spacing", 1, "--sheet", 0, "--out", out]
    named = []
    for more in ([], [], ["--folds", 4], ["--folds", 4], ["--folds", 2], []):
        result = check(*arguments, *more)
        assert result.exit_code == 0, result.output
        [*notes] = [line for line in result.stderr.splitlines() if "not part of this division" in line]
        named.append(re.findall(r"/(datalist\w*)\.json", " ".join(notes)))
    folds = [f"datalist_fold{k}" for k in range(4)]
    assert named == [[], [], ["datalist"], ["datalist"], ["datalist", *folds[2:]], folds]
    assert {path.stem for path in out.glob("*.json")} == {"datalist_mine", "datalist", *folds}


def test_a_wrong_group_pattern_is_told_before_anything_is_read(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "t.csv").write_text("")
    result = check(tmp_path / "images", tmp_path / "t.csv", "--group-pattern", r"(p\d", "--out", tmp_path / "out")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith(r"Error: group pattern '(p\\d' is not a regular expression: missing )")


def test_a_table_of_all_sites_for_the_images_of_one(tmp_path):
    """Landmarks, groups and splits of another site are left out together."""
    (tmp_path / "site1").mkdir()
    for name in "123":
        Image.new("L", (20, 20), int(name)).save(tmp_path / "site1" / f"{name}.png")
    rows = ["site2/3,q,test,3,3", "site1/1,p,train,1,1", "site2/1,q,test,3,3", "site1/2,r,val,2,2"]
    (tmp_path / "t.csv").write_text("\n".join(["image,patient,split,a_x,a_y", *rows]))
    arguments = [tmp_path / "site1", tmp_path / "t.csv", "--spacing", 1, "--sheet", 0, "--out", tmp_path / "out"]
    result = check(*arguments)
    assert result.exit_code == 1 and "'site2/3' is not among the images; 3.png has another folder" in result.stdout
    result = check(*arguments, "--partial", "--group-column", "patient", "--split-table", tmp_path / "t.csv")
    assert result.exit_code == 0, result.output
    datalist = json.loads((tmp_path / "out" / "datalist.json").read_text())
    found = {name: [item["label"] for item in datalist[name]] for name in ("training", "validation", "testing")}
    assert found == {"training": [[[1, 1]]], "validation": [[[2, 2]]], "testing": []}


def test_a_landmark_in_two_pairs_is_an_error(hand, tmp_path):
    names = list(dict.fromkeys(line.split(",")[1] for line in (hand / "landmarks.csv").read_text().splitlines()[-9:]))
    (tmp_path / "pairs.csv").write_text(f"{names[0]},{names[1]}\n{names[0]},{names[2]}\n")
    arguments = [hand / "images", hand / "landmarks.csv", "--spacing", 1, "--sheet", 0, "--out", tmp_path / "out"]
    result = check(*arguments, "--pairs", tmp_path / "pairs.csv")
    assert result.exit_code == 1 and f"pairs.csv: line 2: landmark '{names[0]}' is also in a pair" in result.stderr
    assert not (tmp_path / "out" / "datalist.json").exists()
