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
"""The runs of a study: one training for each configuration, part of the images, and seed."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_landmarks.data import (
    fold_images,
    group_images,
    load_landmark_datalist,
    load_landmark_definition,
    split_images,
)
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import naming_file, read_text

from .definition import Configuration, Study

__all__ = ["Run", "divide_images", "fingerprint", "image_groups", "select_part", "study_runs"]

_SECTIONS = ("training", "validation", "testing")


@dataclass(frozen=True)
class Run:
    """One training of a study.

    Args:
        name: name of the run and of its folder.
        configuration: method and settings.
        part: ``"fold0"``, ``"n50"`` (50 training images) or ``"all"``.
        seed: seed of the run.
        datalist: file of the datalist, in the folder of the study.
    """

    name: str
    configuration: Configuration
    part: str
    seed: int
    datalist: Path

    @property
    def size(self) -> int | None:
        """Number of training images, if the study compares several."""
        return int(self.part[1:]) if self.part.startswith("n") else None


def study_runs(study: Study, folder: str | os.PathLike) -> list[Run]:
    """Return the runs of a study, always in the same order. Parts and seeds come first, so that configurations take
    turns.

    Args:
        study: the study.
        folder: folder of the study.
    """
    if study.folds:
        parts = [f"fold{fold}" for fold in range(study.folds)]
    else:
        parts = [f"n{size}" for size in study.training_sizes] or ["all"]
    runs = []
    for seed in study.seeds:
        for part in parts:
            file = Path(folder).absolute() / "datalists" / f"{_drawn(study, part, seed)}.json"
            for one in study.configurations:
                runs.append(Run(f"{one.name}-{part}-seed{seed}", one, part, seed, file))
    return runs


def select_part(runs: list[Run], part: int, parts: int) -> list[Run]:
    """Return the runs of one of several equal parts, for example of one job of an array of jobs.

    Args:
        runs: all runs.
        part: number of the part, from 1.
        parts: number of parts.

    Raises:
        ValueError: if there is no such part.
    """
    if not 1 <= part <= parts:
        raise ValueError(f"part is {part}/{parts}; expected for example 1/{max(parts, 1)}.")
    return runs[part - 1 :: parts]


def divide_images(study: Study, folder: str | os.PathLike) -> dict[Path, dict[str, Any]]:
    """Return one datalist per division of the images, with absolute paths. The same study gives the same datalists.

    With folds, the images of a fold are the testing section, and a part of the others is the validation section, on
    which the best model is chosen. Therefore no image has an influence on the model that predicts it.

    Args:
        study: the study.
        folder: folder of the study.

    Returns:
        Content of each file, which is not divisions.

    Raises:
        ValueError: if the images cannot be divided as requested.
    """
    source = study.datalist
    sections = _read_sections(source)
    for name in study.sections:
        if name not in sections:
            raise ValueError(f"sections: {name!r} is not one of {', '.join(_SECTIONS)}.")
    items = {item["image"]: _plain_item(item) for name in _SECTIONS for item in sections[name]}
    pool = [item["image"] for name in _SECTIONS if name in study.sections for item in sections[name]]
    groups = image_groups(study)
    divisions = {}
    for run in study_runs(study, folder):
        if run.datalist in divisions:
            continue
        with naming_file(source):
            divided = _divide(study, run, pool, {name: [i["image"] for i in s] for name, s in sections.items()}, groups)
        datalist: dict[str, Any] = {"landmarks": load_landmark_definition(source)}
        datalist |= {name: [items[image] for image in divided[name]] for name in _SECTIONS}
        divisions[run.datalist] = datalist
    return divisions


def image_groups(study: Study) -> dict[str, str]:
    """Return the group of each image of the datalist, by its path; by default each is its own group.

    The pattern is searched in the path below the folder of all images, as ``check`` does. So it does not depend on
    where the data are.
    """
    images = [item["image"] for section in _read_sections(study.datalist).values() for item in section]
    if study.group_pattern is None or not images:
        return {image: image for image in images}
    folder = os.path.commonpath([os.path.dirname(image) for image in images])
    names = {image: Path(os.path.relpath(image, folder)).as_posix() for image in images}
    with naming_file(study.datalist):
        found = group_images(list(names.values()), study.group_pattern)
    return {image: found[name] for image, name in names.items()}


def _read_sections(source: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the items of each section of a datalist."""
    with naming_file(source):
        content = load_json(read_text(source))
    return {
        name: load_landmark_datalist(source, name) if isinstance(content.get(name), list) else [] for name in _SECTIONS
    }


def fingerprint(value: Any) -> str:
    """Return a hash of plain values, which is the same for equal values."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drawn(study: Study, part: str, seed: int) -> str:
    """Return the name of the division of a run. Seeds draw other training images only for training sizes."""
    return f"{part}-draw{seed}" if study.training_sizes else part


def _divide(
    study: Study, run: Run, pool: list[str], sections: Mapping[str, list[str]], groups: Mapping[str, str]
) -> dict[str, list[str]]:
    """Return the images of each section."""
    if not pool:
        raise ValueError(f"no image in the sections {', '.join(study.sections)}.")
    seed = study.split_seed
    if study.folds:
        testing = fold_images(pool, study.folds, seed, groups)[int(run.part.removeprefix("fold"))]
        held = set(testing)
        validation, training = split_images([i for i in pool if i not in held], [study.val_frac], seed, groups=groups)
        return {"training": training, "validation": validation, "testing": testing}
    testing = sections["testing"] if "testing" not in study.sections else []
    validation = sections["validation"]
    rest = [image for image in pool if image not in set(validation) | set(testing)]
    _require_separate({"training": rest, "validation": validation, "testing": testing}, groups)
    if run.size is not None and not testing:
        # a few images of one split would decide; therefore each draw has other ones
        seed = random.Random(f"{seed} {run.seed} testing").randrange(2**32)
    if not testing:
        testing, rest = split_images(rest, [study.test_frac], seed, groups=groups)
    if not validation:
        validation, rest = split_images(rest, [study.val_frac], seed, groups=groups)
    if run.size is not None:
        if run.size > len(rest):
            raise ValueError(f"training_sizes: {run.size} is more than the {len(rest)} training images.")
        # each draw is a shuffled order, so that its small parts are in its large ones
        order = sorted(rest)
        random.Random(f"{seed} {run.seed}").shuffle(order)
        chosen = set(order[: run.size])
        rest = [image for image in rest if image in chosen]
    return {"training": rest, "validation": validation, "testing": testing}


def _require_separate(sections: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> None:
    """Raise an error if images of one group are in two sections, whose errors would then look too small."""
    seen: dict[str, tuple[str, str]] = {}
    for name, images in sections.items():
        for image in images:
            section, other = seen.setdefault(groups[image], (name, image))
            if section != name:
                raise ValueError(
                    f"{other} ({section}) and {image} ({name}) are of the same group {groups[image]!r} of 'group_pattern';"
                    " divide the images again with 'check --group-pattern', or use folds."
                )


def _plain_item(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in ("label_names", "label_coordinate_system")}
