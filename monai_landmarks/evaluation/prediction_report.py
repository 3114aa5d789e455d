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
"""The HTML report of predictions, without ground truth."""

from __future__ import annotations

import math
import os
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from monai_landmarks.data import CoordinateSystem, LandmarkSet, read_image
from monai_landmarks.spaces import affine_spacing
from monai_landmarks.visualize import LandmarkView, ReportPage, draw_views, landmark_view

from .report_file import report_file

if TYPE_CHECKING:
    from monai_landmarks.handlers import SavedPrediction

__all__ = ["MeasuredRows", "doubtful_first", "prediction_view", "write_prediction_report"]


class MeasuredRows(Protocol):
    """The clinical measurements of images, as :class:`monai_landmarks.evaluation.ImageMeasurements` has them."""

    def rows(self, index: int) -> list[dict[str, Any]]:
        """Return the table of an image, one row per measurement."""


_MAX_SIZE = 640  # side of a picture in pixels
_MOST_ROWS = 500  # of the table of all images


def write_prediction_report(
    path: str | os.PathLike,
    predictions: Sequence[SavedPrediction],
    doubts: Mapping[str, str],
    measurements: MeasuredRows | None = None,
    notes: Sequence[str] = (),
    unreadable: Sequence[tuple[str, str]] = (),
    source: str = "",
    drawings: int = 12,
) -> None:
    """Write predictions as one self-contained HTML file, without scripts and without external resources.

    The report lists predictions in doubt first. It then shows images, doubtful ones first: a drawing with ellipses, the
    measurements with intervals and classes, and the landmarks with their uncertainty. A table lists all images.

    Args:
        path: path of the HTML file. It is written whole or not at all.
        predictions: prediction of each image. Each is read once, and those that are drawn twice.
        doubts: reasons of the doubtful images, by path of the image.
        measurements: of the same images, in the same order.
        notes: remarks, one sentence each.
        unreadable: images that were left out, with the reasons.
        source: text that says what was predicted with what.
        drawings: number of images that are drawn, so that the file stays small.
    """
    images, figures, rows = _summarize(predictions, doubts)
    order = doubtful_first(images, doubts)
    with report_file(path, "Landmark predictions", source) as page:
        _add_summary(page, figures, doubts, notes, unreadable)
        _add_doubts(page, len(images), doubts)
        if drawings and order:
            page.section("Images in detail")
            if len(order) > drawings:
                page.text(
                    f"{drawings} of {len(order)} images are shown, those in doubt first. predictions.csv and measurements.csv"
                    " have all of them."
                )
            for i in order[:drawings]:
                _add_image(page, predictions[i], doubts.get(images[i], ""), measurements, i)
        _add_all(page, [rows[i] for i in order[:_MOST_ROWS]], doubts, len(images))


def doubtful_first(images: Sequence[str], doubts: Container[str]) -> list[int]:
    """Return the order in which images are drawn: doubtful ones first, then by name."""
    return sorted(range(len(images)), key=lambda i: (images[i] not in doubts, images[i]))


class _Row(NamedTuple):
    """The row of an image."""

    image: str
    found: int
    mean: float
    largest: str


def _summarize(
    predictions: Sequence[SavedPrediction], doubts: Container[str]
) -> tuple[list[str], dict[str, Any], list[_Row]]:
    """Read each prediction once. Return the images, the figures of the summary, and the row of each image.

    What the heatmaps of a doubtful image say about its errors is not in the figures, because it may be wrong.
    """
    rows, sizes, probable = [], [], []
    count = missing = 0
    radius = math.nan
    for one in predictions:
        landmarks = one.landmarks
        count, size = len(landmarks), landmarks.uncertainty
        missing += int(landmarks.missing.sum())
        known = bool(np.isfinite(size).any())
        mean = float(np.nanmean(size)) if known else math.nan
        largest = landmarks.names[int(np.nanargmax(size))] if known else ""
        rows.append(_Row(one.image, int((~landmarks.missing).sum()), mean, largest))
        if one.image in doubts:
            continue
        sizes.append(size[np.isfinite(size)])
        if one.probabilities is not None:
            radius = one.probabilities.radius
            probable.append(one.probabilities.values)
    figures: dict[str, Any] = {"images": len(rows), "landmarks": count, "missing": missing, "radius": radius}
    figures["sizes"] = np.concatenate(sizes) if sizes else np.zeros(0)
    figures["probabilities"] = np.concatenate(probable) if probable else np.zeros(0)
    return [row.image for row in rows], figures, rows


def _add_summary(
    page: ReportPage,
    figures: Mapping[str, Any],
    doubts: Mapping[str, str],
    notes: Sequence[str],
    unreadable: Sequence[tuple[str, str]],
) -> None:
    page.section("Summary")
    images, count, sizes, probable = (figures[key] for key in ("images", "landmarks", "sizes", "probabilities"))
    keys = [
        ("images", str(images), f"{count} landmarks"),
        ("in doubt", str(len(doubts)), ""),
        ("not found", str(figures["missing"]), f"of {count * images} landmarks"),
    ]
    sure = " in images without doubt" if doubts else ""
    if len(sizes):
        keys.append(("uncertainty", f"{np.median(sizes):.2f} mm", f"median expected error{sure}"))
    if np.isfinite(probable).any():
        mean = float(np.nanmean(probable))
        keys.append(
            (f"within {figures['radius']:g} mm", f"{100 * mean:.0f} %", f"of the landmarks found, expected{sure}")
        )
    if unreadable:
        keys.append(("left out", str(len(unreadable)), "images"))
    page.key_figures(keys)
    if notes:
        page.points([f"{note[0].upper()}{note[1:]}" for note in notes])
    rows = [{"image": image, "reason": reason} for image, reason in unreadable[:_MOST_ROWS]]
    page.table("Images that cannot be predicted", rows)


