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

"""Target precision that a search or a schedule sets while a network trains."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import CommonKeys

from monai_landmarks.data import atomic_write
from monai_landmarks.metrics import points_error_batch
from monai_landmarks.precision import Decision, Evaluation, Population, PrecisionController, PrecisionTrajectory
from monai_landmarks.visualize import draw_precision

from .engine_output import Engine, Events, gather, is_main_process, output_items, take

__all__ = ["TargetPrecision"]


class TargetPrecision:
    """Let a search, a schedule or a file set the sigmas of a loss while a network trains, and record them.

    After each run of the validator the controller gets the errors of each landmark, and decides the sigmas that hold until
    the next run. So the interval of the trainer's ``ValidationHandler`` is that of the decisions; keep a part of the
    training images for it, never those of a test. Everything is recorded in a JSON file
    (:class:`monai_landmarks.precision.PrecisionTrajectory`), from which the sigmas can be replayed, with a picture beside it.

    A training that is to be resumed names this handler in ``load_dict`` of `ResumeTraining`, which must come before it.
    Under distributed training every process decides alike, on the cases of all.

    Args:
        loss: `AdaptivePrecisionLoss`. A loss that learns its ``sigma`` itself, such as `SCNLoss`, is only recorded.
        controller: what decides, such as `PrecisionSearch`; the default keeps the sigmas.
        validator: the evaluator. None decides after each epoch, without errors: enough for a schedule.
        names: of the N landmarks, for the record.
        output_path: the record, such as ``precision.json``; the picture is ``precision.png``. None writes nothing.
        pred_key: predicted points in the validator's output, (1, N, D) or (N, D).
        label_key: true points, likewise.
        space: ``"world"`` for a loss whose sigma is in mm; ``"index"`` for one in voxels, with index points in the output.
        max_error: a larger error counts as this, so that a gross one does not outweigh all others; by default half of
            the greatest extent of the true points.
        population: what the children of a population are copies of, by name: network, optimizer, scheduler. Needed for a
            search with several children, whose epochs then count in ``max_epochs``, one after the other.
        seconds: least time between two drawings, which also take at most a fiftieth of the time of the training.

    Raises:
        ValueError: for a search with several children and nothing to copy.
    """

    def __init__(
        self,
        loss: Any,
        controller: PrecisionController | None = None,
        validator: Engine | None = None,
        names: Sequence[str] | None = None,
        output_path: str | os.PathLike | None = None,
        pred_key: str = "pred_points",
        label_key: str = CommonKeys.LABEL,
        space: str = "world",
        max_error: float | None = None,
        population: Mapping[str, Any] | None = None,
        seconds: float = 20.0,
    ) -> None:
        self.loss = getattr(loss, "module", loss)
        self.controller = controller or PrecisionController()
        self.validator = validator
        self.output_path = None if output_path is None else Path(output_path)
        self.pred_key = pred_key
        self.label_key = label_key
        self.space = space
        self.max_error = max_error
        self.population = None if population is None else Population(population)
        if getattr(self.controller, "children", 1) > 1 and self.population is None:
            raise ValueError("a search with several children needs population={'model': network, ...}, what to copy.")
        self.seconds = seconds
        count = len(self.sigma)
        unit = "mm" if space == "world" and hasattr(self.loss, "set_sigma") else "voxel"
        self.trajectory = PrecisionTrajectory([str(n) for n in range(count)] if names is None else list(names), unit)
        self._train_loss = torch.zeros(2, count)
        self._rows: list[dict[str, torch.Tensor]] = []
        self._decided_at = 0
        self._draw_again_at = -np.inf

    @property
    def sigma(self) -> torch.Tensor:
        """(N,) the sigmas of the loss, on the CPU."""
        return self.loss.sigma.detach().float().cpu().clone()

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the trainer.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect_loss)
        engine.add_event_handler(Events.COMPLETED, self._draw)
        if self.validator is None:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._update, engine)
            return
        self.validator.add_event_handler(Events.EPOCH_STARTED, self._rows_start)
        self.validator.add_event_handler(Events.ITERATION_COMPLETED, self._collect_errors)
        # after the handlers that keep the model that was validated
        self.validator.add_event_handler(Events.COMPLETED, self._update, engine)

    def _start(self, engine: Engine) -> None:
        if engine.state.iteration > 0:
            return  # resumed
        sigma = self.controller.start(self.sigma)
        self._set(sigma)
        self._decided_at = 0
        self.trajectory.decisions = []
        self.trajectory.add(0, 0.0, Decision(sigma))

    def _set(self, sigma: torch.Tensor) -> None:
        if hasattr(self.loss, "set_sigma"):
            self.loss.set_sigma(sigma)

    def _collect_loss(self, _engine: Engine) -> None:
        loss = getattr(self.loss, "landmark_loss", None)
        if loss is not None:
            known = ~loss.isnan()
            self._train_loss = self._train_loss.to(loss.device) + torch.stack([loss.nan_to_num(), known.to(loss)])

    def _rows_start(self, _engine: Engine) -> None:
        self._rows = []

    def _collect_errors(self, engine: Engine) -> None:
        for item in output_items(engine):
            pred, label = take(item, self.pred_key, self), take(item, self.label_key, self)
            row = {"error": points_error_batch(pred[None], label[None], space=self.space)[0]}
            # what says how wide and how high the heatmaps are, where the decoder tells
            covariance = item.get(self.pred_key.replace("points", "covariances"))
            if covariance is not None:
                row["radius"] = covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1).sqrt()
            score = item.get(self.pred_key.replace("points", "scores"))
            if score is not None:
                row["peak"] = score
            known = label.reshape(-1, label.shape[-1])
            known = known[~known.isnan().any(dim=-1)]
            row["extent"] = (known.amax(dim=0) - known.amin(dim=0)).max() if len(known) else torch.tensor(0.0)
            self._rows.append({key: torch.as_tensor(value).detach().float().cpu() for key, value in row.items()})

    def _update(self, *engines: Engine) -> None:
        trainer = engines[-1]
        if trainer.state.iteration == self._decided_at:
            return  # a validation before the training, after it, or twice
        self._decided_at = trainer.state.iteration
        evaluation = self._evaluation(trainer.state.epoch / (trainer.state.max_epochs or trainer.state.epoch))
        decision = self.controller.update(evaluation)
        if decision.save_as is not None and self.population is not None:
            self.population.save(decision.save_as)
        if decision.load is not None and self.population is not None:
            self.population.load(decision.load)
        self._set(decision.sigma)
        if not decision.complete:
            return
        if self.population is not None:
            self.population.forget()
            if not getattr(self.controller, "done", True):
                self.population.save("start")
        self.trajectory.add(trainer.state.epoch, evaluation.progress, decision, decision.evaluation or evaluation)
        if self.output_path is not None and is_main_process():
            self.trajectory.write(self.output_path)
            if time.monotonic() >= self._draw_again_at:
                self._draw(trainer)

    def _evaluation(self, progress: float) -> Evaluation:
        count = len(self.sigma)
        total, times = torch.stack(gather([self._train_loss.cpu()])).sum(dim=0)
        self._train_loss = torch.zeros(2, count)
        rows, self._rows = gather(self._rows), []
        unknown = torch.full((1, count), torch.nan)

        def table(key: str) -> torch.Tensor:
            found = [row[key] for row in rows if key in row]
            return torch.stack(found) if found else unknown

        # the extent of a single point is none
        limit = self.max_error or 0.5 * max((float(row["extent"]) for row in rows), default=0.0) or torch.inf
        error = table("error").clamp(max=limit)
        error = error.masked_fill(error.isinf(), torch.nan)
        return Evaluation(
            progress=progress,
            sigma=self.sigma,
            error=error.nanmean(dim=0),
            square_error=error.square().nanmean(dim=0),
            train_loss=total / times,
            radius=table("radius").nanmean(dim=0),
            peak=table("peak").nanmean(dim=0),
        )

    def _draw(self, _engine: Engine) -> None:
        if self.output_path is None or not is_main_process() or len(self.trajectory.decisions) < 2:
            return
        started = time.monotonic()
        with atomic_write(self.output_path.with_suffix(".png")) as temporary:
            draw_precision(
                [row["epoch"] for row in self.trajectory.decisions],
                self.trajectory.column("sigma"),
                self.trajectory.column("error"),
                self.trajectory.column("reward"),
                [row["stopped"] for row in self.trajectory.decisions],
                self.trajectory.names,
                self.trajectory.unit,
            ).savefig(temporary)
        ended = time.monotonic()
        self._draw_again_at = ended + max(self.seconds, 50 * (ended - started))

    def state_dict(self) -> dict[str, Any]:
        """The controller, the record, and what has been collected since the last decision."""
        state = {
            "controller": self.controller.state_dict(),
            "trajectory": self.trajectory.state_dict(),
            "train_loss": self._train_loss.cpu(),
            "decided_at": self._decided_at,
        }
        return state if self.population is None else {**state, "population": self.population.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`."""
        self.controller.load_state_dict(state["controller"])
        self.trajectory.load_state_dict(state["trajectory"])
        self._train_loss = state["train_loss"]
        self._decided_at = state["decided_at"]
        if self.population is not None:
            self.population.load_state_dict(state["population"])
