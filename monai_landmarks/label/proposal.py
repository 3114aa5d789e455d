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


"""The landmarks that a model proposes for an image, as a :class:`~monai_landmarks.data.LandmarkSet` and as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from monai_landmarks.data import CoordinateSystem, LandmarkSet, landmark_set_of
from monai_landmarks.spaces import plane_z, spacing_of

__all__ = ["image_extent", "plain_answer", "plain_list", "proposed_landmarks"]


def proposed_landmarks(data: Mapping[str, Any], names: Sequence[str], pred_key: str = "pred") -> LandmarkSet:
    """Return the landmarks that the postprocessing of a bundle has added to an item.

    Args:
        data: item after :class:`~monai_landmarks.transforms.HeatmapToLandmarksd`, with ``<pred_key>_points`` (1, N, D)
            and ``image``, and optionally ``<pred_key>_scores`` and ``<pred_key>_covariances``.
        names: names of the N landmarks.
        pred_key: key of the output of the network.

    Returns:
        3-D landmarks in RAS mm. The points of a single slice lie in its plane. NaN for a landmark that was not
        detected.

    Raises:
        ValueError: if there are no points, or if the numbers of points and names differ.
    """
    if f"{pred_key}_points" not in data:
        raise ValueError(
            f"the bundle's postprocessing returns no {pred_key}_points. Add HeatmapToLandmarksd to its configs/inference.json."
        )
    landmarks = landmark_set_of(
        data[f"{pred_key}_points"],
        names=names,
        scores=data.get(f"{pred_key}_scores"),
        covariances=data.get(f"{pred_key}_covariances"),
        what=f"{pred_key}_points of the bundle",
    )
    return landmarks.with_spatial_dims(3, plane_z(data.get("image")))


def plain_list(landmarks: LandmarkSet) -> list[dict[str, Any]]:
    """Return landmarks as JSON values: name, position in RAS mm, score, and uncertainty in mm. Unknown values are None.

    Example:
        >>> plain_list(LandmarkSet(("a", "b"), [[1.0, 2.0, 3.0], [np.nan] * 3], "LPS", scores=[0.5, np.nan]))[0]
        {'name': 'a', 'position': [-1.0, -2.0, 3.0], 'score': 0.5, 'uncertainty_mm': None}
    """
    ras = landmarks.to(CoordinateSystem.RAS)
    scores = np.full(len(ras), np.nan) if ras.scores is None else ras.scores
    return [
        {
            "name": name,
            "position": None if missing else point,
            "score": _known(score),
            "uncertainty_mm": _known(uncertainty),
        }
        for name, point, missing, score, uncertainty in zip(
            ras.names, ras.points.tolist(), ras.missing, scores.tolist(), ras.uncertainty.tolist()
        )
    ]


def plain_answer(landmarks: LandmarkSet, data: Mapping[str, Any], pred_key: str = "pred") -> dict[str, Any]:
    """Return proposed landmarks as JSON values, with doubts and probabilities if the training has learned them.

    Args:
        landmarks: from :func:`proposed_landmarks`, in the space of the answer.
        data: the same item, which may have ``<pred_key>_doubt`` of
            :class:`~monai_landmarks.transforms.ExamineLandmarksd` and ``<pred_key>_probabilities`` of
            :class:`~monai_landmarks.transforms.LandmarkProbabilityd`.
        pred_key: key of the output of the network.

    Returns:
        ``landmarks``: see :func:`plain_list`, with the ``doubt`` and the ``probability`` of each landmark; ``doubt``:
        the reasons to doubt the image, empty if there are none; ``within_mm``: the distance of the probabilities. What is
        unknown is left out.
    """
    answer: dict[str, Any] = {"landmarks": plain_list(landmarks)}
    doubt, probable = data.get(f"{pred_key}_doubt"), data.get(f"{pred_key}_probabilities")
    if doubt is not None:
        answer["doubt"] = str(doubt)
        for entry, (_, reason) in zip(answer["landmarks"], doubt.cells(len(landmarks))):
            entry["doubt"] = reason
    if probable is not None:
        answer["within_mm"] = probable.radius
        for entry, value in zip(answer["landmarks"], probable.values.tolist()):
            entry["probability"] = _known(value)
    return answer


def image_extent(image: torch.Tensor) -> list[float]:
    """Return the size of an image (C, *spatial) along its axes in mm, or in voxels if it has no affine."""
    shape = image.shape[1:]
    return [float(size * step) for size, step in zip(shape, spacing_of(image, len(shape)))]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
