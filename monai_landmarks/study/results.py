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
"""Results of a study: predictions of all runs pooled, errors with intervals, and paired comparisons."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_landmarks.data import LandmarkSet, write_landmark_table
from monai_landmarks.data.files.csv_tables import write_rows
from monai_landmarks.data.files.json_values import load_json
from monai_landmarks.data.files.kept_files import remove_file
from monai_landmarks.data.files.safe_files import naming_file, read_text
from monai_landmarks.evaluation import Evaluation, evaluate_predictions
from monai_landmarks.metrics import PairedComparison, compare_errors, holm_correction

from .plan import StudyPlan
from .runs import Run, image_groups

__all__ = ["Group", "StudyResults", "collect_results", "seed_differences"]

_PREDICTIONS = re.compile(r"[\w.]+(-n\d+)?-seed\d+\.csv")  # names of the files of pooled predictions


@dataclass(frozen=True, eq=False)
class Group:
    """All runs of one configuration, or of one configuration and one number of training images.

    Args:
        name: name in the tables.
        configuration: name of the configuration.
        size: number of training images, if the study compares several.
        seeds: seeds with at least one run that is done.
        errors: (S, B, N), errors of each seed in all images of the study. NaN: no ground truth, or no run. inf: missed.
        runs: numbers of runs that are done, and of all runs.
    """

    name: str
    configuration: str
    size: int | None
    seeds: tuple[int, ...]
    errors: np.ndarray
    runs: tuple[int, int]

    @property
    def is_complete(self) -> bool:
        """Whether all runs are done. The images that the others lack may be the difficult ones."""
        return self.runs[0] == self.runs[1]

    @cached_property
    def mean_errors(self) -> np.ndarray:
        """Mean over the seeds in which a landmark was found, (B, N); inf where it was missed in all of them."""
        found = np.isfinite(self.errors)
        count = found.sum(axis=0)
        mean = np.where(count, np.where(found, self.errors, 0).sum(axis=0), np.nan) / np.maximum(count, 1)
        return np.where((count == 0) & np.isinf(self.errors).any(axis=0), np.inf, mean)

    def seed_means(self) -> np.ndarray:
        """Return the mean error of each seed, (S,)."""
        return np.array([_mean(errors) for errors in self.errors])

    def std_of_seeds(self) -> float:
        """Return the standard deviation of the mean errors of the seeds, NaN for fewer than two.

        If a fold of a seed is not done, its images do not count for the other seeds either. Only with numbers of training
        images, seeds may have other images for testing on purpose.
        """
        errors = self.errors if self.size is not None else self.errors[:, ~np.isnan(self.errors).any(axis=0)]
        return _spread(np.array([_mean(one) for one in errors]))


@dataclass(frozen=True, eq=False)
class StudyResults:
    """The results of the runs that are done.

    Args:
        plan: the plan of the study.
        images: names of all B images that are predicted.
        names: names of the N landmarks.
        unit: unit of the errors.
        evaluations: evaluation of each run that is done.
        groups: pooled errors, in the order of the configurations.
        predictions: pooled predictions by group and seed.
        clusters: group of each image by ``group_pattern``, for example its patient. Images of one cluster are not
            independent, so intervals and tests take them together.
    """

    plan: StudyPlan
    images: tuple[str, ...]
    names: tuple[str, ...]
    unit: Literal["mm", "px"]
    evaluations: Mapping[str, Evaluation]
    groups: tuple[Group, ...]
    predictions: Mapping[tuple[str, int], Mapping[str, LandmarkSet]]
    clusters: tuple[str, ...]

    @property
    def notes(self) -> list[str]:
        """Runs that are missing, one sentence each."""
        return [
            f"{group.name}: {group.runs[1] - group.runs[0]} of {group.runs[1]} runs are not done and not in the tables."
            for group in self.groups
            if not group.is_complete
        ]

    @property
    def counted(self) -> Literal["images", "groups"]:
        """What intervals and comparisons are over, which is groups of images with ``group_pattern``, else images."""
        return "images" if self.plan.study.group_pattern is None else "groups"

    def pooled(self, group: Group) -> Evaluation:
        """Return the evaluation of all predictions of a group together. The seeds of an image are resampled together,
        and so are the images of a cluster."""
        study = self.plan.study
        names, errors = self._by_cluster(np.concatenate(list(group.errors), axis=1))
        rows = np.asarray(~np.isnan(errors).all(axis=1))
        return Evaluation(
            images=[name for name, known in zip(names, rows) if known],
            names=list(self.names) * (errors.shape[1] // len(self.names)),
            errors=errors[rows],
            identified=np.where(np.isnan(errors[rows]), np.nan, np.isfinite(errors[rows])),
            unit=self.unit,
            limit=None,
            thresholds=study.radii,
            confidence=study.confidence,
            resamples=study.resamples,
        )

    @cached_property
    def result_rows(self) -> list[dict[str, Any]]:
        """One row per group with the errors of all predictions, intervals over images, and the spread over seeds."""
        rows = []
        for group in self.groups:
            if not group.seeds:
                continue
            summary = {row["metric"]: row for row in self.pooled(group).summary()}
            row: dict[str, Any] = {"configuration": group.configuration, "training_images": group.size}
            images = int((~np.isnan(group.errors)).any(axis=(0, 2)).sum())
            row |= {"runs": group.runs[0], "seeds": len(group.seeds), "images": images}
            row |= {
                "mean": summary["MRE"]["value"],
                "mean_low": summary["MRE"]["low"],
                "mean_high": summary["MRE"]["high"],
            }
            row["std_of_seeds"] = group.std_of_seeds()
            row |= {"median": summary["median"]["value"], "std": summary["std"]["value"]}
            for radius in self.plan.study.radii:
                rate = summary[f"SDR {radius:g} {self.unit}"]
                key = f"sdr_{radius:g}{self.unit}_percent"
                row |= {key: rate["value"], f"{key}_low": rate["low"], f"{key}_high": rate["high"]}
            row["missed"] = summary["missed"]["value"]
            row["unit"] = self.unit
            rows.append(row if group.size is not None else _without(row, "training_images"))
        return rows

    @cached_property
    def comparisons(self) -> list[tuple[Group, Group, PairedComparison, float]]:
        """Pairs of groups with the same training images, their comparison, and the p-value corrected for all pairs."""
        study = self.plan.study
        done = [group for group in self.groups if group.seeds]
        pairs = [(one, two) for one, two in combinations(done, 2) if one.size == two.size]
        found = [
            compare_errors(
                self._by_cluster(one.mean_errors)[1],
                self._by_cluster(two.mean_errors)[1],
                study.confidence,
                study.resamples,
            )
            for one, two in pairs
        ]
        corrected = holm_correction(np.array([one.p_value for one in found]))
        return [(one, two, result, float(p)) for (one, two), result, p in zip(pairs, found, corrected)]

    def comparison_rows(self) -> list[dict[str, Any]]:
        """Return one row per pair of groups: difference of the mean errors with its interval, and p-values.

        The standard deviation over seeds is that of the differences of each seed, on the images that both predicted. With
        ``group_pattern``, the rows count groups instead of images, see :attr:`counted`.
        """
        return [
            {
                "first": one.name,
                "second": two.name,
                self.counted: result.images,
                "first_mean": result.first,
                "second_mean": result.second,
                "difference": result.difference,
                "low": result.low,
                "high": result.high,
                "std_of_seeds": _spread(seed_differences(one, two)),
                "first_missed": int(np.isinf(one.errors).sum()),
                "second_missed": int(np.isinf(two.errors).sum()),
                "first_better": result.first_better,
                "second_better": result.second_better,
                "p_value": f"{result.p_value:.3g}",
                "p_holm": f"{corrected:.3g}",
                "unit": self.unit,
            }
            for one, two, result, corrected in self.comparisons
        ]

    def landmark_rows(self) -> list[dict[str, Any]]:
        """Return one row per landmark: the mean error of each group."""
        done = [group for group in self.groups if group.seeds]
        means = {group.name: [_mean(group.errors[:, :, n]) for n in range(len(self.names))] for group in done}
        return [
            {"landmark": name, **{label: values[n] for label, values in means.items()}}
            for n, name in enumerate(self.names)
        ]

    def run_rows(self) -> list[dict[str, Any]]:
        """Return one row per run: its state, training images, epochs, seconds (NaN if interrupted), and errors."""
        rows = []
        for run in self.plan.runs:
            done = self.evaluations.get(run.name)
            folder = self.plan.run_folder(run)
            errors = np.full((1, 1), np.nan) if done is None else done.errors
            seconds = math.nan
            if done is not None:
                with naming_file(folder / "done.json"):
                    known = load_json(read_text(folder / "done.json"))["seconds"]
                    seconds = math.nan if known is None else float(known)
            rows.append(
                {
                    "run": run.name,
                    "configuration": run.configuration.name,
                    "part": run.part,
                    "seed": run.seed,
                    "state": "not done" if done is None else "done",
                    "training_images": len(self.plan.datalists[run.datalist]["training"]),
                    "images": 0 if done is None else len(done.images),
                    "epochs": None if done is None else self.plan.max_epochs(run),
                    "seconds": seconds,
                    "mean": _mean(errors),
                    "missed": int(np.isinf(errors).sum()),
                    "unit": self.unit,
                }
            )
        return rows

    def _by_cluster(self, errors: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Return the names of the clusters, and the errors (B, N) with the images of a cluster in one row."""
        rows: dict[str, list[np.ndarray]] = {}
        for cluster, row in zip(self.clusters, errors):
            rows.setdefault(cluster, []).append(row)
        result = np.full((len(rows), max(map(len, rows.values())), errors.shape[1]), np.nan)
        for k, members in enumerate(rows.values()):
            result[k, : len(members)] = members
        return list(rows), result.reshape(len(rows), -1)

    def write(self, output_dir: str | os.PathLike) -> list[Path]:
        """Write the tables as CSV files, and the pooled predictions of each configuration and seed as landmark files.

        Args:
            output_dir: folder for the files.

        Returns:
            The files written. Those of an earlier call with other configurations or seeds are removed.
        """
        folder = Path(output_dir)
        tables = {
            "results": self.result_rows,
            "comparisons": self.comparison_rows(),
            "landmarks": self.landmark_rows(),
            "runs": self.run_rows(),
        }
        written = [write_rows(folder / f"{name}.csv", rows) for name, rows in tables.items() if rows]
        for name in tables.keys() - {path.stem for path in written}:
            remove_file(folder / f"{name}.csv")
        pooled = {
            folder / "predictions" / f"{group}-seed{seed}.csv": sets for (group, seed), sets in self.predictions.items()
        }
        for old in (folder / "predictions").glob("*.csv"):
            if old not in pooled and _PREDICTIONS.fullmatch(old.name):
                remove_file(old)
        for path, sets in pooled.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_landmark_table(path, sets)
        return [*written, *pooled]


