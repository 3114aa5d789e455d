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
"""The methods for which a bundle can be written. Each has an entry in ``METHODS`` and functions for its settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_landmarks import bundle_path
from monai_landmarks.schema import LandmarkSchema

from .chain import chain_inferer, choose_chains
from .choice import Choice, Choices
from .close_look import DISPLACEMENTS, narrow_unet_features
from .data_summary import DataSummary
from .machine import Machine
from .sigma import defines_sigma, sigma_in_voxels
from .spatial_factor import KERNEL, choose_spatial_factor

__all__ = ["METHODS", "Method", "choose_width", "default_method"]

_SCN_AMPLITUDE = {2: 100.0, 3: 1000.0}


@dataclass(frozen=True)
class Method:
    """A localization method.

    Args:
        title: name of the method in texts.
        bundle: name of the shipped bundle whose configurations are used.
        multiple: factor by which the network downsamples each axis, by number of spatial dimensions. The sides of the
            grid are multiples of it.
        network: function that sets class, number of dimensions and width in the configuration of the network.
        fill: function that makes the choices of this method only, and changes the configuration of training or
            inference. Its arguments are the configuration, the choices so far (among them sigma and the grid), the
            summary and the schema.
        voxels: number of voxels of an image with which a training takes one or two hours on two CPU cores, or a night
            on a GPU, by device and number of dimensions.
        steps: number of training steps after which the errors hardly decrease further, by device; see the README of the
            bundle.
        batch_size: number of images in a batch, by number of dimensions.
        smallest_sigma: smallest sigma of the targets in voxels. Narrower targets are sampled too coarsely.
        sigma_note: what the training does with sigma, for the reason of the choice.
        final_config: configuration file for the final training on all images.
        validates_each_epoch: whether the training needs a validation in each epoch.
        learns_from_patches: whether the heatmaps of patches of a volume can be combined.
        takes_groups: whether a close look at groups of landmarks is possible, with a network of its own for their centers.
        returns_logits: whether the network returns logits, whose softmax over the image is the heatmap.
        displacements: displacement and farthest displacement of the patches of the close look in voxels of the coarse
            grid, by number of dimensions.
        references: papers of the method. None: those of the shipped bundle.
        variants: function that returns configurations that are put after ``train.json``, by name.
        variants_note: lines about them in the README of the bundle.
    """

    title: str
    bundle: str
    multiple: dict[int, int]
    network: Callable[[dict[str, Any], int, int], None]
    fill: Callable[[dict[str, Any], Choices, DataSummary, LandmarkSchema | None], None]
    voxels: dict[tuple[str, int], int]
    steps: dict[str, int]
    batch_size: dict[int, int]
    smallest_sigma: float
    sigma_note: str = ""
    final_config: str = "all_training_images.json"
    validates_each_epoch: bool = False
    learns_from_patches: bool = True
    takes_groups: bool = True
    returns_logits: bool = False
    displacements: Mapping[int, tuple[float, float]] = field(default_factory=lambda: DISPLACEMENTS)
    references: tuple[str, ...] | None = None
    variants: Callable[[DataSummary], dict[str, dict[str, Any]]] = lambda summary: {}
    variants_note: str = ""

    @property
    def network_target(self) -> str:
        """Name of the class of the network."""
        network = self.template("train")["network_def"]
        self.network(network, network["spatial_dims"], 1)
        return network["_target_"]

    def template(self, name: str) -> dict[str, Any]:
        """Return a configuration of the bundle to adapt."""
        return json.loads((bundle_path(self.bundle) / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def default_method(summary: DataSummary, machine: Machine) -> str:
    """Return the method for data and machine if none is given.

    For volumes on a CPU, it is the U-Net on a coarse grid: an SCN there is trained for hours, on patches.
    """
    return "unet" if summary.spatial_dims == 3 and not machine.on_gpu else "scn"


def choose_width(summary: DataSummary, machine: Machine) -> Choice:
    """Choose the number of channels at full resolution. The numbers of all other layers are proportional to it."""
    if summary.spatial_dims == 3 and not machine.on_gpu:
        return Choice(16, "half the width of the shipped bundle, because training on volumes is slow on a CPU")
    return Choice(32, "the width of the shipped bundle")


def unet_features(width: int) -> list[int]:
    """Return the channels of MONAI's ``BasicUNet``, in the proportions of its default."""
    return [width, width, 2 * width, 4 * width, 8 * width, width]


