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

"""Table, figure and metrics of Cobb angles for an evaluation of spines."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.utils import CommonKeys, MetaKeys

from monai_landmarks.data import atomic_write
from monai_landmarks.data.files.csv_rows import text_cell
from monai_landmarks.metrics import angle_smape, best_chain_shift, cobb_angles, coordinate_correlation, normalized_mse
from monai_landmarks.spaces import file_affine, points_to_index
from monai_landmarks.visualize import draw_cobb_angles

from .engine_output import (
    Engine,
    Events,
    batch_items,
    cpu_world_points,
    gather,
    image_path,
    is_best,
    is_main_process,
    output_items,
    take,
)

__all__ = ["CobbReport"]


class _Corners(NamedTuple):
    """Corners of one image, errors in pixels of the file; a mean is NaN if no corner has both points."""

    error: float  # mean of the corners as they are named
    shift: int  # vertebrae by which the whole spine is shifted
    error_after_shift: float  # mean
    normalized_mse: float
    pred: torch.Tensor  # (4 V, 2), coordinates divided by the size of the image
    truth: torch.Tensor  # likewise


class _Case(NamedTuple):
    image: str | None
    pred: list[float]  # three angles in degrees
    truth: list[float]  # three angles in degrees; empty without ground truth
    corners: _Corners | None  # None without true corners


class CobbReport:
    """Compare the Cobb angles of predicted vertebra corners with the ground truth, in a table, a figure and metrics.

    When the evaluator has completed, it writes ``cobb_angles.csv`` (one row per image: predicted angles, true angles,
    differences) and ``cobb_angles.png`` to ``output_dir``. The evaluator's metrics contain the errors:
    ``<name>_mae_degrees`` (mean absolute error of all angles), ``<name>1_mae_degrees`` to ``<name>3_mae_degrees``, and
    ``<name>_smape_percent``. An angle is left out if its ground truth is unknown or one of its corners was not
    detected. Tables and metrics cover the cases of all ranks.

    Angles forgive a spine whose vertebrae are all taken for their neighbors, and errors of points do not. With true
    corners, the table therefore also has the errors of the corners in pixels of the image file: as they are named, and
    after the best shift of the whole spine (:func:`monai_landmarks.metrics.best_chain_shift`). The metrics are
    ``<name>_shifted_images`` (number of images whose spine is shifted), ``<name>_error_after_shift_pixels`` (mean over
    the images), ``<name>_normalized_mse`` (:func:`monai_landmarks.metrics.normalized_mse`) and
    ``<name>_coordinate_correlation`` (:func:`monai_landmarks.metrics.coordinate_correlation`, of all images together).

    Without ground truth, as in inference, set both ``truth_key`` and ``label_key`` to None. The table then has only the
    predicted angles.

    Add it to the evaluator's additional metrics, ``{"cobb": CobbReport(...)}``, and
    :class:`~monai_landmarks.handlers.LandmarkReport` includes its metrics in ``metrics.csv``. It can also be one of the
    evaluator's handlers.

    The angles are measured in the pixels of the image file. The second axis of the file must run downward, as in all
    pictures: see :func:`monai_landmarks.metrics.cobb_angles`.

    Args:
        output_dir: folder for the table and the figure.
        truth_key: key of three true angles in degrees, in the evaluator's batch or output, for example the
            ``cobb_angles`` of :func:`monai_landmarks.data.aasce_datalist`. If it is None, or an item does not have it,
            the true angles are measured from the true corners.
        pred_key: key of the predicted corners, (1, 4 V, 2) or (4 V, 2) for V vertebrae, in world mm or as a
            :class:`~monai.data.MetaTensor` whose affine maps them to world mm.
        label_key: key of the true corners, in the same form. They are used where there are no true angles. None if
            there are no true corners.
        image_key: key of the image, whose metadata gives the file name, the affine of the file and its number of rows.
        best_only: whether to write only when the evaluator's key metric is the best so far. During training, the files
            then belong to the model that is kept.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        truth_key: str | None = "cobb_angles",
        pred_key: str = "pred_points",
        label_key: str | None = CommonKeys.LABEL,
        image_key: str = CommonKeys.IMAGE,
        best_only: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.truth_key = truth_key
        self.pred_key = pred_key
        self.label_key = label_key
        self.image_key = image_key
        self.best_only = best_only
        self.name = "cobb"
        self._own_cases: list[_Case] = []
        self._cases: list[_Case] = []

    def attach(self, engine: Engine, name: str = "cobb") -> None:
        """Add the handler to an evaluator.

        Args:
            engine: the evaluator.
            name: prefix of the names of the metrics.
        """
        self.name = name
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._measure)
        engine.add_event_handler(Events.COMPLETED, self._write)  # the best metric is updated before

    def _start(self, _engine: Engine) -> None:
        self._own_cases = []

    def _collect(self, engine: Engine) -> None:
        for loaded, output in zip(batch_items(engine), output_items(engine)):
            item = {**loaded, **output}
            pred, truth = self._angles(item, self.pred_key), self._true_angles(item)
            self._own_cases.append(_Case(image_path(item, self.image_key), pred, truth, self._corners(item)))

    @property
    def _has_truth(self) -> bool:
        return self.truth_key is not None or self.label_key is not None

    def _true_angles(self, item: dict[Hashable, Any]) -> list[float]:
        """Return three angles in degrees, or an empty list."""
        if self.truth_key is not None and self.truth_key in item:
            return [float(angle) for angle in item[self.truth_key]]
        if self.truth_key is not None and (self.label_key is None or self.label_key not in item):
            raise KeyError(
                f"{type(self).__name__} needs {self.truth_key!r}, three true angles in degrees, or the true corners in each item"
                f" of the datalist. The item has {sorted(map(str, item))}. Add them to the datalist, or set truth_key and"
                " label_key to None (null in a configuration) to write only the predicted angles."
            )
        return [] if self.label_key is None else self._angles(item, self.label_key)

    def _angles(self, item: dict[Hashable, Any], key: str) -> list[float]:
        points, image = self._file_points(item, key)
        return cobb_angles(points, _spatial_size(image)[1]).tolist()

    def _corners(self, item: dict[Hashable, Any]) -> _Corners | None:
        if not self._has_truth or self.label_key is None or self.label_key not in item:
            return None
        pred, image = self._file_points(item, self.pred_key)
        truth, _ = self._file_points(item, self.label_key)
        named = torch.linalg.vector_norm(pred - truth, dim=-1).nanmean()
        shift, errors = best_chain_shift(pred, truth, size=4)
        size = torch.tensor(_spatial_size(image))
        mse = normalized_mse(pred, truth, size)
        return _Corners(float(named), int(shift), float(errors.nanmean()), float(mse), pred / size, truth / size)

    def _file_points(self, item: dict[Hashable, Any], key: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return points (4 V, 2) in pixels of the image file, and the image."""
        image = take(item, self.image_key, self)
        points = cpu_world_points(take(item, key, self), image, key)
        affine = file_affine(image)
        if affine is None:
            raise ValueError(
                f"{image_path(item, self.image_key)}: the image was transformed and its metadata does not have the affine of"
                " the file, so the angles cannot be measured in the file's pixels. Put EnsureWorldAffined right after"
                " LoadImaged."
            )
        return points_to_index(points, affine).reshape(-1, 2), image

    def _measure(self, engine: Engine) -> None:
        self._cases = sorted(gather(self._own_cases), key=lambda case: case.image or "")
        if not self._cases or not self._has_truth:
            return
        pred, truth = self._tensors()
        error = (pred - truth).abs()
        values = [error.nanmean(), *error.nanmean(0), angle_smape(pred, truth).nanmean()]
        engine.state.metrics.update(zip(self._metrics, (value.item() for value in values)))
        corners = [case.corners for case in self._cases if case.corners is not None]
        if corners:
            errors, mses = (torch.tensor(v) for v in zip(*((c.error_after_shift, c.normalized_mse) for c in corners)))
            correlation = coordinate_correlation(*(torch.cat(v) for v in zip(*((c.pred, c.truth) for c in corners))))
            engine.state.metrics[f"{self.name}_shifted_images"] = sum(c.shift != 0 for c in corners)
            engine.state.metrics[f"{self.name}_error_after_shift_pixels"] = errors.nanmean().item()
            engine.state.metrics[f"{self.name}_normalized_mse"] = mses.nanmean().item()
            engine.state.metrics[f"{self.name}_coordinate_correlation"] = correlation.item()

    @property
    def _metrics(self) -> list[str]:
        return [f"{self.name}{number}_mae_degrees" for number in ("", 1, 2, 3)] + [f"{self.name}_smape_percent"]

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([case.pred for case in self._cases]), torch.tensor([case.truth for case in self._cases])

    def _write(self, engine: Engine) -> None:
        if not self._cases or not is_main_process() or (self.best_only and not is_best(engine)):
            return
        kinds = ("pred", "true", "error") if self._has_truth else ("pred",)
        with atomic_write(self.output_dir / "cobb_angles.csv") as temporary:
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                with_corners = any(case.corners is not None for case in self._cases)
                header = ["image", *(f"{kind}_cobb{i}" for kind in kinds for i in (1, 2, 3))]
                table.writerow(header + (["error_pixels", "shift", "error_after_shift_pixels"] if with_corners else []))
                for case in self._cases:
                    errors = [pred - truth for pred, truth in zip(case.pred, case.truth)]
                    cells = map(_cell, (*case.pred, *case.truth, *errors))
                    row = [text_cell(case.image or ""), *cells]
                    if case.corners is not None:
                        error, after = case.corners.error, case.corners.error_after_shift
                        row += [_cell(error), "" if math.isnan(error) else str(case.corners.shift), _cell(after)]
                    table.writerow(row)
        summary, files = f"Cobb angles of {len(self._cases)} images", "cobb_angles.csv"
        if self._has_truth:
            with atomic_write(self.output_dir / "cobb_angles.png") as temporary:
                draw_cobb_angles(*self._tensors()).savefig(temporary)
            mean, first, second, third, smape = (engine.state.metrics[metric] for metric in self._metrics)
            summary += (
                f": mean absolute error {mean:.2f} degrees (first {first:.2f}, second {second:.2f}, third {third:.2f}),"
                f" SMAPE {smape:.2f} %"
            )
            if any(case.corners is not None for case in self._cases):
                shifted = engine.state.metrics[f"{self.name}_shifted_images"]
                after = engine.state.metrics[f"{self.name}_error_after_shift_pixels"]
                summary += (
                    f"; the whole spine is shifted in {shifted} images, error after the best shift {after:.2f} pixels"
                )
            files += ", cobb_angles.png"
        engine.logger.info(f"{summary}\n  in {self.output_dir}: {files}")


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _spatial_size(image: torch.Tensor) -> list[int]:
    """Return the number of columns and of rows of the image file."""
    shape = image.meta.get(MetaKeys.SPATIAL_SHAPE) if isinstance(image, MetaTensor) else None
    return [int(size) for size in (image.shape[1:3] if shape is None else shape[:2])]
