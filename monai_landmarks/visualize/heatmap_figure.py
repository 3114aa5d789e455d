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
"""Figure of heatmaps over their image: predictions, targets, or the maps inside a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.spaces import to_array

from .figure import Figure, image_panels

__all__ = ["draw_heatmaps"]


def draw_heatmaps(
    image: ArrayLike,
    heatmaps: ArrayLike,
    names: Sequence[str] | None = None,
    columns: int = 6,
    share_scale: bool = False,
    width: float = 9.0,
) -> Figure:
    """Draw heatmaps over the image, one panel per landmark.

    For a volume, each panel shows the slice along the last axis in which the heatmap has its largest magnitude. If
    there are negative values, as in the local-appearance and spatial-configuration maps of SCN, a diverging color scale
    is used.

    Args:
        image: image (C, X, Y[, Z]) or (X, Y[, Z]) in MONAI's index order, with the size of the heatmaps. Channels are
            averaged.
        heatmaps: heatmaps (N, X, Y[, Z]).
        names: titles of the N panels.
        columns: number of panels per row.
        share_scale: whether all panels have the same color scale. Otherwise, the scale of each panel ends at its own
            largest magnitude.
        width: width of the figure in inches.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.

    Raises:
        ValueError: if the image and the heatmaps differ in size.
    """
    maps, pixels = to_array(heatmaps), to_array(image)
    if pixels.ndim == maps.ndim:
        pixels = pixels.mean(axis=0)
    if pixels.shape != maps.shape[1:]:
        raise ValueError(
            f"the image of shape {pixels.shape} and the heatmaps of shape {maps.shape} must have the same spatial size."
        )
    columns = min(columns, len(maps))
    rows = math.ceil(len(maps) / columns)
    panel = (width - 0.2) / columns
    head = 0.2 if names is not None else 0.03
    picture = panel * pixels.shape[1] / pixels.shape[0]
    height = rows * (picture + head) + 0.1
    figure, panels = image_panels(rows, columns, width, height, picture, head=head, foot=0.05, gap=head + 0.03)
    low, high = np.percentile(pixels, (0.5, 99.5))
    signed = maps.min() < -0.02 * np.abs(maps).max()
    for n, (axes, values) in enumerate(zip(panels.flat, maps)):
        limit = max(float(np.abs(maps if share_scale else values).max()), 1e-12)
        background = pixels
        if pixels.ndim == 3:
            at = int(np.unravel_index(np.abs(values).argmax(), values.shape)[-1])
            background, values = pixels[..., at], values[..., at]
        axes.imshow(background.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), interpolation="antialiased")
        strength = np.clip(np.abs(values.T) / limit, 0, 1)
        axes.imshow(
            values.T, cmap="coolwarm" if signed else "autumn", vmin=-limit if signed else 0, vmax=limit,
            alpha=np.sqrt(strength) * 0.85, interpolation="nearest",
        )  # fmt: skip
        if names is not None:
            axes.set_title(names[n], fontsize=6.5, pad=2, parse_math=False)
    return figure
