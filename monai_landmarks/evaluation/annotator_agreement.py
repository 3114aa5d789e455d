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
"""Agreement of two or more annotators: distances, intraclass correlation, bias, and a model on the same scale."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from monai_landmarks.data import write_landmark_table
from monai_landmarks.data.files.csv_tables import remove_table, write_rows
from monai_landmarks.metrics import (
    ErrorReport,
    IntraclassCorrelation,
    LimitsOfAgreement,
    PairedComparison,
    bootstrap_interval_of_sums,
    compare_errors,
    intraclass_correlations,
    limits_of_agreement,
)
from monai_landmarks.schema import LandmarkSchema, Measurement, measure_with_uncertainty

from .annotators import ALL, MODEL, OTHERS, AnnotatedImages, ConsensusKind, known_mean, read_annotators
from .image_measurements import matched_names

__all__ = ["AnnotatorAgreement", "Difference", "compare_annotators"]


@dataclass(frozen=True, eq=False)
class Difference:
    """Differences of one quantity between two annotators, or an annotator and the mean of the others.

    Args:
        first: name of the annotator.
        second: name of the other annotator, or ``"mean of the others"``.
        quantity: landmark or measurement.
        coordinate: coordinate of the landmark. Empty for a measurement.
        unit: unit of the quantity.
        values: (B, 2), the two values in each image, NaN where one is missing.
        limits: bias and limits of agreement of first minus second value.
    """

    first: str
    second: str
    quantity: str
    coordinate: str
    unit: str
    values: np.ndarray
    limits: LimitsOfAgreement

    @property
    def title(self) -> str:
        """Landmark with its coordinate, or measurement."""
        return f"{self.quantity} {self.coordinate}".rstrip()


@dataclass(eq=False)
class AnnotatorAgreement:
    """Agreement of annotators, as tables; the result of :func:`compare_annotators`.

    Distances are in the unit of the points. With three or more annotators, each is also compared with the mean of the
    others. This mean has less noise than a single annotator, so these distances are smaller than those of pairs.

    A model is on the same scale as the annotators if it is compared with the same references. For each annotator, the
    mean of the other annotators is the reference, both for this annotator and for the model.

    Args:
        data: the annotators' points.
        thresholds: radii within which landmarks are counted, in the unit of the points.
        confidence: confidence level of the intervals.
        resamples: number of bootstrap samples of images.
        seed: seed of the bootstrap.
        schema: landmark schema. Its measurements are compared, too.
        notes: what is to know, one sentence each.
    """

    data: AnnotatedImages
    thresholds: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    schema: LandmarkSchema | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        data = self.data
        self.notes = [*data.notes, *self.notes]
        self._people = dict(zip(data.annotators, data.points))
        self._pairs = list(combinations(self._people, 2))
        #: distances (B, N) by first and second annotator
        self.distances = {pair: _distance(*(self._people[name] for name in pair)) for pair in self._pairs}
        self.others = {
            name: known_mean(np.stack([points for other, points in self._people.items() if other != name]))
            for name in self._people
        }
        #: mean distance of the pairs of annotators, (B, N)
        self.disagreement = known_mean(np.stack(list(self.distances.values())))
        self.values, self.classes = self._measure()
        if data.model is not None:
            marked = np.isfinite(data.points[..., 0]).any(axis=0)
            found = marked & np.isfinite(data.model[..., 0])
            if found.sum() < marked.sum():
                self.notes.append(
                    f"the model found {found.sum()} of {marked.sum()} landmarks that annotators marked; its distances are"
                    " those of the landmarks that it found."
                )

    @property
    def several(self) -> bool:
        """Whether there are three or more annotators."""
        return len(self._people) > 2

    def lines(self) -> dict[tuple[str, str], np.ndarray]:
        """Return distances (B, N) by first and second: pairs of annotators, each against the mean of the others, model."""
        lines = dict(self.distances)
        if self.several:
            lines |= {(name, OTHERS): _distance(self._people[name], self.others[name]) for name in self._people}
        if self.data.model is not None:
            lines |= {(MODEL, name): _distance(self.data.model, points) for name, points in self._people.items()}
            lines[MODEL, ALL] = _distance(self.data.model, known_mean(self.data.points))
        return lines

    def distance_rows(self) -> list[dict[str, Any]]:
        """Return one row per comparison: the distances of all landmarks, with the interval of the mean."""
        rows = []
        for (first, second), distances in self.lines().items():
            report = ErrorReport(distances.reshape(-1, 1), ("all",), thresholds=self.thresholds, unit=self.data.unit)
            row = {key: value for key, value in report.per_landmark()[0].items() if key not in ("landmark", "missed")}
            known = np.isfinite(distances)
            parts = np.stack([np.where(known, distances, 0).sum(axis=1), known.sum(axis=1)], axis=1)
            low, high = bootstrap_interval_of_sums(parts, _ratio, self.confidence, self.resamples, self.seed)
            rows.append({"first": first, "second": second, **row, "mean_low": float(low), "mean_high": float(high)})
        return rows

    def landmark_distance_rows(self) -> list[dict[str, Any]]:
        """Return one row per comparison and landmark: the distances."""
        rows: list[dict[str, Any]] = []
        for (first, second), distances in self.lines().items():
            report = ErrorReport(distances, self.data.names, self.data.images, self.thresholds, self.data.unit)
            for row in report.per_landmark():
                cells = {key: value for key, value in row.items() if key != "missed"}
                rows.append({"first": first, "second": second, **cells})
        return rows

    @cached_property
    def correlations(self) -> list[tuple[str, str, str, IntraclassCorrelation]]:
        """Quantity, coordinate, unit and intraclass correlation of each coordinate and each measurement."""
        data = self.data
        count, dims = len(data.names), len(data.coordinates)
        values = data.points.transpose(1, 0, 2, 3).reshape(len(data.images), len(data.annotators), count * dims)
        keys = [(name, coordinate, data.unit) for name in data.names for coordinate in data.coordinates]
        if self.schema is not None and self.values:
            measured = np.stack(
                [np.stack(found[: len(data.annotators)], axis=-1) for found in self.values.values()], axis=-1
            )
            values = np.concatenate([values, measured], axis=-1)
            keys += [(measurement.name, "", self._unit(measurement)) for measurement in self.schema.measurements]
        found = intraclass_correlations(values, self.confidence, self.resamples, self.seed)
        return [(quantity, coordinate, unit, one) for (quantity, coordinate, unit), one in zip(keys, found)]

    def correlation_rows(self) -> list[dict[str, Any]]:
        """Return one row per coordinate and measurement: the intraclass correlations."""
        return [
            {
                "quantity": quantity,
                "coordinate": coordinate,
                "images": one.images,
                "annotators": len(self.data.annotators),
                "icc_a1": one.single,
                "icc_a1_low": one.low,
                "icc_a1_high": one.high,
                "icc_c1": one.consistency,
                "icc_ak": one.average,
                "standard_error": one.standard_error,
                "unit": unit,
            }
            for quantity, coordinate, unit, one in self.correlations
        ]

    @cached_property
    def differences(self) -> list[Difference]:
        """Differences of each coordinate and measurement between pairs, to the mean of the others, and of a model."""
        people = self._people
        sides: list[tuple[str, str, np.ndarray, np.ndarray]] = [(a, b, people[a], people[b]) for a, b in self._pairs]
        if self.several:
            sides += [(name, OTHERS, people[name], self.others[name]) for name in people]
        if self.data.model is not None:
            sides.append((MODEL, ALL, self.data.model, known_mean(self.data.points)))
        result = []
        for first, second, one, two in sides:
            result += self._differences(first, second, self._landmark_values(one, two))
            if self.values:
                result += self._differences(first, second, self._measured_values(first, second))
        return result

    def difference_rows(self) -> list[dict[str, Any]]:
        """Return one row per comparison and quantity: bias with its interval, and 95 % limits of agreement."""
        return [
            {
                "first": one.first,
                "second": one.second,
                "quantity": one.quantity,
                "coordinate": one.coordinate,
                "images": one.limits.images,
                "bias": one.limits.bias,
                "bias_low": one.limits.low,
                "bias_high": one.limits.high,
                "std": one.limits.std,
                "lower_limit": one.limits.lower_limit,
                "upper_limit": one.limits.upper_limit,
                "unit": one.unit,
            }
            for one in self.differences
        ]

    def class_rows(self) -> list[dict[str, Any]]:
        """Return one row per measurement with classes: share of images in which all annotators find the same class."""
        rows = []
        for name, classes in self.classes.items():
            known = [[one for one in found if one is not None] for found in zip(*classes.values())]
            known = [found for found in known if len(found) > 1]
            same = [len(set(found)) == 1 for found in known]
            if known:
                share = 100 * sum(same) / len(same)
                rows.append({"measurement": name, "images": len(known), "same_class_percent": share})
        return rows

    def landmark_rows(self) -> list[dict[str, Any]]:
        """Return one row per landmark, sorted by decreasing disagreement: the mean distance of pairs of annotators."""
        marked = np.isfinite(self.data.points[..., 0]).sum(axis=0)
        given = self.data.given.sum(axis=0)
        rows = []
        for n, name in enumerate(self.data.names):
            values = self.disagreement[:, n]
            some = (marked[:, n] > 0) & (marked[:, n] < given)
            rows.append(
                {
                    "landmark": name,
                    "images": int(np.isfinite(values).sum()),
                    **_statistics(values),
                    "marked_by_all": int(((marked[:, n] == given) & (given > 1)).sum()),
                    "marked_by_some": int(some.sum()),
                }
            )
        return _sorted(rows, "mean")

    def image_rows(self) -> list[dict[str, Any]]:
        """Return one row per image, sorted by decreasing disagreement: the mean distance of pairs of annotators."""
        marked = np.isfinite(self.data.points[..., 0]).sum(axis=0)
        rows = []
        for b, (image, given) in enumerate(zip(self.data.images, self.data.given.sum(axis=0))):
            values = self.disagreement[b]
            known = np.isfinite(values).any()
            rows.append(
                {
                    "image": image,
                    "annotators": int(given),
                    "landmarks": int(np.isfinite(values).sum()),
                    **_statistics(values),
                    "landmark_of_max": self.data.names[int(np.nanargmax(values))] if known else "",
                    "marked_by_some": int(((marked[b] > 0) & (marked[b] < given)).sum()),
                }
            )
        return _sorted(rows, "mean")

    def point_rows(self) -> list[dict[str, Any]]:
        """Return one row per image and landmark, sorted by decreasing mean distance of pairs of annotators."""
        data = self.data
        marked = np.isfinite(data.points[..., 0])
        stacked = np.stack(list(self.distances.values()))
        rows = []
        for b, image in enumerate(data.images):
            for n, name in enumerate(data.names):
                distances = stacked[:, b, n][np.isfinite(stacked[:, b, n])]
                who = [annotator for annotator, known in zip(data.annotators, marked[:, b, n]) if known]
                row = {"image": image, "landmark": name, "annotators": len(who), "mean": float(self.disagreement[b, n])}
                row["max"] = float(distances.max()) if len(distances) else math.nan
                rows.append({**row, "marked_by": "" if len(who) in (0, len(data.annotators)) else ", ".join(who)})
        return _sorted(rows, "mean")

    def model_comparisons(self) -> list[tuple[str, PairedComparison]]:
        """Compare the model with each annotator, both by their distance to the mean of the other annotators.

        Returns:
            Name of the annotator (``"all"``: over all annotators) and the paired comparison: ``first`` is the
            annotator, ``second`` the model. Empty without a model.
        """
        if self.data.model is None:
            return []
        people = [_distance(self._people[name], self.others[name]) for name in self._people]
        models = [_distance(self.data.model, self.others[name]) for name in self._people]
        settings = (self.confidence, self.resamples, self.seed)
        rows = [(name, compare_errors(a, b, *settings)) for name, a, b in zip(self._people, people, models)]
        return [*rows, ("all", compare_errors(np.hstack(people), np.hstack(models), *settings))]

    def model_missed(self) -> dict[str, tuple[int, int]]:
        """Return how many landmarks with a mean of the other annotators each annotator and the model lack, by annotator.

        Only the images that both have are counted.
        """
        if self.data.model is None:
            return {}
        found, result = np.isfinite(self.data.model[..., 0]), {}
        for (name, points), given in zip(self._people.items(), self.data.given):
            both = given & found.any(axis=1)
            reference = np.isfinite(self.others[name][..., 0]) & both[:, None]
            result[name] = (int((reference & np.isnan(points[..., 0])).sum()), int((reference & ~found).sum()))
        return {**result, "all": (sum(one for one, _ in result.values()), sum(two for _, two in result.values()))}

    def model_rows(self) -> list[dict[str, Any]]:
        """Return :meth:`model_comparisons` as rows, with :meth:`model_missed`."""
        missed = self.model_missed()
        return [
            {
                "annotator": name,
                "images": one.images,
                "annotator_mean": one.first,
                "model_mean": one.second,
                "difference": one.difference,
                "low": one.low,
                "high": one.high,
                "annotator_closer": one.first_better,
                "model_closer": one.second_better,
                "annotator_missed": missed[name][0],
                "model_missed": missed[name][1],
                "p_value": f"{one.p_value:.3g}",
                "unit": self.data.unit,
            }
            for name, one in self.model_comparisons()
        ]

    def write(
        self, output_dir: str | os.PathLike, consensus: ConsensusKind = "mean", at_least: int | None = None
    ) -> list[Path]:
        """Write all tables as CSV files, and the consensus as a landmark file.

        Args:
            output_dir: folder for the files.
            consensus: see :meth:`monai_landmarks.evaluation.AnnotatedImages.consensus`.
            at_least: see :meth:`monai_landmarks.evaluation.AnnotatedImages.consensus`.

        Returns:
            The files written. Tables of an earlier comparison, with a model or a schema, are removed. If the consensus
            lacks landmarks that annotators marked, ``notes`` gets a sentence.
        """
        output_dir = Path(output_dir)
        sets = self.data.consensus(consensus, at_least)
        marked = int(np.isfinite(self.data.points[..., 0]).any(axis=0).sum())
        if lacking := marked - sum(int(np.isfinite(one.points[:, 0]).sum()) for one in sets.values()):
            self.notes.append(
                f"the consensus lacks {lacking} of {marked} landmarks that annotators marked, because too few annotators"
                " marked them; --at-least sets how many are needed."
            )
        tables = {
            "distances": self.distance_rows(),
            "distances_per_landmark": self.landmark_distance_rows(),
            "icc": self.correlation_rows(),
            "bland_altman": self.difference_rows(),
            "disagreement_per_landmark": self.landmark_rows(),
            "disagreement_per_image": self.image_rows(),
            "disagreement": self.point_rows(),
            "classes": self.class_rows(),
            "model": self.model_rows(),
        }
        written = [write_rows(output_dir / f"{name}.csv", rows) for name, rows in tables.items() if rows]
        for name, column in (("classes", "same_class_percent"), ("model", "annotator_closer")):
            if not tables[name]:
                remove_table(output_dir / f"{name}.csv", column)
        write_landmark_table(output_dir / "consensus.csv", sets)
        return [*written, output_dir / "consensus.csv"]

    def _measure(self) -> tuple[dict[str, list[np.ndarray]], dict[str, dict[str, tuple[str | None, ...]]]]:
        """Return the values (B,) of each measurement by each annotator and the model, and the annotators' classes.

        A class is empty for a value in none, and None without a value.
        """
        values: dict[str, list[np.ndarray]] = {}
        classes: dict[str, dict[str, tuple[str | None, ...]]] = {}
        if self.schema is None:
            return values, classes
        columns, notes = matched_names(self.schema, self.data.names)
        # the limits of the classes of lengths are in mm
        graded = {one.name for one in self.schema.measurements if one.classes and self._unit(one) != "px"}
        self.notes += notes
        if self.schema.spatial_dims != self.data.points.shape[-1]:
            raise ValueError(
                f"the schema {self.schema.name} has {self.schema.spatial_dims}-D landmarks; these are of another dimension."
            )
        if self.data.unit == "px":
            self.notes.append("the pixel size is not known, so measured lengths are in pixels and in no class.")
        models = [] if self.data.model is None else [self.data.model]
        for name, points in zip((*self._people, MODEL), [*self.data.points, *models]):
            ordered = np.stack([self.data.landmark_set(one).reorder(columns).points for one in points])
            for key, measured in measure_with_uncertainty(self.schema, ordered).items():
                values.setdefault(key, []).append(measured.values)
                if name != MODEL and key in graded:
                    found = zip(measured.classes, np.isfinite(measured.values))
                    classes.setdefault(key, {})[name] = tuple(one if known else None for one, known in found)
        return values, classes

    def _unit(self, measurement: Measurement) -> str:
        return self.data.unit if measurement.unit == "mm" else measurement.unit

    def _landmark_values(self, one: np.ndarray, two: np.ndarray) -> list[tuple[str, str, str, np.ndarray]]:
        data = self.data
        return [
            (name, coordinate, data.unit, np.stack([one[:, n, d], two[:, n, d]], axis=1))
            for n, name in enumerate(data.names)
            for d, coordinate in enumerate(data.coordinates)
        ]

    def _measured_values(self, first: str, second: str) -> list[tuple[str, str, str, np.ndarray]]:
        assert self.schema is not None
        order = (*self._people, MODEL)
        result: list[tuple[str, str, str, np.ndarray]] = []
        for measurement in self.schema.measurements:
            values = self.values[measurement.name]
            people = np.stack(values[: len(self._people)])
            if second in order:
                other = values[order.index(second)]
            else:
                kept = [a for a, name in enumerate(self._people) if second == ALL or name != first]
                other = known_mean(people[kept])
            pair = np.stack([values[order.index(first)], other], axis=1)
            result.append((measurement.name, "", self._unit(measurement), pair))
        return result

    def _differences(
        self, first: str, second: str, items: Sequence[tuple[str, str, str, np.ndarray]]
    ) -> list[Difference]:
        values = np.stack([item[-1] for item in items], axis=-1)
        limits = limits_of_agreement(values[:, 0] - values[:, 1], self.confidence, self.resamples, self.seed)
        return [Difference(first, second, *item, one) for item, one in zip(items, limits)]


def compare_annotators(
    paths: Sequence[str | os.PathLike],
    *,
    model: str | os.PathLike | None = None,
    images: str | os.PathLike | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: str | None = None,
    schema: LandmarkSchema | None = None,
    thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> AnnotatorAgreement:
    """Compare the landmarks of two or more annotators of the same images.

    Args:
        paths: landmark file, folder of landmark files, or datalist of each annotator, at least two.
        model: predictions of a model for the same images, which are compared on the same scale.
        images: folder of the images, or a datalist, see :func:`monai_landmarks.evaluation.evaluate_predictions`.
        spacing: pixel size in mm of pictures that are in no datalist. 1: work in pixels.
        coordinate_system: coordinate system of landmark files that do not state their own.
        schema: landmark schema. Its clinical measurements are compared, too.
        thresholds: radii within which landmarks are counted, in the unit of the distances.
        confidence: confidence level of the intervals, see :func:`monai_landmarks.metrics.bootstrap_interval`.
        resamples: number of bootstrap samples of images.
        seed: seed of the bootstrap.

    Returns:
        The agreement. Images that only one annotator has are left out, and a note says so.

    Raises:
        ValueError: if there are fewer than two annotators, a file is malformed, no image or no landmark is shared,
            pixels cannot be compared to mm, or the schema has other landmarks.
    """
    data = read_annotators(paths, model=model, images=images, spacing=spacing, coordinate_system=coordinate_system)
    radii = tuple(float(radius) for radius in thresholds)
    return AnnotatorAgreement(data, radii, confidence, resamples, seed, schema)


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(first - second, axis=-1))


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Return means (R,) from sums and counts (R, 2)."""
    return np.where(sums[:, 1] > 0, sums[:, 0], np.nan) / np.maximum(sums[:, 1], 1)


def _statistics(values: np.ndarray) -> dict[str, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return dict.fromkeys(("mean", "median", "max"), math.nan)
    return {"mean": float(known.mean()), "median": float(np.median(known)), "max": float(known.max())}


def _sorted(rows: Iterable[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return rows by decreasing value. Rows without a value come last."""
    return sorted(rows, key=lambda row: -row[key] if row[key] == row[key] else math.inf)
