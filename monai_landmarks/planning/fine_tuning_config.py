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
"""The configurations and weights of a bundle that is fine-tuned from another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_landmarks.networks import learned_weights

from .augmentation import flip_config
from .close_look import is_mirrored, mirrored_inferer
from .methods import METHODS
from .plan import Plan
from .references import references

__all__ = ["fine_tuning_configs", "initial_weights"]

INITIAL, INITIAL_CLOSE = "initial.pt", "initial_close.pt"
_LOAD = {"_target_": "monai_landmarks.handlers.load_weights", "network": "@network_def"}
_HOLD = {"_target_": "monai_landmarks.handlers.HoldLayers", "network": "@network_def", "epochs": "@held_epochs"}


def fine_tuning_configs(plan: Plan, data: Mapping[str, str], fitted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the configurations of the bundle by name, without its metadata.

    Args:
        plan: from :func:`make_fine_tuning_plan`.
        data: ``datalist`` and ``dataset_dir``.
        fitted: transforms that fit images of any size to the grid, in place of those that resize them.
    """
    assert plan.fine_tuning is not None
    configs, value = plan.fine_tuning.source.configs, {name: choice.value for name, choice in plan.choices.items()}
    before = references(plan.train)
    result = {"train": {**_train(plan, value, fitted), **data}}
    result["inference"] = {**_inference(plan, value, fitted), "dataset_dir": data["dataset_dir"]}
    result["evaluate"] = {**configs["evaluate"], "load_initial": None}
    if "multi_gpu_train" in configs:
        result["multi_gpu_train"] = _loading(deepcopy(configs["multi_gpu_train"]))
    if plan.close_look:
        result["close_look"] = _close_look(plan, value)
    final = Path(METHODS[plan.method].final_config).stem
    result[final] = configs[final] if final in configs else METHODS[plan.method].template(final)
    unused = before - references(list(result.values()))  # settings of the dataset of the other bundle
    result["train"] = {name: content for name, content in result["train"].items() if name not in unused}
    return result


def initial_weights(plan: Plan) -> dict[str, dict[str, torch.Tensor]]:
    """Return the initial weights of the networks by the name of their file.

    Raises:
        ValueError: if the weights do not fit the network of their bundle.
    """
    fine_tuning = plan.fine_tuning
    assert fine_tuning is not None
    source, count = fine_tuning.source, len(plan.summary.names)
    result = {INITIAL: (plan.train["network_def"], source.weights, fine_tuning.kept)}
    if plan.close_look and source.close_weights is not None:
        channels: tuple[int | None, ...] = (0,) if fine_tuning.shared_close_look else fine_tuning.kept
        network = source.configs["close_look"]["fine_network_def"]
        result[INITIAL_CLOSE] = ({**network, "num_landmarks": len(channels)}, source.close_weights, channels)
    states = {}
    for name, (network, weights, kept) in result.items():
        if name == INITIAL:
            network = {**network, "num_landmarks": count, **({"weights": None} if "weights" in network else {})}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = ConfigParser({"network": network}).get_parsed_content("network")
        try:
            states[name] = learned_weights(fresh, weights, kept)
        except ValueError as error:
            raise ValueError(f"{source.weights_file}: {error}") from error
    return states


