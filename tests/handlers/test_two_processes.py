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
"""Two processes with an uneven split come to what one process comes to."""

from __future__ import annotations

import filecmp
import socket
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from engines import NAMES, make_cases, make_evaluator
from monai.handlers import IgniteMetricHandler, from_engine

from monai_landmarks.handlers import LandmarkReport, LandmarkSaver, OverlaySaver
from monai_landmarks.metrics import OutlierMetric, PointErrorMetric, SuccessDetectionRateMetric


def evaluate(cases, folder):
    def ignite_metric(metric):
        return IgniteMetricHandler(metric_fn=metric, output_transform=from_engine(["pred_points", "label"]))

    additional = {
        "median": ignite_metric(PointErrorMetric("median")),
        "sdr": ignite_metric(SuccessDetectionRateMetric(2.5)),
        "outliers": ignite_metric(OutlierMetric(2.5)),
    }
    handlers = [LandmarkReport(folder, NAMES), LandmarkSaver(folder, NAMES), OverlaySaver(folder, num_images=3)]
    evaluator = make_evaluator(cases, handlers, additional)
    evaluator.run(1)
    return evaluator.state.metrics


def worker(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    cases = make_cases(folders=("left", "right"))
    # uneven, and the two images that share a name lie on different ranks
    metrics = evaluate(cases[:1] if rank == 0 else cases[1:], folder)
    torch.save(metrics, f"{folder}.rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    expected = evaluate(make_cases(folders=("left", "right")), one)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, str(two)), nprocs=2)
    for rank in range(2):
        metrics = torch.load(Path(f"{two}.rank{rank}.pt"), weights_only=True)
        assert set(metrics) == set(expected) == {"val_mre", "median", "sdr", "outliers"}
        for name, value in metrics.items():
            torch.testing.assert_close(value, expected[name], msg=f"{name} of rank {rank}")
    files = sorted(path.name for path in one.iterdir())
    assert len(files) == 5 + 2 + 3 + 4 and sorted(path.name for path in two.iterdir()) == files
    same, different, failed = filecmp.cmpfiles(one, two, files, shallow=False)
    assert sorted(same) == files, f"{different} {failed}"
