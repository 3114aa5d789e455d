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

"""Choice of the patches of the close look, and its configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from .augmentation import flip_config
from .batch import choose_val_interval
from .choice import Choice, Choices
from .data_summary import DataSummary
from .grid import round_up
from .groups import CENTERS, group_extent, group_rows, groups_config, shortest_step

__all__ = [
    "DISPLACEMENTS",
    "choose_close_look",
    "close_look_config",
    "close_val_interval",
    "is_mirrored",
    "looks_per_image",
    "mirrored_inferer",
    "narrow_unet_features",
]

# by number of dimensions: displacement and farthest displacement of the patches in voxels of the coarse grid. The
# coarse networks of the shipped bundles err by about one voxel on average; a wider range makes up for other data.
DISPLACEMENTS = {2: (2.0, 10.0), 3: (1.0, 4.0)}
# largest side of a patch in voxels, for the memory and time of a training step
_LARGEST = {2: 80, 3: 32}
_SMALLEST = 32  # of the network
# weight of the coarse points, and the shipped bundles that have it
_COARSE_WEIGHT = {2: (0.3, "cephalograms"), 3: (0.0, "lumbar vertebrae and skulls of mice")}
# in voxels: those of the shipped bundles; each was better there than the other one, in one training of both
_SIGMA, _SIGMA_ALIKE, _SIGMA_GROUPS = 1.0, 2.0, 1.5
# displacements of patches of groups, relative to the distance from a group to the next: those of the shipped bundle for
# spines. Farther away, the next group is in the middle of the patch.
_GROUP_STEPS = (0.2, 0.5)
_GROUP_PATCHES = 4
_GROUP_TURNS = [0.0, 0.1, -0.1, 0.2, -0.2]
_MIRRORED = "monai_landmarks.inferers.FlipEnsembleInferer"
# images are kept with voxels this much smaller than those of the patches, which are cut from them at any angle
_FINER = 1.25
# voxels of the patches of a training step, relative to those of a step of the coarse network
_STEP = 1.5


def choose_close_look(choices: Choices, summary: DataSummary, displacements: tuple[float, float] | None = None) -> None:
    """Choose the patches of the close look from the voxel sizes of the coarse grid and of the images.

    Args:
        choices: choices so far, among them the grid and the batch size. Those of the close look are added.
        summary: summary of the data.
        displacements: displacement and farthest displacement in voxels of the coarse grid. Default: ``DISPLACEMENTS``.
    """
    choose, dims, unit = choices.choose, summary.spatial_dims, summary.unit
    if group_rows(choices, summary):
        rules = _rules_of_groups(choices, summary)
    else:
        rules = _rules_of_landmarks(choices, summary, displacements or DISPLACEMENTS[dims])
    native, (usual, farthest) = summary.finest_spacing, rules.displacements
    displacement = choose("displacement", lambda: Choice(round_up(usual * rules.step), f"{usual:g} {rules.step_name}"))
    far = choose("far_displacement", lambda: Choice(round_up(farthest * rules.step), f"{farthest:g} {rules.step_name}"))
    extent = 2 * (far + 3 * displacement) + rules.extent
    spacing = choose(
        "close_spacing",
        lambda: Choice(
            round_up(max(native, extent / _LARGEST[dims])),
            f"{native:.3g} {unit} of the images, or more so that {_LARGEST[dims]} voxels cover {extent:.3g} {unit}:"
            f" {rules.content} at the farthest displacement, and what is around it",
        ),
    )
    size = choose(
        "close_size",
        lambda: Choice(
            [min(max(16 * math.ceil(extent / spacing / 16 - 1e-6), _SMALLEST), _LARGEST[dims])] * dims,
            f"covers {extent:.3g} {unit}, in multiples of 16",
        ),
    )
    chosen = choose("close_mirrored", lambda: rules.mirrored)
    if not isinstance(chosen, bool):
        raise ValueError(f"close_mirrored is {chosen!r}; expected true or false.")
    if chosen and not choices["flip"].value:
        raise ValueError("close_mirrored is true, but the training does not mirror images (flip is 0).")
    if rules.turns is not None:
        turns = choose("close_turns", lambda: rules.turns)
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, (int, float)) for turn in turns):
            raise ValueError(
                f"close_turns is {turns!r}; expected a list of angles in rad, for example [0.0, 0.1, -0.1]."
            )
    choose("close_sigma", lambda: rules.sigma)
    choose("coarse_weight", lambda: rules.coarse_weight)
    choose("close_patches_per_image", lambda: rules.patches or _patches_like_coarse_step(choices, size))


class _Rules(NamedTuple):
    """What depends on whether a patch shows a landmark or a group of landmarks.

    Args:
        displacements: displacement and farthest displacement in units of ``step``.
        step: length in mm.
        step_name: what this length is.
        extent: extent in mm of what a patch shows, and its name in ``content``.
        patches: None if the number of patches follows from the size of a step of the coarse network.
        turns: None if each patch is looked at once.
    """

    displacements: tuple[float, float]
    step: float
    step_name: str
    extent: float
    content: str
    mirrored: Choice
    sigma: Choice
    coarse_weight: Choice
    patches: Choice | None = None
    turns: Choice | None = None


def _rules_of_landmarks(choices: Choices, summary: DataSummary, displacements: tuple[float, float]) -> _Rules:
    mirrored, sigma = (
        "only where left-right pairs are declared and training images are mirrored",
        "in voxels of the patch",
    )
    is_mirrored = bool(choices["flip"].value and summary.pairs)
    if is_mirrored:
        mirrored = (
            "the mean of the points of an image and of its mirror image: twice the time, and 3 to 5 % smaller errors in mouse"
            " skulls"
        )
    if _look_alike(choices, summary):
        width = Choice(_SIGMA_ALIKE, f"{sigma}, as for lumbar vertebrae, which look alike, too")
    else:
        width = Choice(_SIGMA, f"{sigma}, as for cephalograms and skulls of mice")
    weight, like = _COARSE_WEIGHT[summary.spatial_dims]
    return _Rules(
        displacements,
        choices["spacing_mm"].value,
        "voxels of the coarse grid",
        0.0,
        "a landmark",
        Choice(is_mirrored, mirrored),
        width,
        Choice(weight, f"weight of the coarse points in the mean with the fine ones, as for {like}"),
    )


def _rules_of_groups(choices: Choices, summary: DataSummary) -> _Rules:
    return _Rules(
        _GROUP_STEPS,
        shortest_step(choices, summary),
        "of the shortest distance from one structure to the next",
        group_extent(choices, summary),
        "a structure",
        Choice(False, "in spines, the mean with the mirror image gained nothing"),
        Choice(_SIGMA_GROUPS, "in voxels of the patch, as for the corners of vertebrae"),
        Choice(0.0, "the coarse network finds other points, the centers of the structures"),
        Choice(_GROUP_PATCHES, "as for spines; a patch has all landmarks of a structure"),
        Choice(_GROUP_TURNS, "in rad: several looks whose points are combined, as in spines"),
    )


def _patches_like_coarse_step(choices: Choices, size: Sequence[int]) -> Choice:
    patches = _STEP * math.prod(choices.network_size) / math.prod(size)
    if choices.in_patches:
        patches *= choices["patches_per_image"].value
    return Choice(min(max(round(patches), 1), 8), f"a training step has {_STEP:g} times the voxels of a coarse one")


def looks_per_image(choices: Choices, summary: DataSummary) -> int:
    """Return the number of patches that the close look sees in an image."""
    groups = group_rows(choices, summary)
    looks = len(groups) * len(choices["close_turns"].value) if groups else len(summary.names)
    return looks * (2 if choices["close_mirrored"].value else 1)


def close_val_interval(choices: Choices, summary: DataSummary) -> int:
    """Return the number of epochs of the close look between two validations."""
    epochs = choices["max_epochs"].value
    # a validation of groups, with several looks, takes as long as an epoch
    return max(epochs // 3, 1) if group_rows(choices, summary) else choose_val_interval(epochs).value


def narrow_unet_features(width: int) -> list[int]:
    """Return the channels of a U-Net whose deepest level, which sees few cells, is no wider than the one above."""
    return [width, width, 2 * width, 4 * width, 4 * width, width]


def is_mirrored(inferer: dict[str, Any]) -> bool:
    """Return whether an inferer takes the mean of the points of an image and of its mirror image."""
    return bool(inferer["_target_"] == _MIRRORED)


def mirrored_inferer(inferer: dict[str, Any], flip: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the configuration of an inferer that takes the mean of the points of an image and of its mirror image.

    Args:
        inferer: configuration of an inferer that ends in points, which may already take this mean.
        flip: the mirroring transform of the training, see :func:`monai_landmarks.planning.augmentation.flip_config`.
            Empty: the result takes no mean.
    """
    if is_mirrored(inferer):
        inferer = inferer["inferer"]
    arguments = [{key: part[key] for key in ("spatial_axis", "pairs", "one_sided")} for part in flip]
    return {"_target_": _MIRRORED, "inferer": inferer, **arguments[0]} if arguments else inferer


