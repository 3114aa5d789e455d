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

"""Execution of studies: what is done once, what goes on, and what several processes do together."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from small_studies import NAMES, StandIn, make_plan, write_data
from warm_python import WarmPython

from monai_landmarks.apps.main import program
from monai_landmarks.apps.study import _show
from monai_landmarks.data import LandmarkSet, load_landmark_datalist, read_landmark_table, write_landmarks
from monai_landmarks.evaluation import evaluate_predictions
from monai_landmarks.metrics import compare_errors
from monai_landmarks.study import (
    Group,
    collect_results,
    execute_runs,
    execution,
    select_part,
    study_figures,
    write_figures,
    write_study_report,
)
from monai_landmarks.study.plan import save_plan
from monai_landmarks.study.results import seed_differences

TABLES = ("results.csv", "comparisons.csv", "landmarks.csv")


def run(plan, launch, *args, **options):
    stream = io.StringIO()
    outcomes = execute_runs(plan, *(args or (plan.runs,)), launch=launch, stream=stream, **options)
    return outcomes, stream.getvalue()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study whose four runs are done, two at a time."""
    folder = tmp_path_factory.mktemp("study")
    write_data(folder)
    plan, launch = make_plan(folder), StandIn()
    outcomes, text = run(plan, launch, workers=2)
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    assert "study: 4 of 4 runs done" in text.splitlines()[-1]
    return plan, launch, folder


def test_each_run_is_a_bundle_that_is_trained_once(done):
    plan, launch, _ = done
    assert sorted(launch.launched) == sorted(itertools.product(("training", "evaluating"), [r.name for r in plan.runs]))
    for one in plan.runs:
        folder = plan.run_folder(one)
        config = json.loads((folder / "configs" / "train.json").read_text())
        # 8 images: 4 for testing, 1 for validation, 3 for training in 2 steps per epoch
        assert (config["max_epochs"], config["batch_size"], config["spatial_size"]) == (2, 2, [64, 64])
        assert json.loads((folder / "configs" / "study.json").read_text())["seed"] == one.seed
        assert json.loads((folder / "configs" / "evaluate.json").read_text())["section"] == "testing"
    assert launch.environment["PYTHONUNBUFFERED"] == "1"
    again = StandIn()
    assert run(plan, again) == ([], "") and again.launched == []


def test_pooled_errors_are_those_of_all_predictions_together(done, tmp_path):
    plan, _, folder = done
    results = collect_results(plan)
    results.write(tmp_path)
    rows = {row["configuration"]: row for row in results.result_rows}
    errors = {}
    for name in ("scn", "adaptive"):
        table = tmp_path / "predictions" / f"{name}-seed0.csv"
        whole = evaluate_predictions(table, folder / "data" / "datalist.json", resamples=100)
        errors[name] = whole.errors
        summary = {row["metric"]: row for row in whole.summary()}
        found = rows[name]
        assert (found["images"], found["runs"], whole.unit) == (8, 2, "mm")
        for key, metric in (("mean", "MRE"), ("median", "median"), ("sdr_2mm_percent", "SDR 2 mm")):
            assert found[key] == pytest.approx(summary[metric]["value"])
        assert (found["mean_low"], found["mean_high"]) == pytest.approx((summary["MRE"]["low"], summary["MRE"]["high"]))
        # and by hand, from what each run wrote
        distances = []
        for one in plan.runs:
            if one.configuration.name == name:
                sets = read_landmark_table(plan.run_folder(one) / "eval/testing/predictions/predictions.csv")
                for item in load_landmark_datalist(one.datalist, "testing"):
                    points = sets[item["image"].rpartition("/")[2]].points
                    distances += np.linalg.norm(0.5 * (points - np.array(item["label"])), axis=1).tolist()
        assert len(distances) == 16 and found["mean"] == pytest.approx(np.mean(distances))
    [(one, two, comparison, corrected)] = results.comparisons
    expected = compare_errors(errors["scn"], errors["adaptive"], resamples=100)
    assert comparison.p_value == corrected == pytest.approx(expected.p_value)
    assert comparison.difference == pytest.approx(expected.difference) and expected.difference > 0


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_landmark_that_the_images_of_one_run_lack_is_unknown_there(tmp_path, lacking):
    """Labels in files, of which those of one fold do not have the second landmark."""
    write_data(tmp_path)
    plan = make_plan(tmp_path, "files", methods=["scn"])
    run(plan, StandIn())
    for number, one in enumerate(plan.runs):
        content = json.loads(one.datalist.read_text())
        for i, item in enumerate(content["testing"]):
            names = NAMES[:1] if number == lacking else NAMES
            item["label"] = str(tmp_path / f"label_{number}_{i}.csv")
            points = load_landmark_datalist(one.datalist, "testing")[i]["label"]
            write_landmarks(item["label"], LandmarkSet(names, points[: len(names)], "index"))
        one.datalist.write_text(json.dumps(content))
    results = collect_results(plan)
    assert results.names == NAMES
    [errors] = results.groups[0].errors
    assert np.isfinite(errors[:, 0]).all() and np.isnan(errors[:, 1]).sum() == 4
    [row] = results.result_rows
    assert row["mean"] == pytest.approx(np.nanmean(errors))


