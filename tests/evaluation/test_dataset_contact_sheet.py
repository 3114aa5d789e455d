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

"""The contact sheet of a dataset."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from PIL import Image

from monai_landmarks.data import check_data
from monai_landmarks.evaluation import dataset_contact_sheet, write_contact_sheet
from monai_landmarks.visualize import landmark_view


def test_the_sheet_shows_points_at_their_places(tmp_path):
    """On dark pictures with a bright corner: the corner, and dots in the colors of the landmarks."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        pixels = np.zeros((40, 40), np.uint8)
        pixels[32:38, 2 : 7 + i] = 250  # no two are the same
        Image.fromarray(pixels).save(folder / f"{i}.png")
    rows = "".join(f"{i},a,10,30\n{i},b,30,10\n{i},c,{70 if i == 3 else 20},20\n" for i in range(5))
    (tmp_path / "t.csv").write_text(f"image,landmark,x,y\n{rows}")
    result = check_data(folder, tmp_path / "t.csv", spacing=1)
    assert write_contact_sheet(result, tmp_path / "all.png") == [f"{i}.png" for i in range(5)]
    assert write_contact_sheet(result, tmp_path / "two.png", 2) == ["0.png", "3.png"]  # the faulty one comes first
    assert write_contact_sheet(result, tmp_path / "none.png", 0) == [] and not (tmp_path / "none.png").exists()
    with Image.open(tmp_path / "two.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    dark = (pixels.sum(axis=2) < 40)[:, : pixels.shape[1] // 2]  # the first of two tiles, and some letters
    rows, columns = (np.flatnonzero(dark.mean(axis=axis) > 0.3) for axis in (1, 0))
    tile = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # the corner of the first picture, the first and the last of the color map
    for color, (x, y) in {(255, 255, 255): (4, 34.5), (255, 0, 41): (10, 30), (255, 0, 191): (20, 20)}.items():
        found = np.argwhere(np.abs(tile - color).sum(axis=2) < 60)
        center = found.mean(axis=0) / tile.shape[:2] * 40 - 0.5
        np.testing.assert_allclose(center, [y, x], atol=0.5)


def test_images_without_faults_are_taken_at_regular_steps(tmp_path):
    """Of nine pictures the fourth is at fault; of the eight others every second or third is drawn, with the first and last."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(9):
        Image.fromarray(np.full((12, 12), 20 * i, np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "t.csv").write_text(
        "image,landmark,x,y\n" + "".join(f"{i},a,{99 if i == 3 else 5},5\n" for i in range(9))
    )
    result = check_data(folder, tmp_path / "t.csv", spacing=1)
    assert write_contact_sheet(result, tmp_path / "s.png", 5) == [f"{i}.png" for i in (0, 2, 3, 6, 8)]


def test_a_volume_of_one_slice_is_shown_as_a_picture(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        dataset_contact_sheet,
        "landmark_view",
        lambda image, points, **options: shown.append((image, points)) or landmark_view(image, points, **options),
    )
    (tmp_path / "images").mkdir()
    pixels = np.arange(1200, dtype=np.int16).reshape(40, 30, 1)
    nib.save(nib.Nifti1Image(pixels, np.diag([-1, -1, 1, 1])), tmp_path / "images" / "a.nii.gz")
    (tmp_path / "t.csv").write_text("image,landmark,x,y\na,tip,10,7\n")
    assert write_contact_sheet(check_data(tmp_path / "images", tmp_path / "t.csv"), tmp_path / "s.png") == ["a.nii.gz"]
    [(image, points)] = shown
    np.testing.assert_array_equal(image[0], pixels[..., 0])
    assert points.tolist() == [[10, 7]]
