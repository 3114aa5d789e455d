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
"""How far a training is, and how long it still takes."""

from __future__ import annotations

import sys
import time
from operator import length_hint
from typing import Any, TextIO

import numpy as np
from monai.utils import CommonKeys, optional_import

from .engine_output import Engine, Events, is_main_process, loss_of

tqdm, has_tqdm = optional_import("tqdm", name="tqdm")

__all__ = ["TrainingProgress", "clock"]


class TrainingProgress:
    """
    Show one progress bar for the whole run, with the remaining time, the loss and the result of the last validation.

    If the output is not a terminal, or tqdm is not installed, a line is printed at regular intervals instead. Only the
    first process shows the progress.

    Args:
        validator: the evaluator whose metric is shown.
        metric: name of the metric; by default the validator's key metric.
        loss_key: key of the loss in the engine's output. The loss is not shown for an engine without one, such as an
            evaluator.
        seconds: time between two lines.
        stream: the output; by default standard error.
        desc: description of the run.
    """

    def __init__(
        self,
        validator: Engine | None = None,
        metric: str | None = None,
        loss_key: str = CommonKeys.LOSS,
        seconds: float = 20.0,
        stream: TextIO | None = None,
        desc: str = "training",
    ) -> None:
        self.validator = validator
        self.metric = metric
        self.loss_key = loss_key
        self.seconds = seconds
        self.stream = stream
        self.desc = desc
        self._bar: Any = None
        self._first: int | None = None
        self._started = self._shown = 0.0
        self._loss: float | None = None

    def attach(self, engine: Engine) -> None:
        """
        Attach the handler.

        Args:
            engine: the trainer, or an evaluator.
        """
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._show)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _reset(self, _engine: Engine) -> None:
        self._close()
        self._first = self._loss = None

    def _begin(self, engine: Engine) -> None:
        if self._first is not None or not is_main_process():
            return
        stream = self.stream or sys.stderr
        # iterations before a resumed training do not count for the speed
        self._first = engine.state.iteration
        self._started = self._shown = time.monotonic()
        if has_tqdm and stream.isatty():
            self._bar = tqdm(
                total=self._total(engine), initial=self._first, desc=self.desc, file=stream, dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left]{postfix}",
            )  # fmt: skip

    def _advance(self, engine: Engine) -> None:
        if self._first is None:
            return
        loss = loss_of(engine, self.loss_key)
        if loss is not None:  # smoothed over about 20 iterations
            self._loss = loss if self._loss is None or not np.isfinite(self._loss) else 0.95 * self._loss + 0.05 * loss
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._state(engine)), refresh=False)
            self._bar.update(engine.state.iteration - self._bar.n)
        elif time.monotonic() - self._shown >= self.seconds:
            self._line(engine)

    def _show(self, engine: Engine) -> None:
        """Show the result of the validation at the end of an epoch."""
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._state(engine)))

    def _end(self, engine: Engine) -> None:
        if self._first is not None and self._bar is None:
            self._line(engine)
        if self._bar is not None:
            self._bar.total = self._total(engine)
        self._show(engine)
        self._close()
        self._first = None

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _line(self, engine: Engine) -> None:
        now, done, total = time.monotonic(), engine.state.iteration, self._total(engine)
        self._shown = now
        elapsed = now - self._started
        count = f"iteration {done}" if total is None else f"iteration {done}/{total} ({100 * done / total:.0f} %)"
        parts = [f"{self.desc}: {count}", *self._state(engine), f"{clock(elapsed)} elapsed"]
        if total is not None and self._first is not None and self._first < done < total:
            parts.append(f"about {clock(elapsed * (total - done) / (done - self._first))} left")
        print(", ".join(parts), file=self.stream or sys.stderr, flush=True)

    def _state(self, engine: Engine) -> list[str]:
        parts = []
        if engine.state.max_epochs and engine.state.max_epochs > 1:
            parts.append(f"epoch {engine.state.epoch}/{engine.state.max_epochs}")
        if self._loss is not None:
            parts.append(f"loss {self._loss:.4g}")
        if self.validator is not None:
            name = self.metric or self.validator.state.key_metric_name
            value = self.validator.state.metrics.get(name)
            if value is not None and np.ndim(value) == 0:
                parts.append(f"{name} {float(value):.4g}")
        return parts

    @staticmethod
    def _total(engine: Engine) -> int | None:
        length, epochs = engine.state.epoch_length, engine.state.max_epochs
        if length is None:  # known only after the first epoch, but a loader may have an estimate
            length = length_hint(getattr(engine, "data_loader", ()), 0)
        return length * epochs if length and epochs else None


def clock(seconds: float) -> str:
    """
    Format a duration in minutes and seconds, and hours if necessary.

    Args:
        seconds: the duration.

    Returns:
        The text.

    Example:
        >>> clock(75), clock(3671)
        ('1:15', '1:01:11')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
