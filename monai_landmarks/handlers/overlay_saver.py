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
"""Figures of predicted and true landmarks over some images of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from monai.utils import CommonKeys

from monai_landmarks.data import atomic_write, image_stem
from monai_landmarks.data.files.kept_files import KeptFiles, remove_file
from monai_landmarks.metrics import image_specific_error, point_error
from monai_landmarks.spaces import affine_of, covariances_to_index, points_to_index, to_array
from monai_landmarks.visualize import LandmarkView, draw_views, landmark_view

from .engine_output import Engine, cpu_world_points, gather, image_path, is_main_process, output_items, take
from .epoch_collector import EpochCollector

__all__ = ["OverlaySaver"]

Selection = Literal["spread", "worst", "first"]


class _Case(NamedTuple):
    image: str
    error: float  # mean over its landmarks in mm; NaN without ground truth
    rank: int
    number: int  # index of its view on that rank
    doubtful: bool = False


class OverlaySaver(EpochCollector[_Case]):
    """Draw predicted landmarks, with the ground truth if there is any, over some images of an evaluation.

    At the end of an epoch, ``overlays.png`` shows the chosen images side by side. Each of them is also written to
    ``overlay_<number>_<image>.png``. A picture of another origin is not lost when it is replaced, as with
    :class:`PredictionSaver`; the hidden file is ``.overlays.written``. A volume is shown as three planes through the
    center of its landmarks.

    Args:
        output_dir: folder for the figures.
        num_images: number of images to draw.
        select: which images to draw. ``"spread"``: evenly from the worst image over the median to the best one.
            ``"worst"``: those with the largest mean error. ``"first"``: the first ones by name, doubtful ones before
            the others. Without ground truth it is always ``"first"``.
        pred_key: key of the predicted points in the evaluator's output, (1, N, D) or (N, D).
        label_key: key of the true points, in the same form. None, or a key that is missing, if there is no ground
            truth.
        image_key: key of the image to draw on. Its affine maps the world points to its pixels.
        covariance_key: key of the covariances (N, D, D) in mm^2, drawn as ellipses of two standard deviations. None to
            draw no ellipses.
        center: index of the landmark where the three planes of a volume cross, see
            :func:`monai_landmarks.visualize.landmark_view`. None for the mean of the landmarks.
        max_size: largest number of pixels that are kept on a side of an image.
        single: whether to write a figure of each image, too.
        columns: number of images per row of ``overlays.png``.
        doubt_key: key of the doubts of :class:`monai_landmarks.transforms.ExamineLandmarksd`. None, or a key that is
            missing, if there are none.
        best_only: whether to write only when the evaluator's key metric is the best so far. During training, the files
            then belong to the model that is kept.

    Raises:
        ValueError: if ``select`` is not one of the options.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        num_images: int = 4,
        select: Selection = "spread",
        pred_key: str = "pred_points",
        label_key: str | None = CommonKeys.LABEL,
        image_key: str = CommonKeys.IMAGE,
        covariance_key: str | None = None,
        center: int | None = None,
        max_size: int = 800,
        single: bool = True,
        columns: int | None = None,
        best_only: bool = False,
        doubt_key: str | None = "pred_doubt",
    ) -> None:
        if select not in get_args(Selection):
            raise ValueError(f"select must be one of {', '.join(get_args(Selection))}, got {select!r}.")
        super().__init__(best_only)
        self.output_dir = Path(output_dir)
        self.num_images = num_images
        self.select = select
        self.pred_key = pred_key
        self.label_key = label_key
        self.image_key = image_key
        self.covariance_key = covariance_key
        self.center = center
        self.max_size = max_size
        self.single = single
        self.columns = columns
        self.doubt_key = doubt_key
        self._views: list[LandmarkView] = []
        self._drawn: list[Path] = []
        self._kept = KeptFiles(self.output_dir / ".overlays.written")

    def _start(self, engine: Engine) -> None:
        super()._start(engine)
        self._views = []
        self._kept.copies.clear()

    def _collect(self, engine: Engine) -> None:
        for item in output_items(engine):
            image = take(item, self.image_key, self)
            pred = cpu_world_points(take(item, self.pred_key, self), image, self.pred_key)
            truth = item.get(self.label_key) if self.label_key is not None else None
            truth = None if truth is None else cpu_world_points(truth, image, str(self.label_key))
            error = torch.nan if truth is None else float(image_specific_error(_finite(point_error(pred, truth))))
            number = len(self._views)
            name = image_path(item, self.image_key) or f"case_{engine.state.rank}_{number}"
            doubtful = self.doubt_key is not None and bool(item.get(self.doubt_key))
            known = affine_of(image)
            affine = np.eye(4) if known is None else known
            view = landmark_view(
                image,
                points_to_index(pred, affine),
                None if truth is None else points_to_index(truth, affine),
                covariances=self._covariances(item, affine, pred.shape[-1]),
                title=image_stem(name)
                + (f": {error:.2f} mm" if error == error else "")
                + (" (doubtful)" if doubtful else ""),
                center=self.center,
                max_size=self.max_size,
            )
            self._views.append(view)
            self._rows.append(_Case(name, error, engine.state.rank, number, doubtful))

    def _covariances(self, item: dict[Hashable, Any], affine: np.ndarray, dims: int) -> np.ndarray | None:
        if self.covariance_key is None:
            return None
        covariances = to_array(take(item, self.covariance_key, self)).reshape(-1, dims, dims)
        return covariances_to_index(covariances, affine)

    def _finish(self, engine: Engine, rows: list[_Case]) -> None:
        chosen = self._choose(rows)
        mine = [(case.image, self._views[case.number]) for case in chosen if case.rank == engine.state.rank]
        views = dict(gather(mine))
        self._views = []
        if not views or not is_main_process():
            return
        with self._kept:
            self.draw([(case.image, views[case.image]) for case in chosen])
        for note in self._kept.notes():
            engine.logger.warning(note)
        engine.logger.info(f"drew the landmarks of {len(chosen)} images: {self._drawn[0]}")

    def draw(self, shown: Sequence[tuple[str, LandmarkView]]) -> None:
        """Write the figures, and remove those that were written before.

        Args:
            shown: path and view of each image.
        """
        for path in self._drawn:
            remove_file(path)
        self._drawn = [self._draw([view for _, view in shown], "overlays", self.columns)]
        if self.single and len(shown) > 1:
            for i, (image, view) in enumerate(shown):
                self._drawn.append(self._draw([view], f"overlay_{i + 1:02d}_{image_stem(image)}", 1))

    def _choose(self, cases: list[_Case]) -> list[_Case]:
        cases = sorted({case.image: case for case in cases}.values(), key=lambda case: case.image)
        known = [case for case in cases if case.error == case.error]
        if self.select == "first" or not known:
            return sorted(cases, key=lambda case: not case.doubtful)[: self.num_images]
        known.sort(key=lambda case: -case.error)
        count = min(self.num_images, len(known))
        if self.select == "worst" or count < 2:
            return known[:count]
        return [known[round(i * (len(known) - 1) / (count - 1))] for i in range(count)]

    def _draw(self, views: list[LandmarkView], name: str, columns: int | None) -> Path:
        planes = len(views[0].planes)
        width = 9.0 if planes > 1 else 2.4 * (columns or min(len(views), 4)) if len(views) > 1 else 4.0
        path = self.output_dir / f"{name}.png"
        with atomic_write(path) as temporary:
            draw_views(views, columns, width).savefig(temporary)
        return path


def _finite(errors: torch.Tensor) -> torch.Tensor:
    """Leave out missed landmarks: they cannot be drawn and do not make an image the worst one."""
    return errors.masked_fill(errors.isinf(), torch.nan)
