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

"""How the target precision of each landmark went over a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from monai_landmarks.spaces import to_array

from .figure import Figure, label_log_axis, quiet_axes

colormaps, _ = optional_import("matplotlib", name="colormaps")

__all__ = ["draw_precision"]

_NAMED = 20  # landmarks that a legend has room for


def draw_precision(
    epochs: Any,
    sigma: Any,
    error: Any,
    reward: Any = None,
    stopped: Sequence[Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    unit: str = "mm",
) -> Figure:
    """Draw sigma, validation error and reward of each landmark over a training, with a mark where its search stopped.

    Args:
        epochs: (T,).
        sigma: (T, N), from that epoch on.
        error: (T, N), NaN where it is not known.
        reward: (T, N), likewise; no panel where there is none.
        stopped: (T, N) reasons, empty while a landmark is searched.
        names: of the N landmarks; they are drawn in the order of their last sigma.
        unit: of sigma.
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
    colors = colormaps["viridis"](np.linspace(0.0, 0.92, count))
    ends = _ends(stopped, count)
    for axes, (kind, label, values) in zip(all_axes, panels):
        quiet_axes(axes)
        for color, n in zip(colors, order):
            known = np.isfinite(values[:, n])
            style: dict[str, Any] = {"drawstyle": "steps-post"} if kind == "sigma" else {}
            style["alpha"] = 0.5 if kind == "reward" else 1.0  # noise: its mean is what shows
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
        all_axes[0].set_title("circle: the search of a landmark stopped", fontsize=8, loc="right", pad=3)
    all_axes[-1].set_xlabel("epoch", fontsize=8)
    if count <= _NAMED:
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right upper", fontsize=7, frameon=False)
    return figure


def _ends(stopped: Sequence[Sequence[str]] | None, count: int) -> list[int | None]:
    """At which row the search of each landmark has stopped."""
    rows = [[bool(reason) for reason in row] for row in stopped or []]
    return [next((t for t, row in enumerate(rows) if row[n]), None) for n in range(count)]


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the landmarks that are known."""
    known = np.isfinite(values)
    return np.where(known.any(1), np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1), np.nan)
