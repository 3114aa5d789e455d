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


"""Which image an annotator gets next."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["RESERVED_SECONDS", "UNCERTAINTY_KEY", "next_image", "served_at", "stored_uncertainty"]

UNCERTAINTY_KEY = "landmark_uncertainty"
RESERVED_SECONDS = 60 * 60


def stored_uncertainty(info: Mapping[str, Any], model: str | None) -> float:
    """What the scoring has stored with an image for a model, in mm; NaN where it has not been scored."""
    stored = info.get(UNCERTAINTY_KEY)
    of_model = stored.get(model) if isinstance(stored, Mapping) else None
    value = of_model.get("mm") if isinstance(of_model, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else math.nan


def served_at(info: Mapping[str, Any]) -> float:
    """When MONAI Label last handed the image out, by any strategy; seconds since the epoch, minus infinity for never."""
    entries = info.get("strategy")
    times = [entry.get("ts", 0) for entry in entries.values()] if isinstance(entries, Mapping) else []
    return max(times, default=-math.inf)


def next_image(
    images: Mapping[str, Mapping[str, Any]],
    now: float,
    rank: Callable[[Mapping[str, Any]], float],
    reserved_seconds: float = RESERVED_SECONDS,
) -> str | None:
    """The image of the highest rank among those that nobody is working on.

    Who was handed an image has it for himself for a while. It goes to nobody else, and not to him again either: who asks
    for the next image without having submitted the one before has passed it over. The name of the client is no help here,
    for 3D Slicer gives the same name to everyone who has not set one.

    Args:
        images: what is known of each image without a label, by its id.
        now: seconds since the epoch.
        rank: the greater, the sooner; NaN comes last.
        reserved_seconds: how long an image belongs to whom it was handed to.

    Returns:
        the id; None if there is no image left, or somebody is at each of them. Equals go by name.

    Example:
        >>> images = {"a": {"rank": 1}, "b": {"rank": 3, "strategy": {"s": {"ts": 990}}}, "c": {"rank": 2}}
        >>> next_image(images, now=1000, rank=lambda info: info["rank"])
        'c'
        >>> next_image(images, now=5000, rank=lambda info: info["rank"])
        'b'
    """
    free = [image for image, info in images.items() if not 0 <= now - served_at(info) < reserved_seconds]
    ranks = {image: rank(images[image]) for image in free}
    return min(free, key=lambda image: (math.isnan(ranks[image]), -ranks[image], image), default=None)
