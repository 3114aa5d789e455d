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

"""Target precision that a search or a schedule sets during a training."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.utils import CommonKeys

from monai_landmarks.data import atomic_write
from monai_landmarks.metrics import points_error_batch
from monai_landmarks.precision import Decision, PrecisionController, PrecisionTrajectory, ValidationResult
from monai_landmarks.spaces import points_of_image
from monai_landmarks.visualize import draw_precision

from .engine_output import Engine, Events, gather, is_main_process, output_items, take

__all__ = ["TargetPrecision"]


class TargetPrecision:
    """
    Set the sigmas of a loss during the training, by a search, a schedule or a file, and record them.

    After each run of the validator, the controller receives the errors of each landmark and decides the sigmas until
    the next run. So the interval of the trainer's ``ValidationHandler`` is the interval of the decisions. Use a part of
    the training images for this validation, never test images. All decisions are recorded in a JSON file
    (:class:`~monai_landmarks.precision.PrecisionTrajectory`), from which the sigmas can be replayed, with a figure
    beside it.

    To resume a training, add this handler to ``load_dict`` of :class:`ResumeTraining`, and put ``ResumeTraining``
    before it. Under distributed training, the cases of all processes are gathered, and each process makes the same
    decisions.

    Args:
        loss: :class:`~monai_landmarks.losses.AdaptivePrecisionLoss`. For a loss that learns its ``sigma``, such as
            :class:`~monai_landmarks.losses.SCNLoss`, sigma is recorded but not set.
        controller: what decides, for example :class:`~monai_landmarks.precision.PrecisionSearch`. The default keeps the
            sigmas.
        validator: the evaluator. If None, there is a decision after each epoch, without errors. This is enough for a
            schedule.
        names: names of the N landmarks, for the record.
        output_path: file of the record, for example ``precision.json``; the figure is ``precision.png``. None writes
            nothing.
        pred_key: predicted points in the validator's output, (1, N, D) or (N, D).
        label_key: ground truth points, with the same shape.
        covariance_key: covariances of the predicted points, (N, D, D), in the unit of sigma squared. They measure the
            width of the predicted heatmaps. The output need not have them.
        score_key: scores of the predicted points, (N,). They measure the height of the predicted heatmaps. The output
            need not have them.
        space: ``"world"`` for a loss whose sigma is in mm; ``"index"`` for a loss whose sigma is in voxels and for
            index points in the output.
        max_error: upper limit of an error, so that outliers do not dominate the mean. The default is half of the
            largest extent of the ground truth points.
        population: objects that each child of a population copies, by name: network, optimizer, scheduler. A search
            with several children requires it. The epochs of all children count in ``max_epochs``.
        seconds: minimum time between two drawings. Drawing also takes at most a fiftieth of the time of the training.

    Raises:
        ValueError: for a search with several children without a population.
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
        covariance_key: str = "pred_covariances",
        score_key: str = "pred_scores",
        space: Literal["world", "index"] = "world",
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
        self.covariance_key = covariance_key
        self.score_key = score_key
        self.space: Literal["world", "index"] = space
        self.max_error = max_error
        self.population = _Population(population) if population else None
        if self.controller.children > 1 and self.population is None:
            raise ValueError(
                "a search with several children copies network and optimizer: set population={'model': network, "
                "'optimizer': optimizer}."
            )
        self.seconds = seconds
        count = len(self.sigma)
        unit: Literal["voxel", "mm"] = "mm" if space == "world" and hasattr(self.loss, "set_sigma") else "voxel"
        self.trajectory = PrecisionTrajectory([str(n) for n in range(count)] if names is None else list(names), unit)
        self._train_loss = torch.zeros(2, count)
        self._rows: list[dict[str, torch.Tensor]] = []
        self._decided_at = 0
        self._draw_again_at = -np.inf

    @property
    def sigma(self) -> torch.Tensor:
        """The current sigmas of the loss, (N,), on the CPU."""
        return self.loss.sigma.detach().float().cpu().clone()

    def attach(self, engine: Engine) -> None:
        """
        Attach the handler.

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
        # after the handlers that save the validated model, because a population may load another one
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
            covariances, scores = item.get(self.covariance_key), item.get(self.score_key)
            if covariances is not None:
                row["radius"] = covariances.diagonal(dim1=-2, dim2=-1).mean(dim=-1).sqrt()
            if scores is not None:
                row["peak"] = scores
            known = points_of_image(label, self.label_key)
            known = known[~known.isnan().any(dim=-1)]
            row["extent"] = (known.amax(dim=0) - known.amin(dim=0)).max() if len(known) else torch.tensor(0.0)
            self._rows.append({key: torch.as_tensor(value).detach().float().cpu() for key, value in row.items()})

    def _update(self, *engines: Engine) -> None:
        trainer = engines[-1]
        if trainer.state.iteration == self._decided_at:
            return  # a validation before or after the training, or a second one
        self._decided_at = trainer.state.iteration
        validation = self._validation(trainer.state.epoch / (trainer.state.max_epochs or trainer.state.epoch))
        decision = self.controller.update(validation)
        if decision.save_as is not None and self.population is not None:
            self.population.save(decision.save_as)
        if decision.load is not None and self.population is not None:
            self.population.load(decision.load)
        self._set(decision.sigma)
        if not decision.complete:
            return
        if self.population is not None:
            self.population.clear()
            if not self.controller.done:
                self.population.save("start")
        self.trajectory.add(trainer.state.epoch, validation.progress, decision, decision.validation or validation)
        if self.output_path is not None and is_main_process():
            self.trajectory.write(self.output_path)
            if time.monotonic() >= self._draw_again_at:
                self._draw(trainer)

    def _validation(self, progress: float) -> ValidationResult:
        count = len(self.sigma)
        total, times = torch.stack(gather([self._train_loss.cpu()])).sum(dim=0)
        self._train_loss = torch.zeros(2, count)
        rows, self._rows = gather(self._rows), []
        unknown = torch.full((1, count), torch.nan)

        def table(key: str) -> torch.Tensor:
            found = [row[key] for row in rows if key in row]
            return torch.stack(found) if found else unknown

        # a single point has an extent of 0, which is no limit
        limit = self.max_error or 0.5 * max((float(row["extent"]) for row in rows), default=0.0) or torch.inf
        error = table("error").clamp(max=limit)
        error = error.masked_fill(error.isinf(), torch.nan)
        return ValidationResult(
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
        """Return the controller, the record, and the losses since the last decision."""
        state = {
            "controller": self.controller.state_dict(),
            "trajectory": self.trajectory.state_dict(),
            "train_loss": self._train_loss.cpu(),
            "decided_at": self._decided_at,
        }
        return state if self.population is None else {**state, "population": self.population.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self.controller.load_state_dict(state["controller"])
        self.trajectory.load_state_dict(state["trajectory"])
        self._train_loss = state["train_loss"]
        self._decided_at = state["decided_at"]
        if self.population is not None:
            self.population.load_state_dict(state["population"])


class _Population:
    """
    Named copies of the state of a training.

    One process trains several children in turn from the same state and continues with the best of them, as in AM-LFS
    (ICCV 2019).

    Args:
        holders: what makes up the state, by name: objects with ``state_dict`` and ``load_state_dict``.
    """

    def __init__(self, holders: Mapping[str, Any]) -> None:
        self.holders = dict(holders)
        self._copies: dict[str, dict[str, Any]] = {}

    def save(self, name: str) -> None:
        """Save a copy of the current state."""
        self._copies[name] = {key: deepcopy(holder.state_dict()) for key, holder in self.holders.items()}

    def load(self, name: str) -> None:
        """Restore a copy."""
        for key, holder in self.holders.items():
            # an optimizer uses the given tensors directly and would write into the copy
            holder.load_state_dict(deepcopy(self._copies[name][key]))

    def clear(self) -> None:
        """Remove all copies."""
        self._copies = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the copies."""
        return {"copies": self._copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self._copies = dict(state["copies"])
