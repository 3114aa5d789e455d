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
"""Many images with their landmarks on one sheet, for a quick visual check of the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from monai_landmarks.lazy import lazy_import

from .figure import Figure, image_panels
from .landmark_view import LandmarkPlane, LandmarkView, draw_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

matplotlib = lazy_import("matplotlib")
patheffects = lazy_import("matplotlib.patheffects")

__all__ = ["draw_contact_sheet"]

_NUMBERED = 20  # with more landmarks, the numbers would cover the image


def draw_contact_sheet(
    views: Sequence[LandmarkView],
    names: Sequence[str],
    flagged: Sequence[bool] | None = None,
    columns: int | None = None,
    width: float = 12.0,
) -> Figure:
    """Draw images with the points of :func:`landmark_view`. A landmark has the same color in all images.

    The colors show landmarks that were exchanged and rows that were shifted. Up to 20 landmarks are also numbered.

    Args:
        views: views from :func:`landmark_view`. A volume is shown as three planes.
        names: names of the N landmarks, for the legend.
        flagged: whether the title of each image is red.
        columns: number of images per row. By default up to 6 images or 2 volumes.
        width: width of the figure in inches.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if there are no views.
    """
    if not views:
        raise ValueError("views is empty, but a contact sheet requires at least one view.")
    planes = max(len(view.planes) for view in views)
    columns = columns or min(len(views), 6 if planes == 1 else 2)
    rows = math.ceil(len(views) / columns)
    colors = matplotlib.colormaps["gist_rainbow"](np.linspace(0, 1, max(2, len(names))))
    panel = (width - 0.2) / (columns * planes)
    # a single tall image does not make the whole sheet tall
    heights = [plane.height / plane.width for view in views for plane in view.planes]
    picture = panel * min(max(heights), 1.5)
    entries = [f"{i + 1} {name}" if len(names) <= _NUMBERED else name for i, name in enumerate(names)]
    across = max(1, int(width / (0.075 * max(map(len, entries), default=1) + 0.35)))
    legend, head = 0.14 * math.ceil(len(entries) / across) + 0.2, 0.2
    height = rows * (picture + head) + legend
    figure, panels = image_panels(rows, columns * planes, width, height, picture, head=head, foot=legend, gap=head)
    for i, view in enumerate(views):
        for k, plane in enumerate(view.planes):
            axes = panels[i // columns, (i % columns) * planes + k]
            _draw(axes, plane, colors, panel)
            color = "#c01010" if flagged and flagged[i] else "k"
            axes.set_title(view.panel_title(k), fontsize=6, pad=2, color=color, parse_math=False)
    for i, entry in enumerate(entries):
        x, y = 0.1 + (i % across) * (width - 0.2) / across, legend - 0.18 - 0.14 * (i // across)
        figure.text(x / width, y / height, "\u25cf", color=colors[i], fontsize=7, va="center")
        figure.text((x + 0.12) / width, y / height, entry, fontsize=6.5, va="center", parse_math=False)
    return figure


def _draw(axes: Axes, plane: LandmarkPlane, colors: np.ndarray, panel: float) -> None:
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
                    va="center", alpha=alpha, path_effects=[patheffects.withStroke(linewidth=1.0, foreground="0.1")],
                    annotation_clip=True,
                )  # fmt: skip
