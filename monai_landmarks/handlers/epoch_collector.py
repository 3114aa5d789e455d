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

"""What handlers have in common that collect something of each case and end with all cases of an epoch."""

from __future__ import annotations

from .engine_output import Engine, Events, gather, is_best

__all__ = ["EpochCollector"]


class EpochCollector:
    """
    A handler that collects rows in each iteration of an evaluator, and does something with all ranks' at its end.

    A subclass appends to ``_rows`` in ``_collect``, and has ``_finish``, which is called on each rank with the rows of all
    unless there are none.

    Args:
        best_only: call ``_finish`` only when the evaluator's key metric is the best so far.
    """

    def __init__(self, best_only: bool = False) -> None:
        self.best_only = best_only
        self._rows: list = []

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the evaluator.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def _start(self, _engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        raise NotImplementedError

    def _end(self, engine: Engine) -> None:
        if self.best_only and not is_best(engine):
            return
        rows = gather(self._rows)
        if rows:
            self._finish(engine, rows)

    def _finish(self, engine: Engine, rows: list) -> None:
        raise NotImplementedError
