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

"""Calibration of regions on files of predictions."""

from __future__ import annotations

import numpy as np
import pytest

from monai_landmarks.data import LandmarkSet, write_landmark_table
from monai_landmarks.evaluation import calibrate_regions

NAMES = ("a", "b")


def test_pixels_need_their_size(tmp_path):
    rng = np.random.default_rng(0)
    points = {f"{i}.nii": rng.uniform(0, 50, (2, 2)) for i in range(12)}
    index = {name: LandmarkSet(NAMES, rows, "index") for name, rows in points.items()}
    moved = {name: LandmarkSet(NAMES, rows + (3.0, 4.0), "index") for name, rows in points.items()}
    write_landmark_table(tmp_path / "true.csv", index)
    write_landmark_table(tmp_path / "found.csv", moved)
    with pytest.raises(ValueError, match="0.nii: the points are in pixels of unknown size"):
        calibrate_regions(tmp_path / "found.csv", tmp_path / "true.csv")
    regions = calibrate_regions(tmp_path / "found.csv", tmp_path / "true.csv", spacing=0.5)
    assert regions.bounds == pytest.approx([2.5, 2.5])
    regions = calibrate_regions(tmp_path / "found.csv", tmp_path / "true.csv", spacing=1, pooled=True)
    assert regions.bounds == pytest.approx([5, 5])
