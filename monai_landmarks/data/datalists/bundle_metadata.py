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

"""JSON files in ``configs/`` of a bundle, and the landmark names in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from monai_landmarks.data.files.safe_files import naming_file, read_text

__all__ = ["bundle_landmark_names", "read_bundle_json", "require_readable"]


def read_bundle_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a JSON file in ``configs/`` of a bundle.

    MONAI's own error does not name the file. Read a file with this function before MONAI reads it.

    Raises:
        ValueError: if the file is not JSON, or not an object. The message names it and says what to do.
    """
    with naming_file(path):
        try:
            content = json.loads(read_text(path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"the file is damaged ({error}). Copy it again from the source of the bundle.") from error
        if not isinstance(content, dict):
            raise ValueError("not a configuration. Copy the file again from the source of the bundle.")
        return content


def require_readable(configs: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
    """Raise ValueError if a JSON file among configurations that MONAI is to read next is damaged."""
    for path in [configs] if isinstance(configs, (str, os.PathLike)) else configs:
        if os.fspath(path).endswith(".json") and os.path.isfile(path):
            read_bundle_json(path)


def bundle_landmark_names(metadata: str | os.PathLike, output: str = "pred") -> list[str]:
    """Read the names of the landmarks that a bundle predicts, in the order of its heatmaps.

    Args:
        metadata: ``configs/metadata.json`` of the bundle.
        output: output in ``network_data_format`` whose ``channel_def`` names the heatmaps.

    Returns:
        N names.

    Raises:
        ValueError: if the file has no such output, or its channels are not numbered 0 to N - 1.
    """
    content = read_bundle_json(metadata)
    with naming_file(metadata):
        try:
            channels = content["network_data_format"]["outputs"][output]["channel_def"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"there is no network_data_format.outputs.{output}.channel_def: {error} is missing."
            ) from None
        expected = [str(i) for i in range(len(channels))]
        if sorted(channels, key=int) != expected:
            raise ValueError(f"channel_def must number the landmarks 0 to {len(channels) - 1}, got {list(channels)}.")
        return [channels[i] for i in expected]
