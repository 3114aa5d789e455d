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
"""Two processes with an uneven split have the same results as one process."""

from __future__ import annotations

import filecmp
import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from engines import NAMES, Regressor, make_cases, make_evaluator, make_trainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from test_target_precision import search, training
from torch.nn.parallel import DistributedDataParallel
from warm_python import START_METHOD, free_port

from monai_landmarks.handlers import (
    LandmarkReport,
    OverlaySaver,
    PredictionSaver,
    ResumeTraining,
    SafeCheckpointLoader,
    SafeCheckpointSaver,
)
from monai_landmarks.metrics import OutlierMetric, PointErrorMetric, SuccessDetectionRateMetric
from monai_landmarks.precision import PrecisionTrajectory


def evaluate(cases, folder):
    def ignite_metric(metric):
        return IgniteMetricHandler(metric_fn=metric, output_transform=from_engine(["pred_points", "label"]))

    additional = {
        "median": ignite_metric(PointErrorMetric("median")),
        "sdr": ignite_metric(SuccessDetectionRateMetric(2.5)),
        "outliers": ignite_metric(OutlierMetric(2.5)),
    }
    handlers = [LandmarkReport(folder, NAMES), PredictionSaver(folder, NAMES), OverlaySaver(folder, num_images=3)]
    evaluator = make_evaluator(cases, handlers, additional)
    evaluator.run(1)
    return evaluator.state.metrics


def search_while_training(rank, folder):
    """Run a process with its own images and random numbers, and return its decisions and weights."""
    trainer, handler, network, loss = training(folder, search(), epochs=10, seed=rank, rank=rank)
    trainer.run()
    agent = handler.controller.agent
    return {
        "sigma": loss.sigma,
        "decisions": handler.trajectory.decisions,
        "agent": list(agent.network.state_dict().values()),
        "rewards": agent.replay.state_dict()["reward"],
        "network": list(network.state_dict().values()),
    }


def train_and_resume(rank, folder):
    """Train two epochs and, as after a restart, two more. Return the epochs of both, the best one, and the weights."""
    epochs = []
    for total in (2, 4):
        torch.manual_seed(rank)
        network = DistributedDataParallel(Regressor())
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        options = {"save_key_metric": True, "key_metric_filename": "model.pt", "key_metric_negative_sign": True}
        best = SafeCheckpointSaver(str(folder), {"model": network.module}, **options)
        # each rank that has a best model waits for the rows of the others
        report = LandmarkReport(folder / "report", NAMES, best_only=True)
        evaluator = make_evaluator(make_cases(), [best, report], network=network.module, scores=[3.0, 1.0, 2.0, 0.5])
        resume = ResumeTraining({"model": network, "optimizer": optimizer}, folder, validator=evaluator)
        trainer = make_trainer(
            make_cases(seed=rank), network, optimizer, total, [resume, ValidationHandler(1, evaluator)]
        )
        trainer.run()
        state = evaluator.state
        epochs.append([trainer.state.iteration, state.best_metric_epoch, state.best_metric])
    return {"epochs": epochs, "weights": list(network.state_dict().values())}


def load_weights_of_a_node(folder):
    """Return what is said of the weights of this node, and write the weights of the other one."""
    try:
        SafeCheckpointLoader(load_path=str(folder / "model.pt"), load_dict={"model": Regressor()})(make_evaluator([]))
    except ValueError as error:
        return str(error)
    return ""


def worker(rank, port, folder):
    torch.set_num_threads(1)
    address, patience = f"tcp://127.0.0.1:{port}", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=patience)
    cases = make_cases(folders=("left", "right"))
    # uneven, and the two images that share a name lie on different ranks
    # each rank has a folder of its own, as on two nodes without a common disk
    metrics = evaluate(cases[:1] if rank == 0 else cases[1:], folder / f"evaluation_{rank}")
    torch.save(metrics, folder / f"evaluation{rank}.pt")
    node = folder / f"node{rank}"
    torch.save(search_while_training(rank, node / "search"), folder / f"search{rank}.pt")
    torch.save(train_and_resume(rank, node), folder / f"resume{rank}.pt")
    files = sorted(str(path.relative_to(node)) for path in node.rglob("*") if path.is_file())
    (node / "other").mkdir(parents=True)
    messages = []
    for seed in (rank, 0):
        torch.manual_seed(seed)
        torch.save(Regressor().state_dict(), node / "other" / "model.pt")
        messages.append(load_weights_of_a_node(node / "other"))
    torch.save({"files": files, "messages": messages}, folder / f"files{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the folder with the results of two processes."""
    folder = tmp_path_factory.mktemp("two")
    port = free_port()
    mp.start_processes(worker, args=(port, folder), nprocs=2, start_method=START_METHOD)
    return folder


def test_evaluation(two, tmp_path):
    one, two = tmp_path / "one", two / "evaluation_0"
    expected = evaluate(make_cases(folders=("left", "right")), one)
    for rank in range(2):
        metrics = torch.load(two.parent / f"evaluation{rank}.pt", weights_only=True)
        assert set(metrics) == set(expected) == {"val_mre", "median", "sdr", "outliers"}
        for name, value in metrics.items():
            torch.testing.assert_close(value, expected[name], msg=f"{name} of rank {rank}")
    files, others = (sorted(path.name for path in folder.glob("[!.]*")) for folder in (one, two))
    assert len(files) == 5 + 2 + 3 + 4 and others == files
    same, different, failed = filecmp.cmpfiles(one, two, files, shallow=False)
    assert sorted(same) == files, f"{different} {failed}"


def test_search_of_target_precision(two):
    """Both processes make the same decisions, from the cases of both."""
    first, second = (torch.load(two / f"search{rank}.pt", weights_only=True) for rank in range(2))
    assert first["decisions"] == second["decisions"]
    assert PrecisionTrajectory.read(two / "node0/search/precision.json").decisions == first["decisions"]
    for name in ("sigma", "agent", "rewards", "network"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)
    assert len({tuple(row["sigma"]) for row in first["decisions"]}) > 2
    # the errors of the five cases are 0, 1, 2, 3 and 4 mm; the third landmark is missing in the second one
    assert first["decisions"][1]["error"] == pytest.approx([2.0, 2.0, 2.25])


def test_training_goes_on_without_a_common_disk(two):
    """Rank 1 has no file, but goes on at the same epoch, and both agree on which model is the best."""
    first, second = (torch.load(two / f"resume{rank}.pt", weights_only=True) for rank in range(2))
    # three iterations an epoch; epoch 3 is worse than epoch 2
    assert first["epochs"] == second["epochs"] == [[6, 2, 1.0], [12, 4, 0.5]]
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    of_first, of_second = (torch.load(two / f"files{rank}.pt", weights_only=True)["files"] for rank in range(2))
    assert of_second == [] and {"training_state.pt", "model.pt", os.path.join("search", "precision.json")} <= set(
        of_first
    )


def test_other_weights_on_another_node_are_refused(two):
    for rank in range(2):
        different, same = torch.load(two / f"files{rank}.pt", weights_only=True)["messages"]
        assert same == ""
        assert "rank 0" in different and f"{two / 'node1' / 'other' / 'model.pt'}. Copy the folder" in different
