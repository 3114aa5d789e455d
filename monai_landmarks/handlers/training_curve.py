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
"""The curve of a training, drawn while it goes on."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import numpy as np
from monai.utils import CommonKeys

from monai_landmarks.data import atomic_write
from monai_landmarks.visualize import draw_training_curve

from .engine_output import Engine, Events, is_main_process, loss_of

__all__ = ["TrainingCurve"]

_COLUMNS = ("epoch", "iteration", "loss", "metric")


class TrainingCurve:
    """
    Draw training loss and validation metric over the epochs as a PNG, and write the numbers to a CSV file beside it.

    The CSV file has one row per epoch and per validation. The figure is drawn at most once in ``seconds`` seconds, and
    at the end. A resumed training continues its CSV file. The loss is the mean since the previous row, in the first
    process.

    Args:
        output_path: file of the figure, for example ``curve.png``; the CSV file is then ``curve.csv``.
        validator: the evaluator whose metric is drawn; None for the loss alone.
        metric: name of the metric; by default the validator's key metric.
        lower_is_better: True if the lowest value of the metric is the best and is marked, False for the highest.
        loss_key: key of the loss in the trainer's output.
        seconds: minimum time between two drawings.
    """

    def __init__(
        self,
        output_path: str | os.PathLike,
        validator: Engine | None = None,
        metric: str | None = None,
        lower_is_better: bool = True,
        loss_key: str = CommonKeys.LOSS,
        seconds: float = 20.0,
    ) -> None:
        self.output_path = Path(output_path)
        self.validator = validator
        self.metric = metric
        self.lower_is_better = lower_is_better
        self.loss_key = loss_key
        self.seconds = seconds
        self._rows: list[list[float]] = []
        self._losses: list[float] = []
        self._fresh = True
        self._drawn_at = -np.inf

    @property
    def table_path(self) -> Path:
        """Path of the CSV file."""
        return self.output_path.with_suffix(".csv")

    def attach(self, engine: Engine) -> None:
        """
        Attach the handler.

        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._continue)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._record)
        engine.add_event_handler(Events.COMPLETED, self._draw)
        if self.validator is not None:
            self.validator.add_event_handler(Events.COMPLETED, lambda validator: self._validated(engine))

    def _start(self, _engine: Engine) -> None:
        self._fresh = True

    def _continue(self, engine: Engine) -> None:
        """Read the rows of a resumed training. Its iteration is known from the start of the first epoch on."""
        if not self._fresh:
            return
        self._fresh, self._rows, self._losses, self._drawn_at = False, [], [], time.monotonic()
        if engine.state.iteration > 0 and self.table_path.is_file():
            with open(self.table_path, newline="", encoding="utf-8") as file:
                rows = [[float(row[name] or "nan") for name in _COLUMNS] for row in csv.DictReader(file)]
            # by epoch, because the number of iterations per epoch may have changed
            done = engine.state.iteration / (engine.state.epoch_length or engine.state.iteration)
            self._rows = [row for row in rows if row[0] <= done * (1 + 1e-5)]

    def _collect(self, engine: Engine) -> None:
        loss = loss_of(engine, self.loss_key)
        if loss is not None:
            self._losses.append(loss)

    def _validated(self, trainer: Engine) -> None:
        assert self.validator is not None
        name = self.metric or self.validator.state.key_metric_name
        value = self.validator.state.metrics.get(name, np.nan)
        self._record(trainer, float(value) if np.ndim(value) == 0 else np.nan)

    def _record(self, trainer: Engine, metric: float = np.nan) -> None:
        if trainer.state.iteration == 0:
            return  # this is a validation before the training
        epoch = trainer.state.iteration / (trainer.state.epoch_length or trainer.state.iteration)
        if self._rows and self._rows[-1][:2] == [epoch, trainer.state.iteration]:
            if np.isfinite(metric):
                self._rows[-1][3] = metric
        else:
            loss = float(np.mean(self._losses)) if self._losses else np.nan
            self._rows.append([epoch, trainer.state.iteration, loss, metric])
            self._losses = []
        if is_main_process():
            self._write()
            if time.monotonic() - self._drawn_at >= self.seconds:
                self._draw(trainer)

    def _write(self) -> None:
        with atomic_write(self.table_path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(_COLUMNS)
            for epoch, iteration, *values in self._rows:
                table.writerow([f"{epoch:g}", int(iteration), *("" if v != v else f"{v:.6g}" for v in values)])

    def _draw(self, engine: Engine) -> None:
        self._continue(engine)  # a resumed training that was complete, but killed before it drew, has no epoch
        if not self._rows or not is_main_process():
            return
        epochs, _, loss, metric = np.array(self._rows).T
        name = self.metric or getattr(getattr(self.validator, "state", None), "key_metric_name", None) or "metric"
        with atomic_write(self.output_path) as temporary:
            draw_training_curve(epochs, loss, metric, str(name), self.lower_is_better).savefig(temporary)
        self._drawn_at = time.monotonic()