def close_look_config(
    config: dict[str, Any], choices: Choices, summary: DataSummary, returns_logits: bool = False
) -> dict[str, Any]:
    """Return the configuration of the close look for given data.

    Args:
        config: configuration of the shipped bundle.
        choices: all choices.
        summary: summary of the data.
        returns_logits: whether the coarse network returns logits.

    Returns:
        A new configuration.
    """
    value, dims = {name: choice.value for name, choice in choices.items()}, summary.spatial_dims
    result = {key: content for key, content in config.items() if key not in ("spatial_size", "batch_size")}
    for name in ("close_size", "close_spacing", "close_sigma", "displacement", "far_displacement", "coarse_weight"):
        result[name] = value[name]
    result["patches_per_image"] = value["close_patches_per_image"]
    result["max_epochs"] = value["max_epochs"]
    result["val_interval"] = close_val_interval(choices, summary)
    if "spatial_dims" in result["loss_def"]:
        result["loss_def"] = {**result["loss_def"], "spatial_dims": dims}
    if rows := group_rows(choices, summary):
        result["close_groups"] = groups_config(rows)
        result["coarse_config"] = [*config["coarse_config"], CENTERS]
        result["turns"] = value["close_turns"]
    elif _look_alike(choices, summary):
        result["close_groups"] = groups_config([[row] for row in range(len(summary.names))])
    flip = flip_config(value["flip"], summary.pairs, summary.names, value["one_sided"])
    result["augmentation"] = [*flip, *config["augmentation"]]
    if returns_logits:  # those of the coarse network; the close look itself ends in points
        result["softmax"] = False
        result["inferer"] = {"coarse_softmax": True, **config["inferer"]}
    result["inferer"] = mirrored_inferer(result["inferer"], flip if value["close_mirrored"] else [])
    width = value["width"]
    network = {"spatial_dims": dims, "features": narrow_unet_features(width)}
    result["fine_network_def"] = {**config["fine_network_def"], **network}
    finest = max(summary.finest_spacing, value["close_spacing"] / _FINER)
    component = config["coarse_size"]
    if choices.in_patches:
        result["voxel_spacing"] = min(round_up(finest), value["spacing_mm"])
        steps: list[dict[str, Any]] = [
            {
                "_target_": "monai_landmarks.transforms.ResampleToSpacing",
                "spacing": {**component, "key": "voxel_spacing"},
            },
            {"_target_": "SpatialPad", "spatial_size": {**component, "key": "patch_size"}, "mode": "edge"},
        ]
        result["coarse_grid"] = {"_target_": "Compose", "transforms": steps}
        del result["coarse_size"]
    else:
        # a whole number of voxels in each voxel of the coarse grid, so that both cover the same part of the image
        factor = max(1, math.floor(value["spacing_mm"] / finest + 1e-6))
        result["spatial_size"] = [factor * n for n in value["spatial_size"]]
        if value["resampling"] == "spacing":
            result["voxel_spacing"] = value["spacing_mm"] / factor
        result["coarse_grid"] = {
            "_target_": "monai_landmarks.transforms.FitToGrid",
            "spatial_size": "@coarse_size",
            "spacing": {**component, "key": "voxel_spacing"},
        }
    return result


def _look_alike(choices: Choices, summary: DataSummary) -> bool:
    """Return whether all landmarks are one chain: their patches look alike, so one channel finds any of them."""
    chains = choices["chains"].value if "chains" in choices else []
    return len(chains) == 1 and set(chains[0]) == set(summary.names)
