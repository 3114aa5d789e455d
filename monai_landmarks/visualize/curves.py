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
"""Figures of training curves, success detection rates and error distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.lazy import lazy_import
from monai_landmarks.spaces import to_array

from .figure import COLORS, Figure, label_log_axis, quiet_axes

patheffects = lazy_import("matplotlib.patheffects")

__all__ = ["draw_error_boxplot", "draw_sdr_curve", "draw_size_curve", "draw_training_curve"]

_LINES = ("#1f6fb4", "#c8501e", "#2f8f5b", "#8a4fb0", "#b0902a")
_LABEL = (0.15, 5.0)  # width of a label as a fraction of the axis, and its height in percent


def draw_training_curve(
    epochs: ArrayLike,
    loss: ArrayLike,
    metric: ArrayLike | None = None,
    metric_name: str = "validation error",
    lower_is_better: bool = True,
) -> Figure:
    """Draw the loss over the epochs and, below it, a validation metric with its best value marked.

    Args:
        epochs: epochs (T,), not necessarily integers.
        loss: loss (T,), NaN where it is unknown. Its axis is logarithmic if all values are positive.
        metric: metric (T,), NaN where there was no validation. Its axis is logarithmic if all values are positive and
            the largest is more than five times the smallest.
        metric_name: label of the metric's axis.
        lower_is_better: whether the lowest value of the metric is the best one.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    epochs, loss = to_array(epochs), to_array(loss)
    metric = np.full(epochs.shape, np.nan) if metric is None else to_array(metric)
    validated = np.isfinite(metric)
    figure = Figure(figsize=(6.0, 4.2 if validated.any() else 2.4), dpi=150, layout="constrained")
    panels = np.atleast_1d(figure.subplots(2 if validated.any() else 1, 1, sharex=True))
    known = np.isfinite(loss)
    panels[0].plot(epochs[known], loss[known], color=_LINES[0], linewidth=1.2, marker="." if known.sum() < 3 else "")
    if known.any() and loss[known].min() > 0:
        panels[0].set_yscale("log")
    panels[0].set_ylabel("training loss", fontsize=8)
    if validated.any():
        x, y = epochs[validated], metric[validated]
        panels[1].plot(x, y, color=_LINES[1], linewidth=1.2, marker="o", markersize=2.5)
        best = int(np.argmin(y) if lower_is_better else np.argmax(y))
        panels[1].plot(x[best], y[best], "o", markersize=6, markerfacecolor="none", color="0.2", markeredgewidth=1)
        panels[1].set_title(f"best {y[best]:.3g} at epoch {x[best]:g}", fontsize=8, loc="right", pad=3)
        panels[1].set_ylabel(metric_name, fontsize=8, parse_math=False)
        if y.min() > 0 and y.max() > 5 * y.min():
            panels[1].set_yscale("log")
            label_log_axis(panels[1].yaxis)
        else:
            panels[1].set_ylim(bottom=min(0, y.min()))
    panels[-1].set_xlabel("epoch", fontsize=8)
    figure.align_ylabels()
    for axes in panels:
        quiet_axes(axes)
        axes.tick_params(which="minor", labelsize=7, color="0.8")
    return figure


