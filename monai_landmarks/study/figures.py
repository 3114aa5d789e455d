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
"""Figures of a study: errors of all configurations, and how they depend on the radius and on the training images."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_landmarks.data import atomic_write
from monai_landmarks.data.files.kept_files import remove_file
from monai_landmarks.visualize import draw_error_boxplot, draw_sdr_curve, draw_size_curve

from .results import Group, StudyResults

if TYPE_CHECKING:
    from monai_landmarks.visualize.figure import Figure

__all__ = ["StudyFigure", "study_figures", "write_figures"]

_LINES = 5  # of a figure with curves
_NOT_ALWAYS = re.compile(r"(training_images|success_rates(_n\d+)?)\.png")  # figures that not every study has


@dataclass(frozen=True)
class StudyFigure:
    """A figure with its description.

    Args:
        name: name of its file, without the ending.
        figure: the figure.
        alt: what it shows, for readers who do not see it.
        caption: its caption.
    """

    name: str
    figure: Figure
    alt: str
    caption: str


def study_figures(results: StudyResults) -> list[StudyFigure]:
    """Draw the errors of a study: box plots, success detection rates, and the curve over the training images.

    Args:
        results: from :func:`monai_landmarks.study.collect_results`.

    Returns:
        The figures. The success detection rates have one figure per number of training images.
    """
    groups, unit = [group for group in results.groups if group.seeds], results.unit
    figures = [
        StudyFigure(
            "errors",
            draw_error_boxplot(
                np.stack([_image_means(group) for group in groups], axis=1),
                [group.name for group in groups],
                unit,
                "mean error of an image",
            ),
            "Box plot of the mean errors of the images, " + ", ".join(group.name for group in groups),
            "Mean error of each image: median, quartiles, whiskers from 5 % to 95 %, and the mean as a dot.",
        )
    ]
    sizes = results.plan.study.training_sizes
    if sizes:
        figures.append(_size_curve(groups, unit))
    for size in sizes or (None,):
        members = [group for group in groups if group.size == size]
        if members:
            figures.append(_rates(results, members, size))
    return figures


def write_figures(figures: Sequence[StudyFigure], folder: str | os.PathLike) -> list[Path]:
    """Write figures as PNG files.

    Args:
        figures: from :func:`study_figures`.
        folder: folder for the files.

    Returns:
        The files written. Those of an earlier call with folds or other training images are removed.
    """
    paths = {Path(folder) / f"{one.name}.png": one for one in figures}
    for old in Path(folder).glob("*.png"):
        if old not in paths and _NOT_ALWAYS.fullmatch(old.name):
            remove_file(old)
    for path, one in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            one.figure.savefig(temporary, format="png")
    return [*paths]


def _size_curve(groups: Sequence[Group], unit: str) -> StudyFigure:
    lines: dict[str, list[tuple[int, np.ndarray]]] = {}
    for group in groups:
        assert group.size is not None
        lines.setdefault(group.configuration, []).append((group.size, group.seed_means()))
    return StudyFigure(
        "training_images",
        draw_size_curve(lines, unit),
        "Mean error as a function of the number of training images.",
        "Mean error as a function of the number of training images: mean of the seeds, and their range.",
    )


def _rates(results: StudyResults, groups: Sequence[Group], size: int | None) -> StudyFigure:
    best = sorted(groups, key=lambda group: (not group.is_complete, _mean_error(group)))[:_LINES]
    curves = {group.configuration: group.errors for group in groups if group in best}
    trained = "" if size is None else f", {size} training images"
    left_out = f", the {_LINES} configurations with the smallest mean errors" if len(groups) > _LINES else ""
    left_out += ", those with all runs first" if left_out and not all(group.is_complete for group in groups) else ""
    return StudyFigure(
        "success_rates" if size is None else f"success_rates_n{size}",
        draw_sdr_curve(curves, results.plan.study.radii, unit=results.unit),
        f"Success detection rate as a function of the radius{trained}.",
        f"Share of landmarks with an error of at most r{trained}{left_out}.",
    )


def _mean_error(group: Group) -> float:
    found = group.errors[np.isfinite(group.errors)]
    return float(found.mean()) if len(found) else math.inf


def _image_means(group: Group) -> np.ndarray:
    """Return the mean error of each image, (B,), NaN where no landmark was found."""
    found = np.isfinite(group.mean_errors)
    count = found.sum(axis=1)
    return np.where(count, np.where(found, group.mean_errors, 0).sum(axis=1), np.nan) / np.maximum(count, 1)