def scn_network(network: dict[str, Any], spatial_dims: int, width: int) -> None:
    """Configure ``SCN`` with MONAI's U-Net as local appearance network."""
    network.update(spatial_dims=spatial_dims, features=2 * width, spatial_kernel=KERNEL[spatial_dims])
    network["unet_features"] = unet_features(width)
    if spatial_dims == 3:
        network["padding_mode"] = "zeros"  # reflection, the default, needs more cells than a flat volume has


def fill_scn(config: dict[str, Any], choices: Choices, summary: DataSummary, schema: LandmarkSchema | None) -> None:
    """Set the downsampling factor of the spatial configuration, and sigma: its initial value and upper limit."""
    spacing = choices["spacing_mm"].value
    factor = choices.choose("spatial_factor", lambda: choose_spatial_factor(choices.network_size))
    config["network_def"]["spatial_factor"] = factor
    if "loss_def" not in config:
        return
    dims, sigma = summary.spatial_dims, sigma_in_voxels(choices["sigma_mm"].value, spacing)
    loss = config["loss_def"]
    loss.update(spatial_dims=dims, sigma=sigma, amplitude=_SCN_AMPLITUDE[dims])
    if defines_sigma(schema, summary.unit) and "sigma_mm" not in choices.given:
        loss["learn_sigma"] = False
    else:
        loss["sigma_weight"] = sigma_weight(dims, max(sigma) if isinstance(sigma, Sequence) else sigma)


def sigma_weight(spatial_dims: int, ceiling: float) -> float:
    """Return the ``sigma_weight`` of ``SCNLoss`` with which no sigma is learned above ``ceiling`` voxels."""
    squared = _SCN_AMPLITUDE[spatial_dims] ** 2
    pi = 3.141592653589793
    if spatial_dims == 2:
        return float(f"{squared / (4 * pi * ceiling**4):.6g}")
    return float(f"{1.5 * squared / ((4 * pi) ** 1.5 * ceiling**5):.6g}")


def farnet_network(network: dict[str, Any], spatial_dims: int, width: int) -> None:
    """Configure ``FARNet``."""
    network.update(spatial_dims=spatial_dims, features=2 * width)


def fill_farnet(config: dict[str, Any], choices: Choices, summary: DataSummary, schema: LandmarkSchema | None) -> None:
    """Set sigma of the targets."""
    if "loss_def" in config:
        config["sigma"] = sigma_of_targets(choices)


def sigma_of_targets(choices: Choices) -> float | list[list[float]]:
    """Return sigma in voxels: one for all landmarks, or one row per landmark."""
    sigma = sigma_in_voxels(choices["sigma_mm"].value, choices["spacing_mm"].value)
    # rows, because a flat list could be read as one value per axis
    return [[value] for value in sigma] if isinstance(sigma, list) else sigma


def adaptive_network(network: dict[str, Any], spatial_dims: int, width: int) -> None:
    """Configure ``LocalizationUNet``."""
    network.update(spatial_dims=spatial_dims, features=unet_features(width))


def unet_network(network: dict[str, Any], spatial_dims: int, width: int) -> None:
    """Configure ``LocalizationUNet`` in place of the network of the shipped bundle."""
    landmarks = network["num_landmarks"]
    network.clear()
    network.update(_target_="monai_landmarks.networks.nets.LocalizationUNet", in_channels=1, num_landmarks=landmarks)
    network.update(spatial_dims=spatial_dims, features=narrow_unet_features(width))


def fill_unet(config: dict[str, Any], choices: Choices, summary: DataSummary, schema: LandmarkSchema | None) -> None:
    """Set the cross-entropy with Gaussian targets, and how its maps become points."""
    chains = choices.choose("chains", lambda: choose_chains(summary, schema))
    if chains:
        config["inferer"] = chain_inferer(config["inferer"], choices, summary)
    config["softmax"] = not chains  # with chains, the inferer itself ends in points
    config["decoder"]["softmax"] = "@softmax"
    if "loss_def" not in config:
        return
    config["sigma"] = sigma_of_targets(choices)
    config["loss_def"] = {
        "_target_": "monai_landmarks.losses.HeatmapCrossEntropyLoss",
        "target": {"_target_": "monai_landmarks.losses.GaussianTarget", "sigma": "@sigma"},
    }


