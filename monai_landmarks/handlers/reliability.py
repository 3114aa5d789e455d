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

"""What a training learns about the reliability of its predictions, written or copied beside the weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import CommonKeys

from monai_landmarks.data import atomic_write, item_world_points
from monai_landmarks.spaces import to_array
from monai_landmarks.uncertainty import (
    CovarianceCalibration,
    DoubtModel,
    ProbabilityModel,
    calibration_path,
    doubt_path,
)

from .engine_output import Engine, Events, cpu_world_points, is_main_process, output_items, take
from .epoch_collector import EpochCollector

__all__ = ["ReliabilityCopier", "ReliabilitySaver"]


class _Case(NamedTuple):
    points: np.ndarray  # (N, D) world mm
    true: np.ndarray  # (N, D) world mm
    scores: np.ndarray  # (N,)
    covariances: np.ndarray  # (N, D, D) mm^2


class ReliabilitySaver(EpochCollector[_Case]):
    """Calibrate covariances on the validation images, and learn how usual shapes and heatmaps look.

    Two files of numbers are written beside the weights: ``<weights>_calibration.json``, see
    :class:`monai_landmarks.uncertainty.CovarianceCalibration` and
    :class:`monai_landmarks.uncertainty.ProbabilityModel`, and ``<weights>_shape.json``, see
    :class:`monai_landmarks.uncertainty.DoubtModel`. Prediction reads them. If the images are too few for a file, an old
    one is removed, because it belongs to other weights, and a warning is logged.

    Args:
        weights: path of the weights.
        names: names of the N landmarks.
        training: items of the training section of a datalist, whose points give the model of shape.
        pred_key: key of the predicted points in the evaluator's output, (1, N, D) or (N, D).
        score_key: key of the scores (N,).
        covariance_key: key of the covariances (N, D, D) in mm^2, not calibrated.
        label_key: key of the true points.
        image_key: key of the image.
        best_only: whether to write only when the evaluator's key metric is the best so far. The files then belong to
            the weights that are kept.
        radius: the probability that a landmark is within this distance of its true place is learned, in mm.
    """

    def __init__(
        self,
        weights: str | os.PathLike,
        names: Sequence[str],
        training: Sequence[Mapping[str, Any]],
        pred_key: str = "pred_points",
        score_key: str = "pred_scores",
        covariance_key: str = "pred_covariances",
        label_key: str = CommonKeys.LABEL,
        image_key: str = CommonKeys.IMAGE,
        best_only: bool = False,
        radius: float = 2.0,
    ) -> None:
        super().__init__(best_only)
        self.calibration_path = calibration_path(weights)
        self.doubt_path = doubt_path(weights)
        self.names = tuple(names)
        self.training = training
        self.pred_key = pred_key
        self.score_key = score_key
        self.covariance_key = covariance_key
        self.label_key = label_key
        self.image_key = image_key
        self.radius = radius
        self.cases: list[_Case] = []  # of the last evaluation
        self._training_points: np.ndarray | None = None

    def _collect(self, engine: Engine) -> None:
        for item in output_items(engine):
            image = item.get(self.image_key)
            points, true = (
                cpu_world_points(take(item, key, self), image, key).numpy() for key in (self.pred_key, self.label_key)
            )
            count, dims = points.shape
            scores = to_array(take(item, self.score_key, self)).reshape(count)
            covariances = to_array(take(item, self.covariance_key, self)).reshape(count, dims, dims)
            self._rows.append(_Case(points, true, scores.astype(np.float64), covariances.astype(np.float64)))

    def _finish(self, engine: Engine, rows: list[_Case]) -> None:
        self.cases = rows
        if not is_main_process():
            return
        if self._training_points is None:
            self._training_points = item_world_points(self.training, self.names)
        self.write(rows, self._training_points, engine.logger.warning)

    def write(self, cases: Sequence[_Case], training_points: np.ndarray, warn: Callable[[str], Any]) -> None:
        """Write both files.

        Args:
            cases: predictions of images that the weights have not seen.
            training_points: (K, N, D) world mm, of the images from which shapes are learned.
            warn: is called with a sentence if the images are too few for a file.
        """
        points, true, scores, covariances = (np.stack(values) for values in zip(*cases))
        self.calibration_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            calibration = CovarianceCalibration.fit(self.names, true - points, covariances)
            try:
                errors, calibrated = np.linalg.norm(true - points, axis=-1), calibration.apply(covariances)
                probability = ProbabilityModel.fit(self.names, errors, scores, calibrated, self.radius)
                calibration = replace(calibration, probability=probability)
            except ValueError as error:
                warn(f"predictions will have no probabilities: {error}")
            calibration.save(self.calibration_path)
        except ValueError as error:
            warn(f"the covariances are not calibrated: {error}")
            self.calibration_path.unlink(missing_ok=True)
        model = DoubtModel.fit(self.names, training_points, points, scores, covariances)
        if model.shape is None and model.heatmaps is None:
            warn(f"predictions will not be examined: {len(cases)} validation images are too few.")
            self.doubt_path.unlink(missing_ok=True)
        else:
            model.save(self.doubt_path)


class ReliabilityCopier:
    """Copy calibration and shapes of another training beside the weights that a training has written at its end.

    A training that also uses the validation images cannot learn how reliable its predictions are. Those of the same
    network, trained with the same settings without the validation images, are about as reliable, or a little less.

    Args:
        weights: path of the weights of this training.
        source: path of the weights of the other training, beside which its files lie. They are read at once, so it may
            be the file that this training replaces. None: nothing is copied.

    Raises:
        ValueError: if no calibration and no shapes lie beside the source.
    """

    def __init__(self, weights: str | os.PathLike, source: str | os.PathLike | None = None) -> None:
        self._contents: dict[Path, bytes] = {}
        if source is None:
            return
        for path_of in (calibration_path, doubt_path):
            path = path_of(source)
            if path.is_file():
                self._contents[path_of(weights)] = path.read_bytes()
        if not self._contents:
            raise ValueError(
                f"{source}: there is no {calibration_path(source).name} and no {doubt_path(source).name} beside it; give"
                " the weights of a training with validation images."
            )

    def attach(self, engine: Engine) -> None:
        """Add the handler to a trainer, after those that save the weights."""
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _write(self, engine: Engine) -> None:
        if is_main_process():
            for path, content in self._contents.items():
                with atomic_write(path) as temporary:
                    temporary.write_bytes(content)
