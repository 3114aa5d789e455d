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
"""Real images with experts' landmarks: a whole chain keeps every landmark on the anatomy it was set on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose, GaussianSmoothd, LoadImaged, Orientationd, RandFlipd, ScaleIntensityd, Spacingd
from scipy.ndimage import map_coordinates

from monai_landmarks.data import read_landmark_table
from monai_landmarks.transforms import EnsureWorldAffined, LandmarksToIndexd, LoadLandmarksd, RandLandmarkWarpd


def gray_values(image: torch.Tensor, points: torch.Tensor) -> np.ndarray:
    return map_coordinates(image[0].numpy(), points[0].double().numpy().T, order=1)


def test_volume_in_ras(lumbar_mri_root: Path) -> None:
    name = "lumbar_02.nii.gz"
    landmarks = read_landmark_table(lumbar_mri_root / "landmarks.csv", "RAS")[name]
    item = {"image": str(lumbar_mri_root / "images" / name), "label": landmarks}
    load = [
        LoadImaged("image", ensure_channel_first=True),
        EnsureWorldAffined("image"),
        LoadLandmarksd("label"),
        ScaleIntensityd("image"),
        GaussianSmoothd("image", 2.0),
    ]
    before = Compose([*load, LandmarksToIndexd("label")])(item)
    with open(lumbar_mri_root / "landmarks.csv", newline="") as file:  # the table has the voxel indices as well
        index = [[float(row[axis]) for axis in "ijk"] for row in csv.DictReader(file) if row["image"] == name]
    np.testing.assert_allclose(before["label"][0], index, atol=2e-3)
    move = [
        Orientationd("image", "LPS"),
        Spacingd("image", 1.5, mode="bilinear"),
        RandFlipd("image", 1.0, 1),
        RandLandmarkWarpd(
            "image",
            "label",
            translate_range=8,
            rotate_range=0.2,
            axis_scale_range=0.1,
            elastic_range=8,
            unit="mm",
            prob=1.0,
        ),
        LandmarksToIndexd("label"),
    ]
    after = Compose([*load, *move]).set_random_state(0)(item)
    assert np.abs(after["label"] - before["label"]).max() > 5
    expected = gray_values(before["image"], before["label"])
    assert np.abs(gray_values(after["image"], after["label"]) - expected).max() < 0.01 * np.ptp(before["image"].numpy())


def test_radiograph_in_pixels(isbi2015_root: Path) -> None:
    path = sorted((isbi2015_root / "images").glob("*.jpg"))[0]
    table = read_landmark_table(isbi2015_root / "landmarks.csv")
    landmarks = next(points for name, points in table.items() if Path(name).stem == path.stem)
    assert str(landmarks.coordinate_system) == "index"
    load = [
        LoadImaged("image", ensure_channel_first=True),
        EnsureWorldAffined("image", spacing=0.3),
        LoadLandmarksd("label", names=landmarks.names),
        ScaleIntensityd("image"),
        GaussianSmoothd("image", 3.0),
    ]
    item = {"image": str(path), "label": landmarks}
    before = Compose([*load, LandmarksToIndexd("label")])(item)
    np.testing.assert_allclose(before["label"][0], landmarks.points, atol=1e-3)
    ranges = {
        "translate_range": 10,
        "rotate_range": 0.25,
        "scale_range": 0.2,
        "axis_scale_range": 0.2,
        "elastic_range": 10,
    }
    move = [
        Spacingd("image", (0.4, 0.5), mode="bilinear"),
        RandLandmarkWarpd("image", "label", **ranges, unit="mm", prob=1.0, padding_mode="border"),
        LandmarksToIndexd("label"),
    ]
    after = Compose([*load, *move], lazy=True).set_random_state(0)(item)
    inside = ((after["label"] > 1) & (after["label"] < torch.tensor(after["image"].shape[1:]) - 2)).all(-1)[0].numpy()
    assert inside.sum() > 10
    expected, got = gray_values(before["image"], before["label"]), gray_values(after["image"], after["label"])
    assert np.abs(got - expected)[inside].max() < 0.01
