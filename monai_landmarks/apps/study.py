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
"""``monai-landmarks study``: methods and settings compared by many trainings."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import FOLDER, PART, SETTING, interval_text, keep_copies, text_table

if TYPE_CHECKING:
    from monai_landmarks.study import Outcome, StudyPlan, StudyResults

__all__ = ["study"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Compare methods and settings: trainings on folds or training sizes, with statistics.")
@click.argument("definition", metavar="[STUDY]", type=_FILE, required=False)
@click.option("--datalist", type=_FILE, help="Datalist of the images, instead of the one that STUDY names.")
@click.option("--method", "methods", multiple=True, help="Without STUDY: method of 'init'. May be repeated.")
@click.option("--folds", type=int, help="Without STUDY: number of folds.")
@click.option(
    "--training-size",
    "training_sizes",
    type=int,
    multiple=True,
    help="Without STUDY: number of training images. May be repeated.",
)
@click.option("--seeds", type=int, help="Without STUDY: number of seeds.")
@click.option("--steps", type=int, help="Without STUDY: training steps of each run.")
@click.option("--epochs", type=int, help="Without STUDY: epochs of each run.")
@click.option(
    "--seconds", type=float, help="Without STUDY: seconds of each run, converted to epochs by a measured step."
)
@click.option(
    "--set", "settings", type=SETTING, multiple=True, help="Without STUDY: setting of all runs. May be repeated."
)
@click.option("--out", type=FOLDER, default="study", show_default=True, help="Folder of the study.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of trainings at the same time. In other commands, it is the number of processes that load images.",
)
@click.option("--part", type=PART, default="1/1", help="Execute only a part of the runs, for example 3/8.")
@click.option("--force", is_flag=True, help="Remove runs that were made with other settings, and make them again.")
@click.option("--list", "only_list", is_flag=True, help="List the runs and their settings, and train nothing.")
def study(
    definition: Path | None,
    datalist: Path | None,
    out: Path,
    workers: int,
    part: tuple[int, int],
    force: bool,
    only_list: bool,
    **options: Any,
) -> None:
    """Train and evaluate all methods, settings, folds and seeds of the file STUDY (YAML or JSON), and compare them.

    A small study needs no file: --datalist checked/datalist.json --method scn --method farnet --folds 5 --steps 1400.
    Its definition is then written to definition.json in the output folder.

    \b
    datalist: checked/datalist.json     # of 'monai-landmarks check'
    methods: [scn, farnet]              # methods of 'monai-landmarks init'
    settings:                           # optional: variants, as '--set' of 'init'
      narrow: {sigma_mm: 2}
      wide: {sigma_mm: 4}
    folds: 5                            # or: training_sizes: [100, 50, 10]
    seeds: 3
    budget: {steps: 1400}               # or {seconds: 600}, {epochs: 40}, own
    same: [grid, batch_size, augmentation]
    common: {width: 16}                 # settings of all runs

    Each run is an ordinary bundle in runs/ of the output folder. A run that is done is not repeated, and one that was
    interrupted continues. If a run fails, it is named with its log, and the others go on. Several processes or jobs can
    work on the same folder, for example each with its --part. The results of all runs that are done are written at the
    end of each call: report.html, results.csv, comparisons.csv, landmarks.csv, runs.csv, the figures, and the
    predictions of all images.

    With folds, the images of a fold are predicted by networks that were trained and chosen on the other images. The
    testing section of the datalist is not used, unless 'sections' names it.

    The exit code is 1 if a run has failed.
    """
    from monai_landmarks.study import execute_runs, load_study, plan_study, select_part

    if definition is None:
        definition = _definition(out, datalist, options)
    elif given := [name for name, value in options.items() if value not in (None, ())]:
        raise click.UsageError(
            f"STUDY defines the study; remove the option for {given[0]!r}, or write it into {definition}."
        )
    loaded = load_study(definition, datalist)
    plan = plan_study(loaded, out, force)
    if only_list:
        _list(plan)
        return
    with _ended_by_termination():
        outcomes = execute_runs(plan, select_part(plan.runs, *part), workers, force=force)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    elsewhere = [outcome.run.name for outcome in outcomes if outcome.state == "elsewhere"]
    if elsewhere:
        click.echo(f"note: another process is executing {', '.join(elsewhere)}.", err=True)
    if len(failed) < len(plan.runs):
        _write(plan, out, definition)
    _show_failed(failed)


@contextlib.contextmanager
def _ended_by_termination() -> Iterator[None]:
    """End as by Ctrl-C when the process is asked to terminate, for example by a job scheduler, so that trainings end."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _definition(out: Path, datalist: Path | None, options: dict[str, Any]) -> Path:
    """Write the definition of a study that is given by options. Return its path."""
    from monai_landmarks.data import atomic_write

    if datalist is None or not options["methods"]:
        raise click.UsageError("give the file STUDY, or --datalist and at least one --method.")
    budgets = {name: options[name] for name in ("steps", "epochs", "seconds") if options[name] is not None}
    if len(budgets) > 1:
        raise click.UsageError(f"give one of {', '.join(f'--{name}' for name in budgets)}.")
    content: dict[str, Any] = {"datalist": str(datalist.absolute()), "methods": list(options["methods"])}
    content |= {name: options[name] for name in ("folds", "seeds") if options[name] is not None}
    content |= {"training_sizes": list(options["training_sizes"])} if options["training_sizes"] else {}
    content |= {"budget": budgets} if budgets else {}
    content |= {"common": dict(options["settings"])} if options["settings"] else {}
    out.mkdir(parents=True, exist_ok=True)
    with keep_copies(out), atomic_write(path := out / "definition.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def _list(plan: StudyPlan) -> None:
    same, own = plan.shared_settings()
    click.echo(text_table([{"run": run.name, "state": plan.state(run)} for run in plan.runs]))
    click.echo("\nthe same for all configurations: " + ", ".join(f"{name}={value}" for name, value in same.items()))
    overrides = {one.name: one.overrides for one in plan.study.configurations}
    for label, values in own.items():
        shown = ", ".join(f"{name}={value}" for name, value in {**values, **overrides[label]}.items())
        click.echo(f"{label}: {shown or 'no other setting'}")
    click.echo(f"budget: {plan.study.budget}")


def _write(plan: StudyPlan, out: Path, definition: Path) -> None:
    from monai_landmarks.study import collect_results, study_figures, write_figures, write_study_report
    from monai_landmarks.study.locks import held

    if not plan.finished():
        click.echo("note: no run is done yet, so there are no results.", err=True)
        return
    # the last of several jobs writes the results of all
    with held(out / ".results.lock", patient=True), keep_copies(out):
        results = collect_results(plan)
        written, figures = results.write(out), study_figures(results)
        write_figures(figures, out / "figures")
        write_study_report(results, out / "report.html", f"Study {definition.stem}", f"Study: {definition}", figures)
    _show(results)
    names = [
        "report.html",
        *(str(path.relative_to(out)) for path in written if path.parent == out),
        "figures/",
        "predictions/",
    ]
    click.echo(f"\n{out}: {', '.join(names)}")


def _show(results: StudyResults) -> None:
    unit, study = results.unit, results.plan.study
    click.echo(
        f"{len(results.evaluations)} of {len(results.plan.runs)} runs, {len(results.images)} images,"
        f" {len(results.names)} landmarks, errors in {unit}, budget: {study.budget}"
    )
    for note in results.notes:
        click.echo(f"note: {note}")
    rows = []
    for row in results.result_rows:
        cells = {key: row[key] for key in ("configuration", "training_images", "runs") if key in row}
        cells |= {
            "mean": row["mean"],
            f"{100 * study.confidence:g} % interval": interval_text(row["mean_low"], row["mean_high"]),
        }
        cells |= {"std of seeds": row["std_of_seeds"], "median": row["median"]}
        cells |= {f"<={radius:g} {unit} %": row[f"sdr_{radius:g}{unit}_percent"] for radius in study.radii}
        rows.append({key.replace("_", " "): value for key, value in cells.items()})
    click.echo(f"\n{text_table(rows)}")
    pairs = [
        {
            "first": row["first"],
            "second": row["second"],
            results.counted: row[results.counted],
            "second - first": row["difference"],
            f"{100 * study.confidence:g} % interval": interval_text(row["low"], row["high"]),
            **({"std of seeds": row["std_of_seeds"]} if len(study.seeds) > 1 else {}),
            "p": row["p_value"],
            "p (Holm)": row["p_holm"],
        }
        for row in results.comparison_rows()
    ]
    if pairs:
        click.echo(f"\n{text_table(pairs)}")


def _show_failed(failed: list[Outcome]) -> None:
    if not failed:
        return
    lines = [f"  - {one.run.name}: {one.reason}{f' (log: {one.log})' if one.log else ''}" for one in failed]
    click.echo("\n".join([f"\nruns that failed ({len(failed)}):", *lines]), err=True)
    sys.exit(1)
