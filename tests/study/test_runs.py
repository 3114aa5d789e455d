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

"""Runs of studies and their division of the images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import (
    LandmarkSet,
    build_datalist,
    datalist_item,
    group_images,
    load_landmark_datalist,
    save_datalist,
    write_landmark_table,
)
from monai_landmarks.study import Configuration, Study, select_part, study_runs
from monai_landmarks.study.runs import divide_images, fingerprint, image_groups

ONE = (Configuration("scn", "scn"), Configuration("light", "adaptive"))


@pytest.fixture
def datalist(tmp_path):
    """20 images of 10 patients; the last 4 are for testing."""
    items = [
        datalist_item(
            f"images/p{i // 2}_{i}.png", LandmarkSet(("a",), [[float(i), np.nan if i == 3 else 1.0][:1] * 2], "index")
        )
        for i in range(20)
    ]
    definition = {"names": ["a"], "pairs": [], "coordinate_system": "index"}
    sections = {"training": items[:12], "validation": items[12:16], "testing": items[16:]}
    save_datalist(tmp_path / "list.json", {"landmarks": definition, **sections})
    return tmp_path / "list.json"


def images(datalist):
    return {name: [item["image"] for item in datalist[name]] for name in ("training", "validation", "testing")}


@pytest.mark.parametrize("pattern", [None, r"p\d+"])
def test_every_image_is_predicted_once_by_a_network_that_did_not_see_it(datalist, tmp_path, pattern):
    study = Study(datalist, ONE, folds=4, group_pattern=pattern)
    written = divide_images(study, tmp_path / "study")
    parts = [images(one) for one in written.values()]
    tested = [image for part in parts for image in part["testing"]]
    all_images = [str(tmp_path / f"images/p{i // 2}_{i}.png") for i in range(16)]
    assert sorted(tested) == sorted(all_images)  # the testing section of the datalist is not used
    for part in parts:
        assert sorted(sum(part.values(), [])) == sorted(all_images)
        if pattern:
            patients = [{image.rpartition("/")[2].partition("_")[0] for image in one} for one in part.values()]
            assert sum(map(len, patients)) == len(set.union(*patients))
    again = divide_images(study, tmp_path / "study")
    assert again == written
    for content in written.values():  # what a bundle reads is the same as in the datalist of the user
        items = load_landmark_datalist(content, "testing")
        assert [item["image"] for item in items] == images(content)["testing"] and items[0]["label_names"] == ["a"]


def test_groups_are_those_of_the_check_wherever_the_data_are(tmp_path):
    """The folders above the images, which a pattern may fit, do not count."""
    sets = {f"p{i // 2}/{i}.png": LandmarkSet(("a",), [[1.0, 2.0]], "index") for i in range(8)}
    folder = tmp_path / "p9" / "images"
    for name in sets:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(folder / name)
    write_landmark_table(tmp_path / "t.csv", sets)
    for pattern in (r"p\d", r"^\w+"):
        build_datalist(folder, tmp_path / "t.csv", tmp_path / "out" / "list.json", group_pattern=pattern, spacing=1)
        groups = image_groups(Study(tmp_path / "out" / "list.json", ONE, folds=2, group_pattern=pattern))
        expected = group_images(list(sets), pattern)
        assert groups == {str(folder / name): expected[name] for name in sets} and len(set(groups.values())) == 4
    with pytest.raises(ValueError, match=r"list.json: group pattern 'images' is not found in image name 'p\d/\d.png'"):
        image_groups(Study(tmp_path / "out" / "list.json", ONE, folds=2, group_pattern="images"))


def test_small_training_sets_are_parts_of_the_large_ones(datalist, tmp_path):
    study = Study(datalist, ONE, training_sizes=(10, 3), seeds=(0, 5))
    written = divide_images(study, tmp_path / "study")
    assert [file.name for file in written] == ["n10-draw0.json", "n3-draw0.json", "n10-draw5.json", "n3-draw5.json"]
    large, small, other, _ = (images(one) for one in written.values())
    assert len(small["training"]) == 3 and set(small["training"]) < set(large["training"])
    assert set(large["training"]) != set(other["training"])
    source = json.loads(datalist.read_text())
    for part in (large, small, other):
        assert len(part["validation"]) == len(part["testing"]) == 4
        assert part["testing"][0].endswith(source["testing"][0]["image"])
    with pytest.raises(ValueError, match="13 is more than the 12 training images"):
        divide_images(Study(datalist, ONE, training_sizes=(13,)), tmp_path / "study")


def test_a_patient_in_two_sections_is_refused(datalist, tmp_path):
    study = Study(datalist, ONE, training_sizes=(3,), group_pattern=r"p\d+")
    assert divide_images(study, tmp_path / "study")
    content = json.loads(datalist.read_text())
    content["testing"].append(content["training"].pop())  # p5_11, whose other image stays
    datalist.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"p5_10.png \(training\) and .*p5_11.png \(testing\) are of the same group 'p5'"
    ):
        divide_images(study, tmp_path / "study")


def test_each_draw_has_its_own_test_images_where_the_datalist_has_none(datalist, tmp_path):
    content = json.loads(datalist.read_text())
    content["training"] += content.pop("validation") + content.pop("testing")
    datalist.write_text(json.dumps(content))
    study = Study(datalist, ONE, training_sizes=(10, 3), seeds=(0, 5), test_frac=0.25, val_frac=0.2)
    large, small, other, _ = (images(one) for one in divide_images(study, tmp_path / "study").values())
    assert large["testing"] == small["testing"] != other["testing"]
    assert large["validation"] == small["validation"]
    assert set(small["training"]) < set(large["training"])
    for draw in (large, other):
        assert [len(draw[name]) for name in ("training", "validation", "testing")] == [10, 3, 5]
        assert len({image for one in draw.values() for image in one}) == 18


def test_parts_are_all_runs(datalist, tmp_path):
    runs = study_runs(Study(datalist, ONE, folds=3, seeds=(0, 1)), tmp_path)
    assert len({run.name for run in runs}) == len(runs) == 12
    parts = [select_part(runs, k, 5) for k in range(1, 6)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in runs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(ValueError, match="part is 6/5"):
        select_part(runs, 6, 5)


def test_fingerprint():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
