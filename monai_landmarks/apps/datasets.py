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


"""``monai-landmarks datasets``: public benchmarks, and whether a copy of one is complete."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import text_table

if TYPE_CHECKING:
    from monai_landmarks.data import PublicDataset

__all__ = ["datasets"]

_WIDTH = 110


@click.group(
    invoke_without_command=True, short_help="List public benchmarks, or check whether a copy of one is complete."
)
@click.pass_context
def datasets(ctx: click.Context) -> None:
    """List public benchmarks: contents, license, citation, sources, and the official files that can be read.

    None of them is part of this package. 'check' compares a copy to the known parts and numbers of images.
    """
    if ctx.invoked_subcommand is None:
        from monai_landmarks.data import PUBLIC_DATASETS

        click.echo("\n\n".join(_described(dataset) for dataset in PUBLIC_DATASETS.values()))


@datasets.command(short_help="Check whether a copy of a benchmark is complete.")
@click.argument("name")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def check(name: str, folder: Path) -> None:
    """Compare a copy of benchmark NAME in FOLDER to the known parts and image counts, and read all its landmarks.

    The exit code is 0 if the copy is complete, and 1 otherwise.
    """
    from monai_landmarks.data import check_public_dataset

    result = check_public_dataset(name, folder)
    rows = [
        {
            "part": part.name,
            "images": part.images,
            "official": " or ".join(map(str, part.expected)),
            "with landmarks": part.annotated,
        }
        for part in result.parts
    ]
    click.echo(f"{result.dataset.title}\n\n{text_table(rows)}")
    for heading, sentences, is_error in (("notes", result.notes, False), ("faults", result.faults, True)):
        if sentences:
            click.echo("\n".join(["", f"{heading}:", *(f"  - {sentence}" for sentence in sentences)]), err=is_error)
    if result.faults:
        sys.exit(1)


def _described(dataset: PublicDataset) -> str:
    parts = ", ".join(f"{name} {' or '.join(map(str, count))}" for name, count in dataset.parts.items())
    fields = {
        "images": dataset.images,
        "landmarks": str(dataset.landmarks),
        "parts": parts,
        "license": dataset.licence,
        "cite": "\n".join(dataset.citation),
        "from": "\n".join(dataset.sources),
        "layout": dataset.layout,
        "read by": dataset.read_by,
        "note": dataset.remarks,
    }
    lines = [f"{dataset.name}: {dataset.title}"]
    for heading, text in fields.items():
        rows = [row for part in text.splitlines() for row in textwrap.wrap(part, _WIDTH - 14, break_long_words=False)]
        lines += [f"  {heading if i == 0 else '':<12}{row}" for i, row in enumerate(rows)]
    return "\n".join(lines)
