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

"""Figure of the target precision of each landmark over a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.lazy import lazy_import
from monai_landmarks.spaces import to_array

from .figure import Figure, label_log_axis, quiet_axes

matplotlib = lazy_import("matplotlib")

__all__ = ["draw_precision"]

_NAMED = 20  # the legend has room for this number of landmarks


def draw_precision(
    epochs: ArrayLike,
    sigma: ArrayLike,
    error: ArrayLike,
    reward: ArrayLike | None = None,
    stopped: Sequence[Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    unit: Literal["voxel", "mm"] = "mm",
) -> Figure:
    """Draw sigma, validation error and reward of each landmark over a training, with a circle where its search stopped.

    Args:
        epochs: epochs (T,).
        sigma: sigmas (T, N), each valid from its epoch on.
        error: validation errors (T, N), NaN where they are unknown.
        reward: rewards (T, N), NaN where they are unknown. A quantity without known values has no panel.
        stopped: reasons (T, N) why the search of a landmark stopped; empty strings while it continues.
        names: names of the N landmarks, which are drawn in the order of their last sigma. By default their indices.
        unit: unit of sigma.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    epochs, sigma, error = to_array(epochs), to_array(sigma), to_array(error)
    reward = np.full(sigma.shape, np.nan) if reward is None else to_array(reward)
    count = sigma.shape[1]
    names = [str(n) for n in range(count)] if names is None else list(names)
    panels = [("sigma", f"sigma [{unit}]", sigma), ("error", "validation error", error), ("reward", "reward", reward)]
    panels = [panel for panel in panels if np.isfinite(panel[2]).any()]
    figure = Figure(figsize=(7.6, 0.6 + 1.9 * len(panels)), dpi=150, layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(len(panels), 1, sharex=True))
    order = np.argsort(sigma[-1], kind="stable")
    colors = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.92, count))
    ends = _ends(stopped, count)
    for axes, (kind, label, values) in zip(all_axes, panels):
        quiet_axes(axes)
        for color, n in zip(colors, order):
            known = np.isfinite(values[:, n])
            style: dict[str, Any] = {"drawstyle": "steps-post"} if kind == "sigma" else {}
            style["alpha"] = (
                0.5 if kind == "reward" else 1.0
            )  # single rewards are noisy; the mean over the landmarks is drawn over them
            axes.plot(epochs[known], values[known, n], color=color, linewidth=1.1, label=names[n], **style)
            if kind == "sigma" and ends[n] is not None:
                axes.plot(epochs[ends[n]], values[ends[n], n], "o", color=color, markersize=4, markeredgecolor="0.2")
        if kind == "reward":
            axes.axhline(0, color="0.6", linewidth=0.8)
            axes.plot(epochs, _mean(values), color="0.15", linewidth=1.6)
        elif np.nanmin(values) > 0:
            axes.set_yscale("log")
            label_log_axis(axes.yaxis)
        axes.set_ylabel(label, fontsize=8)
    if any(end is not None for end in ends):
        all_axes[0].set_title("circle: the search for sigma ended", fontsize=8, loc="right", pad=3)
    all_axes[-1].set_xlabel("epoch", fontsize=8)
    figure.align_ylabels()
    if count <= _NAMED:
        handles, labels = all_axes[0].get_legend_handles_labels()
        legend = figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=7, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _ends(stopped: Sequence[Sequence[str]] | None, count: int) -> list[int | None]:
    """Return the row at which the search of each landmark stopped, or None."""
    rows = [[bool(reason) for reason in row] for row in stopped or []]
    return [next((t for t, row in enumerate(rows) if row[n]), None) for n in range(count)]


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the landmarks with known values."""
    known = np.isfinite(values)
    return np.where(known.any(1), np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)
