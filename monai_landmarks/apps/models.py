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

"""``monai-landmarks models``: the bundles of this package, and their weights."""

from __future__ import annotations

import click

from .console import text_table

__all__ = ["models"]


@click.command(short_help="List the bundles of this package: anatomy, landmarks, weights, error, terms.")
def models() -> None:
    """List the bundles of this package, which 'predict' accepts by name.

    Weights are 'shipped' with the bundle, 'trained' on this machine, or 'none': such a bundle must be trained first.
    The error is the mean error of the shipped weights, as measured in their card, models/README.md of the bundle. The
    terms are those of the shipped weights.
    """
    from monai_landmarks.evaluation.bundle_facts import shipped_bundles

    bundles = shipped_bundles()
    rows = [
        {
            "name": facts.name,
            "anatomy": facts.anatomy,
            "modality": facts.modality,
            "landmarks": facts.landmarks,
            "weights": facts.weights,
            "error": facts.error,
            "terms": facts.terms,
        }
        for facts in bundles
    ]
    click.echo(text_table(rows))
    absent = [facts.name for facts in bundles if facts.elsewhere]
    if absent:
        click.echo(
            f"\nThe weights of {', '.join(absent)} have their own terms. A clone of the repository contains them; this"
            " installation does not."
        )
