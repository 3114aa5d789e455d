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
"""``monai-landmarks calibrate``: conformal regions with a stated coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import FOLDER, PATH, PROBABILITY, keep_copies, spacing_option, system_option, text_table

__all__ = ["calibrate"]


@click.command(short_help="Calibrate regions in mm that contain a landmark with a stated probability.")
@click.argument("predictions", type=PATH)
@click.argument("landmarks", type=PATH)
@click.option("--out", type=FOLDER, default="calibrated", show_default=True, help="Output folder.")
@click.option(
    "--for", "new", type=PATH, help="Predictions of new images. They are copied, with a region for each landmark."
)
@click.option(
    "--coverage",
    type=PROBABILITY,
    default=0.9,
    show_default=True,
    help="Probability that a region contains its landmark.",
)
@click.option(
    "--shape",
    type=click.Choice(["ball", "ellipse"]),
    default="ball",
    show_default=True,
    help="Shape of the regions. ball: the same radius in all images. ellipse: scaled covariance of each prediction.",
)
@click.option("--pooled", is_flag=True, help="Use one bound for all landmarks, for data with few images.")
@click.option(
    "--min-std",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Standard deviation in mm added to each covariance, so that no ellipse is empty.",
)
@click.option("--images", type=PATH, help="Folder or datalist of the images, from which the pixel size is read.")
@click.option("--section", help="Section of a datalist, for example validation. Default: all sections.")
@spacing_option("1: work in pixels.")
@system_option
def calibrate(predictions: Path, landmarks: Path, out: Path, new: Path | None, **options: Any) -> None:
    """Calibrate regions on PREDICTIONS of images that were not used in training, and the ground truth in LANDMARKS.

    PREDICTIONS and LANDMARKS are the same as for 'evaluate'. The output folder gets regions.json, which 'predict
    --regions' and the handler PredictionSaver read. It also gets the files of --for with a region for each landmark, in
    the description of its point (.mrk.json, .fcsv) or in columns (.csv).

    In new images of the same kind, a region contains its landmark with at least the stated probability (split-conformal
    prediction).
    """
    from monai_landmarks.evaluation import calibrate_regions, write_predictions_with_regions

    regions = calibrate_regions(predictions, landmarks, **options)
    bound = "radius mm" if regions.shape == "ball" else "standard deviations"
    rows = [
        {"landmark": name, "images": cases, bound: value}
        for name, cases, value in zip(regions.names, regions.cases, regions.bounds)
    ]
    click.echo(f"regions with a coverage of {100 * regions.coverage:g} %\n\n{text_table(rows)}\n")
    with keep_copies(out):
        regions.save(out / "regions.json")
        click.echo(f"{out / 'regions.json'}: {len(rows)} landmarks")
        if new is not None:
            written, notes = write_predictions_with_regions(new, regions, out)
            for note in notes:
                click.echo(f"note: {note}")
            click.echo(f"{out}: {len(written)} files with regions")
