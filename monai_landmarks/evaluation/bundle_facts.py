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

"""What is known about the bundles of this package: anatomy, landmarks, weights, error and terms."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from monai_landmarks.data.datalists.bundle_metadata import read_bundle_json
from monai_landmarks.data.datalists.bundle_weights import CLOSE_LOOK_PRETRAINED, TRAINED, find_weights
from monai_landmarks.data.files.json_values import short
from monai_landmarks.data.files.safe_files import naming_file

__all__ = ["BundleFacts", "read_bundle_facts", "resolve_bundle", "shipped_bundles"]


@dataclass(frozen=True)
class BundleFacts:
    """Facts of a bundle.

    Args:
        name: name of its folder.
        anatomy: what its images show.
        modality: ``"X-ray"``, ``"CT"``, ...
        landmarks: number of landmarks.
        weights: ``"shipped"`` with the bundle, ``"trained"`` on this machine, or ``"none"``.
        error: mean error of the shipped weights with its unit, for example ``"0.27 mm"``. Empty if it is not stated, or
            the weights are not the shipped ones.
        terms: terms of the shipped weights; empty without shipped weights.
        schema: name of the landmark schema; empty if there is none.
        elsewhere: whether there are no weights here, but a clone of the repository has some, whose terms keep them out
            of the wheel.
    """

    name: str
    anatomy: str
    modality: str
    landmarks: int
    weights: Literal["shipped", "trained", "none"]
    error: str
    terms: str
    schema: str
    elsewhere: bool = False


def read_bundle_facts(bundle: str | os.PathLike) -> BundleFacts:
    """Read the facts of a bundle from its metadata.

    Raises:
        ValueError: if the metadata is malformed.
    """
    folder = Path(bundle)
    path = folder / "configs" / "metadata.json"
    content = read_bundle_json(path)
    with naming_file(path):
        models = folder / "models"
        found = Path(find_weights(models, CLOSE_LOOK_PRETRAINED))
        if not found.is_file():
            found = Path(find_weights(models))
        shipped = found.is_file() and found.name != TRAINED
        return BundleFacts(
            folder.resolve().name,
            str(_entry(content, "anatomy") or ""),
            str(_entry(content, "network_data_format", "inputs", "image", "modality") or ""),
            len(_entry(content, "network_data_format", "outputs", "pred", "channel_def") or {}),
            "shipped" if shipped else "trained" if found.is_file() else "none",
            _error(content) if shipped else "",
            str(_entry(content, "weights_terms") or "") if shipped else "",
            str(_entry(content, "landmark_schema") or ""),
            not found.is_file() and bool(_entry(content, "weights_terms")),
        )


def _error(content: Any) -> str:
    values = {unit: _entry(content, "eval_metrics", f"mean_error_{unit}") for unit in ("mm", "pixels")}
    return next((f"{value} {unit}" for unit, value in values.items() if value is not None), "")


def _entry(content: Any, *keys: str) -> Any:
    """Return an entry of nested JSON objects; None if it is absent.

    Raises:
        ValueError: if a value on the way is not an object.
    """
    for key in keys:
        if content is None:
            return None
        if not isinstance(content, dict):
            raise ValueError(f"{short(content)} is not an object with the key {key!r}.")
        content = content.get(key)
    return content


def shipped_bundles() -> list[BundleFacts]:
    """Return the facts of all bundles of this package, sorted by name."""
    return [read_bundle_facts(path) for path in _shipped_folders()]


def resolve_bundle(bundle: str | os.PathLike) -> Path:
    """Return the folder of a bundle that is given by its folder, or by the name of a bundle of this package.

    A folder comes first.

    Raises:
        ValueError: if there is neither.
    """
    folder = Path(bundle)
    if folder.is_dir():
        return folder
    shipped = {path.name: path for path in _shipped_folders()}
    if os.fspath(bundle) not in shipped:
        raise ValueError(
            f"{bundle}: there is no such folder and no bundle of this name; the bundles are {', '.join(shipped)}."
        )
    return shipped[os.fspath(bundle)]


def _shipped_folders() -> list[Path]:
    root = Path(str(files("monai_landmarks.bundles")))
    return [path.parents[1] for path in sorted(root.glob("*/configs/metadata.json"))]
