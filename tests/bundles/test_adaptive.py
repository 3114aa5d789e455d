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


"""The bundle with searched target precision: a search in a training, its record, its replay, and the baselines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from small_bundles import SOURCE, copy_bundle, run, small, training_size, workflow
from test_close_look import options as close_look_options

from monai_landmarks import precision
from monai_landmarks.losses import AdaptivePrecisionLoss, SCNLoss
from monai_landmarks.precision import PrecisionTrajectory, SigmaRange

BUNDLE = "ceph_xray_landmarks_adaptive"
# what sets the sigmas, by the file that is added to train.json
CONTROLLERS = {
    "fixed": "FixedSigma",
    "linear": "LinearSigma",
    "adaloss": "Adaloss",
    "calibrated": "CalibratedSigma",
    "random": "PrecisionSearch",
    "learned": "PrecisionController",
    "population": "PrecisionSearch",
    "full": "PrecisionSearch",
}


@pytest.mark.parametrize("config", CONTROLLERS)
def test_each_baseline_is_a_file(config: str) -> None:
    parser = ConfigParser()
    parser.read_config([SOURCE / BUNDLE / "configs" / f"{name}.json" for name in ("train", config)])
    parser.update(small(SOURCE / BUNDLE))
    controller, loss = (parser.get_parsed_content(key) for key in ("controller", "loss_def"))
    assert type(controller) is getattr(precision, CONTROLLERS[config])
    assert isinstance(loss, SCNLoss if config == "learned" else AdaptivePrecisionLoss)
    assert parser.get_parsed_content("softmax") == (config != "learned")
    if config == "random":
        assert type(controller.agent) is precision.RandomAgent
    else:
        assert type(getattr(controller, "agent", None)) in (precision.DoubleDQNAgent, type(None))
    # sigmas are in mm, and voxels are as large as the configuration says
    voxel = parser.get_parsed_content("voxel_size")
    if config != "learned":
        torch.testing.assert_close(loss.base.target.raw_sigma, torch.full((19, 2), 4.0))
        assert loss.sigma[0] == pytest.approx(4 * voxel)
    found = parser.get_parsed_content("sigma_range")
    assert isinstance(found, SigmaRange) and (found.low, found.high) == pytest.approx((voxel, 6 * voxel))
    assert getattr(controller, "children", 1) == (3 if config == "population" else 1)


QUICK = {"controller#warmup": 0.1, "agent#updates": 2, "agent#hidden": 8}


@pytest.mark.usefixtures("unpainted")
def test_a_search_leaves_a_record_that_can_be_replayed(tmp_path: Path) -> None:
    root = copy_bundle(BUNDLE, tmp_path)
    flow = run(root, "train", **training_size(root, epochs=5), **QUICK)
    record = PrecisionTrajectory.read(root / "eval/precision.json")
    assert (root / "eval/precision.png").is_file() and record.unit == "mm"
    assert [row["epoch"] for row in record.decisions] == [0, 1, 2, 3, 4, 5]
    assert [row["action"][0] is None for row in record.decisions] == [True, False, False, False, True, True]
    assert flow.parser.get_parsed_content("loss").sigma.tolist() == pytest.approx(
        record.decisions[-1]["sigma"], rel=1e-5
    )
    assert len({tuple(row["sigma"]) for row in record.decisions}) > 2
    state = torch.load(root / "models/training_state.pt", weights_only=True)
    # three decisions, of each landmark and with each move
    assert len(state["precision"]["controller"]["agent"]["replay"]["action"]) == 3 * 19 * 3

    # the final training: all images, no agent, the same sigmas
    shutil.copy(root / "eval/precision.json", tmp_path / "kept.json")
    run(root, "train", "replay", **training_size(root, epochs=5))
    again = json.loads((root / "eval/replay/precision.json").read_text())
    assert [row["sigma"] for row in again["decisions"]] == [row["sigma"] for row in record.decisions]
    assert (root / "eval/precision.json").read_bytes() == (tmp_path / "kept.json").read_bytes()
    assert (root / "models/replay/model.pt").is_file()


@pytest.mark.usefixtures("unpainted")
def test_a_resumed_search_goes_on_as_it_would_have(tmp_path: Path) -> None:
    """The same decisions and, since the augmentation goes on as well, the same weights."""
    options = {"max_epochs": 4, **QUICK}
    roots = [copy_bundle(BUNDLE, tmp_path / part) for part in ("whole", "parts")]
    run(roots[0], "train", **options)
    flow = workflow(roots[1], "train", **options)
    flow.initialize()
    flow.trainer.add_event_handler(
        "EPOCH_COMPLETED", lambda engine: engine.terminate() if engine.state.epoch == 2 else None
    )
    flow.run()
    flow.finalize()
    assert len(PrecisionTrajectory.read(roots[1] / "eval/precision.json").decisions) == 3
    run(roots[1], "train", resume=True, **options)
    whole, parts = (torch.load(root / "models/training_state.pt", weights_only=True) for root in roots)
    assert parts["precision"]["trajectory"] == whole["precision"]["trajectory"]
    for name in ("model", "loss"):
        torch.testing.assert_close(parts[name], whole[name], rtol=0, atol=0)


@pytest.mark.usefixtures("unpainted")
def test_a_close_look_leaves_the_record_of_the_search(tmp_path: Path) -> None:
    """Also in a final training, whose coarse network has the recorded sigmas and whose fine network has its own."""
    root = copy_bundle(BUNDLE, tmp_path)
    run(root, "train", **training_size(root, epochs=2), **QUICK, output_dir=str(root / "eval/search"))
    record = root / "eval/precision.json"
    shutil.copy(root / "eval/search/precision.json", record)
    (root / "models/coarse").mkdir()
    shutil.move(root / "models/model.pt", root / "models/coarse/model.pt")
    options = close_look_options(root, epochs=1)
    run(root, "train", "close_look", run_id="fine_training", **options)
    fine = PrecisionTrajectory.read(root / "eval/close_precision.json")
    assert record.read_bytes() == (root / "eval/search/precision.json").read_bytes()

    given = json.loads((root / "configs/replay.json").read_text())["coarse_config"]
    options["coarse_config"] = [given[0], given[1], options["coarse_config"][-1]]
    record = record.rename(root / "eval/search/of_the_coarse_training.json")
    options["coarse_training#trajectory"] = str(record)
    run(root, "train", "close_look", "replay", **options)
    replayed = PrecisionTrajectory.read(root / "eval/replay/coarse/precision.json").column("sigma")
    assert replayed == PrecisionTrajectory.read(record).column("sigma") and len(replayed) == 3
    again = PrecisionTrajectory.read(root / "eval/replay/close_precision.json").column("sigma")
    # one voxel of the patch
    assert again == fine.column("sigma") == [[pytest.approx(options["close_spacing"])] * 19] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [({}, ""), ({"unit": "voxel"}, "in the unit voxel"), ({"names": ["x"] * 19}, "of the landmarks")],
)
def test_a_record_of_another_kind_is_not_replayed(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    parser = ConfigParser()
    parser.read_config([SOURCE / BUNDLE / "configs" / f"{name}.json" for name in ("train", "replay")])
    parser.update({"bundle_root": str(SOURCE / BUNDLE), "trajectory": str(tmp_path / "record.json")})
    record = {"names": parser.get_parsed_content("names"), "unit": "mm", **change}
    decision = {"epoch": 0, "progress": 0.0, "sigma": [4.0] * 19}
    PrecisionTrajectory(decisions=[decision], **record).write(tmp_path / "record.json")
    if not message:
        assert parser.get_parsed_content("controller").start(torch.ones(19)).tolist() == [4.0] * 19
        return
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content("controller")
    assert message in str(error.value.__cause__)