def _train(plan: Plan, value: dict[str, Any], fitted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    config = _plain(deepcopy(plan.train), plan)
    config |= _grid(config, value)
    for transform in config["augmentation"]:
        if isinstance(transform, dict) and transform.get("unit") == "mm":
            transform |= _lengths(transform, ("translate_range", "elastic_range"), value)
    config.update({name: value[name] for name in ("batch_size", "max_epochs", "val_interval", "learning_rate")})
    if "voxel_size" in config:
        config["voxel_size"] = value["spacing_mm"]
    if "sigma" in value and "sigma" in config:
        # one row per landmark, because a flat list could be read as one value per axis
        config["sigma"] = [[sigma] for sigma in value["sigma"]] if isinstance(value["sigma"], list) else value["sigma"]
    elif "sigma" in value:
        config["loss_def"]["sigma"] = value["sigma"]
    config["augmentation"] = _flipped(config["augmentation"], plan, value)
    config["train"]["deterministic_transforms"] = _fitted(config["train"]["deterministic_transforms"], fitted)
    handlers = config["train"]["handlers"]
    config["train"]["handlers"] = [_HOLD, *(h for h in handlers if h["_target_"] != _HOLD["_target_"])]
    config["held_epochs"] = value["held_epochs"]
    config["load_initial"] = {**_LOAD, "path": f"$@bundle_root + '/models/{INITIAL}'"}
    return _loading(config)


def _inference(plan: Plan, value: dict[str, Any], fitted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    config = _plain(deepcopy(plan.inference), plan)
    config |= _grid(config, value)
    if not plan.choices.in_patches:
        config["batch_size"] = value["batch_size"]
    if "spacing" in config:
        spacing = plan.summary.picture_spacing
        config["spacing"] = None if spacing is None else list(spacing)
    config["preprocessing"]["transforms"] = _fitted(config["preprocessing"]["transforms"], fitted)
    return config


def _close_look(plan: Plan, value: dict[str, Any]) -> dict[str, Any]:
    fine_tuning = plan.fine_tuning
    assert fine_tuning is not None
    source = fine_tuning.source
    config = deepcopy(source.configs["close_look"])
    config.update(max_epochs=value["max_epochs"], val_interval=value["val_interval"])
    config["learning_rate"] = (
        config["learning_rate"] * value["learning_rate"] / source.configs["train"]["learning_rate"]
    )
    config |= _lengths(config, ("close_spacing", "displacement", "far_displacement"), value)
    if "spatial_size" in config:
        coarse = source.configs["train"]["spatial_size"]
        factor = max(1, round(config["spatial_size"][0] / coarse[0]))
        config["spatial_size"] = [factor * n for n in value["spatial_size"]]
        config["voxel_spacing"] = value["spacing_mm"] / factor if value["resampling"] == "spacing" else None
    elif "voxel_spacing" in config:  # the coarse network must not see coarser images than in its training
        config["voxel_spacing"] = min(config["voxel_spacing"], value["spacing_mm"])
    if fine_tuning.shared_close_look:
        config["close_groups"]["groups"] = [[row] for row in range(len(plan.summary.names))]
    config["augmentation"] = _flipped(config["augmentation"], plan, value)
    if is_mirrored(config["inferer"]):
        config["inferer"] = mirrored_inferer(config["inferer"], _flip(plan, value))
    path = f"$@bundle_root + '/models/{INITIAL_CLOSE}'"
    load = {**_LOAD, "network": "@fine_network_def", "path": path}
    config["load_initial"] = None if source.close_weights is None else load
    config["held_epochs"] = 0 if source.close_weights is None else value["held_epochs"]
    return config


def _plain(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return a configuration without what the data do not have, and with distances in voxels of their grid.

    If the landmarks are others, these are the chains, which are row numbers. If the training does not mirror images, it
    is the mean with the mirror image.
    """
    fine_tuning = plan.fine_tuning
    assert fine_tuning is not None
    same = fine_tuning.kept == tuple(range(len(fine_tuning.source.names)))
    if not same and config["inferer"]["_target_"] == "monai_landmarks.inferers.ChainLandmarkInferer":
        config.update(inferer=config["inferer"]["inferer"], softmax=True)
        config.pop("chain_offsets", None)
    elif not plan.choices["flip"].value and "mirror" in config["inferer"]:
        config["inferer"]["mirror"] = None
    value = {name: choice.value for name, choice in plan.choices.items()}
    before = fine_tuning.source.grid_spacing
    ratio = 1.0 if before is None else value.get("length_factor", 1.0) * before / value["spacing_mm"]
    chain = config["inferer"].get("chain", {})
    for part, name in ((config, "chain_offsets"), (chain, "offsets")):
        if name in part:
            part[name] = _times(part[name], ratio)
    for part in (chain, config.get("windows", {})):
        if "min_distance" in part:
            part["min_distance"] = max(round(ratio * part["min_distance"], 1), 1.0)
    return config


def _lengths(config: Mapping[str, Any], names: Sequence[str], value: dict[str, Any]) -> dict[str, Any]:
    """Return the lengths of a configuration in the unit of the data."""
    factor = value.get("length_factor", 1.0)
    return {name: _times(config[name], factor) for name in names if name in config}


def _times(length: Any, factor: float) -> Any:
    """Return a number, or the numbers of a list, times a factor. References and expressions stay as they are."""
    if isinstance(length, list):
        return [_times(part, factor) for part in length]
    return float(f"{factor * length:.4g}") if isinstance(length, (int, float)) and factor != 1 else length


def _grid(config: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    if "patch_size" in value:
        names = [name for name in ("patch_size", "patches_per_image", "overlap") if name in config]
        return {"voxel_spacing": value["spacing_mm"]} | {name: value[name] for name in names}
    spacing = value["spacing_mm"] if value["resampling"] == "spacing" else None
    return {"spatial_size": value["spatial_size"], "voxel_spacing": spacing}


def _fitted(transforms: Sequence[Any], fitted: Sequence[dict[str, Any]]) -> list[Any]:
    """Return preprocessing transforms that fit images of any size to the grid, where they resized them."""
    result: list[Any] = []
    for transform in transforms:
        target = transform["_target_"] if isinstance(transform, dict) else ""
        if target == "Resized":
            result += fitted
        elif target != "ResizeWithPadOrCropd":
            result.append(transform)
    return result


def _flipped(transforms: Sequence[Any], plan: Plan, value: dict[str, Any]) -> list[Any]:
    """Return the augmentation with the mirroring of the data."""
    others = [t for t in transforms if not (isinstance(t, dict) and t["_target_"].endswith(".RandLandmarkFlipd"))]
    return [*_flip(plan, value), *others]


def _flip(plan: Plan, value: dict[str, Any]) -> list[dict[str, Any]]:
    return flip_config(value["flip"], plan.summary.pairs, plan.summary.names, value["one_sided"])


def _loading(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration of training that loads the initial weights before it starts."""
    if "initialize" in config and "@load_initial" not in config["initialize"]:
        config["initialize"] = [*config["initialize"], "@load_initial"]
    return config
