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


"""``monai-landmarks predict``: where are the landmarks of these images?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from monai_landmarks.evaluation.prediction_formats import PREDICTION_FORMATS

from .console import FOLDER, PATH, SPACING

__all__ = ["predict"]


@click.command(short_help="Find landmarks in images with a trained bundle.")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("images", type=PATH)
@click.option("--out", type=FOLDER, default="predictions", show_default=True, help="Folder for what is written.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(PREDICTION_FORMATS),
    multiple=True,
    default=("mrk.json",),
    show_default=True,
    help="Of the files, one an image; may be given several times. csv: no more than the table of all images.",
)
@click.option(
    "--config",
    "configs",
    type=PATH,
    multiple=True,
    help="More configuration after inference.json, such as a unet.json.",
)
@click.option("--checkpoint", type=PATH, help="The weights, if not models/model.pt of the bundle.")
@click.option("--device", help="Such as cpu or cuda:1; by default the first GPU if there is one.")
@click.option("--spacing", type=SPACING, help="Pixel size in mm of pictures (PNG, JPEG, BMP, TIFF); else 1.")
@click.option("--regions", type=PATH, help="regions.json of 'calibrate': where a landmark is, with which probability.")
@click.option(
    "--covariance",
    type=click.Choice(["heatmap", "sigma"]),
    default="heatmap",
    show_default=True,
    help="Whence the uncertainty: each heatmap, or what the training has learned of each landmark.",
)
@click.option("--batch-size", type=click.IntRange(1), help="Images at a time, if not what the bundle says.")
def predict(bundle: Path, images: Path, out: Path, formats: tuple[str, ...], **options: Any) -> None:
    """Find the landmarks of IMAGES with a trained BUNDLE; no true landmarks are needed.

    IMAGES is a folder, a file, or the folder of a DICOM series. The table predictions.csv has all points in the space of
    their image, with scores and uncertainty. An image that cannot be read is named, and the others are done.

    A bundle is configuration that runs Python, by MONAI's design: run one of a stranger as you would run a program of a
    stranger. Weights are loaded as numbers alone and cannot run anything.

    The exit code is 0 if all images were predicted, and 1 if not.
    """
    from monai_landmarks.evaluation import predict_landmarks

    result = predict_landmarks(bundle, images, out, formats, **options)
    for path in result.written:
        click.echo(path)
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    if result.unreadable:
        lines = [f"  - {image}: {reason}" for image, reason in result.unreadable]
        click.echo("\n".join([f"\nleft out, for they cannot be read ({len(lines)}):", *lines]), err=True)
        sys.exit(1)