def test_draws_with_their_own_test_images_are_pooled_and_drawn(tmp_path):
    write_data(tmp_path)
    plan = make_plan(tmp_path, "sizes", folds=None, training_sizes=[4, 2], seeds=[0, 1], test_frac=0.34)
    run(plan, StandIn())
    results = collect_results(plan)
    tested = {
        seed: {item["image"].rpartition("/")[2] for item in load_landmark_datalist(file, "testing")}
        for seed in (0, 1)
        for file in [plan.folder / "datalists" / f"n4-draw{seed}.json"]
    }
    assert [len(images) for images in tested.values()] == [2, 2] and tested[0] != tested[1]
    for group in results.groups:
        for seed, errors in zip(group.seeds, group.errors):
            known = {image.rpartition("/")[2] for image, row in zip(results.images, errors) if not np.isnan(row).any()}
            assert known == tested[seed]
    figures = study_figures(results)
    names = ["errors", "training_images", "success_rates_n4", "success_rates_n2"]
    assert [one.name for one in figures] == names
    for path in write_figures(figures, tmp_path / "figures"):
        assert path.read_bytes().startswith(b"\x89PNG") and path.stem in names
    curve = figures[3].figure.axes[0]
    assert [text.get_text() for text in curve.get_legend().get_texts()] == ["scn", "adaptive"]
    scn = next(group for group in results.groups if group.name == "scn-n2")
    assert curve.lines[0].get_ydata()[-1] == pytest.approx(100 * np.mean(scn.errors[~np.isnan(scn.errors)] <= 8))
    write_study_report(results, tmp_path / "report.html")
    assert "Each seed has other images for testing, so" in (tmp_path / "report.html").read_text()


def test_images_of_one_patient_are_taken_together(tmp_path, capsys):
    """Eight images of four patients: the intervals and tests are those of four values."""
    write_data(tmp_path, name="p{patient}_{image}.png")
    plan = make_plan(tmp_path, "patients", group_pattern=r"p\d")
    run(plan, StandIn())
    together = collect_results(plan)
    assert together.clusters == tuple(image[:2] for image in together.images)
    alone = replace(together, clusters=together.images)
    for one, two in zip(alone.result_rows, together.result_rows):
        for key in ("mean", "median", "std", "images", "sdr_2mm_percent", "missed"):
            assert one[key] == pytest.approx(two[key])
    means = [group.mean_errors.reshape(4, 4) for group in together.groups]
    [(_, _, found, _)] = together.comparisons
    expected = compare_errors(*means, resamples=100)
    assert (found.images, found.p_value) == (4, expected.p_value) and alone.comparisons[0][2].images == 8
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    # results.csv counts images, and comparisons.csv patients
    [row] = together.comparison_rows()
    assert row["groups"] == 4 == row["first_better"] + row["second_better"] and "images" not in row
    assert {one["images"] for one in together.result_rows} == {8}
    _show(together)
    assert "first  second    groups" in capsys.readouterr().out
    write_study_report(together, tmp_path / "report.html", figures=[])
    page = (tmp_path / "report.html").read_text()
    assert "mean error of each group of images" in page and "bootstrap over groups" in page


