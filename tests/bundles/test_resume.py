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

"""A training goes on where it stopped, and does not lose the best model of before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from small_bundles import (
    BUNDLES,
    PICTURES,
    SPINES,
    copy_bundle,
    one_per_network,
    run,
    table,
    trained_epochs,
    training_size,
)

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.mark.parametrize("bundle", PICTURES[-1:])
def test_goes_on(bundle: str, tmp_path: Path) -> None:
    root = copy_bundle(bundle, tmp_path)
    curve, state, model = root / "eval/training_curve.csv", root / "models/training_state.pt", root / "models/model.pt"
    shipped = [model.with_name(f"pretrained{end}") for end in (".pt", "_sigma.pt", "_calibration.json", "_shape.json")]
    model.parent.mkdir()
    for path in shipped:
        path.write_bytes(b"shipped")
    run(root, "train", **training_size(root, epochs=2))
    first = table(curve)
    assert [row["epoch"] for row in first] == ["1", "2"]

    flow = run(root, "train", resume=True, **training_size(root, epochs=3))
    assert [row["epoch"] for row in table(curve)] == ["1", "2", "3"] and table(curve)[:2] == first
    after = torch.load(state, weights_only=True)
    assert after["trainer"]["epoch"] == 3
    assert {path.name for path in model.parent.iterdir()} >= {"model.pt", "model_final.pt", "training_state.pt"}
    assert flow.evaluator.state.best_metric == pytest.approx(
        min(float(row["metric"]) for row in table(curve)), rel=1e-4
    )

    # a training that is complete says so and changes nothing; without resume it starts anew
    written = state.read_bytes()
    run(root, "train", resume=True, **training_size(root, epochs=3))
    assert state.read_bytes() == written
    run(root, "train", **training_size(root, epochs=1))
    assert [row["epoch"] for row in table(curve)] == ["1"]
    assert torch.load(state, weights_only=True)["trainer"]["epoch"] == 1
    assert all(path.read_bytes() == b"shipped" for path in shipped)  # no training overwrites them


# one bundle per network, and the one with a metric of its own
@pytest.mark.parametrize("trained", [*one_per_network(BUNDLES), *SPINES], indirect=True)
def test_best_model_is_kept(trained: Path, tmp_path: Path) -> None:
    before = [float(row["metric"]) for row in table(trained / "eval/training_curve.csv") if row["metric"]]
    kept, report = ((trained / name).read_bytes() for name in ("models/model.pt", "eval/metrics.csv"))
    constant = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "optimizer": "@optimizer", "factor": 1.0}
    epochs = trained_epochs(trained.name) + 1
    # spoil it by a learning rate that is far too large; a network that has hardly learned can be no worse by chance
    for rate in (10.0, 30.0, 100.0):
        root = tmp_path / str(rate) / trained.name
        shutil.copytree(trained, root)
        options = {**training_size(root, epochs=epochs), "lr_scheduler": constant, "optimizer#lr": rate}
        flow = run(root, "train", resume=True, **options)
        last = table(root / "eval/training_curve.csv")[-1]
        assert last["epoch"] == str(epochs)
        if float(last["metric"] or "inf") > min(before):
            break
    else:
        pytest.fail("no learning rate spoils this network")
    assert flow.evaluator.state.best_metric == pytest.approx(min(before), rel=1e-4)
    assert (root / "models/model.pt").read_bytes() == kept and (root / "eval/metrics.csv").read_bytes() == report
