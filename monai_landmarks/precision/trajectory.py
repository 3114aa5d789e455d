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


"""The record of a training's sigmas: written while it runs, drawn, and replayed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from monai_landmarks.data import atomic_write

from .actions import Action
from .controller import Decision
from .evaluation import Evaluation

__all__ = ["PrecisionTrajectory"]

_FORMAT = "monai_landmarks.precision.trajectory"
_VERSION = 1


class PrecisionTrajectory:
    """
    Sigma of each landmark over a training, with errors, rewards, values of the actions and reasons of stopping.

    As JSON: ``names``, ``unit``, and ``decisions``, a list of

    ============  ==============================================================================================
    ``epoch``     after which it was decided; 0 for the start
    ``progress``  part of the training that was done, 0 to 1
    ``sigma``     per landmark, from here on
    ``error``     per landmark, of the validation on which it was decided
    ``action``    per landmark, ``shrink``, ``keep``, ``grow``, ``stop``, or null where nobody decided
    ``reward``    per landmark, of the action before
    ``values``    per landmark, the agent's values of the four actions
    ``stopped``   per landmark, why its search has ended, empty while it goes on
    ============  ==============================================================================================

    What is not known is null.

    Args:
        names: of the N landmarks.
        unit: of sigma and errors.
        decisions: as above.
    """

    def __init__(
        self, names: Sequence[str], unit: str = "voxel", decisions: Sequence[dict[str, Any]] | None = None
    ) -> None:
        self.names, self.unit = list(names), unit
        self.decisions = list(decisions or [])

    def add(self, epoch: float, progress: float, decision: Decision, evaluation: Evaluation | None = None) -> None:
        """
        Args:
            epoch: after which it was decided.
            progress: part of the training that is done.
            decision: what was decided.
            evaluation: on what.
        """
        count = len(self.names)
        if evaluation is not None and decision.taken is not None:
            # what the best child of a population did, where the first one's action was written
            self.decisions[-1]["sigma"] = _plain(evaluation.sigma, count)
            self.decisions[-1]["action"] = _actions(decision.taken, self.decisions[-1]["stopped"])
        stopped = list(decision.stopped or [""] * count)
        self.decisions.append(
            {
                "epoch": epoch,
                "progress": progress,
                "sigma": _plain(decision.sigma, count),
                "error": _plain(None if evaluation is None else evaluation.error, count),
                "action": [None] * count if decision.action is None else _actions(decision.action, stopped),
                "reward": _plain(decision.reward, count),
                "values": _plain(decision.values, count),
                "stopped": stopped,
            }
        )

    def sigma_at(self, progress: float) -> list[float]:
        """Sigma of each landmark when that part of a training is done."""
        before = [row for row in self.decisions if row["progress"] <= progress + 1e-9]
        return list((before or self.decisions)[-1 if before else 0]["sigma"])

    def column(self, name: str) -> list[list[float]]:
        """One of ``sigma``, ``error``, ``reward`` over time, T rows of N numbers, NaN where it is not known."""
        return [[math.nan if value is None else value for value in row[name]] for row in self.decisions]

    def write(self, path: str | os.PathLike) -> None:
        """Write the JSON file, whole or not at all."""
        content = {"format": _FORMAT, "version": _VERSION, "unit": self.unit, "names": self.names}
        rows = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in self.decisions)
        text = json.dumps(content)[:-1] + f', "decisions": [\n{rows}\n]}}\n'
        with atomic_write(Path(path)) as temporary:
            temporary.write_text(text)

    @classmethod
    def read(cls, path: str | os.PathLike) -> PrecisionTrajectory:
        """
        Raises:
            ValueError: when the file is not a trajectory, with what is wrong in it.
        """
        try:
            content = json.loads(Path(path).read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {error.lineno}: not valid JSON ({error.msg}).") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT or content.get("version") != _VERSION:
            raise ValueError(f"{path}: not a file of format {_FORMAT}, version {_VERSION}.")
        names, rows = content.get("names"), content.get("decisions")
        if not isinstance(names, list) or not isinstance(rows, list) or not rows:
            raise ValueError(f"{path}: expected a list of names and at least one decision.")
        for number, row in enumerate(rows):
            sigma = row.get("sigma") if isinstance(row, dict) else None
            good = isinstance(sigma, list) and len(sigma) == len(names) and all(_positive(value) for value in sigma)
            if not good or not isinstance(row.get("progress"), (int, float)):
                raise ValueError(
                    f"{path}: decision {number} needs a number 'progress' and {len(names)} positive numbers 'sigma'."
                )
        return cls(names, content.get("unit", "voxel"), rows)

    def state_dict(self) -> dict[str, Any]:
        """The decisions so far."""
        return {"decisions": list(self.decisions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
        self.decisions = list(state["decisions"])


def _actions(actions: torch.Tensor, stopped: Sequence[str]) -> list[str]:
    """Names of actions; a landmark whose search has ended stops, whatever it was told to do."""
    return ["stop" if reason else Action(int(a)).name.lower() for a, reason in zip(actions, stopped)]


def _plain(values: torch.Tensor | None, count: int) -> list[Any]:
    """A tensor as lists of numbers; null for what is not known."""
    if values is None:
        return [None] * count
    if values.ndim > 1:
        return [_plain(row, 0) for row in values]
    return [round(float(v), 6) if math.isfinite(float(v)) else None for v in values]


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0
