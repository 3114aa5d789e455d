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

"""Images to be predicted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from monai_landmarks.data import bundle_landmark_names, image_folder_items


def test_folder_and_file(tmp_path):
    for name in ("b.png", "sub/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    items = image_folder_items(tmp_path, spacing=[0.5, 0.5])
    assert [item["image"] for item in items] == [str(tmp_path / "b.png"), str(tmp_path / "sub" / "a.jpg")]
    assert all(item["spacing"] == [0.5, 0.5] for item in items)
    (tmp_path / "c.dcm").touch()  # a format that knows its spacing
    assert ["spacing" in item for item in image_folder_items(tmp_path, spacing=0.5)] == [True, False, True]
    assert image_folder_items(tmp_path / "b.png") == [{"image": str(tmp_path / "b.png")}]
    with pytest.raises(ValueError, match="no such folder"):
        image_folder_items(tmp_path / "nowhere")


def test_landmark_names_of_a_bundle(tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text('{"network_data_format": {"outputs": {"pred": {"channel_def": {"1": "nasion", "0": "sella"}}}}}')
    assert bundle_landmark_names(path) == ["sella", "nasion"]
    path.write_text('{"network_data_format": {"outputs": {"pred": {"channel_def": {"1": "sella", "2": "nasion"}}}}}')
    with pytest.raises(ValueError, match="0 to 1"):
        bundle_landmark_names(path)
    path.write_text('{"network_data_format": {}}')
    with pytest.raises(ValueError, match="outputs"):
        bundle_landmark_names(path)
