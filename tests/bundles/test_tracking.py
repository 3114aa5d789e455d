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

"""Tracking as MONAI documents it, and the command line from another folder."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from small_bundles import copy_bundle, option, small, table, training_size, workflow
from warm_python import WarmPython

pytestmark = pytest.mark.usefixtures("unpainted")

BUNDLE = "ceph_xray_landmarks_scn"


def train(root: Path, tracking: str) -> list[dict[str, str]]:
    flow = workflow(root, "train", tracking=tracking, **training_size(root))
    flow.initialize()
    flow.run()
    flow.finalize()
    return table(root / "eval/training_curve.csv")


def test_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    root = copy_bundle(BUNDLE, tmp_path)
    curve = train(root, "mlflow")
    mlflow.end_run()  # the library keeps it in mind for the process
    with sqlite3.connect(root / "eval/mlruns.db") as database:
        logged = list(database.execute("select key, value, step from metrics order by step"))
    errors = {step: value for key, value, step in logged if key == "val_mre"}
    assert [errors[epoch] for epoch in (1, 2)] == pytest.approx([float(row["metric"]) for row in curve], rel=1e-4)
    assert any(key == "train_loss" for key, _, _ in logged)


def test_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    root = copy_bundle(BUNDLE, tmp_path)
    curve = train(root, str(root / "configs/tensorboard.json"))
    logged: dict[str, list[float]] = {}
    for path in (root / "eval").glob("events.out.tfevents.*"):
        events = accumulator.EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            logged.setdefault(tag, []).extend(event.value for event in events.Scalars(tag))
    assert logged["val_mre"] == pytest.approx([float(row["metric"]) for row in curve], rel=1e-4)
    assert len(logged["train_loss"]) == 6


def test_command_line_in_another_folder(tmp_path: Path) -> None:
    """As the README has it: the paths of the bundle are given, and nothing is written but in the bundle."""
    root, elsewhere = copy_bundle(BUNDLE, tmp_path), tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = {"config_file": "../" + f"{BUNDLE}/configs/train.json", **small(root, **training_size(root, epochs=1))}
    arguments = [part for key, value in options.items() for part in option(key, value)]
    command = ["-m", "monai.bundle", "run", "training", *arguments]
    printed = WarmPython(command, elsewhere, tmp_path / "printed.txt", {"OMP_NUM_THREADS": "1"}).printed()
    assert "epoch 1/1" in printed or "iteration 3/3 (100 %)" in printed  # the progress
    assert "point error in mm: 2 images" in printed  # the report, through the bundle's logging.conf
    assert (root / "models/model.pt").is_file() and (root / "eval/metrics.csv").is_file()
    assert not list(elsewhere.iterdir())
