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

"""A close look at groups that share channels: from training on the corners of vertebrae to their points and angles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_bundles import copy_bundle, run, table, training_size

from monai_landmarks.data import AASCE_LANDMARKS, read_landmarks

pytestmark = pytest.mark.usefixtures("unpainted")


def test_from_the_middles_of_vertebrae_to_their_corners(tmp_path: Path) -> None:
    root = copy_bundle("spine_xray_landmarks_farnet", tmp_path)
    unet = {"_target_": "monai_landmarks.networks.nets.LocalizationUNet", "spatial_dims": 2, "in_channels": 1}
    coarse = {
        "network_def": {**unet, "num_landmarks": "$len(@center_groups)", "features": [8] * 6, "stride": 2},
        "spatial_size": [64, 128],
        "batch_size": 2,
        **training_size(root, epochs=1),
    }
    (root / "configs/small.json").write_text(json.dumps(coarse))
    close = json.loads((root / "configs/close_look.json").read_text())
    options = {
        "coarse_config": [str(root / f"configs/{name}.json") for name in ("train", "centers", "small")],
        "network_def": close["network_def"],
        "fine_network_def#features": [8] * 6,
        "spatial_size": [64, 128],
        "close_size": [32, 32],
        "close_spacing": 1.0,
        "patches_per_image": 2,
        "displacement": 1.0,
        "far_displacement": 3.0,
        **training_size(root, epochs=1),
    }
    run(root, "train", "close_look", **options)
    weights = torch.load(root / "models/model.pt", weights_only=True)
    assert {len(values) for name, values in weights.items() if name.endswith("final_conv.bias")} == {4}
    shuffled = [values for name, values in weights.items() if name.endswith("final_conv.0.bias")]
    assert [len(values) for values in shuffled] == [17 * 4]  # 17 middles, stride 2
    (row,) = table(root / "eval/training_curve.csv")
    assert float(row["metric"]) < 120
    angles = table(root / "eval/cobb_angles.csv")
    assert {"error_pixels", "shift", "error_after_shift_pixels"} <= set(angles[0])

    run(root, "inference", "close_look", **{**options, "dataset_dir": str(root / "data" / "images")})
    found = sorted((root / "eval/inference").glob("*.mrk.json"))
    landmarks = read_landmarks(found[0])
    assert list(landmarks.names) == list(AASCE_LANDMARKS) and np.isfinite(landmarks.points).all()
    assert len(table(root / "eval/inference/cobb_angles.csv")) == len(found) == 10
