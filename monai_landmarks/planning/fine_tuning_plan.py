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
"""All choices for a bundle that is fine-tuned from another one, whose network, grid and preprocessing it keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from .augmentation import choose_flip
from .batch import choose_batch_size, choose_max_epochs, choose_val_interval
from .choice import Choice, Choices
from .data_summary import DataSummary
from .fine_tuning import FineTuning, fine_tuning_from
from .grid import choose_spacing, choose_spatial_size, covered_extent
from .machine import Machine, TrainingMemory, measure_training
from .methods import METHODS
from .one_sided import choose_one_sided, require_one_sided
from .patches import choose_patches_per_image, volume_size
from .plan import Plan
from .setting_values import require_size, require_values
from .source_bundle import SourceBundle
from .training_time import Budget, choose_epochs_in

__all__ = [
    "choose_held_epochs",
    "choose_learning_rate",
    "choose_length_factor",
    "choose_fine_tuning_steps",
    "make_fine_tuning_plan",
    "nearest_size",
]

# rules of thumb: less than for a training from scratch, so that what was learned is refined and not overwritten
_STEPS = 0.5
_LEARNING_RATE = 0.5
_HELD = 0.1  # part of the epochs
_NEAR = 1.1  # voxel sizes that differ by less are called the same


def make_fine_tuning_plan(
    summary: DataSummary,
    source: SourceBundle,
    machine: Machine | None = None,
    *,
    symmetric: bool = False,
    given: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
) -> Plan:
    """Choose all settings for a bundle that is fine-tuned from another one.

    Network, loss, preprocessing, augmentation and inference are those of the other bundle. The voxel size stays near
    that of its training, because the network has learned structures of that size in voxels.

    Args:
        summary: summary of the data.
        source: the other bundle.
        machine: machine for the training. Default: this machine.
        symmetric: whether images are mirrored although no left-right pairs are declared.
        given: values of settings by name. They replace the values of the rules, and the other settings depend on them.
        budget: time for the training, by which the epochs are chosen. The voxel size stays that of the weights.

    Returns:
        The choices and the configurations.

    Raises:
        ValueError: if no landmark is common, if the dimensions differ, or for an unknown setting or a malformed value.
    """
    machine, choices = machine or Machine.here(), Choices(given)
    fine_tuning, summary = fine_tuning_from(source, summary)
    method, train = METHODS[source.method], source.configs["train"]
    require_values(choices.given, summary.spatial_dims, len(summary.names))
    choose = choices.choose
    choose("modality", lambda: _modality(source, summary))
    network = {**train["network_def"], "num_landmarks": len(summary.names)}
    network.update({"weights": None} if "weights" in network else {})
    memory = measure_training(network, 0 if machine.on_gpu else sum(summary.counts[:2]))
    if "patch_size" in train:
        _choose_patches(choices, summary, source, machine, memory)
    else:
        _choose_whole(choices, summary, source)
        largest = train["batch_size"]
        choose(
            "batch_size", lambda: choose_batch_size(summary, machine, memory, choices["spatial_size"].value, largest)
        )
    factor, before = 1.0, source.grid_spacing
    if before is not None and (summary.in_pixels or source.spacing is None):
        factor = choose("length_factor", lambda: choose_length_factor(choices["spacing_mm"].value, before, summary))
    sigma = _sigma(fine_tuning, factor)
    if sigma is not None:
        choose("sigma", lambda: sigma)
    flip = choose("flip", lambda: choose_flip(summary.pairs, symmetric, source.schema, summary.names))
    one_sided = choose(
        "one_sided", lambda: choose_one_sided(summary.training_points, summary.names, summary.pairs, flip, summary.unit)
    )
    require_one_sided(one_sided, summary.names, summary.pairs)
    steps = round(_STEPS * method.steps[machine.device])
    if budget is None:
        max_epochs = choose("max_epochs", lambda: choose_fine_tuning_steps(summary, choices["batch_size"].value, steps))
    else:
        each, multiple = method.validates_each_epoch, method.multiple[summary.spatial_dims]
        max_epochs = choose("max_epochs", lambda: choose_epochs_in(budget, choices, summary, steps, multiple, each))
    choose("val_interval", lambda: choose_val_interval(max_epochs, method.validates_each_epoch))
    choose("learning_rate", lambda: choose_learning_rate(train["learning_rate"]))
    choose("held_epochs", lambda: choose_held_epochs(max_epochs))
    choices.require_known_settings()
    train, inference = (deepcopy(source.configs[name]) for name in ("train", "inference"))
    return Plan(source.method, summary, machine, choices, train, inference, fine_tuning, source.schema)


def nearest_size(extent: np.ndarray, spacing: float, multiple: int) -> list[int]:
    """Return the size of a grid in multiples of ``multiple`` on which an image has a voxel size near ``spacing``.

    Args:
        extent: size of the image in mm, which is scaled to fit into the grid.
        spacing: voxel size in mm.
        multiple: factor by which the network downsamples each axis.
    """
    sizes = []
    for step in spacing * np.geomspace(0.8, 1.25, 41):
        size = [multiple * max(1, math.ceil(length / (step * multiple) - 1e-6)) for length in extent]
        size[int(np.argmax(extent))] = max(*size, 2 * multiple)
        sizes.append(size)

    def badness(size: Sequence[int]) -> tuple[float, int]:
        return abs(math.log(float((extent / np.array(size)).max()) / spacing)), math.prod(size)

    return min(sizes, key=badness)


def choose_fine_tuning_steps(summary: DataSummary, batch_size: int, steps: int) -> Choice:
    """Choose the number of epochs from a number of training steps."""
    epochs = choose_max_epochs(summary, batch_size, steps).value
    return Choice(
        epochs, f"about {steps} training steps, {_STEPS:g} times those of a training from scratch; a rule of thumb"
    )


def choose_learning_rate(before: float) -> Choice:
    """Choose the learning rate."""
    return Choice(
        _LEARNING_RATE * before,
        f"{_LEARNING_RATE:g} times the {before:g} of the bundle, so that what was learned is refined; a rule of thumb",
    )


def choose_length_factor(spacing: float, before: float, summary: DataSummary) -> Choice:
    """Choose the factor of the bundle's lengths where mm and pixels cannot be compared.

    Args:
        spacing: voxel size of the grid, in the unit of the data.
        before: that of the bundle, in the unit of its lengths.
        summary: summary of the data.
    """
    unknown = "images" if summary.in_pixels else "bundle"
    return Choice(
        float(f"{spacing / before:.4g}"),
        f"the pixel size of the {unknown} is not known, so the lengths of the bundle are multiplied by this, to have"
        f" as many voxels of the grid, of {spacing:g} {summary.unit} here and {before:g} there",
    )


def choose_held_epochs(max_epochs: int) -> Choice:
    """Choose the number of epochs in which the first layers keep their weights."""
    return Choice(
        max(1, round(_HELD * max_epochs)),
        "the first layers keep their weights in these epochs, until new landmarks have begun to learn; 0 for none; a"
        " rule of thumb",
    )


def _modality(source: SourceBundle, summary: DataSummary) -> Choice:
    modality = source.configs["metadata"]["network_data_format"]["inputs"]["image"]["modality"]
    note = "" if modality == summary.modality else f"; your images look like {summary.modality}"
    return Choice(modality, f"that of the bundle, whose normalization of intensities is kept{note}")


def _choose_patches(
    choices: Choices, summary: DataSummary, source: SourceBundle, machine: Machine, memory: TrainingMemory
) -> None:
    choose, dims, train = choices.choose, summary.spatial_dims, source.configs["train"]
    patch = choose("patch_size", lambda: Choice(train["patch_size"], "that of the weights"))
    require_size("patch_size", patch, dims)
    spacing = choose("spacing_mm", lambda: Choice(source.spacing, "that of the weights, to which images are resampled"))
    volume = volume_size(summary, spacing, METHODS[source.method].multiple[dims])
    count = train["patches_per_image"]
    choose("patches_per_image", lambda: choose_patches_per_image(memory, machine, patch, volume, count))
    choose("overlap", lambda: Choice(train["overlap"], "that of the bundle"))
    choose("batch_size", lambda: Choice(train["batch_size"], "that of the bundle"))


def _choose_whole(choices: Choices, summary: DataSummary, source: SourceBundle) -> None:
    """Choose the grid for whole images: the voxel size of the weights, or else their grid."""
    choose, dims, given = choices.choose, summary.spatial_dims, choices.given
    multiple, spacing, unit = METHODS[source.method].multiple[dims], source.spacing, summary.unit
    resampled = source.configs["train"].get("voxel_spacing") is not None
    reason = "volumes are resampled to one voxel size" if resampled else "each image is scaled to fill the grid"
    choose("resampling", lambda: Choice("spacing" if resampled else "fit", f"as in the bundle: {reason}"))
    wanted = given.get("spacing_mm")
    extent = covered_extent(summary, "spacing" if resampled else "fit")

    def size() -> Choice:
        if resampled or wanted is not None:
            mode = "spacing" if resampled else "fit"
            step = wanted or spacing
            chosen = choose_spatial_size(summary, mode, multiple, (0, ""), step).value  # no limit with a voxel size
            return Choice(chosen, f"covers {_lengths(extent)} {unit} with voxels of {step:g} {unit}")
        if spacing is None or summary.in_pixels:
            missing = (
                "that of the weights is not stated" if spacing is None else "the pixel size of the images is not known"
            )
            return Choice(
                source.configs["train"]["spatial_size"],
                f"that of the weights; {missing}, so the images should show as much as those of the weights",
            )
        return Choice(
            nearest_size(extent, spacing, multiple),
            f"covers {_lengths(extent)} {unit} with voxels near the {spacing:g} {unit} of the weights, in multiples of"
            f" {multiple}",
        )

    chosen = choose("spatial_size", size)
    require_size("spatial_size", chosen, dims)

    def step() -> Choice:
        if resampled:
            return Choice(spacing, "that of the weights, to which volumes are resampled")
        value = choose_spacing(summary, "fit", chosen).value
        if spacing is None or summary.in_pixels:
            return Choice(value, "voxel size of a typical image on the grid; that of the weights cannot be compared")
        ratio = value / spacing
        same = (
            "near" if max(ratio, 1 / ratio) < _NEAR else f"but structures appear {1 / ratio:.2g} times as large as in"
        )
        return Choice(value, f"voxel size of a typical image on the grid, {same} the {spacing:g} {unit} of the weights")

    choose("spacing_mm", step)


def _sigma(fine_tuning: FineTuning, factor: float) -> Choice | None:
    """Return sigma of the targets in the unit of the loss, or None if the bundle has one for all landmarks."""
    source, train = fine_tuning.source, fine_tuning.source.configs["train"]
    if "voxel_size" not in train:  # only the loss of adaptive precision takes lengths, the others take voxels
        factor = 1.0
    if source.sigma is not None and "sigma" not in train:
        scale = factor * train.get("voxel_size", 1.0)
        values = [round(scale * value, 4) for value in fine_tuning.of_landmarks(source.sigma)]
        return Choice(values, "initial values: those that the bundle has learned, and their median for new landmarks")
    before = train["sigma"] if "sigma" in train else train["loss_def"].get("sigma")
    if not isinstance(before, list):
        return None
    flat = [round(factor * (row[0] if isinstance(row, list) else row), 4) for row in before]
    return Choice(fine_tuning.of_landmarks(flat), "those of the bundle, and their median for new landmarks")


def _lengths(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
