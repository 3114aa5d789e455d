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


"""The record of the sigmas of a training: written during the training, drawn, and replayed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from monai_landmarks.data import atomic_write

from .controller import Action, Decision, ValidationResult

__all__ = ["PrecisionTrajectory"]

_FORMAT = "monai_landmarks.precision.trajectory"
_VERSION = 1


class PrecisionTrajectory:
    """
    Sigma of each landmark over a training, with errors, rewards, values of the actions and stop reasons.

    The JSON file has ``names``, ``unit`` and ``decisions``. Each decision is an object with these entries, lists with
    one item per landmark except for the first two. Unknown values are null.

    ============  ==============================================================================================
    ``epoch``     the epoch after which the decision was made; 0 for the start
    ``progress``  fraction of the training that was done, 0 to 1
    ``sigma``     sigma from here on
    ``error``     error in the validation before the decision
    ``action``    ``shrink``, ``keep``, ``grow`` or ``stop``; null for a schedule
    ``reward``    reward of the previous action
    ``values``    the agent's values of the four actions
    ``stopped``   reason why the search has ended; empty while it continues
    ============  ==============================================================================================

    Args:
        names: names of the N landmarks.
        unit: unit of sigma and errors.
        decisions: the decisions of the file.
    """

    def __init__(
        self,
        names: Sequence[str],
        unit: Literal["voxel", "mm"] = "voxel",
        decisions: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        self.names, self.unit = list(names), unit
        self.decisions = list(decisions or [])

    def add(
        self, epoch: float, progress: float, decision: Decision, validation: ValidationResult | None = None
    ) -> None:
        """
        Add a decision.

        Args:
            epoch: the epoch after which it was made.
            progress: fraction of the training that is done.
            decision: the decision.
            validation: the validation before the decision.
        """
        count = len(self.names)
        if validation is not None and decision.previous_action is not None:
            # the previous row has the sigma and action of the first child; the best child replaces them
            self.decisions[-1]["sigma"] = _plain(validation.sigma, count)
            self.decisions[-1]["action"] = _actions(decision.previous_action, self.decisions[-1]["stopped"])
        stopped = list(decision.stopped or [""] * count)
        self.decisions.append(
            {
                "epoch": epoch,
                "progress": progress,
                "sigma": _plain(decision.sigma, count),
                "error": _plain(None if validation is None else validation.error, count),
                "action": [None] * count if decision.action is None else _actions(decision.action, stopped),
                "reward": _plain(decision.reward, count),
                "values": _plain(decision.values, count),
                "stopped": stopped,
            }
        )

    def sigma_at(self, progress: float) -> list[float]:
        """Return the sigma of each landmark at a fraction of the training, 0 to 1."""
        before = [row for row in self.decisions if row["progress"] <= progress + 1e-9]
        return list((before or self.decisions)[-1 if before else 0]["sigma"])

    def column(self, name: str) -> list[list[float]]:
        """
        Return one quantity over time.

        Args:
            name: ``"sigma"``, ``"error"`` or ``"reward"``.

        Returns:
            One row of N numbers per decision, NaN where unknown.
        """
        return [[math.nan if value is None else value for value in row[name]] for row in self.decisions]

    def write(self, path: str | os.PathLike) -> None:
        """Write the JSON file completely or not at all."""
        content = {"format": _FORMAT, "version": _VERSION, "unit": self.unit, "names": self.names}
        rows = ",\n".join("  " + json.dumps(row, allow_nan=False) for row in self.decisions)
        text = json.dumps(content)[:-1] + f', "decisions": [\n{rows}\n]}}\n'
        with atomic_write(Path(path)) as temporary:
            temporary.write_text(text)

    @classmethod
    def read(cls, path: str | os.PathLike) -> PrecisionTrajectory:
        """
        Read a JSON file.

        Args:
            path: the file.

        Returns:
            The trajectory.

        Raises:
            ValueError: if the file is not a trajectory. The message says which part is wrong.
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
        """Return the decisions."""
        return {"decisions": list(self.decisions)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self.decisions = list(state["decisions"])


def _actions(actions: torch.Tensor, stopped: Sequence[str]) -> list[str]:
    """Names of actions, ``stop`` for a landmark whose search has ended."""
    return ["stop" if reason else Action(int(a)).name.lower() for a, reason in zip(actions, stopped)]


def _plain(values: torch.Tensor | None, count: int) -> list[Any]:
    """A tensor as lists of numbers, null where unknown."""
    if values is None:
        return [None] * count
    if values.ndim > 1:
        return [_plain(row, 0) for row in values]
    return [round(float(v), 6) if math.isfinite(float(v)) else None for v in values]


def _positive(value: object) -> bool:
    # bool is a subclass of int
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
