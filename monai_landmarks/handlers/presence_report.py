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


"""A handler that chooses on the validation cases above which score a landmark is present."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from monai.utils import CommonKeys

from monai_landmarks.metrics import PresenceThreshold, choose_presence_threshold

from .engine_output import Engine, is_main_process, output_items, take
from .epoch_collector import EpochCollector

__all__ = ["PresenceReport"]


class PresenceReport(EpochCollector):
    """Choose the threshold of presence on the cases of a validation, and write it with what it reaches there.

    The cases need scores of all landmarks, so the validation itself decodes with ``threshold=None``. Inference reads the
    file: ``"threshold": "$monai_landmarks.metrics.PresenceThreshold.read(@ckpt_dir + '/presence.json').threshold"``.
    Nothing is written, and the log says so, where all landmarks of all cases are present or all absent.

    Args:
        path: file to write, JSON.
        score_key: scores in the evaluator's output, (N,).
        label_key: true points, (1, N, D) or (N, D), NaN where the landmark is absent.
        best_only: write only when the evaluator's key metric is the best so far: the threshold then belongs to the model that
            is kept.

    The last `PresenceThreshold` is the handler's ``threshold``.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        score_key: str = "pred_scores",
        label_key: str = CommonKeys.LABEL,
        best_only: bool = False,
    ) -> None:
        super().__init__(best_only)
        self.path = Path(path)
        self.score_key = score_key
        self.label_key = label_key
        self.threshold: PresenceThreshold | None = None

    def _collect(self, engine: Engine) -> None:
        for item in output_items(engine):
            score, label = (
                torch.as_tensor(take(item, k, self)).detach().cpu() for k in (self.score_key, self.label_key)
            )
            present = ~label.isnan().any(dim=-1).flatten()
            self._rows.append((score.flatten().double(), present))

    def _finish(self, engine: Engine, rows: list) -> None:
        try:
            self.threshold = choose_presence_threshold(*(torch.cat(column) for column in zip(*rows)))
        except ValueError as e:
            engine.logger.warning(f"no presence threshold: {e}")
            return
        if is_main_process():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.threshold.write(self.path)
            engine.logger.info(f"{self.threshold}; in {self.path}")
