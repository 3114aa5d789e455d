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
"""All choices for a dataset, a method and a machine, in the order of their dependence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_landmarks import bundle_path
from monai_landmarks.schema import LandmarkSchema

from .augmentation import choose_elastic, choose_flip, choose_rotate, choose_scale, choose_translate
from .batch import choose_batch_size, choose_max_epochs, choose_val_interval
from .choice import Choice, Choices
from .close_look import choose_close_look
from .data_summary import DataSummary
from .fine_tuning import FineTuning
from .grid import choose_resampling, choose_spacing, choose_spatial_size, voxel_limit
from .groups import choose_groups, group_rows
from .intensity import choose_intensity, normalization_config
from .machine import Machine, TrainingMemory, measure_training
from .methods import METHODS, Method, choose_width
from .one_sided import choose_one_sided, require_one_sided
from .patches import NO_PATCHES, choose_overlap, choose_patches, choose_patches_per_image, volume_size
from .setting_values import require_size, require_values
from .sigma import choose_sigma
from .training_time import Budget, choose_epochs_in

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """The settings of a bundle.

    Args:
        method: name of the method, a key of ``METHODS``.
        summary: summary of the data.
        machine: machine for the training.
        choices: all choices by name.
        train: configuration of training.
        inference: configuration of inference.
        fine_tuning: what is taken over from a trained bundle. None for a training from scratch.
        schema: landmark schema of the data. None if there is none.
    """

    method: str
    summary: DataSummary
    machine: Machine
    choices: Choices
    train: dict[str, Any]
    inference: dict[str, Any]
    fine_tuning: FineTuning | None = None
    schema: LandmarkSchema | None = None

    @property
    def template(self) -> Path:
        """Folder of the bundle that is adapted."""
        return bundle_path(METHODS[self.method].bundle) if self.fine_tuning is None else self.fine_tuning.source.folder

    @property
    def has_groups(self) -> bool:
        """Whether the close look has a network of its own for the centers of groups of landmarks."""
        return bool(group_rows(self.choices, self.summary))

    @property
    def close_look(self) -> bool:
        """Whether the bundle has a ``close_look.json``."""
        return self.fine_tuning is None or self.fine_tuning.close_look


def make_plan(
    summary: DataSummary,
    method: str = "scn",
    machine: Machine | None = None,
    *,
    schema: LandmarkSchema | None = None,
    symmetric: bool = False,
    given: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
) -> Plan:
    """Choose all settings that depend on the data, and put them into the configurations of the shipped bundle.

    Args:
        summary: summary of the data.
        method: name of the method, a key of ``METHODS``.
        machine: machine for the training. Default: this machine.
        schema: landmark schema, whose ``sigma_mm`` are used where they are defined.
        symmetric: whether images are mirrored although no left-right pairs are declared.
        given: values of settings by name. They replace the values of the rules, and the other settings depend on them.
        budget: time for the training, by which size and epochs are chosen. Default: the usual number of training steps.

    Returns:
        The choices and the configurations.

    Raises:
        ValueError: for an unknown method or setting, or a malformed value.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; expected one of {', '.join(METHODS)}.")
    machine, choices = machine or Machine.here(), Choices(given)
    configs = [METHODS[method].template(name) for name in ("train", "inference")]
    _choose_common(choices, summary, METHODS[method], machine, configs[0]["network_def"], schema, symmetric, budget)
    is_possible = METHODS[method].takes_groups and summary.spatial_dims == 2
    groups = choices.choose("groups", lambda: choose_groups(summary, is_possible))
    if groups and not is_possible:
        raise ValueError(f"groups are {groups!r}; they work in 2-D, with every method but adaptive. Remove them.")
    for config in configs:
        METHODS[method].network(config["network_def"], summary.spatial_dims, choices["width"].value)
        METHODS[method].fill(config, choices, summary, schema)
    choose_close_look(choices, summary, METHODS[method].displacements[summary.spatial_dims])
    choices.require_known_settings()
    return Plan(method, summary, machine, choices, configs[0], configs[1], schema=schema)


