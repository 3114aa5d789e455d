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

"""``monai-landmarks evaluate``: how good are these predictions?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import FOLDER, PATH, SPACING, SYSTEM, text_table

if TYPE_CHECKING:
    from monai_landmarks.evaluation import Evaluation
    from monai_landmarks.metrics import PairedComparison

__all__ = ["evaluate", "evaluation_options"]

_SHOWN_IMAGES = 10


class _Schema(click.ParamType):
    name = "SCHEMA"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from monai_landmarks.schema import load_landmark_schema

        return load_landmark_schema(value)


_OPTIONS = (
    click.argument("predictions", type=PATH),
    click.argument("landmarks", type=PATH),
    click.option("--images", type=PATH, help="Folder of the images, or a datalist of them, to compare pixels to mm."),
    click.option("--section", help="Of a datalist, such as validation; all sections if not given."),
    click.option("--spacing", type=SPACING, help="Pixel size in mm of pictures (PNG, JPEG, BMP, TIFF)."),
    click.option("--coordinate-system", type=SYSTEM, help="Of landmark files that do not state their own."),
    click.option("--second-annotator", type=PATH, help="Landmarks by another annotator: the inter-observer error."),
    click.option("--compare", type=PATH, help="Other predictions of the same images."),
    click.option(
        "--schema",
        type=_Schema(),
        help="Landmark schema whose measurements are compared: a JSON or YAML file, or the name of a shipped one.",
    ),
    click.option(
        "--all-images", is_flag=True, help="Images without predictions count as missed; otherwise not at all."
    ),
    click.option(
        "--radius",
        "thresholds",
        type=float,
        multiple=True,
        default=(2, 2.5, 3, 4),
        show_default=True,
        help="Of the SDR; may be given several times.",
    ),
    click.option(
        "--limit",
        type=float,
        default=20.0,
        show_default=True,
        help="A landmark is identified within this distance in mm, and only if no other true landmark is closer.",
    ),
    click.option("--strict", is_flag=True, help="A landmark exactly at a radius is lost."),
    click.option(
        "--confidence",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.95,
        show_default=True,
        help="Of the intervals.",
    ),
    click.option(
        "--resamples", type=click.IntRange(1), default=2000, show_default=True, help="Of the bootstrap over images."
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap."),
)


def evaluation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments and options of `evaluate_predictions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(short_help="Errors of predictions in mm, with confidence intervals and comparisons.")
@evaluation_options
@click.option("--out", type=FOLDER, help="Folder for the tables (CSV) and all numbers (evaluation.json).")
def evaluate(predictions: Path, landmarks: Path, out: Path | None, **options: Any) -> None:
    """Compare PREDICTIONS to the true LANDMARKS.

    PREDICTIONS is a folder of landmark files, as a bundle writes it, or one file of many images. LANDMARKS is a landmark
    file of many images, a folder of landmark files, or a datalist. Images are matched by their names.

    Errors are in mm where the size of a pixel is known: from a datalist, --images or --spacing; otherwise in pixels (px).
    Intervals come from the bootstrap over images (BCa). A comparison is paired: Wilcoxon's signed-rank test, exact, on the
    mean error of each image.
    """
    from monai_landmarks.evaluation import evaluate_predictions

    result = evaluate_predictions(predictions, landmarks, **options)
    _show(result)
    titles = {"second_annotator": "second annotator", "compare": str(options["compare"])}
    for name, (other, paired) in result.comparisons.items():
        _show_comparison(result, other, paired, titles[name])
    if out is not None:
        paths = result.write(out)
        click.echo(f"\n{out}: {', '.join(str(path.relative_to(out)) for path in paths)}")


def _show(result: Evaluation) -> None:
    click.echo(f"{len(result.images)} images, {len(result.names)} landmarks, errors in {result.unit}")
    for note in result.notes:
        click.echo(f"note: {note}")
    click.echo(f"\n{_with_intervals(result.summary(), result.confidence)}")
    click.echo(f"\n{text_table([_landmark_row(row, result) for row in result.per_landmark()])}")
    if result.measurements is not None:
        click.echo(f"\n{result.measurements}")
    # an image of which nothing was found has no mean, and comes first
    images = sorted(result.per_image(), key=lambda row: -row["mean"] if row["mean"] == row["mean"] else -math.inf)
    shown = [{"image": row["image"], "mean": row["mean"]} for row in images[:_SHOWN_IMAGES]]
    which = f"the {len(shown)} images with the largest mean error" if len(images) > len(shown) else "all images"
    click.echo(f"\n{which}\n{text_table(shown)}")


def _landmark_row(row: dict[str, Any], result: Evaluation) -> dict[str, Any]:
    """With headings that are short enough for a terminal."""
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
                heading: f"{row['low']:.2f} .. {row['high']:.2f}" if row["low"] == row["low"] else "",
            }
            for row in rows
        ]
    )


def _show_comparison(result: Evaluation, other: Evaluation, paired: PairedComparison, title: str) -> None:
    rows = [row for row in other.summary() if row["low"] == row["low"]]
    click.echo(f"\n{title}, {len(other.images)} images\n\n{_with_intervals(rows, other.confidence)}")
    unit = result.unit
    click.echo(
        f"\nmean error of an image, of {paired.images} that both have: {paired.first:.3f} {unit} (predictions),"
        f" {paired.second:.3f} {unit} ({title})\n"
        f"difference {paired.difference:+.3f} {unit} ({paired.low:+.3f} .. {paired.high:+.3f}); smaller in"
        f" {paired.first_better} images (predictions), in {paired.second_better} ({title})\n"
        f"Wilcoxon's signed-rank test: p = {paired.p_value:.3g}"
    )
