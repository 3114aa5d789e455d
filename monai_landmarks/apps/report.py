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
"""``monai-landmarks report``: the HTML report of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import evaluation_options, keep_copies, keep_sources

__all__ = ["report"]


@click.command(short_help="Write an HTML report: errors, curves, a check of the uncertainty, worst cases.")
@evaluation_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="HTML file to write.",
)
@click.option("--title", default="Landmark report", show_default=True, help="Title of the page.")
@click.option(
    "--cases", type=click.IntRange(0), default=3, show_default=True, help="Number of worst and of median images drawn."
)
def report(predictions: Path, landmarks: Path, out: Path, title: str, cases: int, **options: Any) -> None:
    """Compare PREDICTIONS to the ground truth in LANDMARKS, as 'evaluate' does, and write an HTML report.

    The report is one file that contains its figures and loads nothing else. Images are drawn if their files are known,
    from a datalist or from --images. If the predictions have covariances or regions, as bundles and 'calibrate' write
    them, the report compares them to the errors.
    """
    from monai_landmarks.evaluation import evaluate_predictions, write_report

    if out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out}: the report is an HTML file; give a name that ends in .html.")
    keep_sources([out], [predictions, landmarks, options["compare"], options["second_annotator"]])
    result = evaluate_predictions(predictions, landmarks, **options)
    with keep_copies(out.parent):
        notes = write_report(
            result, out, title, source=f"Predictions: {predictions}. Ground truth: {landmarks}", cases=cases
        )
    for note in [*result.notes, *notes]:
        click.echo(f"note: {note}")
    click.echo(f"{out}: {len(result.images)} images, {len(result.names)} landmarks")