def test_what_a_method_sets_itself_is_not_said_to_be_the_same(done):
    _, _, folder = done
    assert make_plan(folder, "alike").made_same() == ("grid", "batch_size", "augmentation")
    other = {"scn": {}, "adaptive": {"settings": {"spatial_size": [96, 96], "rotate": 0.3}}}
    plan = make_plan(folder, "unlike", methods=other)
    assert plan.made_same() == ("batch_size",)


def test_a_grid_of_its_own_has_its_own_voxels(done):
    """Half the side: pixels twice as large, and shifts of half as many of them. The rest is the same for all."""
    _, _, folder = done
    own = {"scn": {"settings": {"spatial_size": [64, 64]}}, "adaptive": {"settings": {"spatial_size": [32, 32]}}}
    choices = make_plan(folder, "sizes", methods=own, common={"width": 4, "batch_size": 2}).choices
    large, small = choices["scn"], choices["adaptive"]
    assert small["spacing_mm"] == 2 * large["spacing_mm"] and small["spatial_size"] == [32, 32]
    for name in ("translate", "elastic"):
        np.testing.assert_allclose(small[name], np.array(large[name]) / 2, atol=0.06)  # rounded
    for name in ("rotate", "scale", "flip", "batch_size", "resampling"):
        assert small[name] == large[name]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_steps_are_timed_ends_the_training(done, monkeypatch, interruption):
    _, _, folder = done
    plan = make_plan(folder, "interrupted", budget={"seconds": 6.5})
    launch = StandIn(hang=["scn"])

    def interrupt(_seconds: float) -> None:
        raise interruption

    monkeypatch.setattr(execution.time, "sleep", interrupt)
    with pytest.raises(interruption):
        run(plan, launch)
    assert [process.ended for process in launch.processes] == [True]


def test_curves_are_those_of_the_best_five(done):
    results = collect_results(done[0])
    errors = [np.full((1, 2, 2), error) for error in (3.0, 1.0, 7.0, 2.0, 5.0, 4.0)]
    groups = tuple(Group(f"g{k}", f"g{k}", None, (0,), one, (1, 1)) for k, one in enumerate(errors))
    curves = study_figures(replace(results, groups=groups))[-1]
    names = [text.get_text() for text in curves.figure.axes[0].get_legend().get_texts()]
    assert names == ["g0", "g1", "g3", "g4", "g5"] and "the 5 configurations with the smallest" in curves.caption
    assert "all runs" not in curves.caption


def test_configurations_with_all_runs_have_curves_first(done):
    """A configuration that lacks images may only lack the difficult ones."""
    results = collect_results(done[0])
    errors = [np.full((1, 2, 2), float(k)) for k in range(6)]
    groups = tuple(Group(f"g{k}", f"g{k}", None, (0,), one, (1, 1 + (k == 0))) for k, one in enumerate(errors))
    curves = study_figures(replace(results, groups=groups))[-1]
    names = [text.get_text() for text in curves.figure.axes[0].get_legend().get_texts()]
    assert names == ["g1", "g2", "g3", "g4", "g5"] and "those with all runs first" in curves.caption


def test_no_table_of_an_earlier_call_stays(done, tmp_path):
    results = collect_results(done[0])
    results.write(tmp_path)
    assert (tmp_path / "comparisons.csv").is_file()
    replace(results, groups=results.groups[:1]).write(tmp_path)
    assert not (tmp_path / "comparisons.csv").exists() and (tmp_path / "results.csv").is_file()


