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

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from engines import NAMES, make_cases, make_evaluator
from monai.handlers import IgniteMetricHandler, from_engine
from test_target_precision import search, training
from warm_python import START_METHOD, free_port

from monai_landmarks.handlers import LandmarkReport, OverlaySaver, PredictionSaver
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


def worker(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    cases = make_cases(folders=("left", "right"))
    # uneven, and the two images that share a name lie on different ranks
    metrics = evaluate(cases[:1] if rank == 0 else cases[1:], folder / "evaluation")
    torch.save(metrics, folder / f"evaluation{rank}.pt")
    torch.save(search_while_training(rank, folder / "search"), folder / f"search{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the folder with the results of two processes."""
    folder = tmp_path_factory.mktemp("two")
    port = free_port()
    mp.start_processes(worker, args=(port, folder), nprocs=2, start_method=START_METHOD)
    return folder


def test_evaluation(two, tmp_path):
    one, two = tmp_path / "one", two / "evaluation"
    expected = evaluate(make_cases(folders=("left", "right")), one)
    for rank in range(2):
        metrics = torch.load(f"{two}{rank}.pt", weights_only=True)
        assert set(metrics) == set(expected) == {"val_mre", "median", "sdr", "outliers"}
        for name, value in metrics.items():
            torch.testing.assert_close(value, expected[name], msg=f"{name} of rank {rank}")
    files = sorted(path.name for path in one.iterdir())
    assert len(files) == 5 + 2 + 3 + 4 and sorted(path.name for path in two.iterdir()) == files
    same, different, failed = filecmp.cmpfiles(one, two, files, shallow=False)
    assert sorted(same) == files, f"{different} {failed}"


def test_search_of_target_precision(two):
    """Both processes make the same decisions, from the cases of both."""
    first, second = (torch.load(two / f"search{rank}.pt", weights_only=True) for rank in range(2))
    assert first["decisions"] == second["decisions"]
    assert PrecisionTrajectory.read(two / "search/precision.json").decisions == first["decisions"]
    for name in ("sigma", "agent", "rewards", "network"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)
    assert len({tuple(row["sigma"]) for row in first["decisions"]}) > 2
    # the errors of the five cases are 0, 1, 2, 3 and 4 mm; the third landmark is missing in the second one
    assert first["decisions"][1]["error"] == pytest.approx([2.0, 2.0, 2.25])
