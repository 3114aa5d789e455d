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

import ast
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import compare
import gpu
import numpy as np
import pytest
import study_fine_tuning
import torch
from benchmark_growth import growth_exponent
from measure import peak_memory
from monai.bundle import ConfigParser
from PIL import Image
from study_precision import METHODS, main, rank_correlation
from warm_python import WarmPython

from monai_landmarks.planning import make_fine_tuning_plan, read_source_bundle, summarize_datalist, write_bundle

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


COMMANDS = "benchmark_commands.py"
LIMITS = {
    COMMANDS: ("Python alone", "| evaluate |"),
    "benchmark_transforms.py": ("torch.full", "torch.amax", "grid_sample"),
    "benchmark_networks.py": ("target maps stored", "torch.matmul"),
    "benchmark_pipelines.py": ("batch ready",),
    "benchmark_layers.py": ("plain", "UpCat"),
    "benchmark_volumes.py": ("sum of squares", "one map stitched", "with a U-Net"),
    "benchmark_steps.py": ("BasicUNet, plain float32 loop",),
    "benchmark_ct.py": ("read .nii (limit)", "network, 1 windows"),
    "benchmark_growth.py": ("growth with side", "growth with landmarks", "growth with batch", "exponent"),
}


def test_every_benchmark_is_run():
    assert {path.name for path in BENCHMARKS.glob("benchmark_*.py")} == set(LIMITS)


def test_one_command_runs_every_benchmark(tmp_path):
    """What is printed and what is in the file are the same tables, each with its limits and its spread."""
    out = tmp_path / "results.txt"
    # without the commands, each of which is a new process that imports torch
    scripts = sorted(set(LIMITS) - {COMMANDS})
    only = ",".join(script.removeprefix("benchmark_").removesuffix(".py") for script in scripts)
    command = ["-m", "benchmarks", "--quick", "--only", only, "--out", out]
    printed = WarmPython(command, BENCHMARKS.parent, tmp_path / "printed.txt").printed(600)
    written = out.read_text()
    # warnings are printed, too
    assert set(written.splitlines()) <= set(printed.splitlines())
    assert printed.splitlines()[-1] == f"The tables are in {out}"
    parts = dict(zip(scripts, written.split("$ python benchmarks/")[1:], strict=True))
    for script in scripts:
        assert parts[script].startswith(script)
        assert "quartiles" in parts[script] or "CPU s" in parts[script]
        for limit in LIMITS[script]:
            assert limit in parts[script]


def test_the_benchmark_of_commands_runs(tmp_path):
    command = ["-m", COMMANDS.removesuffix(".py"), "--quick"]
    written = WarmPython(command, BENCHMARKS, tmp_path / "written.txt").printed()
    assert all(limit in written for limit in LIMITS[COMMANDS])


def test_a_benchmark_runs_alone(tmp_path):
    by_name = ["-m", "benchmarks", "--quick", "--only", "transforms", "--out", tmp_path / "results.txt"]
    WarmPython(by_name, BENCHMARKS.parent, tmp_path / "printed.txt").printed()
    tables = (tmp_path / "results.txt").read_text()
    assert "torch.amax" in tables and "torch.matmul" not in tables
    written = WarmPython(["-m", "benchmark_transforms", "--quick"], BENCHMARKS, tmp_path / "alone.txt").printed()
    assert "torch.amax" in written
    wrong = WarmPython(["-m", "benchmarks", "--only", "speed"], BENCHMARKS.parent, tmp_path / "wrong.txt")
    assert wrong.wait(300) != 0 and "only commands, ct, growth" in (tmp_path / "wrong.txt").read_text()


@pytest.mark.skipif(
    os.environ.get("MONAI_LANDMARKS_FAULTS") != "long", reason="MONAI_LANDMARKS_FAULTS=long runs the study of cohorts"
)
def test_study_of_cohorts_runs(tmp_path):
    command = ["-m", "study_cohort", "--quick", "--only", "memory", "--out", tmp_path / "cohort"]
    written = WarmPython(command, BENCHMARKS, tmp_path / "written.txt").printed()
    assert "| 10 |" in written and "| all, with tables and report |" in written


def test_exponent_of_a_power_law():
    sizes = (64, 96, 256)
    assert growth_exponent(sizes, [3 * size**1.7 for size in sizes]) == pytest.approx(1.7)


