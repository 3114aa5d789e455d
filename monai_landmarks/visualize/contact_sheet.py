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
"""Many images on one sheet, each with its landmarks, to see at a glance whether the points are where they belong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.utils import optional_import

from .figure import Figure
from .landmark_view import LandmarkView, draw_image

colormaps, _ = optional_import("matplotlib", name="colormaps")
withStroke, _ = optional_import("matplotlib.patheffects", name="withStroke")  # noqa: N816

__all__ = ["draw_contact_sheet"]

_NUMBERED = 20  # up to so many landmarks have their number beside them


def draw_contact_sheet(
    views: Sequence[LandmarkView],
    names: Sequence[str],
    flagged: Sequence[bool] | None = None,
    columns: int | None = None,
    width: float = 12.0,
) -> Figure:
    """Draw images with the points of `landmark_view`, a landmark in the same color on all of them.

    Two landmarks that were exchanged, or a row that slipped, are seen by their colors; up to 20 landmarks are numbered, too.

    Args:
        views: from `landmark_view`; of a volume, three planes are shown.
        names: of the N landmarks, for the legend.
        flagged: whose titles are red.
        columns: images in a row; by default up to 6, or 2 volumes.
        width: of the figure in inches.

    Returns:
        A matplotlib figure; ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: when there are no views.
    """
    if not views:
        raise ValueError("there is no view to draw; expected at least one.")
    planes = max(len(view.planes) for view in views)
    columns = columns or min(len(views), 6 if planes == 1 else 2)
    rows = math.ceil(len(views) / columns)
    colors = colormaps["gist_rainbow"](np.linspace(0, 1, max(2, len(names))))
    panel = (width - 0.2) / (columns * planes)
    # one odd image must not make all of the sheet high
    heights = [plane.height / plane.width for view in views for plane in view.planes]
    picture = panel * min(max(heights), 1.5)
    entries = [f"{i + 1} {name}" if len(names) <= _NUMBERED else name for i, name in enumerate(names)]
    across = max(1, int(width / (0.075 * max(map(len, entries), default=1) + 0.35)))
    legend, head = 0.14 * math.ceil(len(entries) / across) + 0.2, 0.2
    height = rows * (picture + head) + legend
    figure = Figure(figsize=(width, height), dpi=150)
    panels = figure.subplots(rows, columns * planes, squeeze=False)
    figure.subplots_adjust(
        left=0.1 / width, right=1 - 0.1 / width, bottom=legend / height, top=1 - head / height, wspace=0.04,
        hspace=head / picture,
    )  # fmt: skip
    for axes in panels.flat:
        axes.set_axis_off()
    for i, view in enumerate(views):
        for k, plane in enumerate(view.planes):
            axes = panels[i // columns, (i % columns) * planes + k]
            _draw(axes, plane, colors, panel)
            title = ", ".join(text for text in (view.title if k == 0 else "", plane.title) if text)
            axes.set_title(title, fontsize=6, pad=2, color="#c01010" if flagged and flagged[i] else "k")
    for i, entry in enumerate(entries):
        x, y = 0.1 + (i % across) * (width - 0.2) / across, legend - 0.18 - 0.14 * (i // across)
        figure.text(x / width, y / height, "\u25cf", color=colors[i], fontsize=7, va="center")
        figure.text((x + 0.12) / width, y / height, entry, fontsize=6.5, va="center")
    return figure


def _draw(axes: Any, plane: Any, colors: np.ndarray, panel: float) -> None:
    draw_image(axes, plane)
    size = float(np.clip(1.5 * panel, 2.0, 4.5))  # of a marker, in points
    for i, (point, alpha) in enumerate(zip(plane.pred, plane.opacity)):
        if np.isfinite(point).all():
            axes.plot(
                *point, "o", markersize=size, color=colors[i], markeredgecolor="k", markeredgewidth=0.3, alpha=alpha
            )
            if len(plane.pred) <= _NUMBERED:
                axes.annotate(
                    str(i + 1), point, xytext=(0.8 * size, 0), textcoords="offset points", fontsize=5, color="w",
                    va="center", alpha=alpha, path_effects=[withStroke(linewidth=1.0, foreground="0.1")],
                    annotation_clip=True,
                )  # fmt: skip
