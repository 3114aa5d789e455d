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

"""Files that are well-formed but not what their format says: each is refused with the reason and the file's name."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import LandmarkSet, read_landmarks, write_landmarks
from monai_landmarks.data.landmarks.landmark_io import read_landmark_sets

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 2, 2]}],
    "categories": [{"id": 1, "name": "hand", "keypoints": ["tip"]}],
}
SHAPE = {"label": "tip", "points": [[1, 2]], "shape_type": "point", "group_id": None}


@pytest.mark.parametrize(
    "format, content, said",
    [
        ("coco", {}, "no lists 'images' and 'annotations'"),
        (
            "coco",
            {**COCO, "categories": [{"id": 1, "name": "hand", "keypoints": ["tip", ""]}]},
            "expected a list of names",
        ),
        ("coco", {**COCO, "images": [{"id": 1, "file_name": " "}]}, "file_name is .* expected a name"),
        ("labelme", {}, "no list 'shapes'"),
        ("labelme", {"shapes": [{**SHAPE, "points": [[1, 2], [3, 4]]}]}, "'tip'.*expected 'points' to hold one point"),
        ("labelstudio", {}, "no list of tasks"),
        ("labelme", {"shapes": [{**SHAPE, "group_id": 1.5}]}, "group_id is not a number"),
        ("nnlandmark.json", {"a": 1}, "no cases of named points"),
    ],
)
def test_json(tmp_path, format, content, said):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"a.json.*{said}"):
        read_landmark_sets(path, format=format)


@pytest.mark.parametrize(
    "points, names, said",
    [
        (np.ones((2, 2)), None, r"an array of float64 of shape \(2, 2\)"),
        (np.ones((2, 3), bool), None, "an array of bool"),
        (np.ones((2, 3)), ["tip"], "holds 2 points, but 1 names were given"),
    ],
)
def test_arrays_without_names(tmp_path, points, names, said):
    path = tmp_path / "a_label.npy"
    np.save(path, points)
    with pytest.raises(ValueError, match=said):
        read_landmarks(path, names=names)


def test_names_for_a_file_that_has_names(tmp_path):
    path = tmp_path / "a.csv"
    write_landmarks(path, LandmarkSet(("tip",), [[1.0, 2.0]], "index"), format="napari")
    assert read_landmarks(path, format="napari").names == ("tip",)
    with pytest.raises(ValueError, match="holds (the )?names"):
        read_landmarks(path, format="napari", names=["other"])


def test_an_empty_table_of_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n")
    with pytest.raises(ValueError, match="the file is empty"):
        read_landmark_sets(path, format="payer")


@pytest.mark.parametrize(
    "labels, said",
    [
        ([], "expected a number for each name"),
        ({"tip": -1}, "expected a number"),
        ({"a": 1, "b": 1}, "distinct labels"),
    ],
)
def test_label_maps_with_a_wrong_list_of_names(tmp_path, labels, said):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), path)
    (tmp_path / "name_to_label.json").write_text(json.dumps(labels))
    with pytest.raises(ValueError, match=said):
        read_landmarks(path, format="nnlandmark")


def test_label_maps_of_fractions_and_of_more_axes(tmp_path):
    path = tmp_path / "a.nii.gz"
    (tmp_path / "name_to_label.json").write_text('{"tip": 1}')
    volume = np.zeros((5, 6, 7, 1), np.uint8)
    volume[1:4, 2:5, 3:6] = 1
    nib.save(nib.Nifti1Image(volume, np.eye(4)), path)  # one channel more, as some tools write
    assert read_landmarks(path, format="nnlandmark").points.tolist() == [[2.0, 3.0, 4.0]]
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7, 2), np.uint8), np.eye(4)), path)
    with pytest.raises(ValueError, match="expected the labels of an image or a volume"):
        read_landmarks(path, format="nnlandmark")


def test_vertebrae_are_places_in_a_volume(tmp_path):
    path, picture = tmp_path / "a_ctd.json", tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(picture)
    for content, said in (
        ({}, "no list of centroids"),
        ([{"direction": ["L", "A", "S"]}, {"label": 1, "X": 1, "Y": 1, "Z": 1}], "expected a volume"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=said):
            read_landmarks(path, format="verse", image=picture)
    with pytest.raises(ValueError, match="2-D; expected 3-D"):
        write_landmarks(path, LandmarkSet(("C1",), [[1.0, 2.0]], "index"), format="verse", image=picture)


def test_no_set_and_no_way(tmp_path):
    table = LandmarkSet(("tip",), [[1.0, 2.0]], "index")
    with pytest.raises(ValueError, match="can be read, but not written|no writer"):
        write_landmarks(tmp_path / "a_label.npy", table)
