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

"""Evaluation of predictions: errors with confidence intervals, and comparisons of two predictions."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from monai_landmarks.data import LandmarkSet, atomic_write
from monai_landmarks.data.files.csv_tables import remove_table, write_rows
from monai_landmarks.data.files.name_lists import some_names
from monai_landmarks.metrics import (
    ErrorReport,
    PairedComparison,
    bootstrap_interval_of_counts,
    compare_errors,
    identification,
    point_error,
)
from monai_landmarks.schema import (
    LandmarkSchema,
    MeasuredValues,
    MeasurementComparison,
    MeasurementReport,
    compare_measurements,
    match_landmarks,
    measure_with_uncertainty,
)

from .doubt_table import read_doubts
from .image_measurements import ImageMeasurements, matched_names
from .landmark_sources import ImageGeometry, ImageLandmarks, match_predictions, read_annotations, to_common_space

__all__ = ["EvaluatedCase", "Evaluation", "evaluate_predictions"]

_Measured = TypeVar("_Measured", MeasurementComparison, MeasuredValues)

_COMPARISONS = ("second_annotator", "compare")
# the tables that an evaluation may write, each with a column that shows that a file is such a table
_TABLES = {
    "metrics": "metric",
    "errors_per_landmark": "identified_percent",
    "errors_per_image": "mean",
    "measurement_errors": "mean_absolute_error",
    "measurement_errors_per_image": "true_class",
}


@dataclass(frozen=True)
class EvaluatedCase:
    """The predicted and the true landmarks of one image.

    Args:
        predicted: predicted landmarks. None: the image has no prediction.
        true: ground truth, in the same order, coordinate system and dimension.
        geometry: affine and pixel size of the image, as far as they are known.
    """

    predicted: LandmarkSet | None
    true: LandmarkSet
    geometry: ImageGeometry


@dataclass
class Evaluation:
    """Errors of predictions, as tables; the result of :func:`evaluate_predictions`.

    Args:
        images: names of the B images.
        names: names of the N landmarks.
        errors: point errors (B, N). NaN: no ground truth. inf: the landmark was missed.
        identified: (B, N), 1 for a landmark that was identified, 0 for one that was not, NaN without ground truth.
        unit: unit of the errors, ``"mm"`` or ``"px"``.
        limit: largest distance at which a landmark can be identified, in ``unit``. None: no limit.
        thresholds: radii of the success detection rate, in ``unit``.
        strict: whether an error equal to a radius counts as outside.
        confidence: confidence level of the intervals.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap.
        notes: images and landmarks that were left out, one sentence each.
        comparisons: evaluations of other predictions of the same images, each with its paired comparison to this one.
            Keys: ``"second_annotator"``, ``"compare"``.
        cases: the B images with their landmarks, in the order of ``names``.
        measurements: predicted and true measurements of a landmark schema, where one was given.
        measured: the predicted and the true measurements of each image, where a schema was given.
        doubts: reasons to doubt the prediction of an image, by image. None: the predictions were not examined.
    """

    images: list[str]
    names: list[str]
    errors: np.ndarray
    identified: np.ndarray
    unit: Literal["mm", "px"]
    limit: float | None
    thresholds: tuple[float, ...]
    strict: bool = False
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    notes: list[str] = field(default_factory=list)
    comparisons: dict[str, tuple[Evaluation, PairedComparison]] = field(default_factory=dict)
    cases: list[EvaluatedCase] = field(default_factory=list)
    measurements: MeasurementReport | None = None
    measured: tuple[ImageMeasurements, ImageMeasurements] | None = None
    doubts: dict[str, str] | None = None

    @property
    def report(self) -> ErrorReport:
        """The error tables without intervals."""
        rate = 100 * float(np.nanmean(self.identified)) if np.isfinite(self.identified).any() else math.nan
        within = "" if self.limit is None else f" < {self.limit:g} {self.unit}"
        return ErrorReport(
            self.errors,
            self.names,
            self.images,
            self.thresholds,
            self.unit,
            self.strict,
            [(f"identified{within}", rate, "%")],
        )

    def summary(self) -> list[dict[str, Any]]:
        """Return the metrics over all images and landmarks: rows of metric, value, unit, and interval (low, high)."""
        return [dict(row) for row in self._summary]

    @cached_property
    def _summary(self) -> list[dict[str, Any]]:
        rows = [dict(zip(("metric", "value", "unit"), row)) for row in self.report.summary()]
        intervals = self._intervals(self._statistics())
        rates = [row["metric"] for row in rows if row["unit"] == "%"]
        ends = dict(zip(["MRE", "std", "median", *rates], intervals.T))
        return [row | dict(zip(("low", "high"), map(float, ends.get(row["metric"], (math.nan,) * 2)))) for row in rows]

    def per_landmark(self) -> list[dict[str, Any]]:
        """Return one row per landmark: its errors, the interval of the mean, and the identification rate in percent.

        See :meth:`monai_landmarks.metrics.ErrorReport.per_landmark`.
        """
        found = _found(self.errors)
        known = np.isfinite(found)
        sums = np.where(known, found, 0)
        ends = self._intervals(lambda counts: _ratio(counts @ sums, counts @ known))
        rates = 100 * _mean(self.identified, axis=0)
        return [
            row | {"mean_low": float(low), "mean_high": float(high), "identified_percent": float(rate)}
            for row, low, high, rate in zip(self.report.per_landmark(), *ends, rates)
        ]

    def per_image(self) -> list[dict[str, Any]]:
        """Return one row per image, see :meth:`monai_landmarks.metrics.ErrorReport.per_image`."""
        return self.report.per_image()

    def measurement_rows(self) -> list[dict[str, Any]]:
        """Return one row per measurement: its errors, and how many of the intervals contain the true value.

        Empty without a schema. See :class:`monai_landmarks.schema.MeasurementReport`.
        """
        if self.measurements is None or self.measured is None:
            return [] if self.measurements is None else self.measurements.rows()
        rows: list[dict[str, Any]] = []
        for row in self.measurements.rows():
            held = self._held(str(row["measurement"]))
            known = held[~np.isnan(held)]
            share = 100 * float(known.mean()) if len(known) else math.nan
            rows.append({**row, "intervals": len(known), "held_percent": share})
        return rows

    def measurements_per_image(self) -> list[dict[str, Any]]:
        """Return one row per image and measurement: predicted value with its interval, true value, and both classes."""
        if self.measured is None:
            return []
        found, true = self.measured
        rows = []
        for index, image in enumerate(self.images):
            for name, values in found.measured.items():
                row, other = values.row(index), true.measured[name]
                truth = float(other.values[index])
                held = float(self._held(name)[index])
                rows.append(
                    {
                        "image": image,
                        **row,
                        "true": truth,
                        "error": float(row["value"]) - truth,
                        "held": None if math.isnan(held) else int(held),
                        "true_class": other.classes[index],
                    }
                )
        return rows

    def _held(self, measurement: str) -> np.ndarray:
        """Return for each image whether the interval contains the true value: 1, 0, or NaN if one is unknown."""
        assert self.measured is not None
        found, true = (part.measured[measurement] for part in self.measured)
        known = np.isfinite(found.lows) & np.isfinite(true.values)
        return np.where(known, (found.lows <= true.values) & (true.values <= found.highs), np.nan)

    def missed_beside(self, name: str) -> tuple[int, int, int]:
        """Count the missed landmarks in the images of a comparison.

        Args:
            name: key of the comparison.

        Returns:
            How many landmarks these predictions missed, how many the others missed, and how many are annotated.
        """
        other, _ = self.comparisons[name]
        own = self.errors[[self.images.index(image) for image in other.images]]
        return int(np.isinf(own).sum()), int(np.isinf(other.errors).sum()), int((~np.isnan(own)).sum())

    def write(self, output_dir: str | os.PathLike) -> list[Path]:
        """Write the tables as CSV files, and all numbers as ``evaluation.json``.

        The tables are ``metrics.csv``, ``errors_per_landmark.csv`` and ``errors_per_image.csv``, and
        ``measurement_errors.csv`` and ``measurement_errors_per_image.csv`` where a schema was given. The tables of each
        comparison are in a subfolder. In the JSON file an unknown value is null, and the missed landmarks of each image
        are listed.

        Args:
            output_dir: folder for the files.

        Returns:
            The files written. Tables of an earlier evaluation, with a schema or a comparison, are removed.
        """
        output_dir = Path(output_dir)
        written = []
        comparisons = {name: self.comparisons[name][0] if name in self.comparisons else None for name in _COMPARISONS}
        for folder, result in {"": self, **comparisons}.items():
            tables = {} if result is None else result._tables()
            written += [write_rows(output_dir / folder / f"{name}.csv", rows) for name, rows in tables.items()]
            for name in _TABLES.keys() - tables:
                remove_table(output_dir / folder / f"{name}.csv", _TABLES[name])
        with atomic_write(output_dir / "evaluation.json") as temporary:
            temporary.write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return [*written, output_dir / "evaluation.json"]

    def _tables(self) -> dict[str, list[dict[str, Any]]]:
        tables = {
            "metrics": self.summary(),
            "errors_per_landmark": self.per_landmark(),
            "errors_per_image": self.per_image(),
        }
        if self.measurements is not None:
            # not measurements.csv, which predict may have written to this folder
            tables["measurement_errors"] = self.measurement_rows()
            tables["measurement_errors_per_image"] = self.measurements_per_image()
        return tables

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers as a dictionary of values that JSON can hold."""
        images = []
        for image, errors in zip(self.images, self.errors):
            missed = [name for name, error in zip(self.names, errors) if math.isinf(error)]
            images.append({"image": image, "errors": dict(zip(self.names, errors.tolist())), "missed": missed})
        result: dict[str, Any] = {
            key: getattr(self, key) for key in ("unit", "limit", "strict", "confidence", "resamples", "seed", "notes")
        }
        result |= {"thresholds": list(self.thresholds), "metrics": self.summary(), "landmarks": self.per_landmark()}
        result["images"] = images
        if self.measurements is not None:
            result["measurements"] = self.measurement_rows()
            result["measurements_per_image"] = self.measurements_per_image()
        if self.doubts is not None:
            result["doubts"] = self.doubts
        for name, (other, comparison) in self.comparisons.items():
            compared = {**asdict(comparison), "metrics": other.summary(), "landmarks": other.per_landmark()}
            if other.measurements is not None:
                compared["measurements"] = other.measurement_rows()
            result.setdefault("comparisons", {})[name] = compared
        return _plain(result)

    def _intervals(self, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return bootstrap_interval_of_counts(len(self.images), statistic, self.confidence, self.resamples, self.seed)

    def _statistics(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from numbers of times (R, B) that images are in a sample to statistics (R, K).

        These are mean, standard deviation, median, SDR at each radius, and identification rate.
        """
        found = _found(self.errors)
        center = float(_mean(found.reshape(-1), axis=0))
        deviations = found - (center if center == center else 0.0)  # small numbers: their squares are exact enough
        within = [self.errors < radius if self.strict else self.errors <= radius for radius in self.thresholds]
        rates = [np.where(np.isnan(self.errors), np.nan, part) for part in within]
        parts = [deviations, deviations**2, *rates, self.identified]
        sums = np.stack([np.nansum(part, axis=1) for part in parts], axis=1)
        known = np.stack([(~np.isnan(part)).sum(axis=1) for part in parts], axis=1).astype(np.float64)
        images, landmarks = np.nonzero(np.isfinite(found))
        order = np.argsort(found[images, landmarks], kind="stable")
        images, ordered = images[order], found[images, landmarks][order]

        def statistics(counts: np.ndarray) -> np.ndarray:
            means = _ratio(counts @ sums, counts @ known)
            std = np.sqrt(np.maximum(means[:, 1] - means[:, 0] ** 2, 0))
            median = np.array([_counted_median(ordered, row[images]) for row in counts])
            return np.column_stack([means[:, 0] + center, std, median, 100 * means[:, 2:]])

        return statistics


def evaluate_predictions(
    predictions: str | os.PathLike,
    landmarks: str | os.PathLike,
    *,
    images: str | os.PathLike | None = None,
    section: str | None = None,
    spacing: float | Sequence[float] | None = None,
    coordinate_system: str | None = None,
    second_annotator: str | os.PathLike | None = None,
    compare: str | os.PathLike | None = None,
    schema: LandmarkSchema | None = None,
    all_images: bool = False,
    thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    limit: float | None = 20.0,
    strict: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Compare predicted landmarks to the ground truth.

    Each file states its coordinate system, and all points are converted to one. If both sides are in pixels, errors are
    in mm where the pixel size is known (from the images, a datalist or ``spacing``), and in pixels (px) otherwise.

    Args:
        predictions: folder of landmark files, as :class:`monai_landmarks.handlers.PredictionSaver` writes it, or one
            file of many images.
        landmarks: ground truth: a landmark file of many images, a folder of landmark files, or a datalist.
        images: folder of the images, or a datalist. It is needed to compare points in pixels to points in mm, and to
            read the pixel size from the images. If ``landmarks`` is a datalist, that one names the images.
        section: section of the datalist. Default: all sections.
        spacing: pixel size in mm of pictures that are in no datalist: one number, or one per axis. 1: errors in pixels.
        coordinate_system: coordinate system of landmark files that do not state their own.
        second_annotator: landmarks of the same images by another annotator. They are evaluated like predictions, which
            gives the inter-observer error.
        compare: other predictions of the same images.
        schema: landmark schema. Its clinical measurements are made on the predicted and on the true landmarks, and
            compared. Predictions and ground truth may name its landmarks differently, by name or abbreviation, see
            :func:`monai_landmarks.schema.match_landmarks`.
        all_images: whether an image without predictions counts as one whose landmarks were all missed. By default it
            does not count, and a note says so.
        thresholds: radii of the success detection rate (SDR), in the unit of the errors.
        limit: largest distance in mm at which a landmark can be identified, see
            :func:`monai_landmarks.metrics.identification`. It is not used for errors in pixels.
        strict: whether an error equal to a radius counts as outside.
        confidence: confidence level of the intervals, see :func:`monai_landmarks.metrics.bootstrap_interval`.
        resamples: number of bootstrap samples of images.
        seed: seed of the bootstrap.

    Returns:
        The errors of the images that have predictions, sorted by name. A comparison uses the images that both have.

    Raises:
        ValueError: if a file is malformed, no image or no landmark is on both sides, pixels cannot be compared to mm,
            or the schema has other landmarks.
    """
    assumed: list[str] = []
    truth = read_annotations(
        landmarks, section=section, images=images, spacing=spacing, coordinate_system=coordinate_system, notes=assumed
    )
    found, unknown = match_predictions(predictions, truth, coordinate_system, assumed)
    if not found:
        raise ValueError(
            f"{predictions}: none of its images is among the {len(truth)} images of {landmarks}; expected the same names,"
            f" for example {next(iter(truth), 'none')}."
        )
    settings: dict[str, Any] = {
        "limit": limit,
        "thresholds": tuple(float(radius) for radius in thresholds),
        "strict": strict,
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
    chosen = dict(truth) if all_images else {name: truth[name] for name in truth if name in found}
    found, renamed = _under_true_names(found, truth, schema)
    result = _evaluate(found, chosen, settings)
    result.notes = assumed + _notes(found, unknown, truth, chosen, result) + renamed
    result.doubts = read_doubts(predictions, result.images)
    for name, other in zip(_COMPARISONS, (second_annotator, compare)):
        if other is None:
            continue
        others, unknown = match_predictions(other, chosen, coordinate_system, result.notes)
        others, renamed = _under_true_names(others, truth, schema)
        result.notes += [f"{name}: {note}" for note in renamed]
        common = {image: chosen[image] for image in chosen if image in others}
        if not common:
            raise ValueError(f"{other}: none of its images is among those of {predictions}.")
        if len(common) < len(chosen):
            result.notes.append(f"{name}: {other} lacks {len(chosen) - len(common)} of {len(chosen)} images.")
        if unknown:
            result.notes.append(f"{name}: {other} has images that are not compared: {some_names(unknown)}.")
        compared = _evaluate(others, common, settings)
        rows = [result.images.index(image) for image in compared.images]
        columns = [result.names.index(landmark) for landmark in compared.names]
        paired = compare_errors(result.errors[np.ix_(rows, columns)], compared.errors, confidence, resamples, seed)
        result.comparisons[name] = (compared, paired)
    if schema is not None:
        for one in (result, *(other for other, _ in result.comparisons.values())):
            notes = _measure(one, schema)
            result.notes += [note for note in notes if note not in result.notes]
        if result.unit == "px":
            result.notes.append("the pixel size is not known, so measured lengths are in pixels and in no class.")
    return result


def _under_true_names(
    predicted: dict[str, LandmarkSet], truth: Mapping[str, ImageLandmarks], schema: LandmarkSchema | None
) -> tuple[dict[str, LandmarkSet], list[str]]:
    """Return predictions under the names that the ground truth has for the same landmarks of a schema, and a note."""
    if schema is None:
        return predicted, []
    found, true = (
        list(dict.fromkeys(name for one in sets for name in one.names))
        for sets in (predicted.values(), [item.landmarks for item in truth.values()])
    )
    pairs = zip(match_landmarks(schema, found).names(found), match_landmarks(schema, true).names(true))
    # a name that both sides have is one landmark, whatever the schema says
    new = {old: name for old, name in pairs if old and name and old not in true and name not in found}
    if not new:
        return predicted, []
    listed = ", ".join(f"{old} as {name}" for old, name in new.items())
    renamed = {}
    for image, one in predicted.items():
        names = tuple(new.get(name, name) for name in one.names)
        both = tuple((new.get(left, left), new.get(right, right)) for left, right in one.pairs)
        renamed[image] = replace(one, names=names, pairs=both)
    return renamed, [f"predicted landmarks under other names, by the schema {schema.name}: {listed}."]


def _evaluate(
    predicted: Mapping[str, LandmarkSet], truth: Mapping[str, ImageLandmarks], settings: Mapping[str, Any]
) -> Evaluation:
    names = list(dict.fromkeys(name for item in truth.values() for name in item.landmarks.names))
    known = {name for landmarks in predicted.values() for name in landmarks.names}
    if known.isdisjoint(names):
        raise ValueError(
            f"no landmark is in both the predictions and the ground truth: {sorted(known)[:5]} are predicted, {names[:5]} are"
            " annotated. If one of them has abbreviations, give the landmark schema that defines them."
        )
    errors, identified, units, cases = [], [], {}, []
    for image in sorted(truth):
        true = truth[image].landmarks.reorder(names)
        found = predicted[image].reorder(names) if image in predicted else None
        try:
            (other, true), unit = to_common_space([true if found is None else found, true], truth[image].geometry)
        except ValueError as error:
            raise ValueError(f"{image}: {error}") from error
        if found is not None:
            found = other
            units.setdefault(unit, image)
        cases.append(EvaluatedCase(found, true, truth[image].geometry))
        points = np.full_like(true.points, np.nan) if found is None else found.points
        errors.append(point_error(points, true.points))
        identified.append(identification(points, true.points, settings["limit"] if unit == "mm" else None))
    if len(units) > 1:
        raise ValueError(
            f"the errors of {units['mm']} are in mm, but those of {units['px']} are in pixels; give the spacing of pictures."
        )
    unit = next(iter(units))
    own = dict(settings)
    if unit == "px":
        own["limit"] = None
    return Evaluation(
        images=sorted(truth),
        names=names,
        errors=np.stack(errors),
        identified=np.stack(identified),
        unit=unit,
        cases=cases,
        **own,
    )


def _points(landmarks: LandmarkSet, columns: Sequence[str], dims: int) -> np.ndarray:
    """Return points (N, dims). Without a known point, the dimension of a set means nothing."""
    if landmarks.missing.all():
        return np.full((len(columns), dims), np.nan)
    return landmarks.with_spatial_dims(dims).reorder(columns).points


def _measure(result: Evaluation, schema: LandmarkSchema) -> tuple[str, ...]:
    """Add the measurements to an evaluation, and return notes."""
    columns, notes = matched_names(schema, result.names)
    known = {case.true.spatial_dims for case in result.cases if not case.true.missing.all()}
    if known and schema.spatial_dims not in known:
        raise ValueError(
            f"the schema {schema.name} has {schema.spatial_dims}-D landmarks; these are of another dimension."
        )
    shape = (len(result.cases), len(columns), schema.spatial_dims)
    true, found = np.full(shape, np.nan), np.full(shape, np.nan)
    for number, case in enumerate(result.cases):
        true[number] = _points(case.true, columns, schema.spatial_dims)
        if case.predicted is not None:
            found[number] = _points(case.predicted, columns, schema.spatial_dims)
    if result.unit == "px":  # the limits of the classes of lengths are in mm
        measurements = (replace(one, classes=()) if one.unit == "mm" else one for one in schema.measurements)
        schema = replace(schema, measurements=tuple(measurements))
    comparisons = compare_measurements(schema, found, true).comparisons
    result.measurements = MeasurementReport(_with_length_unit(comparisons, result.unit))
    covariances = np.full((*true.shape, schema.spatial_dims), np.nan)
    for matrices, case in zip(covariances, result.cases):
        one = case.predicted
        # without a known point, the dimension of a set means nothing
        if one is not None and one.covariances is not None and not one.missing.all():
            matrices[:] = one.with_spatial_dims(schema.spatial_dims).reorder(columns).covariances
    images = tuple(result.images)
    measured = measure_with_uncertainty(schema, found, covariances), measure_with_uncertainty(schema, true)
    result.measured = (
        ImageMeasurements(schema, images, found, _with_length_unit(measured[0], result.unit)),
        ImageMeasurements(schema, images, true, _with_length_unit(measured[1], result.unit)),
    )
    return notes


def _with_length_unit(measured: Mapping[str, _Measured], unit: str) -> dict[str, _Measured]:
    return {name: replace(one, unit=unit) if one.unit == "mm" else one for name, one in measured.items()}


def _notes(
    found: Mapping[str, LandmarkSet],
    unknown: Sequence[str],
    truth: Mapping[str, ImageLandmarks],
    chosen: Mapping[str, ImageLandmarks],
    result: Evaluation,
) -> list[str]:
    """Return one sentence for each kind of images or landmarks that the evaluation leaves out."""
    notes = []
    absent = [name for name in truth if name not in found]
    if absent:
        counted = "counted as missed" if len(chosen) == len(truth) else "not counted"
        notes.append(f"without predictions and {counted}: {len(absent)} of {len(truth)} images ({some_names(absent)}).")
    if unknown:
        notes.append(f"predicted, but without ground truth: {some_names(unknown)}.")
    extra = dict.fromkeys(name for landmarks in found.values() for name in landmarks.names if name not in result.names)
    if extra:
        notes.append(f"predicted landmarks that are not in the ground truth: {some_names(list(extra))}.")
    columns = zip(result.names, result.errors.T)
    never = [name for name, errors in columns if np.isinf(errors).any() and not np.isfinite(errors).any()]
    if never:
        notes.append(f"landmarks found in no image: {some_names(never)}.")
    return notes


def _found(errors: np.ndarray) -> np.ndarray:
    """Return errors with NaN for missed landmarks."""
    return np.where(np.isinf(errors), np.nan, errors)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of the values that are not NaN. Without any it is NaN, without the warning of ``nanmean``."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    return np.where(count, np.where(known, values, 0).sum(axis=axis), np.nan) / np.maximum(count, 1)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return sums divided by counts, NaN where a count is 0."""
    return np.where(counts > 0, sums, np.nan) / np.maximum(counts, 1)


def _counted_median(ordered: np.ndarray, counts: np.ndarray) -> float:
    """Return the median of sorted values, each of which is there ``counts`` times."""
    ends = np.cumsum(counts)
    if not len(ends) or ends[-1] == 0:
        return math.nan
    middle = np.array([(ends[-1] - 1) // 2, ends[-1] // 2])
    return float(ordered[np.searchsorted(ends, middle, side="right")].mean())


def _plain(value: Any) -> Any:
    """Replace numbers that are not finite by None, because JSON has no such numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
