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


"""Threshold of the score above which a landmark counts as present, chosen on the validation cases."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from monai.utils import CommonKeys

from monai_landmarks.metrics import PresenceThreshold, choose_presence_threshold

from .engine_output import Engine, is_main_process, output_items, take
from .epoch_collector import EpochCollector

__all__ = ["PresenceReport"]


class PresenceReport(EpochCollector[tuple[torch.Tensor, torch.Tensor]]):
    """Choose the presence threshold on the validation cases and write it with its sensitivity and specificity.

    The validation must decode with ``threshold=None`` or with a low limit. Below this limit no landmark has a score, and
    the chosen threshold is never lower. Inference reads the file:
    ``"threshold": "$monai_landmarks.metrics.PresenceThreshold.read(@ckpt_dir + '/presence.json').threshold"``. If all
    landmarks of all cases are present, or all are absent, no file is written, an old one is removed, and a warning is
    logged. The attribute ``threshold`` holds the last :class:`~monai_landmarks.metrics.PresenceThreshold`.

    Args:
        path: JSON file to write.
        score_key: key of the scores (N,) in the evaluator's output.
        label_key: key of the true points, (1, N, D) or (N, D), with NaN for an absent landmark.
        best_only: whether to write only when the evaluator's key metric is the best so far. The threshold then belongs
            to the model that is kept.
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
            scores, label = (
                torch.as_tensor(take(item, key, self)).detach().cpu() for key in (self.score_key, self.label_key)
            )
            present = ~label.isnan().any(dim=-1).flatten()
            self._rows.append((scores.flatten().double(), present))

    def _finish(self, engine: Engine, rows: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        try:
            self.threshold = choose_presence_threshold(*(torch.cat(column) for column in zip(*rows)))
        except ValueError as error:
            engine.logger.warning(f"no presence threshold was written: {error}")
            if is_main_process():
                self.path.unlink(missing_ok=True)  # it belongs to other weights
            return
        if is_main_process():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.threshold.write(self.path)
            engine.logger.info(f"{self.threshold}\n  in {self.path}")
