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

"""``monai-landmarks evaluate``: errors of predictions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import FOLDER, evaluation_options, interval_text, keep_copies, text_table

if TYPE_CHECKING:
    from monai_landmarks.evaluation import Evaluation
    from monai_landmarks.metrics import PairedComparison

__all__ = ["evaluate"]

_SHOWN_IMAGES = 10


@click.command(short_help="Compare predictions to the ground truth: errors in mm with confidence intervals.")
@evaluation_options
@click.option("--out", type=FOLDER, help="Output folder for the tables (CSV) and all numbers (evaluation.json).")
def evaluate(predictions: Path, landmarks: Path, out: Path | None, **options: Any) -> None:
    """Compare PREDICTIONS to the ground truth in LANDMARKS.

    PREDICTIONS is a folder of landmark files, as a bundle writes it, or one file of many images. LANDMARKS is a
    landmark file of many images, a folder of landmark files, or a datalist. Images are matched by name.

    Errors are in mm if the pixel size is known from a datalist, --images or --spacing, and in pixels (px) otherwise.
    The confidence intervals come from the bootstrap over images (BCa). Two predictions are compared by the exact
    Wilcoxon signed-rank test on the mean error of each image.
    """
    from monai_landmarks.evaluation import evaluate_predictions

    result = evaluate_predictions(predictions, landmarks, **options)
    _show(result)
    titles = {"second_annotator": "second annotator", "compare": str(options["compare"])}
    for name, (other, paired) in result.comparisons.items():
        _show_comparison(result, other, paired, titles[name], result.missed_beside(name))
    if out is not None:
        with keep_copies(out):
            paths = result.write(out)
        click.echo(f"\n{out}: {', '.join(str(path.relative_to(out)) for path in paths)}")


def _show(result: Evaluation) -> None:
    click.echo(f"{len(result.images)} images, {len(result.names)} landmarks, errors in {result.unit}")
    for note in result.notes:
        click.echo(f"note: {note}")
    click.echo(f"\n{_with_intervals(result.summary(), result.confidence)}")
    click.echo(f"\n{text_table([_landmark_row(row, result) for row in result.per_landmark()])}")
    if result.measurements is not None:
        click.echo(f"\n{result.measurements}{_held_intervals(result)}")
    # an image without any landmark found has no mean; it comes first
    images = sorted(result.per_image(), key=lambda row: -row["mean"] if row["mean"] == row["mean"] else -math.inf)
    shown = [{"image": row["image"], "mean": row["mean"]} for row in images[:_SHOWN_IMAGES]]
    which = f"{len(shown)} images with the largest mean error" if len(images) > len(shown) else "all images"
    click.echo(f"\n{which}\n{text_table(shown)}")


def _held_intervals(result: Evaluation) -> str:
    """Return how many intervals of measurements contain the true value; empty if there are none."""
    rows = [row for row in result.measurements_per_image() if row["held"] is not None]
    if not rows:
        return ""
    share = 100 * sum(row["held"] for row in rows) / len(rows)
    return f"\n{100 * rows[0]['coverage']:g} % intervals: {share:.1f} % of {len(rows)} contain the true value"


def _landmark_row(row: dict[str, Any], result: Evaluation) -> dict[str, Any]:
    """Return a row with headings that are short enough for a terminal."""
    sign = "<" if result.strict else "<="
    headings = {
        f"sdr_{radius:g}{result.unit}_percent": f"{sign}{radius:g} {result.unit} %" for radius in result.thresholds
    }
    headings["identified_percent"] = "identified %"
    return {headings.get(key, key): value for key, value in row.items() if not key.startswith("mean_")}


def _with_intervals(rows: list[dict[str, Any]], confidence: float) -> str:
    heading = f"{100 * confidence:g} % interval"
    return text_table(
        [
            {
                "metric": row["metric"],
                "value": row["value"],
                "unit": row["unit"],
                heading: interval_text(row["low"], row["high"]),
            }
            for row in rows
        ]
    )


def _show_comparison(
    result: Evaluation, other: Evaluation, paired: PairedComparison, title: str, missed: tuple[int, int, int]
) -> None:
    rows = [row for row in other.summary() if row["low"] == row["low"]]
    click.echo(f"\n{title}, {len(other.images)} images\n\n{_with_intervals(rows, other.confidence)}")
    unit = result.unit
    click.echo(
        f"\nmean error per image, of the landmarks that both found, over {paired.images} images that both have:"
        f" {paired.first:.3f} {unit} (predictions), {paired.second:.3f} {unit} ({title})\n"
        f"missed: {missed[0]} of {missed[2]} landmarks (predictions), {missed[1]} of {missed[2]} ({title})\n"
        f"difference: {paired.difference:+.3f} {unit} ({paired.low:+.3f} .. {paired.high:+.3f})\n"
        f"smaller error: {paired.first_better} images (predictions), {paired.second_better} images ({title})\n"
        f"Wilcoxon signed-rank test: p = {paired.p_value:.3g}"
    )
