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

"""``monai-landmarks check``: check images and landmarks, and write a datalist."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .console import FOLDER, PATH, keep_copies, spacing_option, system_option, text_table

if TYPE_CHECKING:
    from monai_landmarks.data import DataCheck

__all__ = ["check"]


@click.command(short_help="Check images and landmarks, and write a datalist for training.")
@click.argument("images", type=PATH)
@click.argument("landmarks", type=PATH)
@click.option("--out", type=FOLDER, default="checked", show_default=True, help="Output folder.")
@spacing_option("1: work in pixels.")
@system_option
@click.option("--pairs", type=PATH, help="CSV file whose first two columns name left and right landmarks.")
@click.option("--partial", is_flag=True, help="Leave out landmarks without an image, instead of reporting a fault.")
@click.option(
    "--val-frac", type=click.FloatRange(0, 1), default=0.2, show_default=True, help="Fraction of images for validation."
)
@click.option(
    "--test-frac", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Fraction of images for testing."
)
@click.option("--folds", type=click.IntRange(2), help="Number of folds of a cross-validation, one datalist per fold.")
@click.option(
    "--split-table",
    type=PATH,
    help="CSV file with the columns 'image' and 'split' (train, val or test), instead of a random split. "
    "With --folds, only the images for testing are taken from it.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random split.")
@click.option("--group-pattern", help="Regular expression. Images with the same match in their path stay together.")
@click.option("--group-column", help="Images with the same value in this column stay together.")
@click.option(
    "--group-table", type=PATH, help="CSV file with the group column and a column 'image'. Default: LANDMARKS."
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Number of processes that load images. Default for many images: one per core.",
)
@click.option(
    "--sheet", type=click.IntRange(0), default=24, show_default=True, help="Number of images on the contact sheet."
)
@click.pass_context
def check(context: click.Context, images: Path, landmarks: Path, out: Path, **options: Any) -> None:
    """Read all IMAGES and LANDMARKS, report their properties and all faults, and write a datalist for training.

    IMAGES is a folder of PNG, JPEG, TIFF, DICOM, NIfTI, NRRD or MHA files. LANDMARKS is a table of many images, a
    folder of landmark files with the names of their images, or a CSV file with the columns 'image' and 'landmarks' that
    assigns a file to each image.

    Warnings name images whose landmarks form another shape than in the other images, for example because two
    landmarks were exchanged or the image is upside down. Look at these images. They are no faults.

    The output folder gets contact_sheet.png, on which a landmark has the same color on every image. If there are no
    faults, it also gets datalist.json with training, validation and testing sections (with --folds: datalist_fold0.json
    and so on).

    The exit code is 0 if there are no faults, and 1 otherwise.
    """
    from monai_landmarks.data import check_data
    from monai_landmarks.data.datalists.split import require_group_pattern
    from monai_landmarks.evaluation import write_contact_sheet

    if images.is_dir() and images.resolve() in [out.resolve(), *out.resolve().parents]:
        raise click.UsageError(
            f"--out {out} is in the image folder {images}, and the contact sheet would be read as an image; give another"
            " folder."
        )
    if out.suffix == ".json":
        raise click.UsageError(f"--out {out} names a folder, in which datalist.json is written; give another name.")
    if options["group_table"] and not options["group_column"]:
        raise click.UsageError("--group-table needs --group-column.")
    if options["group_column"] and not options["group_table"] and landmarks.is_dir():
        raise click.UsageError("--group-column needs --group-table if LANDMARKS is a folder.")
    if options["split_table"] and any(
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("val_frac", "test_frac")
    ):
        raise click.UsageError(
            "--split-table states the images for validation and testing; leave out --val-frac and --test-frac."
        )
    if options["group_pattern"]:
        require_group_pattern(options["group_pattern"])  # before all images are read
    result = check_data(
        images,
        landmarks,
        spacing=options["spacing"],
        coordinate_system=options["coordinate_system"],
        partial=options["partial"],
        workers=options["workers"],
    )
    _show(result)
    with keep_copies(out):
        drawn = write_contact_sheet(result, out / "contact_sheet.png", options["sheet"])
    if drawn:
        click.echo(f"\n{out / 'contact_sheet.png'}: {len(drawn)} of {len(result.images)} images")
    if result.faults:
        click.echo(f"\nNo datalist is written, because there are faults ({len(result.faults)}).", err=True)
        if earlier := _datalists_in(out):
            click.echo(f"{', '.join(map(str, earlier))}: from an earlier check, not of these landmarks.", err=True)
        sys.exit(1)
    with keep_copies(out):
        _write_datalists(result, images, landmarks, out, options)


def _show(result: DataCheck) -> None:
    for heading, text in result.summary():
        click.echo(f"{heading:<12} {text}")
    count = len(result.images)
    short = [
        {"landmark": name, "present": number, "missing": count - number}
        for name, number in result.counts().items()
        if number < count
    ]
    if short:
        click.echo(f"\n{text_table(short)}")
    sections = {"notes": result.notes, "warnings (look at these images)": result.warnings, "faults": result.faults}
    for heading, sentences in sections.items():
        if sentences:
            click.echo("\n".join(["", f"{heading}:", *(f"  - {sentence}" for sentence in sentences)]))


def _write_datalists(result: DataCheck, images: Path, landmarks: Path, out: Path, options: dict[str, Any]) -> None:
    from monai_landmarks.data import group_images, make_datalists, read_groups, read_pairs, read_sections, save_datalist

    names = [case.name for case in result.pairing.cases]
    if options["group_column"]:
        groups = read_groups(options["group_table"] or landmarks, options["group_column"], names, images)
    else:
        groups = group_images(names, options["group_pattern"])
    sections = read_sections(options["split_table"], names, images) if options["split_table"] else None
    datalists = make_datalists(
        result.pairing.cases,
        out,
        val_frac=options["val_frac"],
        test_frac=options["test_frac"],
        folds=options["folds"] or 0,
        seed=options["seed"],
        groups=groups,
        pairs=read_pairs(options["pairs"], result.names) if options["pairs"] else None,
        spacing=options["spacing"],
        # the datalist states what the files do not
        inline=options["coordinate_system"] is not None or result.pairing.is_assumed,
        sections=sections,
    )
    written = []
    for fold, datalist in enumerate(datalists):
        path = out / (f"datalist_fold{fold}.json" if options["folds"] else "datalist.json")
        save_datalist(path, datalist)
        written.append(path)
        sizes = ", ".join(f"{len(datalist[section])} {section}" for section in ("training", "validation", "testing"))
        click.echo(f"{path}: {sizes}")
    if earlier := [path for path in _datalists_in(out) if path not in written]:
        click.echo(
            f"note: {', '.join(map(str, earlier))}: from an earlier check, not part of this division; delete what you do not"
            " need, so that the images are not mixed.",
            err=True,
        )


def _datalists_in(out: Path) -> list[Path]:
    """Return the datalists in a folder that have names which this command gives."""
    return sorted(path for path in out.glob("datalist*.json") if re.fullmatch(r"datalist(_fold\d+)?\.json", path.name))
