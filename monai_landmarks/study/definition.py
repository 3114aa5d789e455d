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
"""The definition of a study in a YAML or JSON file: what is compared, on which images, and with which budget."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.files.yaml_values import load_yaml_or_json

__all__ = ["CLOSE_LOOK", "Budget", "Configuration", "Same", "Study", "load_study"]

Same = Literal["grid", "batch_size", "augmentation"]

_SAME: tuple[Same, ...] = ("grid", "batch_size", "augmentation")
# settings of the file close_look.json, which a study does not train
CLOSE_LOOK = {"displacement", "far_displacement", "groups"} | {
    f"close_{name}" for name in ("spacing", "size", "sigma", "patches_per_image", "mirrored", "turns")
}
# entries of configurations that follow from the study, with what sets them
_GOVERNED = {
    "seed": "'seeds'",
    "device": "'device'",
    "datalist": "'datalist'",
    **dict.fromkeys(("max_epochs", "val_interval"), "'budget'"),
    **dict.fromkeys(("batch_size", "spatial_size", "patch_size", "voxel_spacing"), "'settings' or 'common'"),
    **dict.fromkeys(("bundle_root", "output_dir", "ckpt_dir"), "the folder of the study"),
}
_METHODS = ("scn", "farnet", "adaptive", "unet")  # as in monai_landmarks.planning, which imports torch


@dataclass(frozen=True)
class Budget:
    """Length of each training.

    Args:
        kind: ``"steps"``, ``"seconds"`` or ``"epochs"``; ``"own"``: the number of steps of each method.
        amount: the number. 0 for ``"own"``.
    """

    kind: Literal["steps", "seconds", "epochs", "own"]
    amount: float = 0

    def __str__(self) -> str:
        return "each method's own number of steps" if self.kind == "own" else f"{self.amount:g} {self.kind}"


@dataclass(frozen=True)
class Configuration:
    """A method with its settings.

    Args:
        name: name in tables and folders.
        method: name of a method of ``init``.
        settings: values of settings of ``init``.
        overrides: entries of the configurations of the bundle.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A comparison of configurations.

    Args:
        datalist: datalist of the images.
        configurations: what is compared: each method with each variant of the settings.
        folds: number of folds of a cross-validation. 0: none.
        training_sizes: numbers of training images. Empty: all, or with folds.
        seeds: seeds. Each one changes the initial weights and the augmentation, and with ``training_sizes`` also the
            training images that are drawn, and the test images, unless the datalist has a testing section.
        budget: length of each training.
        same: what all configurations share. They take it from the method whose grid has the fewest voxels.
        val_frac: fraction of the images for training that is used for the choice of the best model.
        test_frac: fraction of the images for testing, without folds, if the datalist has no testing section.
        sections: sections of the datalist whose images are divided. Default: training and validation, and testing only
            if it is the test set of ``training_sizes``.
        split_seed: seed of the division into parts.
        group_pattern: regular expression. Images with the same match in their path below the folder of all images stay
            together.
        schema: landmark schema.
        pairs: CSV file of left-right pairs.
        symmetric: whether images are mirrored although no pairs are declared.
        device: device of the planning and of the trainings. None: a GPU, if there is one.
        memory: free memory of the device in GiB. None: the memory that is free.
        radii: radii of the success detection rate.
        confidence: confidence level of the intervals.
        resamples: number of bootstrap samples.
    """

    datalist: Path
    configurations: tuple[Configuration, ...]
    folds: int = 0
    training_sizes: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0,)
    budget: Budget = Budget("own")
    same: tuple[Same, ...] = _SAME
    val_frac: float = 0.2
    test_frac: float = 0.2
    sections: tuple[str, ...] = ("training", "validation")
    split_seed: int = 0
    group_pattern: str | None = None
    schema: str | None = None
    pairs: Path | None = None
    symmetric: bool = False
    device: Literal["cpu", "cuda"] | None = None
    memory: float | None = None
    radii: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)
    confidence: float = 0.95
    resamples: int = 2000


def load_study(path: str | os.PathLike, datalist: str | os.PathLike | None = None) -> Study:
    """Read the definition of a study.

    Paths in the file are relative to its folder. ``methods`` is a list of methods of ``init``, or a mapping from a name
    to a method with ``method``, ``settings`` and ``overrides``. ``settings`` names variants of settings: each method is
    trained with each of them. ``common`` has settings of all runs. ``seeds`` is a list, or their number. Example::

        datalist: checked/datalist.json
        methods: [scn, farnet]
        folds: 5
        seeds: 3
        budget: {steps: 1400}

    Args:
        path: ``.yaml``, ``.yml`` or ``.json`` file.
        datalist: datalist that replaces the one of the file, relative to the current folder.

    Returns:
        The study.

    Raises:
        ValueError: if the file is malformed. The message states the file, the key, what is wrong and what is expected.
        ImportError: for a YAML file, if PyYAML is not installed.
    """
    path = Path(path)
    with naming_file(path):
        try:
            content = load_yaml_or_json(path)
            if datalist is not None and isinstance(content, Mapping):
                content = {**content, "datalist": os.path.abspath(datalist)}
            return _parse(content, path.absolute().parent)
        except RecursionError:
            raise ValueError("nested too deep; expected a study.") from None


def _parse(content: Any, folder: Path) -> Study:
    keys = _mapping(content, "the file")
    known = {*Study.__dataclass_fields__, "methods", "settings", "common"} - {"configurations"}
    if unknown := [key for key in keys if key not in known]:
        raise ValueError(f"unknown key {unknown[0]!r}; expected one of {', '.join(sorted(known))}.")
    for key in ("datalist", "methods"):
        if key not in keys:
            raise ValueError(f"{key!r} is missing; a study needs 'datalist' and 'methods'.")
    values: dict[str, Any] = {
        "datalist": folder / _text(keys["datalist"], "datalist"),
        "configurations": _configurations(keys),
    }
    readers: dict[str, Any] = {
        "folds": lambda value, key: _whole(value, key, 2),
        "training_sizes": lambda value, key: tuple(_whole(one, key, 1) for one in _list(value, key)),
        "seeds": _seeds,
        "budget": _budget,
        "same": _same,
        "val_frac": _fraction,
        "test_frac": _fraction,
        "sections": lambda value, key: tuple(_text(one, key) for one in _list(value, key)),
        "split_seed": lambda value, key: _whole(value, key, 0),
        "group_pattern": _text,
        "schema": _text,
        "pairs": lambda value, key: folder / _text(value, key),
        "symmetric": _truth,
        "device": lambda value, key: _one_of(value, key, ("cpu", "cuda")),
        "memory": _positive,
        "radii": lambda value, key: tuple(_positive(one, key) for one in _list(value, key)),
        "confidence": _fraction,
        "resamples": lambda value, key: _whole(value, key, 1),
    }
    values |= {key: reader(keys[key], key) for key, reader in readers.items() if keys.get(key) is not None}
    study = Study(**values)
    if study.folds and study.training_sizes:
        raise ValueError("both 'folds' and 'training_sizes' are given; expected one of them.")
    for key in ("seeds", "training_sizes"):
        if len(set(getattr(study, key))) < len(getattr(study, key)):
            raise ValueError(f"{key!r} has a value twice.")
    schema = study.schema
    if schema is not None and (folder / schema).is_file():
        values["schema"] = str(folder / schema)
    return Study(**values)


def _configurations(keys: Mapping[str, Any]) -> tuple[Configuration, ...]:
    """Return each method with each variant of the settings."""
    given = keys["methods"]
    methods: Mapping[str, Any]
    if isinstance(given, Mapping):
        methods = _mapping(given, "methods")
    else:
        methods = {_text(one, "methods"): None for one in _list(given, "methods")}
    common = _mapping(keys.get("common") or {}, "common")
    variants = _mapping(keys.get("settings") or {}, "settings") or {"": {}}
    result = []
    for name, content in methods.items():
        where = f"methods: {name}"
        parts = _mapping(content or {}, where)
        if unknown := [key for key in parts if key not in ("method", "settings", "overrides")]:
            raise ValueError(f"{where}: unknown key {unknown[0]!r}; expected method, settings or overrides.")
        method = _one_of(parts.get("method", name), where, _METHODS)
        own, overrides = (_mapping(parts.get(key) or {}, f"{where}: {key}") for key in ("settings", "overrides"))
        for variant, more in variants.items():
            label = f"{_text(name, 'methods')}_{variant}" if variant else _text(name, "methods")
            if not all(letter.isalnum() or letter in "_." for letter in label) or label.startswith("."):
                raise ValueError(f"the name {label!r} becomes a folder; expected letters, digits, '_' and '.'.")
            settings = {**common, **own, **_mapping(more or {}, f"settings: {variant}")}
            if taken := {"max_epochs", "val_interval"} & set(settings):
                raise ValueError(f"{label}: the setting {min(taken)!r} follows from the budget; remove it.")
            if unused := CLOSE_LOOK & set(settings):
                raise ValueError(
                    f"{label}: the setting {min(unused)!r} is of close_look.json, which a study does not train; remove it."
                )
            if governed := [key for key in overrides if key in _GOVERNED]:
                key = governed[0]
                raise ValueError(f"{label}: overrides must not change {key!r}, which {_GOVERNED[key]} sets; remove it.")
            result.append(Configuration(label, method, settings, overrides))
    if not result:
        raise ValueError("'methods' is empty; expected at least one method.")
    labels = [one.name.lower() for one in result]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two configurations have the same name; there are {', '.join(one.name for one in result)}.")
    return tuple(result)


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key}: expected a mapping from names to values, got {_shown(value)}.")
    return value


def _list(value: Any, key: str) -> Sequence[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key}: expected a list with at least one entry, got {_shown(value)}.")
    return value


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected text, got {_shown(value)}.")
    return value


def _whole(value: Any, key: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{key}: expected a whole number of at least {least}, got {_shown(value)}.")
    return value


def _positive(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{key}: expected a positive number, got {_shown(value)}.")
    return float(value)


def _fraction(value: Any, key: str) -> float:
    if _positive(value, key) >= 1:
        raise ValueError(f"{key}: expected a number between 0 and 1, got {_shown(value)}.")
    return float(value)


def _truth(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key}: expected true or false, got {_shown(value)}.")
    return value


def _one_of(value: Any, key: str, options: Sequence[str]) -> str:
    if value not in options:
        raise ValueError(f"{key}: expected one of {', '.join(options)}, got {_shown(value)}.")
    return str(value)


def _seeds(value: Any, key: str) -> tuple[int, ...]:
    if isinstance(value, list):
        return tuple(_whole(one, key, 0) for one in _list(value, key))
    return tuple(range(_whole(value, key, 1)))


def _budget(value: Any, key: str) -> Budget:
    if value == "own":
        return Budget("own")
    entries = list(_mapping(value, key).items())
    if len(entries) != 1 or entries[0][0] not in ("steps", "seconds", "epochs"):
        raise ValueError(f"{key}: expected {{steps: N}}, {{seconds: N}}, {{epochs: N}} or own, got {_shown(value)}.")
    [(kind, amount)] = entries
    number = _positive(amount, key) if kind == "seconds" else _whole(amount, key, 1)
    return Budget(cast(Literal["steps", "seconds", "epochs"], kind), number)


def _same(value: Any, key: str) -> tuple[Same, ...]:
    if value == []:
        return ()
    return tuple(cast(Same, _one_of(one, key, _SAME)) for one in _list(value, key))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