def test_no_file_of_an_earlier_study_stays(done, tmp_path):
    """Predictions of methods and seeds that are gone, and figures of training sizes. Other names are not the program's."""
    old = ["predictions/scn-seed1.csv", "predictions/my_own.v2-n50-seed12.csv", "training_images.png"]
    old += ["success_rates.png", "success_rates_n50.png"]
    other = ["predictions/notes.csv", "predictions/scn-seed0-copy.csv", "predictions/scn-seed1.txt", "mine-seed1.csv"]
    other += ["success_rates_of_the_paper.png", "my_training_images.png"]
    (tmp_path / "predictions").mkdir()
    for name in (*old, *other):
        (tmp_path / name).write_text("old")
    written = collect_results(done[0]).write(tmp_path) + write_figures([], tmp_path)
    assert all(path.is_file() for path in written) and tmp_path / "predictions" / "scn-seed0.csv" in written
    assert [name for name in old if (tmp_path / name).exists()] == []
    assert [name for name in other if not (tmp_path / name).exists()] == []


def test_only_the_same_images_are_compared(done, tmp_path):
    """Of the second seed, the difficult half of the images is not predicted."""
    results = collect_results(done[0])
    errors = np.full((2, 8, 2), 1.0)
    errors[:, 4:] = 11.0
    errors[1] += 1
    whole = Group("whole", "whole", None, (0, 1), errors + 0.5, (4, 4))
    lacking = errors.copy()
    lacking[1, 4:] = np.nan
    part = Group("part", "part", None, (0, 1), lacking, (3, 4))
    both = replace(results, groups=(whole, part))
    assert [row["std_of_seeds"] for row in both.result_rows] == pytest.approx([np.sqrt(0.5)] * 2)  # of 1 and 2
    assert part.seed_means().tolist() == [6.0, 2.0]
    draws = Group("n4", "n4", 4, (0, 1), lacking, (2, 2))  # seeds with other test images
    assert draws.std_of_seeds() == pytest.approx(np.sqrt(8))

    def smallest(*groups):
        write_study_report(replace(results, groups=groups), tmp_path / "report.html", figures=[])
        page = (tmp_path / "report.html").read_text()
        return page.partition("<dt>smallest mean error</dt><dd>")[2].partition("</dd>")[0]

    # the part has the smaller mean only because difficult images are missing
    assert [row["mean"] for row in both.result_rows] == pytest.approx([7.0, (8 * 1 + 8 * 11 + 8 * 2) / 24])
    assert smallest(whole, part) == "7.00 mm<small>whole (of those with all runs)</small>"
    assert smallest(whole) == "7.00 mm<small>whole</small>"
    assert smallest(part) == "open<small>no configuration has all its runs</small>"


def test_differences_of_seeds_are_paired():
    """Seeds with other test images: the means differ, the differences do not."""
    errors = np.full((2, 4, 1), np.nan)
    errors[0, :2, 0], errors[1, 2:, 0] = (1, 2), (11, 12)
    one = Group("a", "a", None, (0, 1), errors, (2, 2))
    two = Group("b", "b", None, (1, 0), errors[::-1] + 0.5, (2, 2))
    np.testing.assert_allclose(seed_differences(one, two), [0.5, 0.5])
    assert one.seed_means().tolist() == [1.5, 11.5]


def test_two_parts_give_the_same_tables_as_two_workers(done, tmp_path):
    plan, _, folder = done
    collect_results(plan).write(tmp_path / "workers")
    other, launch = make_plan(folder, "parts"), StandIn()
    for part in (2, 1):
        run(other, launch, select_part(other.runs, part, 2))
    collect_results(other).write(tmp_path / "parts")
    assert len(launch.launched) == 8
    names = {path.relative_to(tmp_path / "parts") for path in (tmp_path / "parts").rglob("*.csv")}
    assert {path.name for path in names} == {*TABLES, "runs.csv", "scn-seed0.csv", "adaptive-seed0.csv"}
    for name in names - {next(path for path in names if path.name == "runs.csv")}:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "workers" / name).read_bytes()


