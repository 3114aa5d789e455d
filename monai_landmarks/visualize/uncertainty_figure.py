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
"""Figures that compare errors with the stated uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.spaces import to_array

from .figure import COLORS, Figure, label_log_axis, quiet_axes

__all__ = ["draw_calibration", "draw_error_against_uncertainty"]

_BINS = 8


def draw_error_against_uncertainty(errors: ArrayLike, uncertainties: ArrayLike, unit: str = "mm") -> Figure:
    """Draw the error of each landmark against its uncertainty, with the root mean square error of up to eight groups.

    The uncertainty should be the expected root mean square distance, as in
    :attr:`monai_landmarks.data.LandmarkSet.uncertainty`. If it is correct, the groups lie on the diagonal. Above the
    diagonal the predictions are overconfident, below it they are underconfident.

    Args:
        errors: errors of any shape. Landmarks whose error or uncertainty is not finite are not drawn.
        uncertainties: uncertainties of the same shape and in the same unit.
        unit: unit of both, for the labels of the axes.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    errors, uncertainties = to_array(errors).ravel(), to_array(uncertainties).ravel()
    known = np.isfinite(errors) & np.isfinite(uncertainties) & (uncertainties > 0)
    errors, uncertainties = errors[known], uncertainties[known]
    figure = Figure(figsize=(5.0, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes)
    axes.set_xlabel(f"uncertainty [{unit}]", fontsize=8)
    axes.set_ylabel(f"point error [{unit}]", fontsize=8)
    if not len(errors):
        return figure
    order = np.argsort(uncertainties)
    groups = np.array_split(order, min(_BINS, max(1, len(order) // 10)))
    centers = [np.sqrt(np.mean(uncertainties[group] ** 2)) for group in groups]
    found = [np.sqrt(np.mean(errors[group] ** 2)) for group in groups]
    # a logarithmic axis has no zero: very small errors are drawn at the lower edge
    low = max(min(uncertainties.min(), np.percentile(errors, 1)), 1e-3 * uncertainties.max())
    high = max(uncertainties.max(), errors.max(), 2 * low)
    axes.plot(
        uncertainties, np.maximum(errors, low), ".", markersize=4, color=COLORS["line"], alpha=0.5, markeredgewidth=0,
        rasterized=True, label="landmark",
    )  # fmt: skip
    axes.plot([low, high], [low, high], color="0.5", linewidth=0.9, linestyle="--", label="error = uncertainty")
    axes.plot(
        centers, found, "o-", color=COLORS["line2"], markersize=4, linewidth=1.2, label="root mean square per group"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(np.percentile(uncertainties, 0.5) / 1.2, uncertainties.max() * 1.2)
    axes.set_ylim(low / 1.2, high * 1.2)
    for axis in (axes.xaxis, axes.yaxis):
        label_log_axis(axis)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def draw_calibration(levels: ArrayLike, stated: Sequence[tuple[float, float, float, float]] = ()) -> Figure:
    """Draw the observed coverage of regions against their stated coverage.

    Args:
        levels: levels of any shape, from :func:`monai_landmarks.uncertainty.gaussian_level`: the probability of the
            smallest region that contains the landmark. If the covariances are correct, the line is the diagonal. Below
            the diagonal the predictions are overconfident. If it is empty, only ``stated`` is drawn.
        stated: for each region type, the stated coverage, the observed coverage, and the lower and upper end of the
            interval of the observed coverage, all between 0 and 1.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    levels = np.sort(to_array(levels).ravel())
    levels = levels[np.isfinite(levels)]
    figure = Figure(figsize=(4.2, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes)
    axes.plot([0, 100], [0, 100], color="0.5", linewidth=0.9, linestyle="--", label="ideal")
    if len(levels):
        axes.step(
            np.concatenate([[0], 100 * levels, [100]]),
            np.concatenate([[0], 100 * np.arange(1, len(levels) + 1) / len(levels), [100]]),
            where="post", color=COLORS["line"], linewidth=1.4, label="Gaussian with the covariance",
        )  # fmt: skip
    for i, (coverage, share, low, high) in enumerate(stated):
        ends = np.array([[share - low], [high - share]]) if low == low else np.zeros((2, 1))
        axes.errorbar(
            [100 * coverage], [100 * share], 100 * np.maximum(ends, 0), fmt="o", markersize=4.5, color=COLORS["line2"],
            capsize=3, linewidth=1.2, label="" if i else "stated region",
        )  # fmt: skip
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_aspect("equal")
    axes.set_xlabel("stated coverage [%]", fontsize=8)
    axes.set_ylabel("landmarks in the region [%]", fontsize=8)
    axes.legend(
        fontsize=7, frameon=False, loc="lower right" if not len(levels) or levels.mean() < 0.6 else "upper left"
    )
    return figure
