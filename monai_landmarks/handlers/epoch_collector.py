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

"""Base class for handlers that collect a row per case and process all rows at the end of an epoch."""

from __future__ import annotations

from typing import Generic, TypeVar

from .engine_output import Engine, Events, gather, is_best

__all__ = ["EpochCollector"]

_Row = TypeVar("_Row")


class EpochCollector(Generic[_Row]):
    """Collect rows in each iteration of an evaluator and process the rows of all ranks at the end of the epoch.

    A subclass appends to ``_rows`` in ``_collect``. It implements ``_finish``, which is called on each rank with the
    rows of all ranks. If there are no rows, ``_finish`` is not called.

    Args:
        best_only: whether to call ``_finish`` only when the evaluator's key metric is the best so far.
    """

    def __init__(self, best_only: bool = False) -> None:
        self.best_only = best_only
        self._rows: list[_Row] = []

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator.

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

    def _finish(self, engine: Engine, rows: list[_Row]) -> None:
        raise NotImplementedError
