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
"""Figures without pyplot: nothing global, no screen needed, safe in workers and notebooks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from monai.utils import optional_import

if TYPE_CHECKING:
    from matplotlib.figure import Figure as _Figure
    from matplotlib.ticker import LogFormatter
else:
    _Figure, _ = optional_import("matplotlib.figure", name="Figure", as_type="base")
    LogFormatter, _ = optional_import("matplotlib.ticker", name="LogFormatter", as_type="base")

__all__ = ["COLORS", "Figure", "label_log_axis", "quiet_axes"]

# told apart on a gray image, on white paper, and by most color-blind readers
COLORS = {"pred": "#ff7a1a", "truth": "#22c7e8", "error": "#ffe14d", "line": "#1f6fb4", "line2": "#c8501e"}


class Figure(_Figure):
    """Matplotlib's figure, which a notebook shows where it is the result of a cell, also without pyplot."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()


class _PlainLogFormatter(LogFormatter):
    """0.6 and not 6e-01; which ticks have a label is matplotlib's choice."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def label_log_axis(axis: Any) -> None:
    """Plain numbers along a logarithmic axis, also between the powers of ten where those are few."""
    axis.set_major_formatter(_PlainLogFormatter())
    axis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(1.5, 0.5)))
    axis.set_tick_params(which="minor", labelsize=7, color="0.8")


def quiet_axes(axes: Any) -> None:
    """A plain frame for a curve: no box, a light grid, small figures."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color="0.6")