def _choose_common(
    choices: Choices,
    summary: DataSummary,
    method: Method,
    machine: Machine,
    network: Mapping[str, Any],
    schema: LandmarkSchema | None,
    symmetric: bool,
    budget: Budget | None,
) -> None:
    choose, dims, unit = choices.choose, summary.spatial_dims, summary.unit
    require_values(choices.given, dims, len(summary.names))
    modality = choose("modality", lambda: Choice(summary.modality, "guessed from dimensions and intensities"))
    normalization_config(choose("intensity", lambda: choose_intensity(modality)))  # raises for a malformed given value
    width = choose("width", lambda: choose_width(summary, machine))
    # without pre-trained weights, which do not change the memory and whose file may not exist
    measured = {**network, "num_landmarks": len(summary.names), **({"weights": None} if "weights" in network else {})}
    method.network(measured, dims, width)
    memory = measure_training(measured, 0 if machine.on_gpu else sum(summary.counts[:2]))

    size, spacing = _choose_grid(choices, summary, method, machine, memory, budget)
    batch_size = _choose_batch(choices, summary, method, machine, memory, size)
    choose(
        "sigma_mm",
        lambda: choose_sigma(
            summary.names, size, spacing, method.smallest_sigma, schema, note=method.sigma_note, unit=unit
        ),
    )
    choose("translate", lambda: choose_translate(size, spacing, unit))
    choose("rotate", choose_rotate)
    choose("scale", choose_scale)
    choose("elastic", lambda: choose_elastic(size, spacing, unit))
    flip = choose("flip", lambda: choose_flip(summary.pairs, symmetric, schema, summary.names))
    one_sided = choose(
        "one_sided", lambda: choose_one_sided(summary.training_points, summary.names, summary.pairs, flip, unit)
    )
    require_one_sided(one_sided, summary.names, summary.pairs)
    steps = method.steps[machine.device]
    if budget is None:
        max_epochs = choose("max_epochs", lambda: choose_max_epochs(summary, batch_size, steps))
    else:
        each = method.validates_each_epoch
        max_epochs = choose(
            "max_epochs", lambda: choose_epochs_in(budget, choices, summary, steps, method.multiple[dims], each)
        )
    choose("val_interval", lambda: choose_val_interval(max_epochs, method.validates_each_epoch))


def _choose_grid(
    choices: Choices,
    summary: DataSummary,
    method: Method,
    machine: Machine,
    memory: TrainingMemory,
    budget: Budget | None,
) -> tuple[list[int], float]:
    """Choose whole images or patches. Return the size of the largest image in voxels, and the voxel size in mm."""
    choose, dims, given = choices.choose, summary.spatial_dims, choices.given
    resampling = choose("resampling", lambda: choose_resampling(summary))
    patience, multiple = method.voxels[machine.device, dims], method.multiple[dims]
    why = ""
    if budget is not None:
        images = min(method.batch_size[dims], summary.counts[0])
        patience, why = budget.voxels(method.steps[machine.device], images, patience)
    limit = voxel_limit(machine, memory, patience, why)
    whole = choose_spatial_size(summary, resampling, multiple, limit, given.get("spacing_mm"))
    if dims == 3:
        finest = choose_spatial_size(summary, resampling, multiple, limit)
        patches = NO_PATCHES
        if method.learns_from_patches and resampling == "spacing":
            coarse = choose_spacing(summary, resampling, finest.value)
            patches = choose_patches(summary, machine, memory, patience, multiple, coarse, given)
        patch = choose("patch_size", lambda: patches.size)
        if choices.in_patches:
            require_size("patch_size", patch, dims)
            if patches.spacing is None or "spatial_size" in given:
                raise ValueError(
                    f"patch_size is {patch}, but {method.title} with these settings is trained on whole images; remove patch_size."
                )
            spacing = choose("spacing_mm", lambda: patches.spacing)
            return volume_size(summary, spacing, multiple), spacing
    size = choose("spatial_size", lambda: whole)
    require_size("spatial_size", size, dims)
    return size, choose("spacing_mm", lambda: choose_spacing(summary, resampling, size))


def _choose_batch(
    choices: Choices, summary: DataSummary, method: Method, machine: Machine, memory: TrainingMemory, size: list[int]
) -> int:
    """Choose the batch size, and the number of patches per image. Return the batch size."""
    choose, largest = choices.choose, method.batch_size[summary.spatial_dims]
    if not choices.in_patches:
        return choose("batch_size", lambda: choose_batch_size(summary, machine, memory, size, largest))
    patch = choices.network_size
    choose("patches_per_image", lambda: choose_patches_per_image(memory, machine, patch, size, largest))
    choose("overlap", choose_overlap)
    return choose("batch_size", lambda: Choice(1, "the patches of one volume are enough for a batch"))
