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
"""Matplotlib figures without pyplot: no global state, no display required, safe in workers and notebooks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from monai_landmarks.lazy import optional_base

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as _Figure
    from matplotlib.ticker import LogFormatter
else:
    _Figure = optional_base("matplotlib.figure", "Figure")
    LogFormatter = optional_base("matplotlib.ticker", "LogFormatter")

__all__ = ["COLORS", "Figure", "image_panels", "label_log_axis", "quiet_axes"]

# told apart on a gray image, on white paper, and by most color-blind readers
COLORS = {"pred": "#ff7a1a", "truth": "#22c7e8", "error": "#ffe14d", "line": "#1f6fb4", "line2": "#c8501e"}


class Figure(_Figure):
    """Matplotlib figure that a notebook shows as the result of a cell, without pyplot."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


class _PlainLogFormatter(LogFormatter):
    """Write 0.6 instead of 6e-01. Matplotlib chooses which ticks have a label."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def label_log_axis(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, also between the powers of ten if there are few of them."""
    axis.set_major_formatter(_PlainLogFormatter())
    axis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(2.5, 0.5)))
    axis.set_tick_params(which="minor", labelsize=7, color="0.8")


def quiet_axes(axes: Axes) -> None:
    """Give a panel with curves a light grid, small tick labels and no box."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color="0.6")


def image_panels(
    rows: int,
    columns: int,
    width: float,
    height: float,
    panel_height: float,
    head: float,
    foot: float,
    gap: float,
    width_ratios: Sequence[float] | None = None,
) -> tuple[Figure, np.ndarray]:
    """Make a figure with a grid of panels for images, which have no axes. All lengths are in inches.

    Args:
        rows: number of rows.
        columns: number of columns.
        width: width of the figure.
        height: height of the figure.
        panel_height: height of a panel.
        head: space above the first row, for its titles.
        foot: space below the last row, for a legend.
        gap: space between two rows.
        width_ratios: relative widths of the columns. None for equal widths.

    Returns:
        The figure and its panels (rows, columns).
    """
    figure = Figure(figsize=(width, height), dpi=150)
    panels = figure.subplots(rows, columns, squeeze=False, width_ratios=width_ratios)
    figure.subplots_adjust(
        left=0.1 / width, right=1 - 0.1 / width, bottom=foot / height, top=1 - head / height, wspace=0.04,
        hspace=gap / panel_height,
    )  # fmt: skip
    for axes in panels.flat:
        axes.set_axis_off()
    return figure, panels
