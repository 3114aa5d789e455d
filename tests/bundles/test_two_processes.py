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

"""A training and an evaluation by two processes come to what one process comes to."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from small_bundles import copy_bundle, option, run, small, table
from warm_python import COPIED_WORKERS, WarmPython, free_port

pytestmark = pytest.mark.usefixtures("unpainted")
BUNDLE = "hand_xray_landmarks_scn"
WORKER = Path(__file__).with_name("node_worker.py")


def command_line(root: Path, run_id: str, *configs: str, **overrides) -> list[str]:
    """``python -m monai.bundle run`` with its arguments as a user writes them."""
    files = [str(root / "configs" / f"{config}.json") for config in configs]
    arguments = {"bundle_root": str(root), "config_file": files, **small(root, **overrides)}
    return [
        "-m",
        "monai.bundle",
        "run",
        run_id,
        *(part for key, value in arguments.items() for part in option(key, value)),
    ]


def torchrun(folder: Path, arguments: list[str]) -> None:
    _, *module = arguments  # the worker runs the module
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *COPIED_WORKERS, WORKER, *module]
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    WarmPython(command, folder, folder / "torchrun.txt", environment).printed()


def run_two(folder: Path, arguments: list[str]) -> None:
    """Run the processes that torchrun starts, with the variables that it sets."""
    port = free_port()
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = []
    for rank in ("0", "1"):
        own = {**common, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        processes.append(WarmPython(arguments, folder, folder / f"{arguments[3]}_{rank}.txt", own))
    try:
        for process in processes:
            process.printed()
    finally:  # one that waits for its partner would not end
        for process in processes:
            process.kill()


def metrics(folder: Path) -> dict[str, float]:
    return {row["metric"]: float(row["value"]) for row in table(folder / "metrics.csv")}


# 10 images for training, 3 for validation and 3 for testing, which halve unevenly
DATA = {"datalist#num_images": 16, "datalist#val_frac": 0.2, "datalist#test_frac": 0.2}


def evaluate_alone(root: Path, folder: Path, section: str, **data: float) -> dict[str, float]:
    run(root, "train", "evaluate", section=section, output_dir=str(folder), **data)
    return metrics(folder)


def assert_same_files(one: Path, two: Path, images: int) -> None:
    names = ["metrics.csv", "errors_per_landmark.csv", "errors_per_image.csv", "predictions/predictions.csv"]
    names += [str(path.relative_to(two)) for path in sorted((two / "predictions").glob("*.mrk.json"))]
    assert len(names) == 4 + images
    number = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
    for name in names:
        first, second = ((folder / name).read_text() for folder in (one, two))
        assert number.sub("#", first) == number.sub("#", second), name
        # Images are batched with others, so that float32 rounds differently: 1.5e-4 of a covariance was seen.
        # Numbers in tables are rounded to four decimals.
        values = [[float(value) for value in number.findall(text)] for text in (first, second)]
        assert values[0] == pytest.approx(values[1], rel=1e-3, abs=2e-4), name


def test_training_and_evaluation(tmp_path: Path) -> None:
    root = copy_bundle(BUNDLE, tmp_path)  # without data: both processes ask for the phantom at once
    torchrun(tmp_path, command_line(root, "training", "train", "multi_gpu_train", max_epochs=2, val_interval=1, **DATA))
    datalist = json.loads((root / "data/datalist.json").read_text())
    assert [len(datalist[section]) for section in ("training", "validation", "testing")] == [10, 3, 3]
    curve = table(root / "eval/training_curve.csv")
    # two processes, batches of two: three iterations per epoch
    assert [row["iteration"] for row in curve] == ["3", "6"]
    state = torch.load(root / "models/model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in state)

    # what was written at the best epoch, for the model that is kept, against one process
    one = evaluate_alone(root, tmp_path / "validation", "validation", **DATA)
    two = metrics(root / "eval")
    assert two == pytest.approx(one, rel=1e-4, abs=2e-4) and two["images"] == 3
    assert two["MRE"] == pytest.approx(min(float(row["metric"]) for row in curve), abs=1e-4)
    assert_same_files(root / "eval", tmp_path / "validation", 3)

    run_two(tmp_path, command_line(root, "evaluating", "train", "evaluate", "multi_gpu_train", **DATA))
    one, two = evaluate_alone(root, tmp_path / "testing", "testing", **DATA), metrics(root / "eval/testing")
    assert two == pytest.approx(one, rel=1e-4, abs=2e-4) and two["images"] == 3
    assert_same_files(root / "eval/testing", tmp_path / "testing", 3)


def test_coarse_heatmaps_and_cobb_angles(tmp_path: Path) -> None:
    """Coarse heatmaps reach their loss through the wrapped network; angles are gathered from both processes."""
    root, data = copy_bundle("spine_xray_landmarks_farnet", tmp_path), {"datalist#val_frac": 0.4}
    run_two(tmp_path, command_line(root, "training", "train", "multi_gpu_train", max_epochs=2, val_interval=1, **data))
    # five images for training, two processes, batches of two
    assert [row["iteration"] for row in table(root / "eval/training_curve.csv")] == ["2", "4"]
    one, two = evaluate_alone(root, tmp_path / "validation", "validation", **data), metrics(root / "eval")
    assert two["images"] == len(table(root / "eval/cobb_angles.csv")) == 3
    # other batches round otherwise
    assert two == pytest.approx(one, rel=1e-4, abs=1e-4) and two["cobb_mae_degrees"] > 0


def test_one_process_without_torchrun_is_told_what_to_do(tmp_path: Path) -> None:
    root = copy_bundle(BUNDLE, tmp_path)
    with pytest.raises(Exception) as error:
        run(root, "train", "multi_gpu_train", **DATA)
    assert "torchrun --standalone" in str(error.value.__cause__)
