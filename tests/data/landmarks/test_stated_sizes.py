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

"""LabelMe and COCO state the size of the image on which their points were drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged
from PIL import Image

from monai_landmarks.data import check_data, check_datalist, convert_landmarks, read_landmarks, write_landmarks
from monai_landmarks.evaluation.landmark_sources import read_annotations
from monai_landmarks.transforms import EnsureWorldAffined, LoadLandmarksd

WIDTH, HEIGHT = 20, 30  # as it is shown


def labelme(path, size):
    shape = {"label": "dot", "points": [[15.5, 6.5]], "shape_type": "point", "group_id": None}
    width, height = size
    path.write_text(json.dumps({"shapes": [shape], "imagePath": "a.png", "imageWidth": width, "imageHeight": height}))
    return path


def coco(path, size):
    content = {
        "images": [{"id": 1, "file_name": "a.png", **dict(zip(("width", "height"), size))}],
        "categories": [{"id": 1, "name": "thing", "keypoints": ["dot"]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [15, 6, 2]}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("write", [labelme, coco])
def test_points_drawn_on_another_size_are_refused(tmp_path, write, write_picture):
    exif = Image.Exif()
    exif[274] = 6  # it is stored turned; the size that counts is the one shown
    image = write_picture(tmp_path / "images/a.png", HEIGHT, WIDTH, exif=exif)
    (tmp_path / "points").mkdir()
    right = write(tmp_path / "points/a.json", (WIDTH, HEIGHT))
    check = check_data(tmp_path / "images", right, spacing=1)
    assert check.faults == [] and "EXIF orientation 6" in " ".join(check.notes)
    np.testing.assert_allclose(check.images[0].points.points, [[15, 6]])
    assert read_annotations(right, images=tmp_path / "images")
    assert convert_landmarks(right, tmp_path / "new.csv", images=tmp_path / "images").faults == ()
    wrong = write(right, (HEIGHT, WIDTH))
    [fault] = check_data(tmp_path / "images", wrong, spacing=1).faults
    assert "drawn on an image of 30 x 20 pixels, but the image has 20 x 30" in fault
    with pytest.raises(ValueError, match="a.png: .*drawn on an image of 30 x 20"):
        read_annotations(wrong, images=tmp_path / "images")
    [fault] = convert_landmarks(wrong, tmp_path / "new.csv", images=tmp_path / "images").faults
    assert "drawn on an image of 30 x 20" in fault.message
    if write is labelme:
        item = {"image": str(image), "label": str(wrong), "spacing": [1, 1]}
        datalist = {"landmarks": {"names": ["dot"]}, "training": [item]}
        assert "drawn on an image of 30 x 20" in check_datalist(datalist)[0]
        read = LoadImaged("image", reader="monai_landmarks.data.ImageFileReader", ensure_channel_first=True)
        with pytest.raises((RuntimeError, ValueError)) as error:
            Compose([read, EnsureWorldAffined("image"), LoadLandmarksd("label")])(item)
        assert "a.json: the points were drawn" in str(error.value.__cause__ or error.value)


@pytest.mark.parametrize("write", [labelme, coco])
def test_the_size_is_kept(tmp_path, write):
    landmarks = read_landmarks(write(tmp_path / "a.json", (WIDTH, HEIGHT)), image="a.png")
    assert landmarks.image_size == (WIDTH, HEIGHT) == landmarks.reorder(["dot"]).image_size
    write_landmarks(tmp_path / "b.json", landmarks, format="labelme")
    assert read_landmarks(tmp_path / "b.json").image_size == (WIDTH, HEIGHT)
    for size in (
        (None, None),
        (WIDTH, None),
        (0, HEIGHT),
        ("20", HEIGHT),
        (float("inf"), HEIGHT),
        (float("nan"), HEIGHT),
    ):
        write(tmp_path / "a.json", size)
        if size == (None, None):
            assert read_landmarks(tmp_path / "a.json").image_size is None
            continue
        with pytest.raises(ValueError, match="expected positive whole numbers"):
            read_landmarks(tmp_path / "a.json")
