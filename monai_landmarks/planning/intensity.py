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
"""Normalization of image intensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from .choice import Choice

__all__ = ["MODALITIES", "STANDARDIZE", "Modality", "choose_intensity", "normalization_config"]

Modality = Literal["CT", "MR", "X-ray"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
STANDARDIZE = "standardize"
_WINDOW = [-1000, 1000]


def choose_intensity(modality: Modality) -> Choice:
    """Choose a window in Hounsfield units, ``[low, high]``, or ``"standardize"``."""
    if modality == "CT":
        return Choice(
            _WINDOW,
            "Hounsfield units are the same in every CT; the range from air to bone is scaled to -1 to 1 and clipped",
        )
    return Choice(
        STANDARDIZE,
        f"{modality} intensities are not comparable between images; each is scaled to mean 0 and standard deviation 1",
    )


def normalization_config(intensity: str | Sequence[float]) -> dict[str, Any]:
    """Return the normalization transform in MONAI's configuration syntax.

    Raises:
        ValueError: if ``intensity`` is neither a window nor ``"standardize"``.
    """
    if intensity == STANDARDIZE:
        return {"_target_": "NormalizeIntensityd", "keys": "image"}
    if isinstance(intensity, str) or len(intensity) != 2 or not intensity[0] < intensity[1]:
        raise ValueError(
            f"intensity is {intensity!r}; expected {STANDARDIZE!r} or a window, for example [-1000, 1000]."
        )
    low, high = intensity
    window = {"a_min": low, "a_max": high, "b_min": -1.0, "b_max": 1.0, "clip": True}
    return {"_target_": "ScaleIntensityRanged", "keys": "image", **window}
