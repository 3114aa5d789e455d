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


"""``monai-landmarks convert``: landmark files of one format made files of another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .console import PATH, SPACING, SYSTEM

__all__ = ["FORMATS", "convert"]

# those of monai_landmarks.data.landmark_formats(), which would have to import numpy to say so
FORMATS = (
    "aasce",
    "afids",
    "coco",
    "csv",
    "elastix",
    "fcsv",
    "isbi2015",
    "labelme",
    "mml",
    "mrk.json",
    "napari",
    "nnlandmark",
    "nnlandmark.json",
    "npz",
    "payer",
    "verse",
)


class _Names(click.ParamType):
    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if Path(value).is_file():
            try:
                names = Path(value).read_text(encoding="utf-8-sig").splitlines()
            except ValueError:
                self.fail(f"{value} is no text; expected a name a line.", param, ctx)
        else:
            names = value.split(",")
        return [name.strip() for name in names if name.strip()]


@click.command(short_help="Convert landmark files from one format to another.")
@click.argument("source", type=PATH)
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--from", "source_format", type=click.Choice(FORMATS), metavar="FORMAT", help="Of the source, if it does not tell."
)
@click.option("--to", "destination_format", type=click.Choice(FORMATS), metavar="FORMAT", help="Of what is written.")
@click.option("--images", type=PATH, help="The images, or one: needed between pixels and mm, and by some formats.")
@click.option("--spacing", type=SPACING, help="Pixel size in mm of pictures (PNG, JPEG, BMP, TIFF); else 1.")
@click.option("--names", type=_Names(), help="Of points without: a,b,c or a text file with a name a line.")
@click.option("--source-coordinate-system", type=SYSTEM, help="Of a table that does not state its own.")
@click.option("--coordinate-system", type=SYSTEM, help="Of what is written, where the format leaves it open.")
def convert(source: Path, destination: Path, spacing: float | tuple[float, ...] | None, **options: Any) -> None:
    """Convert the landmarks of SOURCE, a file, a table of many images or a folder, and write DESTINATION.

    DESTINATION is a file if its name ends in the suffix of a format, and else a folder, which gets a file an image. The
    suffixes tell the formats, and what the source holds; --to is necessary for a folder and where formats share a suffix.

    \b
    aasce            .csv         corners of vertebrae, AASCE 2019; can only be read
    afids            .fcsv        the 32 AFIDs, under their numbers
    coco             .json        COCO keypoints of many images
    csv              .csv         names and points of one image or of many
    elastix          .pts .txt    points of elastix and transformix
    fcsv             .fcsv        point list of 3D Slicer, its older format
    isbi2015         .txt         annotation of the ISBI 2015 cephalograms
    labelme          .json        points drawn in LabelMe
    mml              _label.npy   mandibular molar landmarks; can only be read
    mrk.json         .mrk.json    point list of 3D Slicer
    napari           .csv         points layer of napari
    nnlandmark       .nii.gz      label map with a cube a landmark
    nnlandmark.json  .json        nnLandmark's voxel coordinates of many images
    npz              .npz         arrays of NumPy
    payer            .csv         wide table without header
    verse            .json        vertebra centroids of VerSe

    Points between pixels and mm go through their images, found in --images by name. What is wrong with a file is listed,
    and the others of a folder are converted; a single file is written only if nothing is wrong.

    The exit code is 0 if all was converted, and 1 if not.
    """
    from monai_landmarks.data import convert_landmarks

    if spacing is not None:
        spacing = (spacing, spacing) if isinstance(spacing, float) else spacing[:2]
    result = convert_landmarks(source, destination, spacing=spacing, **options)
    for path, images in result.written:
        click.echo(f"{path}: {images[0]}" if len(images) == 1 else f"{path}: {len(images)} images")
    if result.faults:
        lines = [
            f"  - {message}" if str(path) in message else f"  - {path}: {message}" for path, message in result.faults
        ]
        click.echo("\n".join([f"\nfaults ({len(lines)}):", *lines]), err=True)
        sys.exit(1)