def _add_doubts(page: ReportPage, count: int, doubts: Mapping[str, str]) -> None:
    page.section("Doubt")
    if not doubts:
        page.text("No prediction is in doubt.", verdict=True)
        return
    page.text(
        f"{len(doubts)} of {count} predictions are in doubt. Look at these images before you use their landmarks.",
        verdict=True,
    )
    page.points([f"{image}: {reasons}." for image, reasons in list(doubts.items())[:_MOST_ROWS]])


def _add_image(
    page: ReportPage, prediction: SavedPrediction, doubt: str, measurements: MeasuredRows | None, index: int
) -> None:
    landmarks = prediction.landmarks
    page.heading(prediction.name)
    if doubt:
        page.text(f"In doubt: {doubt}. Uncertainty, probabilities and measurements may be wrong, too.", verdict=True)
    try:
        view, name = prediction_view(prediction)
    except Exception as failure:  # image readers raise exceptions of any type
        reason = str(failure).strip().partition("\n")[0] or type(failure).__name__
        page.text(f"{prediction.image}: cannot be drawn ({reason}).")
    else:
        planes = f"; three planes through {name}" if len(view.planes) > 1 else ""
        ellipses = "" if landmarks.covariances is None else " Ellipses: two standard deviations."
        page.picture(
            draw_views([view], width=4.2 if len(view.planes) == 1 else 8.4),
            f"{prediction.image} with predicted landmarks.",
            f"{prediction.image}{planes}.{ellipses}",
        )
    if measurements is not None:
        page.table(f"Measurements of {prediction.name}", _measurement_rows(measurements, index), digits=2)
    page.table(f"Landmarks of {prediction.name}, in RAS mm", _landmark_rows(prediction), digits=2, folded=True)


def prediction_view(prediction: SavedPrediction, title: str = "", ellipses: bool = True) -> tuple[LandmarkView, str]:
    """Return the view of an image, and the landmark through which the planes of a volume go.

    Args:
        prediction: the prediction, whose image is read again.
        title: title of the view.
        ellipses: whether to draw the covariances.
    """
    landmarks, affine = prediction.landmarks, prediction.affine
    spacing = None if affine is None else tuple(affine_spacing(affine, 2).tolist())
    pixels, own = read_image(prediction.image, spacing)
    affine = own if affine is None else affine
    while pixels.ndim > landmarks.spatial_dims + 1:  # a single slice is read as a volume
        pixels = pixels[..., 0]
    drawn = landmarks.to_index(affine)
    size = np.where(landmarks.missing, -1.0, np.nan_to_num(landmarks.uncertainty))
    worst = int(np.argmax(size))
    center = None if landmarks.missing[worst] else drawn.points[worst].tolist()
    view = landmark_view(
        pixels,
        drawn.points,
        covariances=drawn.covariances if ellipses else None,
        title=title,
        center=center,
        max_size=_MAX_SIZE,
        affine=affine,
    )
    return view, landmarks.names[worst]


def _measurement_rows(measurements: MeasuredRows, index: int) -> list[dict[str, Any]]:
    rows = []
    for row in measurements.rows(index):
        known = math.isfinite(float(row["std"]))
        rows.append(
            {
                "measurement": row["measurement"],
                "value": row["value"],
                "unit": row["unit"],
                f"{100 * float(row['coverage']):g} % interval": (
                    f"{row['low']:.2f} to {row['high']:.2f}" if known else ""
                ),
                "class": row["class"],
            }
        )
    return rows


def _landmark_rows(prediction: SavedPrediction) -> list[dict[str, Any]]:
    landmarks: LandmarkSet = prediction.landmarks.to(CoordinateSystem.RAS)
    count, dims = landmarks.points.shape
    scores = np.full(count, np.nan) if landmarks.scores is None else landmarks.scores
    doubts = prediction.doubt.cells(count) if prediction.doubt is not None else [("", "")] * count
    probable = prediction.probabilities
    within = {} if probable is None else {f"within {probable.radius:g} mm %": 100 * probable.values}
    columns = zip(landmarks.names, landmarks.points, landmarks.uncertainty, range(count), doubts)
    return [
        {
            "landmark": name,
            **dict(zip(("x", "y", "z")[:dims], map(float, point))),
            "uncertainty mm": float(size),
            **{heading: float(values[n]) for heading, values in within.items()},
            "score": float(scores[n]),
            "doubt": doubt,
        }
        for name, point, size, n, (_, doubt) in columns
    ]


def _add_all(page: ReportPage, shown: Sequence[_Row], doubts: Mapping[str, str], count: int) -> None:
    page.section("All images")
    rows = [
        {
            "image": row.image,
            "landmarks found": row.found,
            "mean uncertainty mm": row.mean,
            "landmark of the largest": row.largest,
            "in doubt": "yes" if row.image in doubts else "",
        }
        for row in shown
    ]
    more = f", the first {len(rows)} of {count}" if len(rows) < count else ""
    page.table(f"All images{more}", rows, folded=len(rows) > 12)
