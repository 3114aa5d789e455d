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
"""The report of an evaluation: what is in it, and in which words."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from monai_landmarks import __version__
from monai_landmarks.data import LandmarkSet, atomic_write
from monai_landmarks.metrics import bootstrap_interval
from monai_landmarks.uncertainty import covered, gaussian_level
from monai_landmarks.visualize import (
    ReportPage,
    draw_calibration,
    draw_error_against_uncertainty,
    draw_error_boxplot,
    draw_sdr_curve,
)

from .case_figures import add_cases
from .comparison import Evaluation

__all__ = ["write_report"]

_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def write_report(
    evaluation: Evaluation, path: str | os.PathLike, title: str = "Landmark report", source: str = "", cases: int = 3
) -> list[str]:
    """Write an evaluation as one HTML file that needs nothing else: no script, no network.

    It holds the summary, the curve of the success detection rate, the errors of each landmark, image and measurement, whether the
    uncertainty of the predictions is honest, and the worst images and those in the middle with prediction, truth and ellipse;
    volumes as three planes through the landmark with the largest error.

    Args:
        evaluation: from `evaluate_predictions`.
        path: of the file; it is written whole or not at all.
        title: of the page.
        source: what was compared, for the reader.
        cases: how many of the worst images and of those in the middle are drawn.

    Returns:
        what could not be shown, one sentence each.
    """
    page = ReportPage(title)
    if source:
        page.text(f"{source}. Written by monai_landmarks {__version__}.")
    _add_summary(page, evaluation)
    _add_errors(page, evaluation)
    _add_landmarks(page, evaluation)
    _add_measurements(page, evaluation)
    _add_uncertainty(page, evaluation)
    notes = add_cases(page, evaluation, cases)
    _add_images(page, evaluation)
    with atomic_write(path) as temporary:
        page.save(temporary)
    return notes


def _add_summary(page: ReportPage, result: Evaluation) -> None:
    rows = {row["metric"]: row for row in result.summary()}
    unit = result.unit
    keys = [("images", str(len(result.images)), f"{len(result.names)} landmarks")]
    for metric, heading in (("MRE", "mean error"), ("median", "median error")):
        keys.append((heading, f"{rows[metric]['value']:.2f} {unit}", _interval(rows[metric], result)))
    for radius in (min(result.thresholds), max(result.thresholds)):
        row = rows[f"SDR {radius:g} {unit}"]
        keys.append((f"within {radius:g} {unit}", f"{row['value']:.1f} %", _interval(row, result)))
    keys.append(("missed", str(rows["missed"]["value"]), f"of {rows['landmarks with truth']['value']}"))
    page.section("Summary")
    page.key_figures(list(dict.fromkeys(keys)))
    if result.notes:
        page.points(result.notes)
    intervals = f"{100 * result.confidence:g} % interval"
    table = [
        {
            "metric": row["metric"],
            "value": f"{row['value']:.2f}" if isinstance(row["value"], float) else str(row["value"]),
            "unit": row["unit"],
            intervals: f"{row['low']:.2f} to {row['high']:.2f}" if row["low"] == row["low"] else "",
        }
        for row in rows.values()
    ]
    page.table("All metrics; intervals from the bootstrap over images", table, folded=True)
    for name, (other, paired) in result.comparisons.items():
        mean = {row["metric"]: row["value"] for row in other.summary()}["MRE"]
        page.text(
            f"{_spoken(name)}: mean error {mean:.2f} {unit}. In the {paired.images} images that both have, the mean error of an"
            f" image is {paired.first:.3f} {unit} (predictions) and {paired.second:.3f} {unit} ({_spoken(name)}), a difference of"
            f" {paired.difference:+.3f} {unit} ({paired.low:+.3f} to {paired.high:+.3f}; Wilcoxon's signed-rank test: p ="
            f" {paired.p_value:.3g})."
        )


def _add_errors(page: ReportPage, result: Evaluation) -> None:
    page.section("Errors")
    lines = {"predictions": result.errors} | {
        _spoken(name): other.errors for name, (other, _) in result.comparisons.items()
    }
    rates = ", ".join(
        f"{row['value']:.1f} % within {row['metric'].removeprefix('SDR ')}"
        for row in result.summary()
        if row["metric"].startswith("SDR ")
    )
    figure = draw_sdr_curve(lines if len(lines) > 1 else result.errors, result.thresholds, unit=result.unit)
    page.plots(
        [
            (
                figure,
                f"Success detection rate over the radius: {rates}.",
                "Success detection rate: landmarks with an error of at most r.",
            )
        ]
    )


def _add_landmarks(page: ReportPage, result: Evaluation) -> None:
    page.section("Landmarks")
    rows = result.per_landmark()
    known = [row for row in rows if row["median"] == row["median"]]
    worst = max(known, key=lambda row: row["median"], default=None)
    best = min(known, key=lambda row: row["median"], default=None)
    said = (
        f" Smallest median: {best['landmark']}, {best['median']:.2f} {result.unit}; largest: {worst['landmark']},"
        f" {worst['median']:.2f} {result.unit}."
        if best and worst
        else ""
    )
    figure = draw_error_boxplot(result.errors, result.names, result.unit)
    caption = "Error of each landmark: median, quartiles, whiskers from 5 to 95 %, and the mean as a dot. Missed ones are not in it."
    page.plots([(figure, f"Box plot of the errors of {len(rows)} landmarks.{said}", caption)])
    headings = {
        f"sdr_{radius:g}{result.unit}_percent": f"within {radius:g} {result.unit} %" for radius in result.thresholds
    }
    headings["identified_percent"] = "identified %"
    table = [
        {headings.get(key, key): value for key, value in row.items() if not key.startswith("mean_")} for row in rows
    ]
    page.table(f"Errors of each landmark in {result.unit}", table, folded=len(table) > 12)


def _add_measurements(page: ReportPage, result: Evaluation) -> None:
    if result.measurements is None:
        return
    page.section("Measurements")
    rows = result.measurements.rows()
    table = [{key.replace("_percent", " %").replace("_", " "): value for key, value in row.items()} for row in rows]
    page.table("Predicted minus true; agreement: images whose predicted class is the true one", table)


def _add_uncertainty(page: ReportPage, result: Evaluation) -> None:
    page.section("Uncertainty")
    found = [(b, case.predicted, case.true) for b, case in enumerate(result.cases) if case.predicted is not None]
    stated = [item for item in found if item[1].regions is not None]
    sure = [item for item in found if item[1].covariances is not None]
    if not stated and not sure:
        page.text(
            "The predictions hold no covariances and no regions, so that nothing can be said of how sure they are. Files that"
            " bundles write (.mrk.json, or CSV with the columns cov_xx, ...) hold covariances; 'monai-landmarks calibrate' adds"
            " regions with a stated coverage."
        )
        return
    regions = _add_regions(page, result, stated) if stated else []
    if sure:
        _add_covariances(page, result, sure, regions)


def _add_regions(
    page: ReportPage, result: Evaluation, stated: list[tuple[int, LandmarkSet, LandmarkSet]]
) -> list[tuple[float, float, float, float]]:
    """What the stated regions held: coverage, share, and the ends of its interval, for each coverage that is stated."""
    shares = []
    for coverage in sorted({found.coverage for _, found, _ in stated if found.coverage is not None}):
        items = [(found, true) for _, found, true in stated if found.coverage == coverage]
        held = np.array([covered(found, true) for found, true in items])
        if np.isnan(held).all():
            continue
        share, low, high = _share(held, result)
        shares.append((coverage, share, low, high))
        page.text(
            f"Stated regions: {100 * coverage:g} % of the landmarks should be in them, {100 * share:.1f} %"
            f"{_ends(low, high, result)} are: {int(np.nansum(held))} of {int((~np.isnan(held)).sum())} in {len(items)} images."
            f" {_judgment(coverage, low, high)}",
            verdict=True,
        )
        radius = np.array([found.region_radius for found, _ in items])
        rows = []
        for n, name in enumerate(result.names):
            count = int((~np.isnan(held[:, n])).sum())
            row: dict[str, Any] = {"landmark": name, "n": count, "stated %": 100 * coverage}
            row["held %"] = 100 * float(np.nanmean(held[:, n])) if count else math.nan
            row[f"median radius {result.unit}"] = _median(radius[:, n])
            rows.append(row)
        page.table(
            f"Regions stated to hold {100 * coverage:g} %, of each landmark", rows, digits=1, folded=len(rows) > 12
        )
    return shares


def _add_covariances(
    page: ReportPage,
    result: Evaluation,
    sure: list[tuple[int, LandmarkSet, LandmarkSet]],
    regions: list[tuple[float, float, float, float]],
) -> None:
    unit = result.unit
    errors = np.where(np.isinf(result.errors), np.nan, result.errors)[[b for b, _, _ in sure]]
    expected = np.array([found.uncertainty for _, found, _ in sure])
    levels = np.array([gaussian_level(found, true) for _, found, true in sure])
    both = np.isfinite(errors) & np.isfinite(expected)
    if not both.any():
        page.text("No landmark has both an error and a covariance.")
        return
    root = [math.sqrt(np.mean(values[both] ** 2)) for values in (errors, expected)]
    page.text(
        f"Covariances: by them the root mean square error should be {root[1]:.2f} {unit}, and it is {root[0]:.2f} {unit}."
        f" Rank correlation of uncertainty and error (Spearman): {_rank_correlation(expected[both], errors[both]):.2f}; 1 where"
        " the less sure of two landmarks is always the worse, 0 where the uncertainty tells nothing.",
        verdict=True,
    )
    within = [(level, *_share(np.where(np.isnan(levels), np.nan, levels <= level), result)) for level in _LEVELS]
    said = ", ".join(f"{100 * share:.0f} % at {100 * level:g} %" for level, share, _, _ in within)
    page.plots(
        [
            (
                draw_error_against_uncertainty(errors, expected, unit),
                f"Errors over the uncertainty that the covariances state, {int(both.sum())} landmarks.",
                "Error of each landmark over its uncertainty, the root mean square error that its covariance states. Groups above"
                " the dashed line are less accurate than they say.",
            ),
            (
                draw_calibration(levels, regions),
                f"Share of landmarks in regions over the share that should be: {said}.",
                "How many landmarks are in regions of a stated coverage. Below the dashed line the predictions are too sure of"
                " themselves.",
            ),
        ]
    )
    rows = [
        {
            "stated %": f"{100 * level:g}",
            "held %": 100 * share,
            f"{100 * result.confidence:g} % interval": f"{100 * low:.1f} to {100 * high:.1f}" if low == low else "",
        }
        for level, share, low, high in within
    ]
    page.table("Gaussian regions of the covariances", rows, digits=1)


def _add_images(page: ReportPage, result: Evaluation) -> None:
    page.section("Images")
    rows: list[dict[str, Any]] = []
    for image, errors in zip(result.images, result.errors):
        found = np.where(np.isfinite(errors), errors, np.nan)
        known = bool(np.isfinite(found).any())
        rows.append(
            {
                "image": image,
                f"mean {result.unit}": float(np.nanmean(found)) if known else math.nan,
                f"max {result.unit}": float(np.nanmax(found)) if known else math.nan,
                "landmark of the max": result.names[int(np.nanargmax(found))] if known else None,
                "missed": int(np.isinf(errors).sum()),
            }
        )
    # an image of which nothing was found has no mean, and comes first
    mean = f"mean {result.unit}"
    rows.sort(key=lambda row: -row[mean] if row[mean] == row[mean] else -math.inf)
    page.table(f"Errors of each image, the largest mean first ({len(rows)} images)", rows, folded=len(rows) > 12)


def _share(held: np.ndarray, result: Evaluation) -> tuple[float, float, float]:
    """Mean of (B, N) zeros and ones, NaN not counted, with the ends of its interval from the bootstrap over images."""

    def mean(sample: np.ndarray) -> np.ndarray:
        flat = sample.reshape(len(sample), -1)
        known = ~np.isnan(flat)
        count = known.sum(axis=1)
        return np.where(count, np.where(known, flat, 0).sum(axis=1), np.nan) / np.maximum(count, 1)

    low, high = bootstrap_interval(held, mean, result.confidence, result.resamples, result.seed)
    return float(mean(held[None])[0]), float(low), float(high)


def _judgment(coverage: float, low: float, high: float) -> str:
    if low != low:
        return ""
    if low <= coverage <= high:
        return "That agrees with what is stated."
    return (
        "That is fewer than stated: the regions are too small for these images."
        if high < coverage
        else "That is more than stated: the regions may be larger than these images need."
    )


def _ends(low: float, high: float, result: Evaluation) -> str:
    return f" ({100 * low:.1f} to {100 * high:.1f}, {100 * result.confidence:g} % interval)" if low == low else ""


def _interval(row: dict[str, Any], result: Evaluation) -> str:
    return f"{row['low']:.2f} to {row['high']:.2f}" if row["low"] == row["low"] else ""


def _spoken(name: str) -> str:
    return {"second_annotator": "second annotator", "compare": "other predictions"}.get(name, name)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    # twice the mean rank: so many are smaller, so many are not greater
    one, two = (
        np.searchsorted(np.sort(v), v, "left") + np.searchsorted(np.sort(v), v, "right") for v in (first, second)
    )
    return math.nan if np.ptp(one) == 0 or np.ptp(two) == 0 else float(np.corrcoef(one, two)[0, 1])


def _median(values: Iterable[float]) -> float:
    known = np.array([value for value in values if value == value])
    return float(np.median(known)) if len(known) else math.nan
