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
"""``monai-landmarks agreement``: agreement of two or more annotators."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from .console import (
    FOLDER,
    PATH,
    PROBABILITY,
    interval_text,
    keep_copies,
    keep_sources,
    schema_option,
    spacing_option,
    system_option,
    text_table,
)

if TYPE_CHECKING:
    from monai_landmarks.evaluation import AnnotatorAgreement

__all__ = ["agreement"]

_SHOWN = 10


@click.command(short_help="Compare two or more annotators: distances, ICC, bias, consensus, and a model beside them.")
@click.argument("annotators", type=PATH, nargs=-1, required=True)
@click.option("--model", type=PATH, help="Predictions of a model, which are compared on the same scale.")
@click.option("--images", type=PATH, help="Folder or datalist of the images, for the pixel size and the pictures.")
@spacing_option("1: work in pixels.")
@system_option
@schema_option
@click.option(
    "--radius",
    "thresholds",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    default=(2, 2.5, 3, 4),
    show_default=True,
    help="Radius within which landmarks are counted. May be repeated.",
)
@click.option(
    "--consensus",
    type=click.Choice(["mean", "geometric-median"]),
    default="mean",
    show_default=True,
    help="Kind of the consensus. An outlier hardly moves the geometric median of three or more annotators.",
)
@click.option(
    "--at-least",
    type=click.IntRange(1),
    help="Number of annotators that must have marked a landmark of the consensus. Default: more than half of those who have the"
    " image, and at least two.",
)
@click.option("--out", type=FOLDER, default="agreement", show_default=True, help="Output folder.")
@click.option("--cases", type=click.IntRange(0), default=3, show_default=True, help="Number of images drawn.")
@click.option(
    "--confidence", type=PROBABILITY, default=0.95, show_default=True, help="Confidence level of the intervals."
)
@click.option(
    "--resamples", type=click.IntRange(1), default=2000, show_default=True, help="Number of bootstrap samples."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
def agreement(
    annotators: tuple[Path, ...],
    out: Path,
    cases: int,
    consensus: Literal["mean", "geometric-median"],
    at_least: int | None,
    **options: Any,
) -> None:
    """Compare the landmarks of two or more ANNOTATORS of the same images.

    Each annotator is a landmark file of many images, a folder of landmark files, or a datalist. Images are matched by
    name. Distances are in mm if the pixel size is known from a datalist, --images or --spacing, and in pixels (px)
    otherwise.

    The output folder gets report.html, the tables as CSV files, Bland-Altman plots of all landmarks, and consensus.csv,
    a landmark file with the mean or the geometric median of the annotators.

    The intraclass correlations are ICC(A,1), ICC(C,1) and ICC(A,k) of the two-way random model, which are ICC(2,1),
    ICC(3,1) and ICC(2,k) of Shrout and Fleiss.

    A model is compared with each annotator by the distance of both to the mean of the other annotators.
    """
    from monai_landmarks.evaluation import compare_annotators, write_agreement_report, write_bland_altman

    if len(annotators) < 2:
        raise click.UsageError("give two or more annotators.")
    read = [*annotators, options["model"]]
    keep_sources([*out.glob("*.csv"), out / "report.html"], [path for path in read if path and path.is_file()])
    result = compare_annotators(annotators, **options)
    source = f"Annotators: {', '.join(map(str, annotators))}"
    if options["model"] is not None:
        source += f". Model: {options['model']}"
    with keep_copies(out):
        written = result.write(out, consensus, at_least)
        written += write_bland_altman(result, out)
        notes = write_agreement_report(result, out / "report.html", source=source, cases=cases)
    _show(result, notes)
    names = ["report.html", *(str(path.relative_to(out)) for path in written)]
    click.echo(f"\n{out}: {', '.join(names)}")


def _lowest_first(correlations: list[Any]) -> list[Any]:
    """Return correlations in increasing order, those that are not known last."""
    return sorted(correlations, key=lambda item: math.inf if math.isnan(item[-1].single) else item[-1].single)


def _show(result: AnnotatorAgreement, notes: list[str]) -> None:
    data, unit = result.data, result.data.unit
    click.echo(
        f"{len(data.annotators)} annotators, {len(data.images)} images, {len(data.names)} landmarks, distances in {unit}"
    )
    for note in [*result.notes, *notes]:
        click.echo(f"note: {note}")
    rows = [
        {
            "first": row["first"],
            "second": row["second"],
            "n": row["n"],
            "mean": row["mean"],
            f"{100 * result.confidence:g} % interval": interval_text(row["mean_low"], row["mean_high"]),
            "median": row["median"],
            **{f"<={radius:g} {unit} %": row[f"sdr_{radius:g}{unit}_percent"] for radius in result.thresholds},
        }
        for row in result.distance_rows()
    ]
    click.echo(f"\n{text_table(rows)}")
    for heading, table in (("landmarks", result.landmark_rows()), ("images", result.image_rows())):
        shown = [{key: row[key] for key in (heading[:-1], "mean", "max")} for row in table[:_SHOWN]]
        which = f"{len(shown)} {heading} with the largest disagreement" if len(table) > len(shown) else f"all {heading}"
        click.echo(f"\n{which}\n{text_table(shown)}")
    rows = [
        {
            "intraclass correlation": f"{quantity} {coordinate}".rstrip(),
            "ICC(A,1)": one.single,
            f"{100 * result.confidence:g} % interval": interval_text(one.low, one.high, 3),
            "standard error": one.standard_error,
            "unit": unit,
        }
        for quantity, coordinate, unit, one in _lowest_first(result.correlations)[:_SHOWN]
    ]
    click.echo(f"\nlowest intraclass correlations\n{text_table(rows, 3)}")
    for name, one in result.model_comparisons():
        click.echo(
            f"{'' if name != data.annotators[0] else chr(10)}to the mean of the other annotators: {name} {one.first:.3f}"
            f" {unit}, model {one.second:.3f} {unit}, difference {one.difference:+.3f} {unit} ({one.low:+.3f} .."
            f" {one.high:+.3f}), Wilcoxon p = {one.p_value:.3g}"
        )