def test_one_that_fails_is_named_and_the_others_go_on(done, unpainted):
    _, _, folder = done
    plan = make_plan(folder, "fails")
    name = plan.runs[1].name
    outcomes, text = run(plan, StandIn(fail=[name]))
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    assert len(outcomes) == 4 and [outcome.run.name for outcome in failed] == [name]
    assert failed[0].reason == "training ended with exit code 3: RuntimeError: no memory left"
    assert failed[0].log == plan.run_folder(plan.runs[1]) / "run.log" and "1 failed" in text
    results = collect_results(plan)
    assert results.notes == ["adaptive: 1 of 2 runs are not done and not in the tables."]
    write_study_report(results, folder / "fails.html")
    assert "1 of 2 runs are not done" in (folder / "fails.html").read_text()
    again = StandIn()
    outcomes, _ = run(plan, again)
    assert again.launched == [("training", name), ("evaluating", name)] and collect_results(plan).notes == []


def test_other_settings_are_not_mixed(done):
    plan, _, folder = done
    run(make_plan(folder, "changes"), StandIn())
    kept = {path: path.read_bytes() for path in (folder / "changes").rglob("*.json")}
    with pytest.raises(ValueError, match="4 runs were made with other settings, the first in .*--force"):
        make_plan(folder, "changes", budget={"epochs": 5}, split_seed=1)
    assert {path: path.read_bytes() for path in (folder / "changes").rglob("*.json")} == kept
    more = make_plan(folder, "changes", seeds=2)  # more seeds keep what is done
    assert len(more.runs) == 8 and len(more.finished()) == 4
    changed = make_plan(folder, "changes", force=True, budget={"epochs": 5})
    assert {changed.state(one) for one in changed.runs} == {"changed"}
    with pytest.raises(ValueError, match="4 runs were made with other settings"):
        run(changed, StandIn())
    with pytest.raises(ValueError, match="no run is done yet"):
        collect_results(changed)
    run(changed, StandIn(), force=True)
    config = json.loads((changed.run_folder(changed.runs[0]) / "configs" / "train.json").read_text())
    assert config["max_epochs"] == 5 and len(collect_results(changed).evaluations) == 4
    assert plan.state(plan.runs[0]) == "done"


def test_an_interrupt_ends_the_trainings_and_the_next_call_goes_on(done, monkeypatch):
    _, _, folder = done
    plan = make_plan(folder, "interrupted")
    first, second, *_ = plan.runs
    launch = StandIn(hang=[second.name])

    class Interrupted(io.StringIO):
        def write(self, text):
            if "1 of 4 runs done" in text:
                raise KeyboardInterrupt
            return super().write(text)

    with pytest.raises(KeyboardInterrupt):
        execute_runs(plan, plan.runs, launch=launch, stream=Interrupted())
    assert plan.state(first) == "done" and plan.state(second) == "open"
    bundle = plan.run_folder(second) / "configs" / "train.json"
    if ("training", second.name) in launch.launched:
        assert launch.processes[-1].ended
        written = bundle.stat().st_mtime_ns
    else:
        written = None
    again = StandIn()
    run(plan, again)
    assert ("training", first.name) not in again.launched and len(again.launched) == 6
    assert written is None or bundle.stat().st_mtime_ns == written  # it is not set up again


def test_no_program_starts_while_a_bundle_is_planned(done, monkeypatch):
    """Planning goes through all imported modules, and a launch may import more."""
    _, _, folder = done
    plan, launch, planning, overlaps = make_plan(folder, "apart"), StandIn(), threading.Event(), []
    write_bundle = type(plan).write_bundle

    def slowly(self, run):
        planning.set()
        time.sleep(0.2)
        try:
            return write_bundle(self, run)
        finally:
            planning.clear()

    def watching(*args):
        overlaps.append(planning.is_set())
        return launch(*args)

    monkeypatch.setattr(type(plan), "write_bundle", slowly)
    outcomes, _ = run(plan, watching, workers=2)
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    assert len(overlaps) == 8 and not any(overlaps)


def test_a_run_of_another_process_is_left_to_it(done):
    _, _, folder = done
    plan = make_plan(folder, "shared")
    taken = plan.runs[0]
    with execution.held(plan.folder / "runs" / f".{taken.name}.lock"):
        outcomes, _ = run(plan, StandIn())
    assert {o.run.name for o in outcomes if o.state == "elsewhere"} == {taken.name}
    assert plan.state(taken) == "open" and sum(o.state == "done" for o in outcomes) == 3


