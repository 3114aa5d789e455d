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
"""The settings of all runs of a study, chosen once and stored, so that every process and every machine uses the same."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from monai_landmarks.data import atomic_write, read_pairs, save_datalist
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import naming_file, read_text
from monai_landmarks.planning import (
    METHODS,
    DataSummary,
    Machine,
    Plan,
    apply_schema,
    make_plan,
    summarize_datalist,
    with_pairs,
    write_bundle,
)
from monai_landmarks.schema import load_landmark_schema

from .definition import CLOSE_LOOK, Same, Study
from .locks import held
from .runs import Run, divide_images, fingerprint, study_runs

__all__ = ["DONE", "STARTED", "StudyPlan", "load_timing", "plan_study", "save_plan"]

_GRID = ("resampling", "patch_size", "patches_per_image", "overlap", "spatial_size", "spacing_mm")
_SIZE = ("spatial_size", "spacing_mm")
_OF_SIZE = (*_SIZE, "translate", "elastic")  # in voxels of the grid
_AUGMENTATION = ("translate", "rotate", "scale", "elastic", "flip", "one_sided")
_PER_RUN = ("max_epochs", "val_interval")
_NOT_PLANNED = ("datalist", "seeds", "radii", "confidence", "resamples")

DONE, STARTED = "done.json", "run.json"  # the first is written when a run is done, the second before it starts


@dataclass(eq=False)
class StudyPlan:
    """The runs of a study with their settings.

    Args:
        study: the study.
        folder: folder of the study.
        datalists: content of the datalist files.
        choices: values of all settings of ``init`` that do not depend on the run, by configuration.
        seconds_per_step: measured time of a training step, by configuration. Only for a budget in seconds.
    """

    study: Study
    folder: Path
    datalists: Mapping[Path, Mapping[str, Any]]
    choices: dict[str, dict[str, Any]]
    seconds_per_step: dict[str, float]

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return study_runs(self.study, self.folder)

    def run_folder(self, run: Run) -> Path:
        """Return the folder of a run, which is a bundle."""
        return self.folder / "runs" / run.name

    def given(self, run: Run) -> dict[str, Any]:
        """Return the values of all settings of a run, as :func:`monai_landmarks.planning.make_plan` takes them."""
        values = dict(self.choices[run.configuration.name])
        if "sigma_mm" not in run.configuration.settings:
            del values["sigma_mm"]  # follows from the grid; a given value would replace that of a schema
        count = len(self.datalists[run.datalist]["training"])
        values["batch_size"] = min(values["batch_size"], count)
        epochs = self._epochs(run, math.ceil(count / values["batch_size"]))
        return values if epochs is None else {**values, "max_epochs": epochs}

    def settings(self, run: Run) -> dict[str, Any]:
        """Return everything that determines the outcome of a run, as plain values."""
        return {
            "configuration": asdict(run.configuration),
            "settings": self.given(run),
            "seed": run.seed,
            "device": self.study.device,
            "datalist": self.datalists[run.datalist],
        }

    def fingerprint(self, run: Run) -> str:
        """Return a hash of :meth:`settings`."""
        return fingerprint(self.settings(run))

    def state(self, run: Run) -> Literal["done", "open", "changed"]:
        """Return whether a run is done with its present settings, is open, or was made with other settings."""
        folder = self.run_folder(run)
        for name in (DONE, STARTED):
            if stored := _read(folder / name):
                if stored.get("fingerprint") != self.fingerprint(run):
                    return "changed"
                return "done" if name == DONE else "open"
        return "open"

    def finished(self) -> list[Run]:
        """Return the runs that are done with their present settings."""
        return [run for run in self.runs if self.state(run) == "done"]

    def timed(self) -> dict[str, str]:
        """Return a hash of what the time of a training step depends on, by configuration."""
        shared = [self.study.device, next(iter(self.datalists.values()))]
        return {
            one.name: fingerprint([asdict(one), self.choices[one.name], *shared]) for one in self.study.configurations
        }

    def write_bundle(self, run: Run) -> Path:
        """Write the bundle of a run into its folder, with ``configs/study.json`` for the entries that differ."""
        folder = self.run_folder(run)
        divided = self.datalists[run.datalist]
        counts = (len(divided["training"]), len(divided["validation"]), len(divided["testing"]))
        summary = replace(self._summary, counts=counts)
        plan = make_plan(
            summary,
            run.configuration.method,
            self._machine,
            schema=self._schema,
            symmetric=self.study.symmetric,
            given=self.given(run),
        )
        write_bundle(folder, plan, run.datalist)
        overrides: dict[str, Any] = {"seed": run.seed, **run.configuration.overrides}
        if self.study.device == "cpu":
            overrides["device"] = "$torch.device('cpu')"
        with atomic_write(folder / "configs" / "study.json") as temporary:
            temporary.write_text(json.dumps(overrides, indent=4) + "\n", encoding="utf-8")
        return folder

    def max_epochs(self, run: Run) -> int:
        """Return the number of epochs of the bundle of a run."""
        with naming_file(path := self.run_folder(run) / "configs" / "train.json"):
            return int(load_json(read_text(path))["max_epochs"])

    def shared_settings(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Return the settings that all configurations share, and those that differ, by configuration."""
        names = list(dict.fromkeys(name for values in self.choices.values() for name in values))
        absent = object()
        same = {}
        for name in names:
            values = [one.get(name, absent) for one in self.choices.values()]
            if all(value == values[0] for value in values):
                same[name] = values[0]
        own = {
            label: {name: value for name, value in values.items() if name not in same}
            for label, values in self.choices.items()
        }
        return same, own

    def made_same(self) -> tuple[Same, ...]:
        """Return those of ``same`` in which no configuration has a setting of its own."""
        _, own = self.shared_settings()
        differ = {name for values in own.values() for name in values}
        names: dict[Same, tuple[str, ...]] = {
            "grid": _GRID,
            "batch_size": ("batch_size",),
            "augmentation": _AUGMENTATION,
        }
        return tuple(one for one in self.study.same if not differ.intersection(names[one]))

    def _epochs(self, run: Run, steps_per_epoch: int) -> int | None:
        budget = self.study.budget
        if budget.kind == "epochs":
            return int(budget.amount)
        if budget.kind == "steps":
            return math.ceil(budget.amount / steps_per_epoch)
        if budget.kind == "seconds":
            seconds = self.seconds_per_step.get(run.configuration.name)
            return 1 if seconds is None else max(1, int(budget.amount / (seconds * steps_per_epoch)))
        return None

    @cached_property
    def _summary(self) -> DataSummary:
        return _summarize(self.study, next(iter(self.datalists)))

    @cached_property
    def _machine(self) -> Machine:
        return _machine(self.study)

    @cached_property
    def _schema(self) -> Any:
        return None if self.study.schema is None else load_landmark_schema(self.study.schema)


