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
"""Write a bundle for given data: the shipped bundle of a method with other settings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data.files.safe_files import atomic_folder
from monai_landmarks.data.files.tensor_files import atomic_save
from monai_landmarks.schema import LandmarkSchema, load_landmark_schema, match_landmarks, shipped_schemas

from .augmentation import flip_config, warp_config
from .bundle_readme import data_license, readme
from .close_look import close_look_config
from .data_summary import DataSummary
from .fine_tuning_config import fine_tuning_configs, initial_weights
from .groups import CENTERS, centers_config, group_rows
from .intensity import normalization_config
from .methods import METHODS
from .plan import Plan
from .training_time import Pace, centers_seconds, close_look_seconds, measure_pace, training_seconds

__all__ = ["apply_schema", "estimated_seconds", "measure_close_look", "measure_plan", "with_pairs", "write_bundle"]

# how images get onto the grid: whole, or in voxels of one size and not smaller than a patch
_FITTED = [
    {
        "_target_": "monai_landmarks.transforms.FitToGridd",
        "keys": "image",
        "spatial_size": "@spatial_size",
        "spacing": "@voxel_spacing",
    }
]
_RESAMPLED = [
    {"_target_": "monai_landmarks.transforms.ResampleToSpacingd", "keys": "image", "spacing": "@voxel_spacing"},
    {"_target_": "SpatialPadd", "keys": "image", "spatial_size": "@patch_size", "mode": "edge"},
]
_CROP = {
    "_target_": "monai_landmarks.transforms.RandCropByLandmarksd",
    "keys": "image",
    "points_keys": "label",
    "spatial_size": "@patch_size",
    "num_samples": "@patches_per_image",
    "pos": 4,
    "neg": 1,
}
_WINDOWS = {
    "_target_": "monai_landmarks.inferers.SlidingWindowLandmarkInferer",
    "roi_size": "@patch_size",
    "sw_batch_size": 1,
    "overlap": "@overlap",
    "mode": "gaussian",
}

_COPIED = ("multi_gpu_train", "tensorboard")


def with_pairs(summary: DataSummary, pairs: Sequence[tuple[str, str]]) -> DataSummary:
    """Return the summary with these left-right pairs."""
    return replace(summary, pairs=tuple(pairs))


def apply_schema(summary: DataSummary, schema: LandmarkSchema) -> DataSummary:
    """Return the summary with the left-right pairs of a landmark schema.

    Landmarks are matched by name or abbreviation, see :func:`monai_landmarks.schema.match_landmarks`.

    Raises:
        ValueError: if the schema has another dimension, or lacks a landmark of the data.
    """
    if schema.spatial_dims != summary.spatial_dims:
        raise ValueError(
            f"the schema {schema.name} has {schema.spatial_dims}-D landmarks, but the images are {summary.spatial_dims}-D."
        )
    match = match_landmarks(schema, summary.names)
    if match.unknown:
        raise ValueError(f"the schema {schema.name} lacks the landmark {match.unknown[0]!r} of the datalist.")
    given = {own: name for own, name in zip(schema.names, match.names(summary.names)) if name is not None}
    pairs = [(given[left], given[right]) for left, right in schema.pairs if {left, right} <= set(given)]
    return with_pairs(summary, pairs) if pairs else summary


def write_bundle(output_dir: str | os.PathLike, plan: Plan, datalist: str | os.PathLike) -> Path:
    """Write the bundle of a plan.

    Args:
        output_dir: folder of the bundle, which must be new or empty. The bundle is written whole or not at all.
        plan: from :func:`make_plan`.
        datalist: JSON file of the datalist. It is not copied; the bundle refers to it by its path.

    Returns:
        The absolute path of the folder.

    Raises:
        ValueError: if the folder is not empty.
    """
    folder, datalist = Path(output_dir).absolute(), Path(datalist).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: exists already; give a new folder.")
    weights = {} if plan.fine_tuning is None else initial_weights(plan)
    with atomic_folder(folder) as written:
        (written / "configs").mkdir()
        (written / "docs").mkdir()
        for name in ("LICENSE", "configs/logging.conf"):
            if (plan.template / name).is_file():
                shutil.copy(plan.template / name, written / name)
        configs = bundle_configs(plan, datalist)
        metadata = json.loads((plan.template / "configs" / "metadata.json").read_text(encoding="utf-8"))
        configs["metadata"] = fill_metadata(metadata, plan, folder.name)
        configs["evaluate"]["section"] = "testing" if plan.summary.counts[2] else "validation"
        for name, state in weights.items():
            atomic_save(state, written / "models" / name)
        for name, config in configs.items():
            text = json.dumps(config, indent=4, ensure_ascii=False)
            (written / "configs" / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
        (written / "docs" / "README.md").write_text(
            readme(plan, folder, datalist, configs["metadata"].get("references", [])), encoding="utf-8"
        )
        (written / "docs" / "data_license.txt").write_text(data_license(datalist, plan), encoding="utf-8")
    return folder


def bundle_configs(plan: Plan, datalist: Path) -> dict[str, Any]:
    """Return the configurations of a bundle by name, without the metadata."""
    return _shipped_configs(plan, datalist) if plan.fine_tuning is None else _fine_tuning_configs(plan, datalist)


def measure_plan(plan: Plan) -> Pace | None:
    """Measure the speed of the training of a plan on this machine, for a second or two.

    Returns:
        The speed. None if the device of the training is not on this machine.
    """
    config = bundle_configs(plan, Path("datalist.json"))["train"]
    batch_size = plan.choices["batch_size"].value
    if plan.choices.in_patches:
        batch_size *= plan.choices["patches_per_image"].value
    names, size = plan.summary.names, plan.choices.network_size
    return measure_pace(config, len(names), size, plan.machine, batch_size)


def measure_close_look(plan: Plan) -> tuple[Pace, ...]:
    """Measure the speed of the further trainings of a close look, like :func:`measure_plan`.

    Returns:
        The speed of the fine network and, with groups of landmarks, of the network of their centers. Empty if the device
        is not on this machine, or the close look is that of a trained bundle, whose patches are not among the choices.
    """
    if "close_size" not in plan.choices:
        return ()
    configs = bundle_configs(plan, Path("datalist.json"))
    look, value = configs["close_look"], {name: choice.value for name, choice in plan.choices.items()}
    groups = look["close_groups"]
    channels = len(groups["groups"][0]) if groups.get("shared") else len(plan.summary.names)
    config = {**configs["train"], **look, "close_groups": _ungrouped(channels), "network_def": look["fine_network_def"]}
    patches = value["batch_size"] * value["close_patches_per_image"]
    measured = [measure_pace(config, channels, value["close_size"], plan.machine, patches)]
    if "centers" in configs:
        centers, count = configs["centers"], len(groups["groups"])
        config = {**configs["train"], **centers, "center_groups": _ungrouped(count)}
        size = plan.choices.network_size
        measured.append(measure_pace(config, count, size, plan.machine, centers["batch_size"]))
    return tuple(pace for pace in measured if pace is not None)


def _ungrouped(channels: int) -> dict[str, Any]:
    """Return the configuration of a group for each channel of a network, which makes the same network."""
    return {"_target_": "monai_landmarks.transforms.LandmarkGroups", "num_landmarks": channels}


def estimated_seconds(plan: Plan, pace: Pace, look: Sequence[Pace] = ()) -> float:
    """Return the estimated time of a training of a plan, without reading of images and augmentation.

    Args:
        plan: the plan.
        pace: from :func:`measure_plan`.
        look: from :func:`measure_close_look`, for the time of the further trainings of the close look.
    """
    multiple = METHODS[plan.method].multiple[plan.summary.spatial_dims]
    if not look:
        return training_seconds(plan.choices, plan.summary, pace, multiple)
    fine, *centers = look
    seconds = close_look_seconds(plan.choices, plan.summary, centers[0] if centers else pace, fine, multiple)
    return seconds + sum(centers_seconds(plan.choices, plan.summary, own, multiple) for own in centers)


def _shipped_configs(plan: Plan, datalist: Path) -> dict[str, Any]:
    """Return the configurations of a training from scratch by name, without the metadata."""
    method = METHODS[plan.method]
    names = ["evaluate", *_COPIED, Path(method.final_config).stem]
    configs = {name: method.template(name) for name in names} | method.variants(plan.summary)
    configs |= {"train": train_config(plan, datalist), "inference": inference_config(plan)}
    if group_rows(plan.choices, plan.summary):
        configs["centers"] = centers_config(configs["train"], plan.choices, plan.summary)
        final = configs[Path(method.final_config).stem]
        final["coarse_config"] = [*final["coarse_config"], CENTERS]
    if plan.close_look:
        template = method.template("close_look")
        configs["close_look"] = close_look_config(template, plan.choices, plan.summary, method.returns_logits)
    return configs


def _fine_tuning_configs(plan: Plan, datalist: Path) -> dict[str, Any]:
    """Return the configurations of a fine-tuning, by name, without the metadata."""
    assert plan.fine_tuning is not None
    source = plan.fine_tuning.source.configs
    data = {"datalist": literal(datalist), "dataset_dir": literal(plan.summary.image_folder)}
    copied = {name: source[name] for name in _COPIED if name in source}
    return copied | fine_tuning_configs(plan, data, _FITTED)


def train_config(plan: Plan, datalist: Path) -> dict[str, Any]:
    """Return the configuration of training."""
    config, value = deepcopy(plan.train), {name: choice.value for name, choice in plan.choices.items()}
    config = {**config, **_common(config, plan)}
    config["datalist"] = literal(datalist)
    del config["annotator"]
    config.update({name: value[name] for name in ("max_epochs", "val_interval")})
    warp = next(t for t in config["augmentation"] if t["_target_"].endswith("RandLandmarkWarpd"))
    warp.update(warp_config(*(value[name] for name in ("translate", "rotate", "scale", "elastic"))))
    flip = flip_config(value["flip"], plan.summary.pairs, plan.summary.names, value["one_sided"])
    config["augmentation"] = [*flip, *config["augmentation"]]
    config["train"]["deterministic_transforms"] = _on_grid(config["train"]["deterministic_transforms"], plan)
    if plan.choices.in_patches:
        config["augmentation"].insert(config["augmentation"].index(warp) + 1, _CROP)
        config["validate"]["dataloader"]["batch_size"] = 1
        config["inferer"] = {**config["inferer"], "inferer": _WINDOWS}
    return config


def inference_config(plan: Plan) -> dict[str, Any]:
    """Return the configuration of inference."""
    config = deepcopy(plan.inference)
    config = {**config, **_common(config, plan)}
    spacing = plan.summary.picture_spacing
    config["spacing"] = None if spacing is None else list(spacing)
    config["preprocessing"]["transforms"] = _on_grid(config["preprocessing"]["transforms"], plan)
    if plan.choices.in_patches:
        del config["patches_per_image"]
        config["batch_size"] = 1
        config["inferer"] = {**config["inferer"], "inferer": _WINDOWS}
    return config


def _common(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return a configuration with the settings that training and inference share, in the same order of keys."""
    value = {name: choice.value for name, choice in plan.choices.items()}
    result: dict[str, Any] = {}
    for key, content in config.items():
        if key != "spatial_size":
            result[key] = content
        elif plan.choices.in_patches:
            names = ("patch_size", "patches_per_image", "overlap")
            result |= {"voxel_spacing": value["spacing_mm"]} | {name: value[name] for name in names}
        else:
            result[key] = value["spatial_size"]
            result["voxel_spacing"] = value["spacing_mm"] if value["resampling"] == "spacing" else None
    result["dataset_dir"] = literal(plan.summary.image_folder)
    result["batch_size"] = value["batch_size"]
    result["normalization"] = normalization_config(value["intensity"])
    return result


