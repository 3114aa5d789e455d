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
"""Heatmaps over their image: predictions, targets, or the maps inside a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_landmarks.spaces import to_array

from .figure import Figure

__all__ = ["draw_heatmaps"]


def draw_heatmaps(
    image: Any,
    heatmaps: Any,
    names: Sequence[str] | None = None,
    columns: int = 6,
    share_scale: bool = False,
    width: float = 9.0,
) -> Figure:
    """Draw each of some heatmaps over the image: one panel a landmark.

    Of a volume each panel shows the slice of the last axis in which its map has its greatest magnitude. Maps with negative
    values, as local-appearance and spatial-configuration maps have them, get a color scale with two ends.

    Args:
        image: (C, X, Y[, Z]) or (X, Y[, Z]) in MONAI's index order, of the heatmaps' size.
        heatmaps: (N, X, Y[, Z]).
        names: N titles.
        columns: panels in a row.
        share_scale: whether all panels share one scale; otherwise each reaches its own greatest magnitude.
        width: of the figure in inches.

    Raises:
        ValueError: when image and heatmaps differ in size.
    """
    maps, image = to_array(heatmaps), to_array(image)
    if image.ndim == maps.ndim:
        image = image.mean(axis=0)
    if image.shape != maps.shape[1:]:
        raise ValueError(f"the image {image.shape} and the heatmaps {maps.shape} must have the same size.")
    columns = min(columns, len(maps))
    rows = math.ceil(len(maps) / columns)
    panel = (width - 0.2) / columns
    head = 0.2 if names is not None else 0.03
    picture = panel * image.shape[1] / image.shape[0]
    height = rows * (picture + head) + 0.1
    figure = Figure(figsize=(width, height), dpi=150)
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.1 / width, right=1 - 0.1 / width, bottom=0.05 / height, top=1 - head / height,
        wspace=0.04, hspace=(head + 0.03) / picture,
    )  # fmt: skip
    low, high = np.percentile(image, (0.5, 99.5))
    signed = maps.min() < -0.02 * np.abs(maps).max()
    for axes in panels.flat:
        axes.set_axis_off()
    for n, (axes, values) in enumerate(zip(panels.flat, maps)):
        limit = max(float(np.abs(maps if share_scale else values).max()), 1e-12)
        background = image
        if image.ndim == 3:
            at = int(np.unravel_index(np.abs(values).argmax(), values.shape)[-1])
            background, values = image[..., at], values[..., at]
        axes.imshow(background.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="antialiased")
        strength = np.clip(np.abs(values.T) / limit, 0, 1)
        axes.imshow(
            values.T, cmap="coolwarm" if signed else "autumn", vmin=-limit if signed else 0, vmax=limit,
            alpha=np.sqrt(strength) * 0.85, interpolation="nearest",
        )  # fmt: skip
        if names is not None:
            axes.set_title(names[n], fontsize=6.5, pad=2)
    return figure