def plan_study(study: Study, folder: str | os.PathLike, force: bool = False) -> StudyPlan:
    """Divide the images and choose the settings, or read those that another process has chosen for the same study.

    The settings are chosen once, from the images of the first run, so that they are the same in all folds and on all
    machines. The datalists and the settings are written into the folder of the study.

    Args:
        study: the study.
        folder: folder of the study.
        force: whether the folder may have runs that were made with other settings.

    Returns:
        The plan.

    Raises:
        ValueError: if the images cannot be divided as requested, a setting does not exist or is malformed, or runs were
            made with other settings. Nothing is written then.
    """
    folder = Path(folder).absolute()
    datalists = divide_images(study, folder)
    first = next(iter(datalists.values()))
    # further seeds and other tables do not change the settings
    content = {key: value for key, value in asdict(study).items() if key not in _NOT_PLANNED}
    known = fingerprint({**content, "datalist": first})
    with held(folder / ".plan.lock", patient=True):
        stored = _read(folder / "plan.json")
        if same := stored.get("study") == known:
            plan = StudyPlan(study, folder, datalists, stored["settings"], stored["seconds_per_step"])
        else:
            plan = StudyPlan(study, folder, datalists, _choose(study, first), {})
            # a time that is still true stays, because the number of epochs of the runs that are done follows from it
            timed, seconds = stored.get("timed", {}), stored.get("seconds_per_step", {})
            plan.seconds_per_step |= {
                label: seconds[label]
                for label, now in plan.timed().items()
                if label in seconds and timed.get(label) == now
            }
        changed = [run for run in plan.runs if plan.state(run) == "changed"]
        if changed and not force:
            raise ValueError(
                f"{len(changed)} runs were made with other settings, the first in {plan.run_folder(changed[0])}; give the"
                " study another output folder, or remove them and make them again with --force."
            )
        for file, datalist in datalists.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            save_datalist(file, datalist)
        if not same:
            save_plan(plan, known)
    return plan


