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
"""A trained bundle from which another one is fine-tuned: its configurations, landmarks and weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monai_landmarks.data.datalists.bundle_metadata import bundle_landmark_names, read_bundle_json
from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, PRETRAINED, TRAINED, find_weights
from monai_landmarks.data.files.safe_files import naming_file
from monai_landmarks.data.files.tensor_files import load_tensors
from monai_landmarks.schema import LandmarkSchema, load_landmark_schema
from monai_landmarks.uncertainty import find_learned_sigma, sigma_path

from .coarse_network import coarse_config_names, has_own_coarse_network, with_coarse_network
from .methods import METHODS

__all__ = ["SourceBundle", "read_source_bundle"]

_COARSE, _FINE = "coarse.", "fine."  # the two networks in the weights of a close look


@dataclass(frozen=True)
class SourceBundle:
    """A trained bundle.

    Args:
        folder: its folder.
        method: its method, a key of ``METHODS``.
        names: names of its landmarks, in the order of its heatmaps.
        configs: its configurations by name: ``train``, ``inference``, ``evaluate``, ``metadata``, and others that
            exist.
        weights_file: file of its weights.
        weights: weights of the network of ``train.json``.
        close_weights: weights of the fine network of ``close_look.json``. None if it is not trained.
        sigma: learned sigma of the targets in voxels, one per landmark. None if it is not known.
        schema: its landmark schema. None if it has none.
    """

    folder: Path
    method: str
    names: tuple[str, ...]
    configs: dict[str, Any]
    weights_file: Path
    weights: dict[str, torch.Tensor]
    close_weights: dict[str, torch.Tensor] | None
    sigma: tuple[float, ...] | None
    schema: LandmarkSchema | None

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def spatial_dims(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return self.configs["train"]["network_def"]["spatial_dims"]

    @property
    def spacing(self) -> float | None:
        """Voxel size of the grid in mm. None if it is not stated."""
        return self.configs["train"].get("voxel_spacing") or self.configs["metadata"].get("grid_spacing_mm")

    @property
    def grid_spacing(self) -> float | None:
        """Voxel size of the grid in the unit of the bundle's lengths, mm or pixels. None if it is not stated."""
        configs = self.configs
        return self.spacing or configs["metadata"].get("grid_spacing_px") or configs["train"].get("voxel_size")

    @property
    def terms(self) -> str:
        """Terms of the weights; empty if none are stated."""
        return self.configs["metadata"].get("weights_terms", "")


def read_source_bundle(bundle: str | os.PathLike) -> SourceBundle:
    """Read a trained bundle.

    Args:
        bundle: its folder.

    Raises:
        ValueError: if it has no weights, if its method is none of ``METHODS``, or if a file is malformed.
    """
    folder = Path(bundle)
    configs = {}
    for path in sorted((folder / "configs").glob("*.json")):
        configs[path.stem] = read_bundle_json(path)
    absent = [name for name in ("train", "inference", "evaluate", "metadata") if name not in configs]
    if absent:
        raise ValueError(f"{folder}: configs/{absent[0]}.json is absent, so this bundle cannot be fine-tuned.")
    _checked_method(folder, configs["train"])
    models = folder / "models"
    file = Path(find_weights(models, CLOSE_LOOK_PRETRAINED))
    file = file if file.is_file() else Path(find_weights(models))
    weights = load_tensors(file, advice=f"Train {folder} first, or give a bundle with weights.")
    with naming_file(file):
        coarse, fine = _networks(weights)
    beside: Path | None = file
    if fine is not None:  # the sigma of the coarse network lies beside its own weights
        beside = models / "coarse" / TRAINED if file.name == TRAINED else models / PRETRAINED
    if fine is not None and has_own_coarse_network(configs["close_look"]):
        names = coarse_config_names(configs)
        if names is None:
            advice = (
                f"{file.name} has a coarse network for other points than train.json, which is fine-tuned. Give a bundle with "
                "weights of train.json alone."
            )
            file, fine = models / PRETRAINED, None
            coarse, _ = _networks(load_tensors(file, advice=advice))
            beside = file
        else:
            configs, beside = with_coarse_network(configs, names), None
    # some methods state sigma in the configuration
    sigma = None if beside is None or "sigma" in configs["train"] else find_learned_sigma(sigma_path(beside))
    schema = configs["metadata"].get("landmark_schema")
    return SourceBundle(
        folder=folder,
        method=_checked_method(folder, configs["train"]),
        names=tuple(bundle_landmark_names(folder / "configs" / "metadata.json")),
        configs=configs,
        weights_file=file,
        weights=coarse,
        close_weights=fine,
        sigma=None if sigma is None else tuple(sigma.mean(dim=1).tolist()),
        schema=load_landmark_schema(schema) if schema else None,
    )


def _checked_method(folder: Path, train: Mapping[str, Any]) -> str:
    """Return the method of a bundle."""
    network = train.get("network_def", {})
    method = _method(network, train.get("loss_def", {}))
    if method is None:
        known = ", ".join(method.title for method in METHODS.values())
        raise ValueError(
            f"{folder}: the network is {network.get('_target_', 'not stated')}; init --from knows those of {known}."
        )
    if network.get("spatial_dims") not in (2, 3):
        raise ValueError(f"{folder}: configs/train.json does not state spatial_dims of the network as 2 or 3.")
    if network.get("in_channels") != 1:
        raise ValueError(
            f"{folder}: the network takes images of {network.get('in_channels')} channels, but images of a datalist have one."
        )
    return method


def _method(network: Mapping[str, Any], loss: Mapping[str, Any]) -> str | None:
    """Return the method of a configuration. Two methods have the same network; one of them has a loss of its own."""
    fitting = [name for name, method in METHODS.items() if method.network_target == network.get("_target_")]
    if len(fitting) > 1:
        own = METHODS["adaptive"].template("train")["loss_def"]["_target_"]
        return "adaptive" if loss.get("_target_") == own else "unet"
    return fitting[0] if fitting else None


def _networks(weights: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor] | None]:
    """Return the weights of the coarse and of the fine network; None for the second if there is only one network."""
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ValueError("the file does not contain the weights of a network.")
    full = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    if not all(name.startswith((_COARSE, _FINE)) for name in full):
        return full, None
    parts = [
        {name.removeprefix(part): value for name, value in full.items() if name.startswith(part)}
        for part in (_COARSE, _FINE)
    ]
    return parts[0], parts[1]
