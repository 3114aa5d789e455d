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


"""``monai-landmarks predict``: landmarks of images, found by a trained bundle."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from monai_landmarks.evaluation.prediction_formats import PREDICTION_FORMATS, PredictionFormat

from .console import FOLDER, PART, PATH, PROBABILITY, SCHEMA, first_lines, spacing_option

__all__ = ["predict"]

_MOST_FILES = 200  # that are printed
_MOST_IMAGES = 50  # whose doubts or faults are printed


@click.command(short_help="Find landmarks in images with a trained bundle.")
@click.argument("bundle", type=click.Path(file_okay=False))
@click.argument("images", type=PATH)
@click.option("--out", type=FOLDER, default="predictions", show_default=True, help="Output folder.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(PREDICTION_FORMATS),
    multiple=True,
    default=("mrk.json",),
    show_default=True,
    help="Format of the files, one per image. May be repeated. csv: only the table of all images.",
)
@click.option(
    "--config",
    "configs",
    type=PATH,
    multiple=True,
    help="Configuration file to read after inference.json, for example unet.json. May be repeated. Default:"
    " close_look.json if the weights are those of a close look.",
)
@click.option(
    "--checkpoint",
    type=PATH,
    help="File of the weights. Default: models/model.pt of the bundle, else the shipped ones.",
)
@click.option("--device", help="Device, for example cpu or cuda:1. Default: the first GPU, if there is one.")
@spacing_option("Default: that of the bundle, or 1.")
@click.option("--regions", type=PATH, help="regions.json from 'calibrate', to add a region to each landmark.")
@click.option(
    "--covariance",
    type=click.Choice(["heatmap", "sigma"]),
    default="heatmap",
    show_default=True,
    help="Source of the uncertainty: each heatmap, or the sigma of each landmark that the training learned.",
)
@click.option(
    "--schema",
    type=SCHEMA,
    help="Landmark schema whose measurements are made: a JSON or YAML file, or a name such as cephalometric_19."
    " Default: that of the bundle.",
)
@click.option(
    "--coverage", type=PROBABILITY, default=0.9, show_default=True, help="Probability of the intervals of measurements."
)
@click.option(
    "--drawings",
    type=click.IntRange(0),
    default=12,
    show_default=True,
    help="Number of images that report.html and the overlays show, doubtful ones first. 0: no report, no overlays.",
)
@click.option("--fail-on-doubt", is_flag=True, help="Exit code 2 if a prediction is in doubt.")
@click.option("--batch-size", type=click.IntRange(1), help="Batch size. Default: that of the bundle.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Number of processes that load images while the network runs. Default for many images: one per core, up to 4.",
)
@click.option("--part", type=PART, help="Predict only a part of the images, for example 3/8.")
@click.option("--force", is_flag=True, help="Predict images again that are done.")
def predict(
    bundle: str, images: Path, out: Path, formats: tuple[PredictionFormat, ...], fail_on_doubt: bool, **options: Any
) -> None:
    """Find the landmarks of IMAGES with a trained BUNDLE. No ground truth is needed.

    BUNDLE is a folder, or the name of a bundle that 'monai-landmarks models' lists.

    IMAGES is a folder, a file, or the folder of a DICOM series. The table predictions.csv has all points in the
    coordinates of their image, with scores and uncertainty. An image that cannot be read, or that has voxels that are
    NaN or infinite, is reported, and the other images are predicted.

    The configuration of a MONAI bundle can run any Python code. Use only bundles from sources that you trust. Files of
    weights cannot run code, because they are loaded with weights_only.

    A prediction whose landmarks form an unusual shape, or whose heatmaps are unusual, is reported as doubtful. If the
    bundle has a landmark schema, measurements.csv has the clinical measurements of each image with their intervals.
    report.html shows doubts, drawings, measurements and uncertainty.

    A prediction that was stopped goes on with the same command: images that are done, with the same weights and options,
    are not predicted again. Parts can run at the same time and share the output folder; so do the processes of
    'torchrun --nproc_per_node 2 -m monai_landmarks predict ...'. The last one writes tables and report, or the same
    command without --part.

    Tables and report have all images that were predicted into the output folder with the same weights and options;
    others need another folder. A file in it that this command did not write, or that was changed since, is not lost:
    before it is replaced, a copy is kept with .bak after its name, and a note names it.

    The exit code is 0 if all images were predicted, and 1 otherwise. With --fail-on-doubt it is 2 if all images were
    predicted, but some predictions are in doubt.
    """
    from monai_landmarks.evaluation import predict_landmarks

    result = predict_landmarks(bundle, images, out, formats, **options)
    if result.written:
        click.echo(first_lines([str(path) for path in result.written], _MOST_FILES))
    for note in result.notes:
        click.echo(f"note: {note}", err=True)
    if result.doubts and not result.unfinished:
        lines = [f"  - {doubt.image}: {doubt}" for doubt in result.doubts]
        text = first_lines(lines, _MOST_IMAGES, "see report.html")
        click.echo(f"\npredictions in doubt ({len(lines)}):\n{text}", err=True)
    if result.unreadable:
        lines = [f"  - {image}: {reason}" for image, reason in result.unreadable]
        text = first_lines(lines, _MOST_IMAGES, "see failed.csv")
        click.echo(f"\nimages that cannot be predicted ({len(lines)}):\n{text}", err=True)
        # torchrun ends all processes when one ends with an error, so only the last one does
        if not (result.unfinished and "TORCHELASTIC_RUN_ID" in os.environ):
            sys.exit(1)
    if fail_on_doubt and result.doubts and not result.unfinished:
        sys.exit(2)
