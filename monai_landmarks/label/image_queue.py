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


"""The order in which annotators receive images: by the uncertainty of a model, each image to one annotator at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from monai_landmarks.data import LandmarkSet
from monai_landmarks.data.files.json_values import is_number

__all__ = ["RESERVED_SECONDS", "UNCERTAINTY_KEY", "image_uncertainty", "next_image", "served_at", "stored_uncertainty"]

UNCERTAINTY_KEY = "landmark_uncertainty"
RESERVED_SECONDS = 60 * 60


def image_uncertainty(landmarks: LandmarkSet, extent: Sequence[float]) -> float:
    """Return the expected error of the landmarks of an image in mm, averaged over the landmarks.

    The expected error of a detected landmark is the root mean square distance according to its covariance. A landmark
    that was not detected, or whose peak is too flat for a covariance, counts as uniformly distributed over the image.

    Args:
        landmarks: predicted landmarks in world mm, with covariances.
        extent: size of the image along its axes in mm.

    Returns:
        The mean in mm. NaN if landmarks were detected but none of them has a covariance.

    Example:
        >>> found = LandmarkSet(("a", "b"), [[1.0, 2.0], [np.nan, np.nan]], covariances=[np.eye(2) * 8, np.full((2, 2), np.nan)])
        >>> round(image_uncertainty(found, (60.0, 60.0)), 2)  # sqrt(8 + 8) and sqrt(2 * 60^2 / 12)
        14.25
    """
    anywhere = float(
        np.sqrt(np.sum(np.square(extent)) / 12)
    )  # a uniform distribution of width w has the variance w^2 / 12
    unknown = np.isnan(landmarks.uncertainty)
    if unknown.all() and not landmarks.missing.all():
        return float("nan")
    each = np.where(landmarks.missing | unknown, anywhere, landmarks.uncertainty)
    return float(each.mean()) if len(each) else float("nan")


def stored_uncertainty(info: Mapping[str, Any], model: str | None) -> float:
    """Return the uncertainty in mm that the scoring has stored for an image and a model; NaN if there is none."""
    stored = info.get(UNCERTAINTY_KEY)
    of_model = stored.get(model) if isinstance(stored, Mapping) else None
    value: Any = of_model.get("mm") if isinstance(of_model, Mapping) else None
    return float(value) if is_number(value) else math.nan


def served_at(info: Mapping[str, Any]) -> float:
    """Return when MONAI Label last gave the image to an annotator, by any strategy.

    Returns:
        Seconds since the epoch; minus infinity if the image was never given to anyone.
    """
    entries = info.get("strategy")
    times = (
        [entry.get("ts", 0) for entry in entries.values() if isinstance(entry, Mapping)]
        if isinstance(entries, Mapping)
        else []
    )
    return max((time for time in times if is_number(time)), default=-math.inf)


def next_image(
    images: Mapping[str, Mapping[str, Any]],
    now: float,
    rank: Callable[[Mapping[str, Any]], float],
    reserved_seconds: float = RESERVED_SECONDS,
) -> str | None:
    """Return the image with the highest rank that is not reserved.

    An image is reserved for ``reserved_seconds`` after it was given to an annotator. During this time it is given to
    nobody, not even to the same annotator: an annotator who asks for the next image without submitting the last one has
    skipped it. The name of the client does not identify an annotator, because 3D Slicer sends the same name for
    everyone who has not set one.

    Args:
        images: stored information about each image without a label, by the image's id.
        now: seconds since the epoch.
        rank: returns the rank of an image from its information. Higher ranks come first, NaN comes last.
        reserved_seconds: how long an image is reserved.

    Returns:
        The id of the image, or None if all images are reserved or there are none. Images of equal rank come in the
        order of their ids.

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
