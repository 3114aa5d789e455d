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
"""``monai-landmarks init``: a bundle with settings for given data."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from .console import PATH, SETTING, text_table

if TYPE_CHECKING:
    from monai_landmarks.planning import DataSummary, Pace, Plan
    from monai_landmarks.schema import LandmarkSchema

__all__ = ["init"]

OFFERED = ("scn", "farnet", "adaptive", "unet")  # as in monai_landmarks.planning, which the help must not import


class _Duration(click.ParamType):
    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from monai_landmarks.planning import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Write a MONAI bundle to train on a datalist, with settings chosen for the data.")
@click.argument("datalist", type=PATH)
@click.option(
    "--method",
    type=click.Choice(OFFERED),
    help="Localization method. Default: scn, for volumes on a CPU unet, or that of --from.",
)
@click.option(
    "--from",
    "source",
    metavar="BUNDLE",
    help="Trained bundle to fine-tune, a folder or the name of a shipped bundle. Landmarks of the same name, or that "
    "are abbreviations of its schema, keep what was learned.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="New folder for the bundle. Its name is the name of the bundle.",
)
@click.option(
    "--schema", help="Landmark schema with pairs and sigma: a JSON or YAML file, or the name of a shipped schema."
)
@click.option("--pairs", type=PATH, help="CSV file whose first two columns name left and right landmarks.")
@click.option(
    "--one-sided",
    metavar="NAME",
    multiple=True,
    help="Landmark on one side only, which is missing in mirrored images. May be repeated. Default: landmarks without "
    "a partner that lie beside the plane of symmetry of the training images.",
)
@click.option("--symmetric", is_flag=True, help="Mirror images, although no left-right pairs are declared.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Device for training. Default: a GPU, if there is one."
)
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    help="Free memory of the device in GiB. Default: the memory that is free now.",
)
@click.option(
    "--budget",
    type=_Duration(),
    help="Time for the training on this machine, for example 15min, 1h or overnight (10 h). Size and epochs are chosen by "
    "it, from a measured step. Default: the usual size and number of steps.",
)
@click.option("--set", "settings", type=SETTING, multiple=True, help="Use this value for a setting. May be repeated.")
def init(
    datalist: Path,
    method: str | None,
    source: str | None,
    out: Path,
    schema: str | None,
    pairs: Path | None,
    one_sided: tuple[str, ...],
    symmetric: bool,
    device: Literal["cpu", "cuda"] | None,
    memory: float | None,
    budget: float | None,
    settings: tuple[tuple[str, Any], ...],
) -> None:
    """Choose settings for the images and landmarks of DATALIST, print the reasons, and write a bundle.

    DATALIST is a file that 'monai-landmarks check' writes. The result is an ordinary MONAI bundle: the shipped bundle
    of the method, with the settings that depend on the data chosen by rules of thumb. Its docs/README.md has the
    reasons and the commands.

    With --from, the bundle and its weights are those of a trained bundle, and the training fine-tunes them. Its voxel
    size, network and preprocessing are kept.

    Every setting in the printed table can be set: --set batch_size=2 --set spatial_size=[128,160] --set modality=MR
    --set intensity=[-200,500].
    """
    from monai_landmarks.data import read_pairs
    from monai_landmarks.evaluation.bundle_facts import resolve_bundle
    from monai_landmarks.planning import (
        METHODS,
        Budget,
        Machine,
        choice_rows,
        default_method,
        make_fine_tuning_plan,
        make_plan,
        measure_close_look,
        measure_plan,
        read_source_bundle,
        summarize_datalist,
        summary_rows,
        with_pairs,
        write_bundle,
    )

    if source is not None and (method is not None or schema is not None):
        other = "--method" if method is not None else "--schema"
        raise click.UsageError(f"{other} cannot be given with --from, because the bundle determines it.")
    trained = None if source is None else read_source_bundle(resolve_bundle(source))
    summary = summarize_datalist(datalist)
    known, summary = _with_schema(schema, summary)
    if pairs is not None:
        summary = with_pairs(summary, read_pairs(pairs, summary.names))
    given = dict(settings)
    if one_sided:
        given["one_sided"] = list(one_sided)
    machine = Machine.here(device, None if memory is None else memory * 2**30)

    def planned(time: Budget | None) -> Plan:
        if trained is None:
            chosen = method or default_method(summary, machine)
            return make_plan(summary, chosen, machine, schema=known, symmetric=symmetric, given=given, budget=time)
        return make_fine_tuning_plan(summary, trained, machine, symmetric=symmetric, given=given, budget=time)

    plan = planned(None)
    pace = measure_plan(plan)
    if budget is not None:
        if pace is None:
            raise click.UsageError("--budget needs a measured step, but this machine does not have the device.")
        plan = planned(Budget(budget, pace))
    folder = write_bundle(out, plan, datalist)
    learned = [] if plan.fine_tuning is None else plan.fine_tuning.rows()
    title = METHODS[plan.method].title
    for heading, text in [*summary_rows(plan.summary), ("method", f"{title} ({plan.method})"), *learned]:
        click.echo(f"{heading:<12} {text}")
    click.echo(f"\n{text_table(choice_rows(plan))}")
    click.echo(f"\n{_estimate(plan, pace, measure_close_look(plan))}")
    click.echo(f"\n{folder}: bundle; docs/README.md has these reasons. To train:\n")
    train, look = (str(out / "configs" / f"{name}.json") for name in ("train", "close_look"))
    command = f"python -m monai.bundle run training --bundle_root {shlex.quote(str(out))} --config_file"
    click.echo(f"{command} {shlex.quote(train)}")
    if plan.close_look:
        both = "this network, and after it a second one, which corrects its points in a close look"
        if plan.has_groups:
            both = "two other networks, for the centers of the structures and for a close look at each of them"
        click.echo(f"\nTo train {both}:\n")
        click.echo(f"{command} {_quoted_list([train, look])}")


def _quoted_list(paths: list[str]) -> str:
    """Return a list of paths as one argument of a shell, in double quotes where no character has a meaning in them."""
    if all(re.fullmatch(r"[\w@%+=:,./ -]+", path) for path in paths):
        return '"[' + ",".join(f"'{path}'" for path in paths) + ']"'
    return shlex.quote(str(paths))


def _with_schema(schema: str | None, summary: DataSummary) -> tuple[LandmarkSchema | None, DataSummary]:
    if schema is None:
        return None, summary
    from monai_landmarks.planning import apply_schema
    from monai_landmarks.schema import load_landmark_schema

    known = load_landmark_schema(schema)
    return known, apply_schema(summary, known)


def _estimate(plan: Plan, pace: Pace | None, look: tuple[Pace, ...]) -> str:
    """Return sentences about the time of the training, and of that of the close look."""
    from monai_landmarks.planning import duration_text, estimated_seconds

    if pace is None:
        return f"The training time is not known, because {plan.machine.device} is not on this machine."
    text = (
        f"The training takes about {duration_text(estimated_seconds(plan, pace))} on this machine, estimated from measured"
        " steps without reading of images and augmentation."
    )
    if look:
        time = duration_text(estimated_seconds(plan, pace, look))
        if plan.has_groups:
            return f"{text} The two trainings of the close look take about {time}; they do not need this one."
        text += f" The second training, that of the close look, takes about {time} more."
    elif plan.close_look:
        text += " This does not include the second training, that of the close look."
    return text
