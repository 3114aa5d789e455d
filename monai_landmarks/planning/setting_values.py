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

"""Types and ranges of the values that users give to settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .intensity import MODALITIES

__all__ = ["require_size", "require_values"]

_POSITIVE_INTEGERS = (
    "batch_size",
    "close_patches_per_image",
    "max_epochs",
    "patches_per_image",
    "val_interval",
    "width",
)
_POSITIVE_NUMBERS = (
    "close_sigma",
    "close_spacing",
    "displacement",
    "far_displacement",
    "learning_rate",
    "length_factor",
    "spacing_mm",
)


def require_values(given: Mapping[str, Any], dims: int, landmarks: int) -> None:
    """Raise a ``ValueError`` if a given value has the wrong type or is out of its range.

    Args:
        given: values of settings by name.
        dims: 2 or 3.
        landmarks: number of landmarks.
    """
    for name in ("spatial_size", "patch_size", "close_size"):
        if given.get(name) is not None:
            require_size(name, given[name], dims)
    for name in _POSITIVE_INTEGERS:
        if name in given and not (type(given[name]) is int and given[name] > 0):
            raise ValueError(f"{name} is {given[name]!r}; expected a positive integer.")
    for name in _POSITIVE_NUMBERS:
        if name in given and not (_is_number(given[name]) and given[name] > 0):
            raise ValueError(f"{name} is {given[name]!r}; expected a positive number.")
    sigma = given.get("sigma_mm", 1.0)
    each = sigma if isinstance(sigma, (list, tuple)) else [sigma] * landmarks
    if len(each) != landmarks or not all(_is_number(value) and value > 0 for value in each):
        raise ValueError(
            f"sigma_mm is {sigma!r}; expected a positive number, or one for each of {landmarks} landmarks."
        )
    for name, limit in (("coarse_weight", 1.0), ("flip", 1.0), ("overlap", 0.99), ("scale", 0.99)):
        if name in given and not (_is_number(given[name]) and 0 <= given[name] <= limit):
            raise ValueError(f"{name} is {given[name]!r}; expected a number from 0 to {limit:g}.")
    for name, count in (("translate", dims), ("rotate", 1 if dims == 2 else 3), ("elastic", dims)):
        if name in given and not _is_range(given[name], count):
            raise ValueError(
                f"{name} is {given[name]!r}; expected a number, 0 or more, or a list of {count}, each such a number or a"
                " pair of limits."
            )
    held = given.get("held_epochs", 0)
    if type(held) is not int or held < 0:
        raise ValueError(f"held_epochs is {held!r}; expected an integer, 0 or more.")
    if given.get("resampling", "fit") not in ("fit", "spacing"):
        raise ValueError(f"resampling is {given['resampling']!r}; expected 'fit' or 'spacing'.")
    if "modality" in given and given["modality"] not in MODALITIES:
        raise ValueError(f"modality is {given['modality']!r}; expected one of {', '.join(MODALITIES)}.")


def require_size(name: str, size: Any, dims: int) -> None:
    """Raise a ``ValueError`` if a size is not one positive integer per axis."""
    if not isinstance(size, list) or len(size) != dims or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f"{name} is {size!r}; expected {dims} positive integers, for example {[128, 96, 64][:dims]}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: Any, count: int) -> bool:
    """Return whether a value is a range of ``count`` parameters of ``RandLandmarkWarp``."""
    if not isinstance(value, (list, tuple)):
        return _is_number(value) and value >= 0
    pairs = [entry if isinstance(entry, (list, tuple)) else [0, entry] for entry in value]
    return len(value) == count and all(
        len(pair) == 2 and all(map(_is_number, pair)) and pair[0] <= pair[1] for pair in pairs
    )
