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
"""HTML report of the agreement of annotators."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data import atomic_write
from monai_landmarks.data.files.kept_files import remove_file
from monai_landmarks.visualize import (
    BlandAltmanPanel,
    ReportPage,
    draw_annotators,
    draw_bland_altman,
    draw_error_boxplot,
    draw_sdr_curve,
    landmark_view,
)

from .annotator_agreement import AnnotatorAgreement, Difference
from .annotators import ALL, MODEL, OTHERS
from .case_figures import read_pixels, window_around
from .report_file import report_file

__all__ = ["write_agreement_report", "write_bland_altman"]

_PLOTTED = 4  # landmarks with the largest disagreement whose Bland-Altman plots are on the page
_MEASURED = 8  # measurements whose Bland-Altman plots are on the page
_LINES = 5  # of a figure with curves
_MAX_SIZE = 640  # side of a picture in pixels
_ZOOM = 0.12  # side of the enlarged part, relative to the image


def write_agreement_report(
    agreement: AnnotatorAgreement,
    path: str | os.PathLike,
    title: str = "Agreement of annotators",
    source: str = "",
    cases: int = 3,
) -> list[str]:
    """Write the agreement of annotators as one self-contained HTML file, without scripts and external resources.

    Args:
        agreement: from :func:`monai_landmarks.evaluation.compare_annotators`.
        path: path of the HTML file. It is written completely or not at all.
        title: title of the page.
        source: text that says what was compared.
        cases: number of images to draw, those with the largest disagreement.

    Returns:
        Notes about what cannot be shown, one sentence each.
    """
    with report_file(path, title, source) as page:
        _add_summary(page, agreement)
        _add_distances(page, agreement)
        _add_landmarks(page, agreement)
        _add_model(page, agreement)
        _add_bias(page, agreement)
        _add_correlations(page, agreement)
        notes = _add_cases(page, agreement, cases)
        _add_images(page, agreement)
    return notes


def write_bland_altman(agreement: AnnotatorAgreement, output_dir: str | os.PathLike) -> list[Path]:
    """Write the Bland-Altman plots of all quantities as PNG files, one file per comparison.

    Args:
        agreement: from :func:`monai_landmarks.evaluation.compare_annotators`.
        output_dir: folder for the files.

    Returns:
        The files written.
    """
    sides: dict[tuple[str, str], list[Difference]] = {}
    for one in _shown_differences(agreement):
        sides.setdefault((one.first, one.second), []).append(one)
    written = []
    for old in Path(output_dir).glob("bland_altman_[0-9]*_*.png"):  # of an earlier comparison of other annotators
        remove_file(old)
    for number, (side, items) in enumerate(sides.items(), 1):
        name = re.sub(r"[^\w.-]+", "_", "_".join(side))
        path = Path(output_dir) / f"bland_altman_{number}_{name}.png"
        figure = draw_bland_altman([_panel(one) for one in items], *side)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")
        written.append(path)
    return written


def _add_summary(page: ReportPage, result: AnnotatorAgreement) -> None:
    data, unit = result.data, result.data.unit
    values = np.concatenate([distances[np.isfinite(distances)] for distances in result.distances.values()])
    single = np.array([one.single for *_, one in result.correlations if one.single == one.single])
    keys = [
        ("annotators", str(len(data.annotators)), ""),
        ("images", str(len(data.images)), f"{len(data.names)} landmarks"),
    ]
    if len(values):
        keys.append(("mean distance", f"{values.mean():.2f} {unit}", "of two annotators"))
        keys.append(("median distance", f"{np.median(values):.2f} {unit}", ""))
        for radius in (min(result.thresholds), max(result.thresholds)):
            keys.append((f"within {radius:g} {unit}", f"{100 * np.mean(values <= radius):.1f} %", ""))
    if len(single):
        keys.append(("lowest ICC(A,1)", f"{single.min():.3f}", f"median {np.median(single):.3f}"))
    page.section("Summary")
    page.key_figures(list(dict.fromkeys(keys)))
    if result.notes:
        page.points(result.notes)


def _add_distances(page: ReportPage, result: AnnotatorAgreement) -> None:
    unit = result.data.unit
    page.section("Distances")
    lines = result.lines()
    wanted = [pair for pair in lines if pair[1] == OTHERS] if result.several else [*result.distances]
    wanted = wanted[: _LINES - (result.data.model is not None)]
    wanted += [pair for pair in lines if pair == (MODEL, ALL)]
    rows = [
        {
            "first": row["first"],
            "second": row["second"],
            "n": row["n"],
            f"mean {unit}": row["mean"],
            f"{100 * result.confidence:g} % interval": _range(row["mean_low"], row["mean_high"]),
            **{key: row[key] for key in ("std", "median", "max")},
            **{f"within {radius:g} {unit} %": row[f"sdr_{radius:g}{unit}_percent"] for radius in result.thresholds},
        }
        for row in result.distance_rows()
    ]
    page.table("Distances of all landmarks, with intervals from the bootstrap over images", rows)
    if result.several:
        page.text(
            "The mean of several annotators has less noise than a single annotator. Distances to it are therefore smaller"
            " than distances of two annotators, and can only be compared with each other."
        )
    curves = {f"{first} - {second}": lines[first, second] for first, second in wanted}
    page.plots(
        [
            (
                draw_sdr_curve(curves, result.thresholds, unit=unit),
                f"Share of landmarks within a radius, {len(curves)} comparisons.",
                "Share of landmarks with a distance of at most r.",
            )
        ]
    )


def _add_landmarks(page: ReportPage, result: AnnotatorAgreement) -> None:
    page.section("Landmarks")
    rows = result.landmark_rows()
    order = [result.data.names.index(row["landmark"]) for row in rows]
    if np.isfinite(result.disagreement).any():
        figure = draw_error_boxplot(
            result.disagreement[:, order], [row["landmark"] for row in rows], result.data.unit, "distance"
        )
        caption = (
            "Mean distance of pairs of annotators for each landmark, sorted: median, quartiles, whiskers from 5 % to 95 %,"
            " and the mean as a dot."
        )
        worst = f" The largest mean is that of {rows[0]['landmark']}, {rows[0]['mean']:.2f} {result.data.unit}."
        page.plots([(figure, f"Box plot of the disagreement about {len(rows)} landmarks.{worst}", caption)])
    if not any(row["marked_by_some"] for row in rows):
        rows = [{key: value for key, value in row.items() if not key.startswith("marked")} for row in rows]
    page.table(f"Disagreement about each landmark in {result.data.unit}", _worded(rows), folded=len(rows) > 12)


def _add_model(page: ReportPage, result: AnnotatorAgreement) -> None:
    if result.data.model is None:
        return
    unit = result.data.unit
    page.section("Model")
    page.text(
        "The model is compared with each annotator on the same scale: the distance of both to the mean of the other"
        " annotators. A model that was trained with the landmarks of one of them has learned this annotator's habits."
    )
    rows, missed = [], result.model_missed()
    for name, one in result.model_comparisons():
        rows.append(
            {
                "annotator": name,
                "images": one.images,
                f"annotator {unit}": one.first,
                f"model {unit}": one.second,
                f"model - annotator {unit}": one.difference,
                f"{100 * result.confidence:g} % interval": _range(one.low, one.high),
                "p (Wilcoxon)": f"{one.p_value:.3g}",
                **(
                    {"missed by annotator": missed[name][0], "missed by model": missed[name][1]}
                    if any(missed["all"])
                    else {}
                ),
            }
        )
    page.table("Mean distance per image to the mean of the other annotators", rows)


def _add_bias(page: ReportPage, result: AnnotatorAgreement) -> None:
    page.section("Bias")
    shown = _shown_differences(result)
    count = sum(one.limits.low == one.limits.low for one in shown)
    page.text(
        "Bland-Altman plots: the difference over the mean of both, with the bias (line) and the 95 % limits of agreement"
        " (dashed). A bias whose interval does not contain 0 may be systematic: for example, the annotators define the"
        f" landmark differently. Without any bias, about {(1 - result.confidence) * count:.1f} of the {count} intervals in"
        f" the table would not contain 0, by chance alone. {_directions(result)}"
    )
    worst = [row["landmark"] for row in result.landmark_rows()[:_PLOTTED]]
    sides = dict.fromkeys((one.first, one.second) for one in shown)
    for first, second in sides:
        own = [one for one in shown if (one.first, one.second) == (first, second)]
        chosen = [one for name in worst for one in own if one.coordinate and one.quantity == name]
        chosen += [one for one in own if not one.coordinate][:_MEASURED]
        chosen = [one for one in chosen if one.limits.images > 1]
        if not chosen:
            continue
        alt = "; ".join(f"{one.title}: bias {one.limits.bias:.2f} {one.unit}" for one in chosen)
        page.plots(
            [
                (
                    draw_bland_altman([_panel(one) for one in chosen], first, second),
                    f"Bland-Altman plots of {first} and {second}. {alt}.",
                    f"{first} minus {second}: the landmarks with the largest disagreement"
                    f"{', and measurements' if any(not one.coordinate for one in chosen) else ''}.",
                )
            ]
        )
    rows = [
        {
            "first": one.first,
            "second": one.second,
            "quantity": one.title,
            "n": one.limits.images,
            "bias": one.limits.bias,
            f"{100 * result.confidence:g} % interval": _range(one.limits.low, one.limits.high),
            "95 % limits of agreement": _range(one.limits.lower_limit, one.limits.upper_limit),
            "unit": one.unit,
        }
        for one in shown
    ]
    page.table("Bias and limits of agreement", rows, folded=True)


def _add_correlations(page: ReportPage, result: AnnotatorAgreement) -> None:
    page.section("Intraclass correlation")
    page.text(
        "Two-way random model (McGraw and Wong 1996). ICC(A,1): absolute agreement of single annotators, which is ICC(2,1) of"
        " Shrout and Fleiss. ICC(C,1): consistency, without constant differences between annotators, their ICC(3,1)."
        " ICC(A,k): agreement of the mean of all annotators. The ICC depends on the spread between images: landmarks at very"
        " different positions have a high ICC although the distances are large. The standard error of measurement does not."
        " For fewer than about 20 images, the intervals are too narrow."
    )
    rows = [
        {
            "quantity": f"{quantity} {coordinate}".rstrip(),
            "images": one.images,
            "ICC(A,1)": one.single,
            f"{100 * result.confidence:g} % interval": _range(one.low, one.high, 3),
            "ICC(C,1)": one.consistency,
            "ICC(A,k)": one.average,
            "standard error": one.standard_error,
            "unit": unit,
        }
        for quantity, coordinate, unit, one in result.correlations
    ]
    measured = rows[len(result.data.names) * len(result.data.coordinates) :]
    page.table("Measurements", measured, digits=3)
    page.table("Coordinates of landmarks", rows[: len(rows) - len(measured)], digits=3, folded=len(rows) > 12)
    page.table("Images in which all annotators find the same class", _worded(result.class_rows()), digits=1)


def _add_cases(page: ReportPage, result: AnnotatorAgreement, count: int) -> list[str]:
    rows = [row for row in result.image_rows() if row["mean"] == row["mean"]]
    if not count or not rows:
        return []
    page.section("Cases")
    images = result.data.images
    drawable = [row for row in rows if result.data.geometries[images.index(row["image"])].image is not None]
    if not drawable:
        note = "the image files are not known, so no image is drawn; give --images, or datalists."
        page.text(f"{note[0].upper()}{note[1:]}")
        return [note]
    page.heading("Images with the largest mean disagreement")
    notes = [_draw_case(page, result, row) for row in drawable[:count]]
    return [note for note in notes if note]


def _draw_case(page: ReportPage, result: AnnotatorAgreement, row: dict[str, Any]) -> str:
    """Draw an image. Return the reason why it cannot be drawn, or an empty string."""
    data, image, name = result.data, row["image"], row["landmark_of_max"]
    b, n = data.images.index(image), data.names.index(name)
    people = [*zip(data.annotators, data.points)]
    people += [] if data.model is None else [(MODEL, data.model)]
    try:
        sets = [data.landmark_set(points[b]) for _, points in people]
        pixels, affine, moved = read_pixels(data.geometries[b], sets)
        places = np.stack([one.points for one in moved])
        window = window_around(places[:, n], pixels.shape[1:], affine, _ZOOM)
        center = np.nanmean(places[:, n], axis=0).tolist()
        views = [
            landmark_view(pixels, np.concatenate(places), center=center, max_size=_MAX_SIZE, window=part, affine=affine)
            for part in (None, window)
        ]
    except Exception as failure:  # image readers raise exceptions of any type
        note = f"{image}: cannot be drawn ({str(failure).strip().partition(chr(10))[0] or type(failure).__name__})."
        page.text(note)
        return note
    unit, who = data.unit, [name for name, _ in people]
    caption = f"{image}: mean disagreement {row['mean']:.2f} {unit}. Largest: {name}, {row['max']:.2f} {unit}"
    alt = f"{image} with the landmarks of {', '.join(who)}. Largest disagreement: {name}."
    label = [one if one == name else "" for one in data.names]
    if len(views[0].planes) == 1:
        page.picture(draw_annotators(views, who, label), alt, f"{caption}. Right: enlarged.")
    else:
        page.picture(draw_annotators(views[:1], who), alt, f"{caption}; three planes through this landmark.")
        zoomed = draw_annotators(views[1:], who, label)
        page.picture(zoomed, f"The same planes, enlarged around {name}.", f"{image}: enlarged around {name}.")
    return ""


def _add_images(page: ReportPage, result: AnnotatorAgreement) -> None:
    page.section("Images")
    rows = result.image_rows()
    page.table(f"Disagreement in each image, sorted ({len(rows)} images)", _worded(rows), folded=len(rows) > 12)
    points = [row for row in result.point_rows() if row["mean"] == row["mean"]][:50]
    page.table(f"The {len(points)} landmarks with the largest disagreement", _worded(points), folded=len(points) > 12)


def _shown_differences(result: AnnotatorAgreement) -> list[Difference]:
    """Return differences of pairs, or with three or more annotators from the mean of the others, and of the model."""
    if not result.several:
        return result.differences
    return [one for one in result.differences if one.second in (OTHERS, ALL)]


def _directions(result: AnnotatorAgreement) -> str:
    if result.data.coordinates[0] == "R":
        return "R, A and S: millimeters toward right, anterior and superior."
    return "x runs to the right in the image, and y down." if len(result.data.coordinates) == 2 else ""


def _panel(one: Difference) -> BlandAltmanPanel:
    return BlandAltmanPanel(one.title, one.values[:, 0], one.values[:, 1], one.unit)


def _worded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key.replace("_percent", " %").replace("_", " "): value for key, value in row.items()} for row in rows]


def _range(low: float, high: float, digits: int = 2) -> str:
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.{digits}f} to {high:.{digits}f}"