def draw_sdr_curve(
    errors: ArrayLike | Mapping[str, ArrayLike],
    thresholds: Sequence[float] = (2.0, 2.5, 3.0, 4.0),
    radius: float | None = None,
    unit: str = "mm",
) -> Figure:
    """Draw the success detection rate over the radius r: the percentage of landmarks with an error of at most r.

    Args:
        errors: errors of any shape, as from :func:`monai_landmarks.metrics.point_error`. NaN is left out, inf is a
            landmark that was not detected. Or a mapping from names to such errors, with one line per name.
        thresholds: radii at which the rate of the first line is marked.
        radius: largest radius of the figure. By default twice the largest threshold.
        unit: unit of the errors, for the label of the axis.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    lines: dict[str, ArrayLike] = dict(errors) if isinstance(errors, Mapping) else {"": errors}
    radius = radius or 2 * max(thresholds)
    figure = Figure(figsize=(5.0, 3.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes)
    for i, (name, values) in enumerate(lines.items()):
        values = to_array(values).ravel()
        values = np.sort(values[~np.isnan(values)])
        if not len(values):
            continue
        x = np.concatenate([[0.0], values[values <= radius], [radius]])
        found = np.arange(len(values[values <= radius]) + 1)
        y = 100 * np.concatenate([found, found[-1:]]) / len(values)
        axes.step(x, y, where="post", color=_LINES[i % len(_LINES)], linewidth=1.4, label=name)
        if i == 0:
            rates = [100 * float(np.mean(values <= r)) for r in thresholds]
            axes.plot(thresholds, rates, "o", markersize=3.5, color=_LINES[0])
            labeled: list[tuple[float, float]] = []
            for r, rate in sorted(zip(thresholds, rates)):
                if labeled and r - labeled[-1][0] < _LABEL[0] * radius and rate - labeled[-1][1] < _LABEL[1]:
                    continue  # it would cover the previous label
                labeled.append((r, rate))
                axes.annotate(
                    f"{rate:.1f} %", (r, rate), xytext=(-5, 3), textcoords="offset points", fontsize=7, color=_LINES[0],
                    ha="right", path_effects=[patheffects.withStroke(linewidth=3.0, foreground="w")],
                )  # fmt: skip
    axes.set_xlim(0, radius)
    axes.set_ylim(0, 102)
    axes.set_xlabel(f"radius r [{unit}]", fontsize=8)
    axes.set_ylabel("landmarks with error \u2264 r [%]", fontsize=8)
    if len(lines) > 1:
        for text in axes.legend(fontsize=8, frameon=False, loc="lower right").get_texts():
            text.set_parse_math(False)
    return figure


def draw_error_boxplot(
    errors: ArrayLike, names: Sequence[str] | None = None, unit: str = "mm", quantity: str = "point error"
) -> Figure:
    """Draw the errors of each landmark as a box: median, quartiles, whiskers from 5 to 95 %, and the mean as a dot.

    The axis is logarithmic if the medians differ by more than a factor of five, so that large errors of one landmark do
    not hide the others.

    Args:
        errors: errors (B, N) as from :func:`monai_landmarks.metrics.point_error`. Only finite errors are drawn.
        names: names of the N landmarks. By default their indices.
        unit: unit of the errors, for the label of the axis.
        quantity: label of the axis.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    errors = to_array(errors)
    names = [str(n) for n in range(errors.shape[1])] if names is None else list(names)
    figure = Figure(figsize=(6.0, 0.9 + 0.19 * len(names)), dpi=150, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes)
    axes.grid(False, axis="y")
    columns = [column[np.isfinite(column)] for column in errors.T]
    axes.boxplot(
        columns, orientation="horizontal", whis=(5, 95), widths=0.6,
        showfliers=False, showmeans=True, patch_artist=True,
        boxprops={"facecolor": "#d6e6f4", "edgecolor": COLORS["line"], "linewidth": 0.8},
        medianprops={"color": COLORS["line"], "linewidth": 1.4},
        whiskerprops={"color": COLORS["line"], "linewidth": 0.8}, capprops={"color": COLORS["line"], "linewidth": 0.8},
        meanprops={"marker": "o", "markersize": 3, "markerfacecolor": COLORS["line2"], "markeredgecolor": "none"},
    )  # fmt: skip
    axes.set_yticks(range(1, len(names) + 1), names, fontsize=7, parse_math=False)
    axes.invert_yaxis()
    medians = [float(np.median(column)) for column in columns if len(column)]
    if medians and max(medians) > 5 * min(medians) > 0:
        axes.set_xscale("log")
        label_log_axis(axes.xaxis)
    else:
        axes.set_xlim(left=0)
    axes.set_xlabel(f"{quantity} [{unit}]", fontsize=8)
    return figure


def draw_size_curve(lines: Mapping[str, Sequence[tuple[int, ArrayLike]]], unit: str = "mm") -> Figure:
    """Draw the mean error over the number of training images: the mean of several trainings, and their range.

    Args:
        lines: for each name, numbers of training images, each with the mean errors (S,) of its trainings.
        unit: unit of the errors, for the label of the axis.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    figure = Figure(figsize=(5.0, 3.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    quiet_axes(axes)
    sizes = sorted({size for line in lines.values() for size, _ in line})
    for i, (name, line) in enumerate(lines.items()):
        ordered = [(size, to_array(errors)) for size, errors in sorted(line, key=lambda item: item[0])]
        known = [(size, errors[np.isfinite(errors)]) for size, errors in ordered if np.isfinite(errors).any()]
        x, middle = [size for size, _ in known], [float(errors.mean()) for _, errors in known]
        spread = np.array([[m - errors.min(), errors.max() - m] for m, (_, errors) in zip(middle, known)]).T
        axes.errorbar(
            x, middle, spread.reshape(2, -1), color=_LINES[i % len(_LINES)], linewidth=1.4, marker="o", markersize=3.5,
            capsize=3, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("training images", fontsize=8)
    axes.set_ylabel(f"mean error [{unit}]", fontsize=8)
    for text in axes.legend(fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)
    return figure