def test_a_budget_in_seconds_is_measured_once(done, monkeypatch):
    _, _, folder = done
    now = itertools.count()
    clock = {"time": 0.0}
    monkeypatch.setattr(execution.time, "monotonic", lambda: clock["time"] + 0 * next(now))

    class Slow(StandIn):
        """A training takes 7 s to start, and 0.5 s per step of an epoch of two steps."""

        def _run(self, what, root, log, arguments):
            epochs = int(arguments[arguments.index("--max_epochs") + 1]) if "--max_epochs" in arguments else 0
            clock["time"] += 7 + epochs * 2 * 0.5
            return super()._run(what, root, log, arguments)

    plan, launch = make_plan(folder, "timed", budget={"seconds": 6.5}), Slow()
    run(plan, launch)
    assert plan.seconds_per_step == pytest.approx({"scn": 0.5, "adaptive": 0.5})
    assert plan.max_epochs(plan.runs[0]) == 6  # of 1 s each
    assert len([what for what, name in launch.launched if name == "scn"]) == 2
    again, launch = make_plan(folder, "timed", budget={"seconds": 6.5}), Slow()
    assert run(again, launch)[0] == [] and launch.launched == []


def test_another_method_keeps_the_measured_times(done):
    """Otherwise the finished runs would have other numbers of epochs. What may take another time is measured again."""
    _, _, folder = done

    def planned(force=False, **methods):
        return make_plan(folder, "grows", force, budget={"seconds": 6.5}, methods={"scn": {}, "adaptive": {}} | methods)

    plan = planned()
    plan.seconds_per_step |= {"scn": 0.5, "adaptive": 0.25}
    save_plan(plan)
    run(plan, StandIn())
    changed = {"method": "scn", "overrides": {"optimizer#lr": 0.01}}
    more = planned(light=changed)
    assert more.seconds_per_step == {"scn": 0.5, "adaptive": 0.25}
    assert {one.name for one in more.finished()} == {one.name for one in plan.runs} and len(more.runs) == 6
    other = planned(force=True, scn=changed)
    assert other.choices == plan.choices and other.seconds_per_step == {"adaptive": 0.25}