def seed_differences(one: Group, two: Group) -> np.ndarray:
    """Return the mean difference of the errors of two groups for each seed that both have, (S,)."""
    result = []
    for seed in one.seeds:
        if seed in two.seeds:
            with np.errstate(invalid="ignore"):  # inf - inf: both missed the landmark
                difference = two.errors[two.seeds.index(seed)] - one.errors[one.seeds.index(seed)]
            result.append(_mean(difference))
    return np.array(result)


def _spread(values: np.ndarray) -> float:
    """Return the standard deviation of the values of the seeds, NaN for fewer than two."""
    values = values[np.isfinite(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def collect_results(plan: StudyPlan) -> StudyResults:
    """Evaluate the predictions of all runs that are done, and pool them.

    Args:
        plan: the plan of the study.

    Returns:
        The results.

    Raises:
        ValueError: if no run is done, or the predictions of a run cannot be read.
    """
    done = plan.finished()
    if not done:
        raise ValueError(f"{plan.folder}: no run is done yet, so there are no results.")
    evaluations = {run.name: _evaluate(plan, run) for run in done}
    paths = {name: [str(case.geometry.image) for case in one.cases] for name, one in evaluations.items()}
    images = sorted({path for found in paths.values() for path in found})
    index = {path: b for b, path in enumerate(images)}
    units = {evaluation.unit for evaluation in evaluations.values()}
    if len(units) > 1:
        raise ValueError(f"{plan.folder}: some errors are in mm and others in pixels.")
    # the images of one run may lack a landmark
    found_names = {name for evaluation in evaluations.values() for name in evaluation.names}
    names = tuple(name for name in plan.datalists[done[0].datalist]["landmarks"]["names"] if name in found_names)
    shown = dict(zip(images, _short_paths(images)))
    groups, predictions = [], {}
    for label, members in _members(plan.runs).items():
        kept = [run for run in members if run.name in evaluations]
        seeds = tuple(dict.fromkeys(run.seed for run in kept))
        errors = np.full((len(seeds), len(images), len(names)), np.nan)
        for run in kept:
            evaluation = evaluations[run.name]
            rows = [index[path] for path in paths[run.name]]
            columns = [names.index(name) for name in evaluation.names]
            errors[np.ix_([seeds.index(run.seed)], rows, columns)] = evaluation.errors
            found = predictions.setdefault((label, run.seed), {})
            for path, case in zip(paths[run.name], evaluation.cases):
                if case.predicted is not None:
                    found[shown[path]] = case.predicted
        first = members[0]
        groups.append(Group(label, first.configuration.name, first.size, seeds, errors, (len(kept), len(members))))
    clusters = shown if plan.study.group_pattern is None else image_groups(plan.study)
    return StudyResults(
        plan=plan,
        images=tuple(shown.values()),
        names=names,
        unit=units.pop(),
        evaluations=evaluations,
        groups=tuple(groups),
        predictions=predictions,
        clusters=tuple(clusters[path] for path in images),
    )


def _evaluate(plan: StudyPlan, run: Run) -> Evaluation:
    folder = plan.run_folder(run) / "eval" / "testing" / "predictions"
    try:
        return evaluate_predictions(
            folder, run.datalist, section="testing", all_images=True, thresholds=plan.study.radii, resamples=1
        )
    except (ValueError, OSError) as error:
        raise ValueError(f"{run.name}: {error}") from error


def _members(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs of each group, ordered by configuration and by size."""
    result: dict[str, list[Run]] = {}
    for run in runs:
        label = run.configuration.name if run.size is None else f"{run.configuration.name}-{run.part}"
        result.setdefault(label, []).append(run)
    return result


def _short_paths(paths: Sequence[str]) -> list[str]:
    """Return paths relative to the folder that contains all of them."""
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [Path(os.path.relpath(path, folder)).as_posix() for path in paths]


def _mean(errors: np.ndarray) -> float:
    found = errors[np.isfinite(errors)]
    return float(found.mean()) if len(found) else math.nan


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}
