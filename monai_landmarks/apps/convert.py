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


"""``monai-landmarks convert``: conversion of landmark files to another format."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from .console import PATH, SYSTEM, spacing_option

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
    "labelstudio",
    "mml",
    "mrk.json",
    "napari",
    "nnlandmark",
    "nnlandmark.json",
    "npz",
    "payer",
    "tps",
    "verse",
)


class _Names(click.ParamType):
    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if os.path.isfile(value):  # Path.is_file would raise an error for a long list of names
            from monai_landmarks.data.files.safe_files import read_lines

            try:
                names = read_lines(value)
            except ValueError:
                self.fail(f"{value} is not a text file; expected one name per line.", param, ctx)
        else:
            names = value.split(",")
        return [name.strip() for name in names if name.strip()]


@click.command(short_help="Convert landmark files from one format to another.")
@click.argument("source", type=PATH)
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "source_format",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help="Format of SOURCE. Default: by suffix.",
)
@click.option("--to", "destination_format", type=click.Choice(FORMATS), metavar="FORMAT", help="Format of DESTINATION.")
@click.option("--images", type=PATH, help="Image, or folder of images. Some conversions need them.")
@spacing_option("Default: 1.")
@click.option(
    "--names", type=_Names(), help="Names of points without names: a,b,c or a text file with one name per line."
)
@click.option(
    "--source-coordinate-system", type=SYSTEM, help="Coordinate system of a table that does not state its own."
)
@click.option(
    "--coordinate-system", type=SYSTEM, help="Coordinate system of DESTINATION, if the format allows several."
)
def convert(source: Path, destination: Path, **options: Any) -> None:
    """Convert the landmarks in SOURCE to another format, and write DESTINATION.

    SOURCE is a landmark file, a table of many images, or a folder. DESTINATION is a file if its name has the suffix of
    a format. Otherwise it is a folder, which gets one file per image. Formats are recognized by suffix and content.
    --to is necessary for a folder, and for a suffix that several formats share.

    \b
    aasce            .csv         corners of vertebrae, AASCE 2019; read only
    afids            .fcsv        the 32 AFIDs, by number
    coco             .json        COCO keypoints of many images
    csv              .csv         names and points of one image or of many
    elastix          .pts .txt    points of elastix and transformix
    fcsv             .fcsv        point list of 3D Slicer, older format
    isbi2015         .txt         annotation of the ISBI 2015 cephalograms
    labelme          .json        points drawn in LabelMe
    labelstudio      .json        keypoints of Label Studio; read only
    mml              _label.npy   mandibular molar landmarks; read only
    mrk.json         .mrk.json    point list of 3D Slicer
    napari           .csv         points layer of napari
    nnlandmark       .nii.gz      label map with one cube per landmark
    nnlandmark.json  .json        nnLandmark's voxel coordinates of many images
    npz              .npz         arrays of NumPy
    payer            .csv         wide table without header
    tps              .tps         points of tpsDig; read only, needs the images
    verse            .json        vertebra centroids of VerSe

    A conversion between pixels and mm needs the images. They are found in --images by name. Faults of a file are
    listed, and the other files of a folder are converted. A single DESTINATION file is written only if there are no
    faults. If a file with other contents is replaced, a copy is kept with .bak after its name.

    The exit code is 0 if all files were converted, and 1 otherwise.
    """
    from monai_landmarks.data import convert_landmarks

    result = convert_landmarks(source, destination, **options)
    for path, images in result.written:
        click.echo(f"{path}: {images[0]}" if len(images) == 1 else f"{path}: {len(images)} images")
    if result.copies:
        click.echo(f"note: copies of replaced files are kept: {', '.join(map(str, result.copies))}.", err=True)
    if result.faults:
        lines = [
            f"  - {message}" if str(path) in message else f"  - {path}: {message}" for path, message in result.faults
        ]
        click.echo("\n".join([f"\nfaults ({len(lines)}):", *lines]), err=True)
        sys.exit(1)
