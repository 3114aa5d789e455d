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
"""Files that lie beside network weights and belong to them, and JSON files that state their kind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.safe_files import atomic_write, read_text

__all__ = ["calibration_path", "doubt_path", "read_kind", "remove_reliability", "sigma_path", "write_kind"]


def calibration_path(weights: str | os.PathLike) -> Path:
    """Return the path of the calibration that belongs to network weights.

    Example:
        >>> calibration_path("models/model.pt").name
        'model_calibration.json'
    """
    return _beside(weights, "_calibration.json")


def doubt_path(weights: str | os.PathLike) -> Path:
    """Return the path of the model of shape and heatmaps that belongs to network weights.

    Example:
        >>> doubt_path("models/model.pt").name
        'model_shape.json'
    """
    return _beside(weights, "_shape.json")


def sigma_path(weights: str | os.PathLike) -> Path:
    """Return the path of the sigma that was learned together with network weights.

    Example:
        >>> sigma_path("models/model.pt").name
        'model_sigma.pt'
    """
    return _beside(weights, f"_sigma{Path(weights).suffix}")


def remove_reliability(weights: str | os.PathLike) -> None:
    """Remove calibration and model of shape and heatmaps of weights that are about to be replaced."""
    for path in (calibration_path(weights), doubt_path(weights)):
        path.unlink(missing_ok=True)


def read_kind(path: str | os.PathLike, kind: str, advice: str) -> dict[str, Any]:
    """Read a JSON file that :func:`write_kind` has written.

    Args:
        path: the file.
        kind: expected kind.
        advice: what to do if the file is of another kind, for the message.

    Raises:
        ValueError: if the file is not JSON or of another kind.
    """
    content = load_json(read_text(path))
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise ValueError(f"contains no {kind}; {advice}")
    return content


def write_kind(path: str | os.PathLike, kind: str, content: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write a JSON file that states its kind, completely or not at all."""
    text = json.dumps({"kind": kind, **content}, indent=indent, allow_nan=False, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _beside(weights: str | os.PathLike, ending: str) -> Path:
    path = Path(weights)
    return path.with_name(path.stem + ending)
