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
"""Error tables of an evaluation."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from monai.utils import CommonKeys

from monai_landmarks.metrics import ErrorReport, points_error_batch

from .engine_output import Engine, image_path, is_main_process, output_items, take
from .epoch_collector import EpochCollector

__all__ = ["LandmarkReport"]


class LandmarkReport(EpochCollector[tuple[str | None, torch.Tensor]]):
    """Write the errors of an evaluation as tables and log them.

    At the end of the evaluator's epoch it writes three tables to ``output_dir``: ``metrics.csv`` (MRE, standard
    deviation, median, SDR, outliers, IPE, and the evaluator's additional metrics that are single numbers),
    ``errors_per_landmark.csv`` and ``errors_per_image.csv``. They cover the cases of all ranks. The attribute
    ``report`` holds the last :class:`~monai_landmarks.metrics.ErrorReport`.

    Args:
        output_dir: folder for the tables.
        names: names of the N landmarks.
        thresholds: radii for SDR and outlier counts, in ``unit``.
        pred_key: key of the predicted points in the evaluator's output, (1, N, D) or (N, D).
        label_key: key of the true points, in the same form. Points that are :class:`~monai.data.MetaTensor` are mapped
            by their affines, so world points and index points can be compared.
        image_key: key of the image, whose file name identifies the case.
        unit: unit of the errors in the tables: ``"mm"`` for world points.
        space: ``"world"`` compares points in world mm. ``"index"`` compares the coordinates as they are; use
            ``unit="voxel"`` with it.
        strict: whether an error must be below a radius, and not equal to it, to count as a detection; see
            :class:`~monai_landmarks.metrics.ErrorReport`.
        log_table: whether to log the table with the engine's logger.
        best_only: whether to write only when the evaluator's key metric is the best so far. During training, the files
            then belong to the model that is kept.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        names: Sequence[str] | None = None,
        thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
        pred_key: str = "pred_points",
        label_key: str = CommonKeys.LABEL,
        image_key: str = CommonKeys.IMAGE,
        unit: Literal["voxel", "mm"] = "mm",
        space: Literal["world", "index"] = "world",
        strict: bool = False,
        log_table: bool = True,
        best_only: bool = False,
    ) -> None:
        super().__init__(best_only)
        self.output_dir = output_dir
        self.names = names
        self.thresholds = thresholds
        self.pred_key = pred_key
        self.label_key = label_key
        self.image_key = image_key
        self.unit = unit
        self.space = space
        self.strict = strict
        self.log_table = log_table
        self.report: ErrorReport | None = None

    def _collect(self, engine: Engine) -> None:
        for item in output_items(engine):
            pred, label = take(item, self.pred_key, self), take(item, self.label_key, self)
            error = points_error_batch(pred[None], label[None], space=self.space)[0]
            self._rows.append((image_path(item, self.image_key), error.detach().cpu().double()))

    def _finish(self, engine: Engine, rows: list[tuple[str | None, torch.Tensor]]) -> None:
        images = [path or f"case {i}" for i, (path, _) in enumerate(rows)]
        self.report = ErrorReport(
            torch.stack([error for _, error in rows]),
            self.names,
            images,
            self.thresholds,
            self.unit,
            self.strict,
            _additional_metrics(engine),
        )
        if not is_main_process():
            return
        paths = self.report.write(self.output_dir)
        if self.log_table:
            engine.logger.info(
                f"{self.report}\n  tables in {self.output_dir}: {', '.join(path.name for path in paths)}"
            )
        twice = [image for image, count in Counter(images).items() if count > 1]
        if twice:
            engine.logger.warning(
                f"{len(twice)} images were evaluated more than once, for example {twice[0]}. In distributed evaluation, use a "
                "DistributedSampler with even_divisible=False: otherwise cases are repeated to give all ranks the same number."
            )


def _additional_metrics(engine: Engine) -> list[tuple[str, float, str]]:
    """Return the evaluator's metrics except the key metric, as rows of the summary; their names contain their units."""
    metrics = ((name, value) for name, value in engine.state.metrics.items() if name != engine.state.key_metric_name)
    return [(name, float(value), "") for name, value in metrics if np.ndim(value) == 0]