def literal(path: str | os.PathLike) -> str:
    """Return a path as text for a configuration.

    Raises:
        ValueError: if MONAI would read the path as an expression, a reference or a macro.
    """
    text = os.fspath(path)
    if text.startswith(("$", "@", "%")):
        raise ValueError(
            f"{text}: MONAI reads text that begins with $, @ or % as an expression or a reference; rename or move the path."
        )
    return text


def _on_grid(transforms: Sequence[Any], plan: Plan) -> list[Any]:
    """Return preprocessing transforms that fit images of any size to the grid. Volumes are first oriented to RAS."""
    result: list[Any] = []
    for transform in transforms:
        target = transform["_target_"].rsplit(".", 1)[-1] if isinstance(transform, dict) else transform
        if target == "@normalization" and plan.summary.spatial_dims == 3:
            labels = [["L", "R"], ["P", "A"], ["I", "S"]]
            result.append({"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": labels})
        if target == "Resized":
            result += _RESAMPLED if plan.choices.in_patches else _FITTED
        elif target != "ResizeWithPadOrCropd":
            result.append(transform)
    return result


def fill_metadata(metadata: dict[str, Any], plan: Plan, name: str) -> dict[str, Any]:
    """Return the metadata with the landmarks and the dimensions of the data."""
    summary, method = plan.summary, METHODS[plan.method]
    anatomy = {} if plan.fine_tuning is None else {key: metadata[key] for key in ("anatomy",) if key in metadata}
    for key in ("anatomy", "landmark_schema", "weights_terms"):  # of the bundle that is adapted
        metadata.pop(key, None)
    metadata.update(anatomy, eval_metrics={})
    if plan.fine_tuning is None and method.references is not None:
        metadata["references"] = list(method.references)
    if plan.schema is not None and _is_useful(plan.schema, summary.names):
        metadata["landmark_schema"] = plan.schema.name
    for unit in ("mm", "px"):
        metadata.pop(f"grid_spacing_{unit}", None)
    if not plan.choices.in_patches and plan.choices["resampling"].value == "fit":  # else it is in train.json
        metadata[f"grid_spacing_{summary.unit}"] = plan.choices["spacing_mm"].value
    dims, count = summary.spatial_dims, len(summary.names)
    # the loss of a bundle that is adapted may be another one than that of the method
    is_logits = method.returns_logits if plan.fine_tuning is None else plan.train.get("softmax", False)
    maps = "maps of logits" if is_logits else "heatmaps"
    metadata.update(
        name=f"{name} ({method.title})",
        task=f"Localization of {count} landmarks in {dims}-D images",
        description=f"{method.title} for {count} landmarks, with settings chosen by rules for the training data",
        authors="see docs/README.md",
        copyright="see LICENSE",
        data_source="see docs/data_license.txt",
        data_type="image files",
        image_classes=f"single channel data, {dims}-D",
        pred_classes=f"{count} {maps}, one per landmark; points in the space of the image after post-processing",
        intended_use="This is a research tool, not a medical device. It must not be used for diagnosis.",
    )
    formats = metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    image["modality"] = plan.choices["modality"].value
    for tensor in (image, pred):
        tensor["spatial_shape"] = dims * tensor["spatial_shape"][:1]
    pred["num_channels"] = count
    pred["channel_def"] = {str(i): landmark for i, landmark in enumerate(summary.names)}
    formats["post_processed_outputs"]["pred_points"]["spatial_shape"] = [count, dims]
    return metadata


def _is_useful(schema: LandmarkSchema, names: Sequence[str]) -> bool:
    """Return whether a schema is one of this package, and the landmarks allow at least one of its measurements."""
    if schema.name not in shipped_schemas() or schema != load_landmark_schema(schema.name):
        return False
    known = np.array([column is not None for column in match_landmarks(schema, names).columns])
    points = np.random.default_rng(0).uniform(0, 100, (len(schema), schema.spatial_dims))
    points[~known] = np.nan
    values = schema.measure(points).values()
    return any(np.isfinite(value) for value in values) if values else bool(known.any())
