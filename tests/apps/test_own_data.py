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
"""From a folder of images and Slicer's files to points in Slicer's space: check, init, training, predict, evaluate, report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from monai.bundle import ConfigWorkflow

from monai_landmarks.apps.main import program
from monai_landmarks.data import (
    LandmarkSet,
    read_landmark_table,
    write_hand_phantom,
    write_landmarks,
    write_spine_phantom,
)


def command(*args):
    result = CliRunner().invoke(program, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result.stdout


def run_bundle(folder: Path, *configs: str, **overrides) -> None:
    """What ``python -m monai.bundle run`` does, without a process of its own."""
    files = [str(folder / "configs" / f"{name}.json") for name in configs]
    kind = "infer" if configs[0] == "inference" else "train"
    flow = ConfigWorkflow(files, logging_file=False, workflow_type=kind, bundle_root=str(folder), **overrides)
    flow.initialize()
    flow.run()
    flow.finalize()


def slicer_points(path: Path) -> dict[str, np.ndarray]:
    """RAS positions of a markups file, read as JSON and turned by hand."""
    [markup] = json.loads(path.read_text())["markups"]
    sign = np.array({"LPS": (-1, -1, 1), "RAS": (1, 1, 1)}[markup["coordinateSystem"]])
    return {
        point["label"]: sign * point["position"]
        for point in markup["controlPoints"]
        if point["positionStatus"] == "defined"
    }


def hand(folder: Path) -> tuple[Path, Path, list]:
    """Pictures, and a Slicer file for each, whose positions are mm."""
    write_hand_phantom(folder, 5, size=(64, 64), val_frac=0.15)
    for name, landmarks in read_landmark_table(folder / "landmarks.csv").items():
        lps = np.column_stack([landmarks.points * 3.5, np.zeros(len(landmarks))])
        write_landmarks(folder / "points" / f"{Path(name).stem}.mrk.json", LandmarkSet(landmarks.names, lps, "LPS"))
    return folder / "images", folder / "points", ["--spacing", 3.5]


def spine(folder: Path) -> tuple[Path, Path, list]:
    """Volumes that lie obliquely, and a Slicer file for each."""
    write_spine_phantom(folder, 5, size=(16, 16, 24), spacing=(9, 9, 8), oblique=15, val_frac=0.15)
    return folder / "images", folder / "points", []


PATCHES = ["--set", "patch_size=[32,32,32]", "--set", "spacing_mm=4.5", "--set", "overlap=0.25"]


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("make, method, settings", [(hand, "farnet", []), (spine, "scn", PATCHES)])
def test_from_slicer_to_slicer(tmp_path, make, method, settings):
    images, points, options = make(tmp_path / "data")
    command("check", images, points, *options, "--val-frac", 0.4, "--sheet", 2, "--out", tmp_path / "checked")
    datalist = tmp_path / "checked" / "datalist.json"
    bundle = tmp_path / "bundle"
    small = ["--set", "width=4", "--set", "max_epochs=1", *(settings or ["--set", "batch_size=2"])]
    command("init", datalist, "--method", method, "--out", bundle, "--device", "cpu", *small)
    run_bundle(bundle, "train")
    assert (bundle / "models" / "model.pt").is_file()
    with open(bundle / "eval" / "training_curve.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 1 and np.isfinite(losses).all()

    command("predict", bundle, images, "--out", tmp_path / "found")  # pictures have the spacing of the datalist
    found = {path.name: slicer_points(path) for path in (tmp_path / "found").glob("*.mrk.json")}
    truth = {path.name: slicer_points(path) for path in points.glob("*.mrk.json")}
    assert set(found) == set(truth)
    errors = [
        np.linalg.norm(found[name][label] - true)
        for name in truth
        for label, true in truth[name].items()
        if label in found[name]
    ]
    table = command("evaluate", tmp_path / "found", datalist, "--out", tmp_path / "evaluation")
    overall = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert float(re.search(r"MRE\D+([\d.]+)", table)[1]) == pytest.approx(np.mean(errors), abs=0.006), overall

    # what the training left for its best model, measured by the bundle itself, is the same
    with open(bundle / "eval" / "metrics.csv") as file:
        metrics = {row["metric"]: float(row["value"]) for row in csv.DictReader(file)}
    names = {Path(item["image"]).name.partition(".")[0] for item in json.loads(datalist.read_text())["validation"]}
    of_validation = [
        np.linalg.norm(found[name][label] - true)
        for name in truth
        if name.partition(".")[0] in names
        for label, true in truth[name].items()
        if label in found[name]
    ]
    assert metrics["MRE"] == pytest.approx(np.mean(of_validation), abs=0.01)

    if make is spine:
        return  # a report takes two seconds
    command("report", tmp_path / "found", datalist, "--cases", 1, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<html" in page and all(name in page for name in next(iter(truth.values())))
