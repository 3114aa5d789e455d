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
"""Write predicted landmarks to files for 3D Slicer and to one table."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from monai.utils import CommonKeys

from monai_landmarks.data import (
    CoordinateSystem,
    LandmarkSet,
    atomic_write,
    image_stem,
    landmark_set_of,
    write_landmark_table,
    write_landmarks,
)
from monai_landmarks.data.files.csv_rows import text_cell
from monai_landmarks.data.files.kept_files import KeptFiles, remove_file
from monai_landmarks.spaces import file_affine, plane_z
from monai_landmarks.uncertainty import ConformalRegions, Doubt, LandmarkProbabilities

from .engine_output import Engine, Events, gather, image_path, is_best, is_main_process, output_items, take

__all__ = ["PredictionSaver", "SavedPrediction", "distinct_names"]

_SAME_POINT = 0.01  # mm


class SavedPrediction(NamedTuple):
    """The prediction of one image.

    Args:
        image: path of the image.
        name: name of its files, without suffix.
        landmarks: in RAS mm.
        affine: of the image file, from pixel index to RAS mm; None if unknown.
        plane: world z of a 2-D image.
        doubt: result of :class:`monai_landmarks.transforms.ExamineLandmarksd`; None without an examination.
        probabilities: result of :class:`monai_landmarks.transforms.LandmarkProbabilityd`; None without a model.
    """

    image: str
    name: str
    landmarks: LandmarkSet
    affine: np.ndarray | None
    plane: float
    doubt: Doubt | None = None
    probabilities: LandmarkProbabilities | None = None


class PredictionSaver:
    """Write the predicted landmarks of every image in the world space of the image.

    After each iteration, ``output_dir`` contains ``<name>.mrk.json`` for every image so far. At the end, two tables
    cover the images of all ranks, and the folder of rank 0 has the files of all images. ``table`` has one row per
    landmark, with its score, covariance and region. It may be in pixels, so ``<table>_std.csv`` states the uncertainty
    of each landmark in mm: the standard deviations along the world axes and the radius of its region. If images in
    different folders have the same name, the names of their folders are put before it. A file of another origin, such as
    points that were corrected in 3D Slicer, is not lost when it is replaced: ``<file>.bak`` is its copy, and the log names
    it. The hidden file ``.predictions.written`` lists the checksums of the files that were written here.

    The points are in mm. PNG, JPEG, BMP and TIFF files do not store the pixel size. JPEG and TIFF may store a print
    resolution, which 3D Slicer takes for the pixel size. To align image and points, set the pipeline's spacing (1 mm if
    it has none) in 3D Slicer's *Volumes* module.

    Args:
        output_dir: folder for the files.
        names: names of the N landmarks.
        pred_key: key of the predicted points in the evaluator's output, (1, N, D) or (N, D): a
            :class:`~monai.data.MetaTensor` whose affine maps them to world mm, as
            :class:`~monai_landmarks.transforms.HeatmapToLandmarksd` returns it, or a plain tensor of index points of
            the image. NaN for a landmark that was not detected.
        score_key: key of the scores (N,). None, or a key that is missing, if there are no scores.
        covariance_key: key of the covariances (N, D, D) in mm^2. None, or a key that is missing, if there are none.
        image_key: key of the image, whose metadata gives the file name and the affine.
        formats: suffixes of the files to write for each image; any suffix that
            :func:`monai_landmarks.data.write_landmarks` supports.
        table: file name of the table. None to write no tables.
        table_coordinate_system: coordinate system of the table: ``"RAS"``, ``"LPS"``, or ``"index"`` for pixels of the
            image file. By default, pixels for 2-D images and RAS for 3-D images. The table states its coordinate
            system.
        doubt_key: key of the doubts of :class:`monai_landmarks.transforms.ExamineLandmarksd`, which become the columns
            ``doubt`` (of the image) and ``landmark_doubt`` of ``<table>_std.csv``. None, or a key that is missing, if
            there are none.
        best_only: whether to write only when the evaluator's key metric is the best so far. During training, the files
            then belong to the model that is kept.
        probability_key: key of the :class:`monai_landmarks.uncertainty.LandmarkProbabilities`. ``<table>_std.csv`` then
            has the columns ``score``, ``probability`` and ``within_mm``: the raw score, and the probability that the
            landmark is within that distance of its true place. None, or a key that is missing, if there are none.
        regions: conformal regions, or the path of their file. With them, the files state a region for each landmark
            that contains it with a given probability.

    Attributes:
        sink: function that receives each prediction after its files were written. The saver then keeps no predictions,
            so that its memory does not grow with the images, and writes no tables; see :meth:`write_tables`. None, the
            default: it keeps them.
        file_names: names of the files without suffix, by path of the image, if they are known before the end.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        names: Sequence[str],
        pred_key: str = "pred_points",
        score_key: str | None = "pred_scores",
        covariance_key: str | None = "pred_covariances",
        image_key: str = CommonKeys.IMAGE,
        formats: Sequence[str] = ("mrk.json",),
        table: str | None = "predictions.csv",
        table_coordinate_system: CoordinateSystem | str | None = None,
        best_only: bool = False,
        regions: ConformalRegions | str | os.PathLike | None = None,
        doubt_key: str | None = "pred_doubt",
        probability_key: str | None = "pred_probabilities",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.names = tuple(names)
        self.pred_key = pred_key
        self.score_key = score_key
        self.covariance_key = covariance_key
        self.image_key = image_key
        self.doubt_key = doubt_key
        self.probability_key = probability_key
        self.predictions: tuple[SavedPrediction, ...] = ()
        self.formats = (formats,) if isinstance(formats, str) else tuple(formats)
        self.table = table
        self.table_coordinate_system = table_coordinate_system and CoordinateSystem(table_coordinate_system)
        self.best_only = best_only
        self.regions = ConformalRegions.load(regions) if isinstance(regions, (str, os.PathLike)) else regions
        self.sink: Callable[[SavedPrediction], None] | None = None
        self.file_names: Mapping[str, str] = {}
        self._cases: dict[str, SavedPrediction] = {}
        self._taken: set[str] = set()
        self._kept = KeptFiles(self.output_dir / ".predictions.written")

    def attach(self, engine: Engine) -> None:
        """Add the handler to an evaluator.

        Args:
            engine: the evaluator.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._save)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _start(self, _engine: Engine) -> None:
        self._cases = {}
        self._taken = set()
        self._kept.copies.clear()

    def _save(self, engine: Engine) -> None:
        with self._kept:
            for item in output_items(engine):
                self._save_item(item, engine)

    def _save_item(self, item: dict[Hashable, Any], engine: Engine) -> None:
        image = image_path(item, self.image_key) or f"case_{engine.state.rank}_{len(self._cases)}"
        landmarks, affine = self._landmarks(item, image), file_affine(item.get(self.image_key))
        if affine is None and self.table is not None and self._system(landmarks) == CoordinateSystem.INDEX:
            raise ValueError(
                f"{image}: the image was transformed and its metadata does not have the affine of the file, so the table "
                "cannot be written in the file's pixels. Put EnsureWorldAffined right after LoadImaged, or set "
                "table_coordinate_system='RAS'."
            )
        plane = plane_z(item.get(self.image_key))
        doubt = None if self.doubt_key is None else item.get(self.doubt_key)
        probable = None if self.probability_key is None else item.get(self.probability_key)
        case = SavedPrediction(image, self._free_name(image), landmarks, affine, plane, doubt, probable)
        if not self.best_only:
            self.write(case)
        if self.sink is None:
            before = self._cases.get(image)
            # samplers repeat images to make equal parts, and their points are the same but for rounding
            if before is not None and not np.allclose(
                before.landmarks.points, landmarks.points, atol=_SAME_POINT, equal_nan=True
            ):
                engine.logger.warning(
                    f"{image}: another prediction with other points replaces the one before it. Give each slice or crop a"
                    " file name of its own."
                )
            self._cases[image] = case
        else:
            self.sink(case)

    def _free_name(self, image: str) -> str:
        """Return a preliminary file name that no other image of this rank has."""
        if image in self.file_names:
            return self.file_names[image]
        if image in self._cases:
            return self._cases[image].name
        stem = name = image_stem(image)
        while name in self._taken:
            name = f"{stem}_{len(self._taken)}"
        self._taken.add(name)
        return name

    def _landmarks(self, item: dict[Hashable, Any], image: str) -> LandmarkSet:
        landmarks = landmark_set_of(
            take(item, self.pred_key, self),
            item.get(self.image_key),
            self.names,
            item.get(self.score_key),
            item.get(self.covariance_key),
            what=f"{image}: {self.pred_key!r}",
        )
        landmarks = replace(landmarks, image=image)
        return landmarks if self.regions is None else self.regions.add_to(landmarks)

    def files(self, name: str) -> list[Path]:
        """Return the paths of the files of an image with this name."""
        return [self.output_dir / f"{name}.{suffix.lstrip('.')}" for suffix in self.formats]

    def write(self, case: SavedPrediction) -> None:
        """Write the files of an image.

        Args:
            case: its prediction.
        """
        landmarks = case.landmarks
        if landmarks.spatial_dims == 2 and case.plane != 0:  # a single slice of a volume
            landmarks = landmarks.with_spatial_dims(3, case.plane)
        for path in self.files(case.name):
            write_landmarks(path, landmarks)

    def _finish(self, engine: Engine) -> None:
        with self._kept:
            self._write_all(engine)
        for note in self._kept.notes():
            engine.logger.warning(note)

    def _write_all(self, engine: Engine) -> None:
        if self.best_only and not is_best(engine):
            return
        gathered = gather(list(self._cases.values()))
        if not gathered or not is_main_process():
            return
        cases = {case.image: case for case in sorted(gathered, key=lambda case: case.image)}
        names = self._settle_names(gathered, list(cases.values()))
        self.predictions = tuple(case._replace(name=name) for case, name in zip(cases.values(), names))
        self.write_tables(list(cases.values()))
        engine.logger.info(f"wrote the landmarks of {len(cases)} images to {self.output_dir}")

    def write_tables(self, predictions: Sequence[SavedPrediction]) -> None:
        """Write both tables.

        Args:
            predictions: the predictions, in the order of the rows. They may be read from the disk one by one.
        """
        if self.table is not None:
            write_landmark_table(self.output_dir / self.table, _TableSets(predictions, self._table_landmarks))
            self._write_std(predictions)

    def _system(self, landmarks: LandmarkSet) -> CoordinateSystem:
        default = CoordinateSystem.INDEX if landmarks.spatial_dims == 2 else CoordinateSystem.RAS
        return CoordinateSystem(self.table_coordinate_system or default)

    def _table_landmarks(self, case: SavedPrediction) -> LandmarkSet:
        system = self._system(case.landmarks)
        if system != CoordinateSystem.INDEX:
            return case.landmarks.to(system)
        assert case.affine is not None
        return case.landmarks.to_index(case.affine)

    def _settle_names(self, gathered: list[SavedPrediction], cases: list[SavedPrediction]) -> list[str]:
        """Rename files so that names do not depend on the order of the images or on the ranks.

        This is possible only at the end, when all images are known.

        Returns:
            The final name of each case.
        """
        names = distinct_names([case.image for case in cases])
        written = Counter(case.name for case in gathered)
        for case, name in zip(cases, names):
            # the file of another rank may be on the disk of another node
            if self.best_only or case.image not in self._cases or case.name != name or written[name] > 1:
                self.write(case._replace(name=name))
        for stale in set(written) - set(names):
            for path in self.files(stale):
                remove_file(path)
        return names

    def _write_std(self, cases: Sequence[SavedPrediction]) -> None:
        """Write the table of uncertainties in mm and of doubts, if there are covariances, regions or examinations."""
        examined = any(case.doubt is not None for case in cases)
        if not examined and all(
            case.landmarks.covariances is None and case.landmarks.regions is None for case in cases
        ):
            return
        path = self.output_dir / str(self.table)
        dims = cases[0].landmarks.spatial_dims
        further = [] if self.regions is None else ["region_radius"]
        probable = any(case.probabilities is not None for case in cases)
        columns = [*further, *(["score", "probability", "within_mm"] if probable else [])]
        with atomic_write(path.with_name(f"{path.stem}_std.csv")) as temporary:
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(
                    [
                        "image",
                        "landmark",
                        *("std_x", "std_y", "std_z")[:dims],
                        *columns,
                        *(["doubt", "landmark_doubt"] if examined else []),
                    ]
                )
                for case in cases:
                    std = np.full((len(self.names), dims), np.nan)
                    if case.landmarks.covariances is not None:
                        std = np.sqrt(np.diagonal(case.landmarks.covariances, axis1=1, axis2=2))
                    values = np.column_stack([std, case.landmarks.region_radius][: 1 + len(further)])
                    if probable:
                        values = np.column_stack([values, self._probability_columns(case)])
                    doubts = (case.doubt or Doubt()).cells(len(self.names))
                    for name, row, doubt in zip(self.names, values, doubts):
                        table.writerow(
                            [
                                text_cell(case.image),
                                text_cell(name),
                                *("" if value != value else f"{value:.4f}" for value in row),
                                *(map(text_cell, doubt) if examined else ()),
                            ]
                        )

    def _probability_columns(self, case: SavedPrediction) -> np.ndarray:
        """Return scores, probabilities and their distance (N, 3)."""
        unknown = np.full(len(self.names), np.nan)
        scores = unknown if case.landmarks.scores is None else case.landmarks.scores
        if case.probabilities is None:
            return np.column_stack([scores, unknown, unknown])
        values = case.probabilities.values
        return np.column_stack([scores, values, np.where(np.isnan(values), np.nan, case.probabilities.radius)])


class _TableSets(Mapping[str, LandmarkSet]):
    """The landmarks of images as a table has them, each converted when it is used."""

    def __init__(
        self, predictions: Sequence[SavedPrediction], convert: Callable[[SavedPrediction], LandmarkSet]
    ) -> None:
        self._predictions = predictions
        self._convert = convert
        self._index = {case.image: i for i, case in enumerate(predictions)}

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __getitem__(self, image: str) -> LandmarkSet:
        return self._convert(self._predictions[self._index[image]])


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Return a distinct file name without suffix for each of several image files.

    It is the name of the image. If several images have the same name, as many folder names as necessary are put before
    it.

    Args:
        paths: paths of different image files.

    Returns:
        One name per path, in the same order.

    Example:
        >>> distinct_names(["left/hand.png", "right/hand.png", "right/foot.png"])
        ['left_hand', 'right_hand', 'foot']
    """
    stems = Counter((Path(path).parent, image_stem(path)) for path in paths)
    parts = []
    for path in map(Path, paths):  # a.png and a.jpg in one folder keep their suffixes
        alone = stems[path.parent, image_stem(str(path))] == 1
        parts.append((*path.parent.parts, image_stem(str(path)) if alone else path.name.replace(".", "_")))
    depth = [1] * len(paths)
    while True:
        names = ["_".join(part.strip("/\\:") for part in p[-d:]) for p, d in zip(parts, depth)]
        count = Counter(names)
        grown = [i for i, name in enumerate(names) if count[name] > 1 and depth[i] < len(parts[i])]
        if not grown:  # "a_x.png" and "a/x.png" can only be told apart by a number
            return [name if count[name] == 1 else f"{name}_{i}" for i, name in enumerate(names)]
        for i in grown:
            depth[i] += 1
