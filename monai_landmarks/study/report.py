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
"""HTML report of a study."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

from monai_landmarks.evaluation.report_file import report_file
from monai_landmarks.visualize import ReportPage

from .figures import StudyFigure, study_figures
from .results import StudyResults

__all__ = ["write_study_report"]


def write_study_report(
    results: StudyResults,
    path: str | os.PathLike,
    title: str = "Study",
    source: str = "",
    figures: Sequence[StudyFigure] | None = None,
) -> None:
    """Write the results of a study as one self-contained HTML file, without scripts and external resources.

    Args:
        results: from :func:`monai_landmarks.study.collect_results`.
        path: path of the HTML file. It is written completely or not at all.
        title: title of the page.
        source: text that says which study it is.
        figures: figures of the errors. Default: :func:`monai_landmarks.study.study_figures`.
    """
    with report_file(path, title, source) as page:
        _add_summary(page, results)
        _add_design(page, results)
        _add_errors(page, results, study_figures(results) if figures is None else figures)
        _add_comparisons(page, results)
        _add_landmarks(page, results)
        _add_runs(page, results)


def _add_summary(page: ReportPage, results: StudyResults) -> None:
    page.section("Summary")
    keys = [
        ("configurations", str(len(results.plan.study.configurations)), ""),
        ("runs", str(len(results.evaluations)), f"of {len(results.plan.runs)}"),
        ("images", str(len(results.images)), f"{len(results.names)} landmarks"),
    ]
    page.key_figures([*keys, *_smallest(results)])
    if results.notes:
        page.points(results.notes)


def _smallest(results: StudyResults) -> list[tuple[str, str, str]]:
    """Return the key figure of the smallest mean error, if there is any error.

    Configurations without all their runs do not take part.
    """
    done = [group for group in results.groups if group.seeds]
    whole = [row for group, row in zip(done, results.result_rows) if group.is_complete]
    if not whole:
        return [("smallest mean error", "open", "no configuration has all its runs")]
    best = min((row for row in whole if row["mean"] == row["mean"]), key=lambda row: row["mean"], default=None)
    if best is None:
        return []
    remark = best["configuration"] + (" (of those with all runs)" if len(whole) < len(results.groups) else "")
    return [("smallest mean error", f"{best['mean']:.2f} {results.unit}", remark)]


def _add_design(page: ReportPage, results: StudyResults) -> None:
    plan, study = results.plan, results.plan.study
    page.section("Design")
    same, own = plan.shared_settings()
    rounded = ", rounded up to whole epochs" if study.budget.kind == "steps" else ""
    points = [f"Budget of each run: {study.budget}{rounded}."]
    if study.folds:
        points.append(
            f"{study.folds} folds. The images of a fold are predicted by a network that was trained without them;"
            f" {100 * study.val_frac:g} % of the other images choose its best model."
        )
    elif study.training_sizes:
        points.append(
            "Each seed draws its own training images, and the smaller numbers are parts of the larger. "
            + (
                "Each seed has other images for testing, so the standard deviation of the seeds contains their variation."
                if len({tuple(sorted(item["image"] for item in one["testing"])) for one in plan.datalists.values()}) > 1
                else "The images for testing are always the same."
            )
        )
    points.append(f"Seeds: {', '.join(map(str, study.seeds))}.")
    chosen = ", ".join(name.replace("_", " ") for name in plan.made_same())
    points.append(
        f"Made the same for all configurations: {chosen or 'nothing'}. Settings that depend on the data were chosen once,"
        " for all runs."
    )
    page.points(points)
    page.table(
        "Settings that all configurations share",
        [{"setting": name, "value": _text(value)} for name, value in same.items()],
        folded=True,
    )
    names = list(dict.fromkeys(name for values in own.values() for name in values))
    rows: list[dict[str, Any]] = [
        {"setting": name, **{label: _text(values[name]) if name in values else "" for label, values in own.items()}}
        for name in names
    ]
    page.table("Settings that differ", rows)
    if overrides := [one for one in study.configurations if one.overrides]:
        page.table(
            "Entries of the configuration that differ",
            [
                {"configuration": one.name, "entry": key, "value": _text(value)}
                for one in overrides
                for key, value in one.overrides.items()
            ],
        )


def _add_errors(page: ReportPage, results: StudyResults, figures: Sequence[StudyFigure]) -> None:
    page.section("Errors")
    study, unit = results.plan.study, results.unit
    interval = f"{100 * study.confidence:g} % interval"
    rows = []
    for row in results.result_rows:
        cells = {key: row[key] for key in ("configuration", "training_images", "runs", "images") if key in row}
        cells |= {f"mean {unit}": row["mean"], interval: _range(row["mean_low"], row["mean_high"])}
        cells |= {"std of seeds": row["std_of_seeds"], "median": row["median"]}
        cells |= {f"within {r:g} {unit} %": row[f"sdr_{r:g}{unit}_percent"] for r in study.radii}
        rows.append({**{key.replace("_", " "): value for key, value in cells.items()}, "missed": row["missed"]})
    page.table(f"Errors of all predictions together; intervals from the bootstrap over {results.counted}", rows)
    page.plots([(one.figure, one.alt, one.caption) for one in figures])


def _add_comparisons(page: ReportPage, results: StudyResults) -> None:
    if not results.comparisons:
        return
    page.section("Comparisons")
    one = "image" if results.counted == "images" else "group of images"
    page.text(
        f"Each {one} has one value per configuration: its mean error over landmarks and seeds. The means of these values may"
        " differ a little from those above, which are over all predictions. Pairs of configurations are"
        " compared on the same images by the exact Wilcoxon signed-rank test, with Holm's correction for the number of tests"
        f" ({len(results.comparisons)}). The tests say how these trained networks differ on new images. They do not"
        " contain the variation from training to training: compare the difference with its standard deviation over seeds."
    )
    unit, study = results.unit, results.plan.study
    rows = [
        {
            "first": row["first"],
            "second": row["second"],
            results.counted: row[results.counted],
            f"first {unit}": row["first_mean"],
            f"second {unit}": row["second_mean"],
            "second - first": row["difference"],
            f"{100 * study.confidence:g} % interval": _range(row["low"], row["high"]),
            "std of seeds": row["std_of_seeds"],
            "p": row["p_value"],
            "p (Holm)": row["p_holm"],
        }
        for row in results.comparison_rows()
    ]
    page.table(f"Paired comparisons of the mean error of each {one}", rows)


def _add_landmarks(page: ReportPage, results: StudyResults) -> None:
    page.section("Landmarks")
    rows = results.landmark_rows()
    page.table(f"Mean error of each landmark in {results.unit}", rows, folded=len(rows) > 12)


def _add_runs(page: ReportPage, results: StudyResults) -> None:
    page.section("Runs")
    rows = [{key.replace("_", " "): value for key, value in row.items()} for row in results.run_rows()]
    page.table(f"All runs ({len(rows)})", rows, folded=len(rows) > 12)


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.2f} to {high:.2f}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