def fill_adaptive(
    config: dict[str, Any], choices: Choices, summary: DataSummary, schema: LandmarkSchema | None
) -> None:
    """Set the voxel size, which scales the range of sigma, the initial sigma, and the rule that changes it."""
    if "loss_def" not in config:
        return
    config["voxel_size"] = choices["spacing_mm"].value
    config["loss_def"].update(spatial_dims=summary.spatial_dims, sigma=choices["sigma_mm"].value)
    # without an agent, because this rule was as good as the search in all studies; with the margin that had the
    # smaller validation error
    config.update(METHODS["adaptive"].template("calibrated"))
    config["controller"].update(spatial_dims=summary.spatial_dims, margin=1.0)
    del config["agent"]


def search_variant(summary: DataSummary) -> dict[str, dict[str, Any]]:
    """Return ``search.json``: an agent chooses sigma, as in the shipped bundle."""
    train = METHODS["adaptive"].template("train")
    search = {name: train[name] for name in ("agent", "controller")}
    search["controller"]["spatial_dims"] = summary.spatial_dims
    return {"search": search}


_SEARCH_NOTE = """- **Target precision**: sigma of each landmark follows its error in the validations (`CalibratedSigma`). To search it by reinforcement learning instead, put `'$B/configs/search.json'` after `train.json`.
"""


_VOLUMES = {("cpu", 3): 64 * 64 * 80, ("cuda", 3): 128**3}

METHODS = {
    "scn": Method(
        "SCN",
        "ceph_xray_landmarks_scn",
        {2: 32, 3: 16},
        scn_network,
        fill_scn,
        voxels={("cpu", 2): 256 * 320, ("cuda", 2): 512 * 640, **_VOLUMES},
        steps={"cpu": 1400, "cuda": 9000},
        batch_size={2: 4, 3: 2},
        smallest_sigma=2.5,
        sigma_note="initial value, the loss learns it for each landmark",
    ),
    # larger images than for SCN, because the features are on a grid of half the resolution
    "farnet": Method(
        "FARNet",
        "ceph_xray_landmarks_farnet",
        {2: 32, 3: 32},
        farnet_network,
        fill_farnet,
        voxels={("cpu", 2): 384 * 480, ("cuda", 2): 640 * 800, **_VOLUMES},
        steps={"cpu": 2000, "cuda": 9000},
        batch_size={2: 2, 3: 2},
        smallest_sigma=2.0,
    ),
    "adaptive": Method(
        "adaptive precision",
        "ceph_xray_landmarks_adaptive",
        {2: 32, 3: 16},
        adaptive_network,
        fill_adaptive,
        voxels={("cpu", 2): 160 * 192, ("cuda", 2): 512 * 640, **_VOLUMES},
        steps={"cpu": 1800, "cuda": 9000},
        batch_size={2: 4, 3: 2},
        smallest_sigma=4.0,
        sigma_note="initial value, changed for each landmark by its validation error",
        final_config="replay.json",
        validates_each_epoch=True,
        takes_groups=False,
        learns_from_patches=False,
        returns_logits=True,
        variants=search_variant,
        variants_note=_SEARCH_NOTE,
    ),
    # a coarse grid in 3-D, because the close look makes up for it: of lumbar spines with voxels of 3.5 mm
    "unet": Method(
        "U-Net",
        "ceph_xray_landmarks_scn",
        {2: 32, 3: 16},
        unet_network,
        fill_unet,
        voxels={("cpu", 2): 256 * 320, ("cuda", 2): 512 * 640, ("cpu", 3): 32 * 64 * 64, ("cuda", 3): 128**3},
        steps={"cpu": 1600, "cuda": 9000},
        batch_size={2: 4, 3: 1},
        smallest_sigma=1.0,
        learns_from_patches=False,
        returns_logits=True,
        # the U-Net of the lumbar bundle errs by less than half a voxel on average
        displacements={**DISPLACEMENTS, 3: (0.5, 2.5)},
        references=(
            "Ronneberger O, Fischer P, Brox T. U-Net: convolutional networks for biomedical image segmentation. MICCAI 2015,"
            " LNCS 9351:234-241.",
        ),
    ),
}
