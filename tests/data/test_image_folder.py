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

from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImage
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


def paths(folder: Path) -> list[str]:
    return [str(Path(item["image"]).relative_to(folder)) for item in image_folder_items(folder)]


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_dicom_series_is_one_image(tmp_path, write_dicom, suffix):
    volume = np.random.default_rng(0).integers(0, 1000, (12, 10, 4)).astype(np.int16)
    write_dicom(tmp_path / "head" / "ct", volume, "1", suffix=suffix)
    write_dicom(tmp_path / "hands", volume[..., :2], "2", positions=False, suffix=suffix)  # two views of a series
    write_dicom(tmp_path / "twice", volume[..., :2], "3", suffix=suffix, gap=0)  # at the same place: no volume
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "picture.png")
    hands = [f"hands/2_{k}{suffix}" for k in range(2)]
    assert paths(tmp_path) == [*hands, "head/ct", "picture.png", *(f"twice/3_{k}{suffix}" for k in range(2))]
    assert paths(tmp_path / "head" / "ct") == ["."]
    [item] = image_folder_items(tmp_path / "head" / "ct")
    image = LoadImage(image_only=True)(item["image"])
    np.testing.assert_array_equal(np.asarray(image), volume)
    np.testing.assert_allclose(np.asarray(image.affine), np.diag([-1, -1, 3, 1]))


def test_a_folder_holds_one_series(tmp_path, write_dicom):
    volume = np.zeros((12, 10, 4), np.int16)
    write_dicom(tmp_path, volume, "1")
    write_dicom(tmp_path, volume[..., :2], "2")
    with pytest.raises(ValueError, match=f"{tmp_path}: besides a DICOM series of [24] slices it holds [24] other"):
        image_folder_items(tmp_path)


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
