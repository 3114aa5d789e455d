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

"""The benchmarks run; what they measure decides nothing here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gpu
import numpy as np
import pytest
import torch
from measure import peak_memory
from PIL import Image
from study_precision import METHODS, main, rank_correlation
from warm_python import WarmPython

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


LIMITS = {
    "benchmark_commands.py": ("Python alone", "| evaluate |"),
    "benchmark_transforms.py": ("torch.full", "torch.amax", "grid_sample"),
    "benchmark_networks.py": ("target maps stored", "torch.matmul"),
    "benchmark_pipelines.py": ("batch ready",),
    "benchmark_volumes.py": ("sum of squares", "one map stitched"),
}


def test_every_benchmark_is_run():
    assert {path.name for path in BENCHMARKS.glob("benchmark_*.py")} == set(LIMITS)


@pytest.mark.parametrize("script", LIMITS)
def test_benchmark_runs(script, tmp_path):
    command = ["-m", script.removesuffix(".py"), "--quick"]
    written = WarmPython(command, BENCHMARKS, tmp_path / "written.txt").printed()
    for limit in LIMITS[script]:
        assert limit in written


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of the CPU is asked from Linux")
def test_peak_memory_sees_torch():
    """One array of 64 MiB, and three of them at once, within 10 % for whatever else the process does."""
    size = 2**24
    for arrays, run in ((1, lambda: torch.ones(size)), (3, lambda: torch.ones(size) + torch.ones(size))):
        measured = peak_memory(run)
        assert measured is not None
        assert abs(measured / (4 * size * arrays) - 1) < 0.1


def test_study_of_target_precision_runs_and_goes_on(tmp_path, capsys):
    out = tmp_path / "study.json"
    main(str(out), "search,learned (SCN)", quick=True)
    main(str(out), "search,fixed 2", quick=True)
    written = capsys.readouterr().out
    # the search was not run again, and the last table has all three
    assert written.count("search, seed 0") == 1
    table = out.with_suffix(".md").read_text()
    assert all(
        f"| {method} | 1 |" in table for method in ("search", "fixed 2 (the best by validation)", "learned (SCN)")
    )
    with Image.open(out.with_suffix(".png")) as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100
    with pytest.raises(ValueError, match="choose another"):
        main(str(out), "search", epochs=5)
    assert len({method.partition(" ")[0] for method in METHODS}) == 7


def test_rank_correlation_is_spearmans():
    spearmanr = pytest.importorskip("scipy.stats").spearmanr
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        one, two = torch.randint(0, 6, (2, 12), generator=generator)
        assert rank_correlation(one, two) == pytest.approx(spearmanr(one, two).statistic, abs=1e-5)
    assert rank_correlation(torch.ones(3), torch.arange(3)) != rank_correlation(torch.ones(3), torch.arange(3))


def test_trainings_on_one_gpu_end_in_time():
    """Three steps in turns take 60 ms, an epoch of 50 of them 3 s: 60 s hold 17 with 85 % of the time."""
    assert gpu.choose_epochs([20.0, 15.0, 25.0], steps_per_epoch=50, seconds=60) == 17
    assert gpu.choose_epochs([20.0, 15.0, 25.0], steps_per_epoch=50, seconds=1) == 1


def test_steps_are_measured_for_one_gpu(tmp_path):
    rows = gpu.probe(tmp_path, "cpu", gpu.QUICK_STEPS, [64, 64], 1, 1, end=float("inf"))
    assert json.loads((tmp_path / "probe.json").read_text()) == rows
    assert {row["name"] for row in rows} >= {"machine", "SCN", "U-Net", "decode", "encode"}
    assert all(row["ms"] > 0 for row in rows[1:])
    late = gpu.probe(tmp_path, "cpu", gpu.QUICK_STEPS, [64, 64], 1, 1, end=0)
    assert [row.get("skipped") for row in late[1:3]] == ["no time was left"] * 2


def test_what_trainings_write_is_kept(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "scn").mkdir(parents=True)
    for name in ("model.pt", ".unfinished.pt", "log.txt", "notes.md"):
        (work / "scn" / name).write_text(name)
    gpu.keep(work, out)
    (work / "scn" / "model.pt").write_text("better")
    gpu.keep(work, out)
    assert {path.name: path.read_text() for path in out.rglob("*.*")} == {"model.pt": "better", "log.txt": "log.txt"}
