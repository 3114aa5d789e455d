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

"""Landmarks in pixels of six images, predictions of them, and the errors by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from monai_landmarks.data import LandmarkSet, write_landmark_table

NAN, INF = float("nan"), float("inf")
NAMES = ("a", "b", "c")
SPACING = 0.5
FEW = {"resamples": 50}


def moved(truth: dict[str, LandmarkSet], seed: int, scale: float = 3.0) -> dict[str, np.ndarray]:
    """The points of each image with Gaussian noise, in pixels."""
    rng = np.random.default_rng(seed)
    return {name: s.points + rng.normal(0, scale, s.points.shape) for name, s in truth.items()}


def pixel_truth() -> dict[str, LandmarkSet]:
    """Three landmarks in each of six pictures, in pixels; one has no ground truth."""
    rng = np.random.default_rng(0)
    sets = {f"{i}.png": LandmarkSet(NAMES, rng.uniform(10, 40, (3, 2)), "index") for i in range(6)}
    points = sets["2.png"].points.copy()
    points[1] = NAN
    sets["2.png"] = LandmarkSet(NAMES, points, "index")
    return sets


def write_tables(folder: Path, truth: dict[str, LandmarkSet]) -> np.ndarray:
    """Write ``truth.csv`` and ``pred.csv``. Return the errors in pixels: one landmark missed, one without ground truth."""
    points = moved(truth, 1)
    points["4.png"][2] = NAN
    points["2.png"][1] = 7.0
    write_landmark_table(folder / "truth.csv", truth)
    pred = {f"/elsewhere/{name}": LandmarkSet(NAMES, points[name], "index") for name in truth}
    write_landmark_table(folder / "pred.csv", pred)
    errors = np.array([np.linalg.norm(points[name] - truth[name].points, axis=1) for name in truth])
    errors[4, 2], errors[2, 1] = INF, NAN
    return errors