def test_command(done, monkeypatch, unpainted):
    _, _, folder = done
    failing = StandIn(fail=["scn-fold1-seed0"])
    monkeypatch.setattr(execution, "_popen", failing)
    (folder / "study.yaml").write_text((folder / "out.json").read_text())  # JSON is YAML

    def call(*args):
        return CliRunner().invoke(program, ["study", str(folder / "study.yaml"), "--out", str(folder / "cli"), *args])

    listed = call("--list")
    assert listed.exit_code == 0 and "scn-fold0-seed0       open" in listed.stdout and not failing.launched
    assert "spatial_size=[64, 64]" in listed.stdout and "budget: 4 steps" in listed.stdout
    result = call("--part", "1/2")
    assert result.exit_code == 1, result.output
    assert "scn-fold1-seed0: training ended with exit code 3: RuntimeError: no memory left (log: " in result.stderr
    assert result.stdout.startswith("1 of 4 runs, 4 images, 2 landmarks, errors in mm, budget: 4 steps")
    failing.fail = set()
    mine = folder / "cli" / "results.csv"
    mine.write_text("with my remarks\n")
    result = call("--part", "1/2")
    assert result.exit_code == 0 and "copies are kept" in result.stderr
    assert {path.name: path.read_text() for path in mine.parent.rglob("*.bak*")} == {
        "results.csv.bak": "with my remarks\n"
    }
    result = call("--part", "2/2", "--workers", "2")
    assert result.exit_code == 0 and result.stdout.startswith("4 of 4 runs, 8 images")
    page = (folder / "cli" / "report.html").read_text()
    assert all(
        text in page for text in ("Wilcoxon", "2 folds", "budget" if "budget" in page else "Budget", "spatial_size")
    )
    with open(folder / "cli" / "runs.csv", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done"] * 4
    assert {path.name for path in (folder / "cli" / "figures").iterdir()} == {"errors.png", "success_rates.png"}
    assert call("--part", "3/2").exit_code == 2


def test_a_terminated_study_ends_its_trainings(done, tmp_path, monkeypatch):
    _, _, folder = done

    class Hanging(StandIn):
        """Asks this process to terminate when the training runs."""

        def __call__(self, *args):
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
            return super().__call__(*args)

    launch = Hanging(hang=["scn-fold0-seed0"])
    monkeypatch.setattr(execution, "_popen", launch)
    before = signal.getsignal(signal.SIGTERM)
    (folder / "term.json").write_text((folder / "out.json").read_text())
    result = CliRunner().invoke(program, ["study", str(folder / "term.json"), "--out", str(tmp_path / "study")])
    assert result.exit_code == 130 and [process.ended for process in launch.processes] == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_study_by_options(done, tmp_path, monkeypatch, unpainted):
    _, _, folder = done
    monkeypatch.setattr(execution, "_popen", StandIn())
    datalist = str(folder / "data" / "datalist.json")

    def call(*args):
        return CliRunner().invoke(program, ["study", *args, "--out", str(tmp_path / "study")])

    options = ["--datalist", datalist, "--method", "scn", "--method", "adaptive", "--folds", "2", "--steps", "4"]
    options += [text for name in ("width=4", "spatial_size=[64,64]", "batch_size=2") for text in ("--set", name)]
    result = call(*options)
    assert result.exit_code == 0 and result.stdout.startswith("4 of 4 runs, 8 images"), result.output
    file = str(tmp_path / "study" / "definition.json")
    again = call(file)
    assert again.exit_code == 0 and again.stdout == result.stdout
    for args, message in (
        (["--method", "scn"], "give the file STUDY, or --datalist and at least one --method"),
        ([file, "--folds", "3"], "STUDY defines the study; remove the option for 'folds'"),
        ([*options, "--epochs", "3"], "give one of --steps, --epochs"),
        (
            ["--datalist", datalist, "--method", "resnet"],
            "methods: resnet: expected one of scn, farnet, adaptive, unet, got 'resnet'",
        ),
    ):
        failed = call(*args)
        assert failed.exit_code != 0 and message in failed.output, (args, failed.output)


@pytest.mark.usefixtures("unpainted")
def test_four_trainings_of_which_one_is_killed(tmp_path):
    """Real bundles. The second training is killed after its first epoch; the next call continues it."""
    write_data(tmp_path)
    plan = make_plan(tmp_path)
    killed = plan.runs[1].name

    class Launch:
        kill = True

        def __call__(self, arguments, log, environment, lock):
            process = WarmPython(arguments, tmp_path, log, environment)
            return Killed(process, plan.run_folder(plan.runs[1])) if self.kill and killed in str(log) else process

    class Killed:
        def __init__(self, process, folder):
            self.process, self.folder = process, folder

        def poll(self):
            if (self.folder / "models" / "training_state.pt").is_file() and self.process.poll() is None:
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.wait(60)
            return self.process.poll()

    launch = Launch()
    outcomes, _ = run(plan, launch, workers=2)
    states = {outcome.run.name: outcome for outcome in outcomes}
    logs = {log.parent.name: log.read_text()[-3000:] for log in (plan.folder / "runs").glob("*/run.log")}
    assert {name for name, one in states.items() if one.state != "done"} == {killed}, (outcomes, logs)
    assert "exit code -9" in states[killed].reason
    launch.kill = False
    [outcome], _ = run(plan, launch)
    assert outcome.state == "done", (outcome, (plan.folder / "runs" / killed / "run.log").read_text()[-3000:])
    with open(plan.run_folder(plan.runs[1]) / "eval" / "training_curve.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    results = collect_results(plan)
    assert [row["images"] for row in results.result_rows] == [8, 8] and len(results.evaluations) == 4
    assert all(np.isfinite(row["mean"]) for row in results.result_rows)
    seconds = {row["run"]: row["seconds"] for row in results.run_rows()}
    assert {name for name, value in seconds.items() if np.isnan(value)} == {killed}  # the killed part is not known