def test_quartiles_are_of_the_times(monkeypatch):
    """A clock by which four runs take 1, 2, 3 and 4 s, after one to warm up that is not timed."""
    ticks = iter([0.0, 10.0, 11.0, 20.0, 22.0, 30.0, 33.0, 40.0, 44.0])
    monkeypatch.setattr(compare, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    cost = compare.measure({"run": lambda: None}, "cpu", repeats=4, patience=100)["run"]
    assert (cost.milliseconds, cost.quartiles) == (2500.0, (1750.0, 3250.0))


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


def test_study_of_fine_tuning_runs_and_goes_on(tmp_path, capsys):
    for _ in range(2):
        study_fine_tuning.main(out=str(tmp_path), quick=True)
    written = capsys.readouterr().out
    assert written.count("draw 0, 4 images, from scratch") == 1
    table = (tmp_path / "study.md").read_text()
    assert all(f"| {arm} | 1 |" in table for arm in ("- | as it is", "4 | fine-tuned", "4 | from scratch"))
    assert table.count("of 1 draws") == 2
    with pytest.raises(ValueError, match="choose another folder"):
        study_fine_tuning.main(out=str(tmp_path), quick=True, close_look=True)


def test_a_training_from_nothing_has_nothing_that_was_learned(tmp_path):
    source, images, landmarks = study_fine_tuning.tiny_case(tmp_path)
    torch.save({"sigma": torch.full((37, 2), 1.5)}, source / "models" / "model_sigma.pt")
    datalist = tmp_path / "hand" / "datalist.json"
    bundle = tmp_path / "bundle"
    plan = make_fine_tuning_plan(
        summarize_datalist(datalist), read_source_bundle(source), given={"max_epochs": 24, "batch_size": 2}
    )
    write_bundle(bundle, plan, datalist)
    learning, before = (json.loads((folder / "configs" / "train.json").read_text()) for folder in (bundle, source))
    assert learning["loss_def"]["sigma"] == [1.5] * 37
    study_fine_tuning.forget(bundle, source, 4)
    nothing = json.loads((bundle / "configs" / "train.json").read_text())
    assert nothing["load_initial"] is None and nothing["held_epochs"] == 0
    assert nothing["loss_def"] == before["loss_def"] and nothing["learning_rate"] == before["learning_rate"]
    assert nothing["max_epochs"] == 96 and nothing["val_interval"] == 4 * learning["val_interval"]
    changed = {name for name in nothing if nothing[name] != learning[name]}
    assert changed == {"load_initial", "held_epochs", "loss_def", "learning_rate", "max_epochs", "val_interval"}


def test_fine_tuning_has_the_same_steps_for_all_sizes(tmp_path):
    path = tmp_path / "datalist.json"
    for count, epochs in ((8, 30), (20, 12), (7, 30)):
        path.write_text(json.dumps({"training": [{}] * count}))
        assert study_fine_tuning.plan_settings(path, 120, 2) == {"batch_size": 2, "max_epochs": epochs}
    assert study_fine_tuning.plan_settings(path, None, None) == {}


def test_report_of_fine_tuning_shows_a_landmark_apart():
    runs = [
        {"draw": draw, "size": size, "arm": arm, "landmarks": {"a": error, "b": error + 2, "porion": 10.0}}
        for draw in (0, 1)
        for size, arm, error in ((0, "as it is", 3.0), (10, "fine-tuned", 2.0 + 2 * draw), (10, "from scratch", 5.0))
    ]
    written = study_fine_tuning.report(runs, ["porion"])
    lines = written.splitlines()
    assert lines[0].endswith("| error in mm | without porion in mm | porion in mm |")
    assert lines[3] == "| 10 | fine-tuned | 2 | 6.00 (5.33 to 6.67) | 4.00 (3.00 to 5.00) | 10.00 (10.00 to 10.00) |"
    assert "- 10 images: fine-tuned is better than 'as it is' in 1 of 2 draws." in lines
    assert "- 10 images: fine-tuned is better than 'from scratch' in 2 of 2 draws." in lines


def test_draws_of_fine_tuning_share_no_image():
    items = [{"image": str(i)} for i in range(50)]
    for seed in range(3):
        small, large = (study_fine_tuning.draw({"training": items, "names": 0}, n, 25, seed) for n in (10, 25))
        assert [len(small[name]) for name in ("training", "validation", "testing")] == [8, 2, 25]
        assert small["testing"] == large["testing"] and small["names"] == 0
        used = [item["image"] for name in ("training", "validation", "testing") for item in large[name]]
        assert sorted(used, key=int) == [str(i) for i in range(50)]
        assert {item["image"] for item in small["training"]} <= {
            item["image"] for item in large["training"] + large["validation"]
        }


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


def test_trainings_on_one_gpu_are_not_validated(tmp_path):
    for command in gpu.commands(tmp_path, "data", "cpu", 7, {}):
        files, *arguments = command[command.index("--config_file") + 1 :]
        parser = ConfigParser()
        parser.read_config(ast.literal_eval(files))
        before = {handler["_target_"] for handler in parser["train#handlers"]}
        settings = dict(zip(arguments[::2], arguments[1::2]))
        after = {handler["_target_"] for handler in ast.literal_eval(settings.get("--train#handlers", "[]"))}
        assert before - after == {"ValidationHandler"} and settings["--max_epochs"] == "7"


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
