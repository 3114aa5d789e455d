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

"""Landmark names in the metadata of a bundle."""

from __future__ import annotations

import json
import os

from monai_landmarks.data.files.safe_files import naming_file, read_text

__all__ = ["bundle_landmark_names"]


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
    with naming_file(metadata):
        content = json.loads(read_text(metadata))
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
