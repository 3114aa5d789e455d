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


"""``monai-landmarks datasets``: which public benchmarks are there, and is my copy of one complete?"""

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


@click.group(invoke_without_command=True, short_help="Public benchmarks, and whether a copy of one is complete.")
@click.pass_context
def datasets(ctx: click.Context) -> None:
    """List public benchmarks: what they hold, licence, citation, where to get them, and which official files are read.

    None of them is part of this package. With 'check' a copy is held against the known counts and parts.
    """
    if ctx.invoked_subcommand is None:
        from monai_landmarks.data import PUBLIC_DATASETS

        click.echo("\n\n".join(_described(dataset) for dataset in PUBLIC_DATASETS.values()))


@datasets.command(short_help="Hold a copy of a benchmark against its known counts and parts.")
@click.argument("name")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def check(name: str, folder: Path) -> None:
    """Hold the copy of benchmark NAME in FOLDER against its known counts and parts, and read all of its landmarks.

    The exit code is 0 if the copy is complete, and 1 if not.
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
        "licence": dataset.licence,
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
