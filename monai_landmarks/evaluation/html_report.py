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
"""The HTML report of an evaluation."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from monai_landmarks.data import LandmarkSet
from monai_landmarks.metrics import bootstrap_interval_of_sums
from monai_landmarks.uncertainty import covered, gaussian_level
from monai_landmarks.visualize import (
    ReportPage,
    draw_calibration,
    draw_error_against_uncertainty,
    draw_error_boxplot,
    draw_sdr_curve,
)

from .case_figures import add_case_figures
from .prediction_errors import Evaluation
from .report_file import report_file

__all__ = ["write_report"]

_LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
_JUDGED = (0.5, 0.9, 0.95)
_MOST_ROWS = 1000  # of a table of images; 'evaluate --out' writes all of them


def write_report(
    evaluation: Evaluation, path: str | os.PathLike, title: str = "Landmark report", source: str = "", cases: int = 3
) -> list[str]:
    """Write an evaluation as one self-contained HTML file, without scripts and without external resources.

    The report has a summary, the curve of the success detection rate, the errors of each landmark, image and
    measurement, a check of the predicted uncertainty, and figures of images. The figures show prediction, ground truth
    and ellipses of the images with the largest mean error and of images with a median mean error. A volume is shown as
    three planes through the landmark with the largest error.

    Args:
        evaluation: from :func:`monai_landmarks.evaluation.evaluate_predictions`.
        path: path of the HTML file. It is written whole or not at all.
        title: title of the page.
        source: text that says what was compared.
        cases: number of images drawn of each kind, the worst and the median ones.

    Returns:
        Notes about what cannot be shown, one sentence each.
    """
    with report_file(path, title, source) as page:
        _add_summary(page, evaluation)
        _add_doubts(page, evaluation)
        _add_errors(page, evaluation)
        _add_landmarks(page, evaluation)
        _add_measurements(page, evaluation)
        _add_uncertainty(page, evaluation)
        notes = add_case_figures(page, evaluation, cases)
        _add_images(page, evaluation)
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
    page.table("All metrics, with intervals from the bootstrap over images", table, folded=True)
    for name, (other, paired) in result.comparisons.items():
        mean = {row["metric"]: row["value"] for row in other.summary()}["MRE"]
        title = _title(name)
        missed, others_missed, count = result.missed_beside(name)
        page.text(
            f"{title}: mean error {mean:.2f} {unit}. Over the {paired.images} images that both have, the mean error per image,"
            f" of the landmarks that both found, is {paired.first:.3f} {unit} (predictions) and {paired.second:.3f} {unit}"
            f" ({title}). The difference is {paired.difference:+.3f} {unit} ({paired.low:+.3f} to {paired.high:+.3f}; Wilcoxon"
            f" signed-rank test: p = {paired.p_value:.3g}). Missed: {missed} of {count} landmarks (predictions) and"
            f" {others_missed} of {count} ({title})."
        )


def _add_doubts(page: ReportPage, result: Evaluation) -> None:
    if result.doubts is None:
        return
    page.section("Doubt")
    if not result.doubts:
        page.text("No prediction is in doubt.", verdict=True)
        return
    page.text(
        f"{len(result.doubts)} of {len(result.images)} predictions are in doubt. Look at these images before you use their"
        " landmarks.",
        verdict=True,
    )
    means = {row["image"]: row["mean"] for row in result.per_image()}
    rows = [
        {"image": image, "reasons": reasons, f"mean error {result.unit}": means.get(image, math.nan)}
        for image, reasons in list(result.doubts.items())[:_MOST_ROWS]
    ]
    page.table("Predictions in doubt", rows)


def _add_errors(page: ReportPage, result: Evaluation) -> None:
    page.section("Errors")
    lines = {"predictions": result.errors} | {
        _title(name): other.errors for name, (other, _) in result.comparisons.items()
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
                f"Success detection rate as a function of the radius: {rates}.",
                "Success detection rate: share of landmarks with an error of at most r.",
            )
        ]
    )


def _add_landmarks(page: ReportPage, result: Evaluation) -> None:
    page.section("Landmarks")
    rows = result.per_landmark()
    known = [row for row in rows if row["median"] == row["median"]]
    worst = max(known, key=lambda row: row["median"], default=None)
    best = min(known, key=lambda row: row["median"], default=None)
    extremes = (
        f" Smallest median: {best['landmark']}, {best['median']:.2f} {result.unit}; largest: {worst['landmark']},"
        f" {worst['median']:.2f} {result.unit}."
        if best and worst
        else ""
    )
    figure = draw_error_boxplot(result.errors, result.names, result.unit)
    caption = (
        "Error of each landmark: median, quartiles, whiskers from 5 % to 95 %, and the mean as a dot. Missed landmarks are"
        " not included."
    )
    page.plots([(figure, f"Box plot of the errors of {len(rows)} landmarks.{extremes}", caption)])
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
    rows = result.measurement_rows()
    table = [{key.replace("_percent", " %").replace("_", " "): value for key, value in row.items()} for row in rows]
    page.table("Predicted minus true value. Agreement: images whose predicted class is the true class.", table)
    if result.measured is None:
        return
    _add_intervals(page, result)
    rows = [
        {key.replace("_", " "): value for key, value in row.items() if key != "coverage"}
        for row in result.measurements_per_image()[: _MOST_ROWS * len(result.measured[0].measured)]
    ]
    more = f", the first {_MOST_ROWS} of {len(result.images)}" if len(result.images) > _MOST_ROWS else ""
    page.table(f"Measurements of each image{more}", rows, folded=True)


def _add_intervals(page: ReportPage, result: Evaluation) -> None:
    """Add the agreement of the intervals of measurements with the true values."""
    rows = result.measurements_per_image()
    held = np.array([math.nan if row["held"] is None else row["held"] for row in rows], dtype=float)
    held = held.reshape(len(result.images), -1)
    if np.isnan(held).all():
        page.text("The predictions have no covariances, so the measurements have no intervals.")
        return
    coverage = rows[0]["coverage"]
    share, low, high = _share(held, result)
    page.text(
        f"Intervals of measurements: {100 * coverage:g} % should contain the true value. {100 * share:.1f} %"
        f"{_ends(low, high, result)} do: {int(np.nansum(held))} of {int((~np.isnan(held)).sum())}."
        f" {_judgment(coverage, low, high, 'intervals')}",
        verdict=True,
    )


def _add_uncertainty(page: ReportPage, result: Evaluation) -> None:
    page.section("Uncertainty")
    found = [(b, case.predicted, case.true) for b, case in enumerate(result.cases) if case.predicted is not None]
    stated = [item for item in found if item[1].regions is not None]
    sure = [item for item in found if item[1].covariances is not None]
    if not stated and not sure:
        page.text(
            "The predictions have no covariances and no regions, so their uncertainty cannot be checked. Files written by"
            " bundles (.mrk.json, or CSV with the columns cov_xx, ...) have covariances. 'monai-landmarks calibrate' adds"
            " regions with a stated coverage."
        )
        return
    regions = _add_regions(page, result, stated) if stated else []
    if sure:
        _add_covariances(page, result, sure, regions)


def _add_regions(
    page: ReportPage, result: Evaluation, stated: list[tuple[int, LandmarkSet, LandmarkSet]]
) -> list[tuple[float, float, float, float]]:
    """Add the coverage of the regions in the prediction files.

    Returns:
        For each stated coverage: the stated coverage, the observed coverage, and the ends of its interval.
    """
    shares = []
    for coverage in sorted({found.coverage for _, found, _ in stated if found.coverage is not None}):
        items = [(found, true) for _, found, true in stated if found.coverage == coverage]
        held = np.array([covered(found, true) for found, true in items])
        if np.isnan(held).all():
            continue
        share, low, high = _share(held, result)
        shares.append((coverage, share, low, high))
        page.text(
            f"Stated regions: they should contain {100 * coverage:g} % of the landmarks. They contain {100 * share:.1f} %"
            f"{_ends(low, high, result)}: {int(np.nansum(held))} of {int((~np.isnan(held)).sum())} in {len(items)} images."
            f" {_judgment(coverage, low, high)}",
            verdict=True,
        )
        radius = np.array([found.region_radius for found, _ in items])
        rows = []
        for n, name in enumerate(result.names):
            count = int((~np.isnan(held[:, n])).sum())
            row: dict[str, Any] = {"landmark": name, "n": count, "stated %": 100 * coverage}
            row["observed %"] = 100 * float(np.nanmean(held[:, n])) if count else math.nan
            row[f"median radius {result.unit}"] = _median(radius[:, n])
            rows.append(row)
        page.table(
            f"Regions of each landmark with a stated coverage of {100 * coverage:g} %",
            rows,
            digits=1,
            folded=len(rows) > 12,
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
        f"Covariances: they predict a root mean square error of {root[1]:.2f} {unit}. The observed one is {root[0]:.2f} {unit}."
        f" Rank correlation of uncertainty and error (Spearman): {_rank_correlation(expected[both], errors[both]):.2f}. It is"
        " 1 if a larger uncertainty always means a larger error, and 0 if they are unrelated.",
        verdict=True,
    )
    within = [(level, *_share(np.where(np.isnan(levels), np.nan, levels <= level), result)) for level in _LEVELS]
    shares = ", ".join(f"{100 * share:.0f} % at {100 * level:g} %" for level, share, _, _ in within)
    page.plots(
        [
            (
                draw_error_against_uncertainty(errors, expected, unit),
                f"Error as a function of the uncertainty given by the covariances, {int(both.sum())} landmarks.",
                "Error of each landmark as a function of its uncertainty, which is the root mean square error given by its"
                " covariance. Groups above the dashed line have larger errors than predicted.",
            ),
            (
                draw_calibration(levels, regions),
                f"Observed coverage as a function of the stated coverage: {shares}.",
                "Observed coverage of regions as a function of their stated coverage. Below the dashed line the predictions are"
                " overconfident.",
            ),
        ]
    )
    judged = {level: _judgment(level, low, high, "ellipses") for level, _, low, high in within if level in _JUDGED}
    page.text(
        " ".join(
            f"Ellipses of {100 * level:g} %: {100 * share:.1f} % of the landmarks are inside. {judged[level]}"
            for level, share, _, _ in within
            if level in judged
        ),
        verdict=True,
    )
    rows = [
        {
            "stated %": f"{100 * level:g}",
            "observed %": 100 * share,
            f"{100 * result.confidence:g} % interval": f"{100 * low:.1f} to {100 * high:.1f}" if low == low else "",
        }
        for level, share, low, high in within
    ]
    page.table("Coverage of the Gaussian regions given by the covariances", rows, digits=1)


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
    # an image without any landmark found has no mean; it comes first
    mean = f"mean {result.unit}"
    rows.sort(key=lambda row: -row[mean] if row[mean] == row[mean] else -math.inf)
    count = f"{len(rows)} images" if len(rows) <= _MOST_ROWS else f"the first {_MOST_ROWS} of {len(rows)} images"
    page.table(f"Errors of each image, sorted by decreasing mean ({count})", rows[:_MOST_ROWS], folded=len(rows) > 12)


def _share(held: np.ndarray, result: Evaluation) -> tuple[float, float, float]:
    """Return the mean of (B, N) zeros and ones without NaN, and its interval over images.

    The interval is that of the bootstrap. Where all values are the same, each of its samples has the same mean. The
    interval is then the exact one of the binomial distribution (Clopper and Pearson) of the images with a value.
    """
    known = (~np.isnan(held)).sum(axis=1)
    values = np.stack([np.nansum(held, axis=1), known], axis=1)

    def mean(sums: np.ndarray) -> np.ndarray:
        return np.where(sums[:, 1] > 0, sums[:, 0], np.nan) / np.maximum(sums[:, 1], 1)

    low, high = bootstrap_interval_of_sums(values, mean, result.confidence, result.resamples, result.seed)
    share = float(mean(values.sum(axis=0)[None])[0])
    if low == low and share in (0, 1):
        end = (0.5 - result.confidence / 2) ** (1 / np.count_nonzero(known))
        low, high = (end, 1) if share else (0, 1 - end)
    return share, float(low), float(high)


def _judgment(coverage: float, low: float, high: float, what: str = "regions") -> str:
    if low != low:
        return ""
    if low <= coverage <= high:
        return "This agrees with the stated coverage."
    return (
        f"This is less than stated: the {what} are too small for these images."
        if high < coverage
        else f"This is more than stated: the {what} may be larger than necessary for these images."
    )


def _ends(low: float, high: float, result: Evaluation) -> str:
    return f" ({100 * low:.1f} to {100 * high:.1f}, {100 * result.confidence:g} % interval)" if low == low else ""


def _interval(row: dict[str, Any], result: Evaluation) -> str:
    return f"{row['low']:.2f} to {row['high']:.2f}" if row["low"] == row["low"] else ""


def _title(name: str) -> str:
    return {"second_annotator": "second annotator", "compare": "other predictions"}.get(name, name)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    # twice the mean rank of tied values: the number of smaller values plus the number of values that are not greater
    one, two = (
        np.searchsorted(np.sort(v), v, "left") + np.searchsorted(np.sort(v), v, "right") for v in (first, second)
    )
    return math.nan if np.ptp(one) == 0 or np.ptp(two) == 0 else float(np.corrcoef(one, two)[0, 1])


def _median(values: Iterable[float]) -> float:
    known = np.array([value for value in values if value == value])
    return float(np.median(known)) if len(known) else math.nan
