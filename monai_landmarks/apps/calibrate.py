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
"""``monai-landmarks calibrate``: regions that hold a landmark as often as they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import FOLDER, PATH, SPACING, SYSTEM, text_table

__all__ = ["calibrate"]


@click.command(short_help="Regions in mm that hold a landmark with a stated probability.")
@click.argument("predictions", type=PATH)
@click.argument("landmarks", type=PATH)
@click.option("--out", type=FOLDER, default="calibrated", show_default=True, help="Folder for what is written.")
@click.option(
    "--for", "new", type=PATH, help="Predictions of other images, which are written again with their regions."
)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.9,
    show_default=True,
    help="The probability to state.",
)
@click.option(
    "--shape",
    type=click.Choice(["ball", "ellipse"]),
    default="ball",
    show_default=True,
    help="One radius in all images, or the ellipse of each prediction's covariance.",
)
@click.option("--pooled", is_flag=True, help="One bound for all landmarks, where there are few images.")
@click.option(
    "--min-std",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="In mm, added to what an ellipse knows, so that none is empty.",
)
@click.option("--images", type=PATH, help="Folder of the images, or a datalist of them, to know their pixel size.")
@click.option("--section", help="Of a datalist, such as validation; all sections if not given.")
@click.option(
    "--spacing", type=SPACING, help="Pixel size in mm of pictures (PNG, JPEG, BMP, TIFF); 1 to work in pixels."
)
@click.option("--coordinate-system", type=SYSTEM, help="Of landmark files that do not state their own.")
def calibrate(predictions: Path, landmarks: Path, out: Path, new: Path | None, **options: Any) -> None:
    """Learn from PREDICTIONS of images that no training has seen, and from their true LANDMARKS, how far off predictions are.

    PREDICTIONS and LANDMARKS are what 'evaluate' takes. The folder --out gets regions.json, which the handler PredictionSaver
    takes, and the files of --for with a region for each landmark: in the description of its point (.mrk.json, .fcsv), or in
    columns (.csv). In new images of the same kind a region holds its landmark with the stated probability or a bit more
    (split-conformal prediction).
    """
    from monai_landmarks.evaluation import calibrate_predictions, state_regions

    regions = calibrate_predictions(predictions, landmarks, **options)
    bound = "radius mm" if regions.shape == "ball" else "standard deviations"
    rows = [
        {"landmark": name, "images": cases, bound: value}
        for name, cases, value in zip(regions.names, regions.cases, regions.bounds)
    ]
    click.echo(f"regions that hold {100 * regions.coverage:g} % of the landmarks\n\n{text_table(rows)}\n")
    regions.save(out / "regions.json")
    click.echo(f"{out / 'regions.json'}: {len(rows)} landmarks")
    if new is not None:
        written, notes = state_regions(new, regions, out)
        for note in notes:
            click.echo(f"note: {note}")
        click.echo(f"{out}: {len(written)} files with regions")