def load_timing(plan: StudyPlan) -> None:
    """Read the times of a training step that another process has measured."""
    plan.seconds_per_step.update(_read(plan.folder / "plan.json").get("seconds_per_step", {}))


def save_plan(plan: StudyPlan, study: str | None = None) -> None:
    """Write the settings into the folder of the study.

    Args:
        plan: the plan.
        study: hash of the study. None: that of the file.
    """
    file = plan.folder / "plan.json"
    known = study if study is not None else _read(file)["study"]
    content = {
        "study": known,
        "settings": plan.choices,
        "seconds_per_step": plan.seconds_per_step,
        "timed": plan.timed(),
    }
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    with naming_file(file):
        return load_json(read_text(file))


def _choose(study: Study, datalist: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the values of all settings by configuration, with those that are the same for all."""
    with tempfile.TemporaryDirectory() as folder:
        save_datalist(Path(folder) / "datalist.json", datalist)
        summary, machine = _summarize(study, Path(folder) / "datalist.json"), _machine(study)
    schema = None if study.schema is None else load_landmark_schema(study.schema)

    def plans(given: Mapping[str, Any]) -> dict[str, Plan]:
        result = {}
        for one in study.configurations:
            # a grid of its own has its own voxels
            own = (*one.settings, *(_OF_SIZE if set(_SIZE) & set(one.settings) else ()))
            try:
                result[one.name] = make_plan(
                    summary,
                    one.method,
                    machine,
                    schema=schema,
                    symmetric=study.symmetric,
                    given={**{key: value for key, value in given.items() if key not in own}, **one.settings},
                )
            except ValueError as error:
                raise ValueError(f"{one.name}: {error}") from error
        return result

    first, shared = plans({}), {}
    if "grid" in study.same and len({plan.choices.in_patches for plan in first.values()}) > 1:
        shared["patch_size"] = None  # not all methods can be trained on patches
        first = plans(shared)
    if "grid" in study.same or "augmentation" in study.same:
        # sides that are multiples for every method, and the fewest voxels among these
        reference = min(
            first.values(),
            key=lambda plan: (
                -METHODS[plan.method].multiple[summary.spatial_dims],
                math.prod(plan.choices.network_size),
            ),
        )
        names = (*(_GRID if "grid" in study.same else ()), *(_AUGMENTATION if "augmentation" in study.same else ()))
        shared |= {name: reference.choices[name].value for name in names if name in reference.choices}
    if "batch_size" in study.same:
        shared["batch_size"] = min(plan.choices["batch_size"].value for plan in first.values())
    left_out = {*_PER_RUN, *CLOSE_LOOK}
    return {
        label: {name: choice.value for name, choice in plan.choices.items() if name not in left_out}
        for label, plan in plans(shared).items()
    }


def _summarize(study: Study, datalist: Path) -> DataSummary:
    summary = summarize_datalist(datalist)
    if study.schema is not None:
        summary = apply_schema(summary, load_landmark_schema(study.schema))
    return summary if study.pairs is None else with_pairs(summary, read_pairs(study.pairs, summary.names))


def _machine(study: Study) -> Machine:
    return Machine.here(study.device, None if study.memory is None else study.memory * 2**30)
