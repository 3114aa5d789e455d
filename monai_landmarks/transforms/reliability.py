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

"""Calibrated covariances, probabilities and doubts of predicted landmarks, from the files that a training writes beside its weights."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from monai_landmarks.spaces import points_as_rows, to_array, world_points
from monai_landmarks.uncertainty import CovarianceCalibration, DoubtModel, calibration_path, doubt_path

__all__ = [
    "CalibrateCovariancesD",
    "CalibrateCovariancesDict",
    "CalibrateCovariancesd",
    "ExamineLandmarksD",
    "ExamineLandmarksDict",
    "ExamineLandmarksd",
    "LandmarkProbabilityD",
    "LandmarkProbabilityDict",
    "LandmarkProbabilityd",
]


_Model = TypeVar("_Model", CovarianceCalibration, DoubtModel)


class ExamineLandmarksd(MapTransform):
    """Compare predicted landmarks with the shapes of training points and the heatmaps of validation images.

    The item gets a :class:`monai_landmarks.uncertainty.Doubt`, which is empty for a usual prediction. If there is no
    ``<weights>_shape.json``, the item is not changed. The covariances must not be calibrated yet.

    Args:
        keys: predicted points, (1, N, D) or (N, D), in world mm.
        weights: path of the network weights, beside which the file lies.
        names: names of the N landmarks.
        score_key: key of the scores (N,).
        covariance_key: key of the covariances (N, D, D) in mm^2. None: the widths of heatmaps are not examined.
        image_key: key of the image, for points that are not in the world.
        doubt_keys: keys of the doubts. Default: ``pred_doubt`` for ``pred_points``.
        allow_missing_keys: do not raise if a key is missing.

    Raises:
        ValueError: if the file is malformed, or of other landmarks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        weights: str | os.PathLike,
        names: Sequence[str],
        score_key: str = "pred_scores",
        covariance_key: str | None = "pred_covariances",
        image_key: str = "image",
        doubt_keys: KeysCollection = "pred_doubt",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.doubt_keys = ensure_tuple_rep(doubt_keys, len(self.keys))
        self.score_key = score_key
        self.covariance_key = covariance_key
        self.image_key = image_key
        self.model = _load_if_present(DoubtModel, doubt_path(weights), names)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with the doubts."""
        d = dict(data)
        if self.model is None:
            return d
        for key, doubt_key in self.key_iterator(d, self.doubt_keys):
            points = np.asarray(points_as_rows(world_points(d[key], d.get(self.image_key)), str(key)))
            count, dims = points.shape
            scores = d.get(self.score_key)
            covariances = None if self.covariance_key is None else d.get(self.covariance_key)
            d[doubt_key] = self.model.examine(
                points.astype(np.float64),
                None if scores is None else to_array(scores).reshape(count).astype(np.float64),
                None if covariances is None else to_array(covariances).reshape(count, dims, dims).astype(np.float64),
            )
        return d


class CalibrateCovariancesd(MapTransform):
    """Multiply covariances by the factors that a training has learned on its validation images.

    If there is no ``<weights>_calibration.json``, the item is not changed.

    Args:
        keys: covariances (N, D, D).
        weights: path of the network weights, beside which the file lies.
        names: names of the N landmarks.
        enabled: whether to change the covariances.
        allow_missing_keys: do not raise if a key is missing.

    Raises:
        ValueError: if the file is malformed, or of other landmarks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        weights: str | os.PathLike,
        names: Sequence[str],
        enabled: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        path = calibration_path(weights)
        self.calibration = _load_if_present(CovarianceCalibration, path, names) if enabled else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with calibrated covariances."""
        d = dict(data)
        if self.calibration is not None:
            for key in self.key_iterator(d):
                d[key] = self.calibration.apply(d[key])
        return d


class LandmarkProbabilityd(MapTransform):
    """Compute the probability that each landmark is within a distance of its true place.

    The item gets :class:`monai_landmarks.uncertainty.LandmarkProbabilities`. The distance and the model, see
    :class:`monai_landmarks.uncertainty.ProbabilityModel`, are those that a training has learned on its validation
    images. If there is no ``<weights>_calibration.json``, or it has no model, the item is not changed.

    Args:
        keys: scores (N,).
        weights: path of the network weights, beside which the file lies.
        names: names of the N landmarks.
        covariance_key: key of the covariances (N, D, D) in mm^2, calibrated.
        probability_keys: keys of the probabilities. Default: ``pred_probabilities`` for ``pred_scores``.
        enabled: whether to compute them.
        allow_missing_keys: do not raise if a key is missing.

    Raises:
        ValueError: if the file is malformed, or of other landmarks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        weights: str | os.PathLike,
        names: Sequence[str],
        covariance_key: str = "pred_covariances",
        probability_keys: KeysCollection = "pred_probabilities",
        enabled: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.covariance_key = covariance_key
        self.probability_keys = ensure_tuple_rep(probability_keys, len(self.keys))
        calibration = _load_if_present(CovarianceCalibration, calibration_path(weights), names) if enabled else None
        self.model = None if calibration is None else calibration.probability

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with the probabilities."""
        d = dict(data)
        if self.model is None or d.get(self.covariance_key) is None:
            return d
        count = len(self.model.names)
        covariances = to_array(d[self.covariance_key])
        covariances = covariances.reshape(count, *covariances.shape[-2:]).astype(np.float64)
        for key, probability_key in self.key_iterator(d, self.probability_keys):
            scores = to_array(d[key]).reshape(count).astype(np.float64)
            d[probability_key] = self.model.probabilities(scores, covariances)
        return d


def _load_if_present(kind: type[_Model], path: Path, names: Sequence[str]) -> _Model | None:
    if not path.is_file():
        return None
    model: Any = kind.load(path)
    if model.names != tuple(names):
        raise ValueError(f"{path}: it is of other landmarks than the bundle; train again, or remove the file.")
    return cast(_Model, model)


ExamineLandmarksD = ExamineLandmarksDict = ExamineLandmarksd
CalibrateCovariancesD = CalibrateCovariancesDict = CalibrateCovariancesd
LandmarkProbabilityD = LandmarkProbabilityDict = LandmarkProbabilityd
