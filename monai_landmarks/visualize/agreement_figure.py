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
"""Figures of the agreement of annotators: Bland-Altman plots, and the points of several annotators on an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.lazy import lazy_import
from monai_landmarks.spaces import to_array

from .figure import Figure, image_panels, quiet_axes
from .landmark_view import LandmarkView, draw_image

patheffects = lazy_import("matplotlib.patheffects")

__all__ = ["BlandAltmanPanel", "draw_annotators", "draw_bland_altman"]

# told apart on a gray image and by most color-blind readers; each annotator also has a marker of its own
_COLORS = ("#ff7a1a", "#22c7e8", "#ffe14d", "#7dde6b", "#ff8fc7", "#b9a3ff", "#ffffff")
_MARKERS = "osD^vP*"
_COLUMNS = 4


@dataclass(frozen=True)
class BlandAltmanPanel:
    """One panel of :func:`draw_bland_altman`.

    Args:
        title: title of the panel.
        first: values (B,) of the first annotator.
        second: values (B,) of the second annotator, NaN where one is missing.
        unit: unit of the values.
    """

    title: str
    first: ArrayLike
    second: ArrayLike
    unit: str = "mm"


def draw_bland_altman(panels: Sequence[BlandAltmanPanel], first: str = "first", second: str = "second") -> Figure:
    """Draw the difference of two annotators over their mean, with the bias and the 95 % limits of agreement as lines.

    Args:
        panels: one quantity each, at least one.
        first: name of the first annotator.
        second: name of the second annotator.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = 2.2 * columns + 0.3, 1.75 * rows + 0.4
    figure = Figure(figsize=(width, height), dpi=120)
    grid = figure.subplots(rows, columns, squeeze=False)
    # not matplotlib's own layout, which takes seconds for this many panels
    figure.subplots_adjust(
        left=0.75 / width, right=1 - 0.1 / width, bottom=0.5 / height, top=1 - 0.25 / height, wspace=0.4, hspace=0.45
    )
    for i, axes in enumerate(grid.flat):
        if i >= len(panels):
            axes.set_axis_off()
            continue
        panel = panels[i]
        one, two = to_array(panel.first), to_array(panel.second)
        known = np.isfinite(one) & np.isfinite(two)
        mean, difference = (one[known] + two[known]) / 2, one[known] - two[known]
        quiet_axes(axes)
        axes.tick_params(labelsize=6)
        axes.locator_params(nbins=5)
        axes.set_title(f"{panel.title} [{panel.unit}]", fontsize=7, pad=3, parse_math=False)
        axes.axhline(0, color="0.6", linewidth=0.6)
        axes.plot(mean, difference, "o", markersize=2, color="#1f6fb4", alpha=0.5, markeredgewidth=0, rasterized=True)
        if len(difference) > 1:
            bias, std = float(difference.mean()), float(difference.std(ddof=1))
            axes.axhline(bias, color="#c8501e", linewidth=1.0)
            for limit in (bias - 1.96 * std, bias + 1.96 * std):
                axes.axhline(limit, color="#c8501e", linewidth=0.8, linestyle="--")
    figure.supxlabel("mean of both", fontsize=7, y=0.1 / height)
    figure.supylabel(f"{first} minus {second}", fontsize=7, x=0.1 / width, parse_math=False)
    return figure


def draw_annotators(
    views: Sequence[LandmarkView], annotators: Sequence[str], names: Sequence[str] = (), width: float = 8.4
) -> Figure:
    """Draw the points of several annotators on an image. Lines connect the points of the same landmark.

    Args:
        views: views of one image from :func:`landmark_view`, drawn side by side; one view of a volume. Their points are
            those of all annotators, one annotator after the other.
        annotators: names of the A annotators.
        names: names of landmarks to write into the last view, empty where none.
        width: width of the figure in inches.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    planes = [(plane, view, k) for view in views for k, plane in enumerate(view.planes)]
    shares = np.array([plane.width for plane, _, _ in planes])
    if len(views) > 1:  # views of different extent have the same width
        shares = np.ones(len(planes))
    widths = (width - 0.2) * shares / shares.sum()
    picture = max(plane.height / plane.width * w for (plane, _, _), w in zip(planes, widths))
    head = 0.24 if any(view.panel_title(k) for _, view, k in planes) else 0.05
    legend = 0.2 * math.ceil(len(annotators) / 4) + 0.12
    figure, panels = image_panels(
        1, len(planes), width, picture + head + legend + 0.02, picture, head=head, foot=legend, gap=0.0,
        width_ratios=shares.tolist(),
    )  # fmt: skip
    for axes, (plane, view, k) in zip(panels.flat, planes):
        draw_image(axes, plane)
        axes.set_title(view.panel_title(k), fontsize=7, pad=3, parse_math=False)
        zoomed = view is views[-1]
        points = plane.pred.reshape(len(annotators), -1, 2)
        alphas = plane.opacity.reshape(len(annotators), -1)
        for n in range(points.shape[1]):
            known = points[np.isfinite(points[:, n, 0]), n]
            if len(known) > 1:
                center = known.mean(axis=0)
                for place in known:
                    axes.plot(*zip(center, place), color="w", linewidth=0.7, alpha=float(alphas[:, n].max()), zorder=2)
            if zoomed and len(known) and n < len(names) and names[n]:
                axes.annotate(
                    names[n], known[known[:, 0].argmax()], xytext=(6, 0), textcoords="offset points", fontsize=6, color="w", zorder=5,
                    parse_math=False, path_effects=[patheffects.withStroke(linewidth=1.2, foreground="0.15")],
                )  # fmt: skip
        for a, (name, places, opacity) in enumerate(zip(annotators, points, alphas)):
            style = {
                "marker": _MARKERS[a % len(_MARKERS)],
                "color": _COLORS[a % len(_COLORS)],
                "markeredgecolor": "0.1",
                "markeredgewidth": 0.4,
                "linestyle": "none",
            }
            size = 5.0 if zoomed and len(views) > 1 else 3.0
            for place, alpha in zip(places, opacity):
                axes.plot(*place, markersize=size, alpha=float(alpha), zorder=3, **style)
            axes.plot([], [], markersize=4, label=name, **style)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    shown = figure.legend(
        handles, labels, loc="lower center", ncols=min(len(labels), 4), fontsize=7, facecolor="0.25", labelcolor="w",
        edgecolor="none", borderaxespad=0.3, handletextpad=0.3, columnspacing=1.4,
    )  # fmt: skip
    for text in shown.get_texts():
        text.set_parse_math(False)
    return figure
