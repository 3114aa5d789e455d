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

"""Figure of predicted and true Cobb angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from monai_landmarks.spaces import to_array

from .figure import COLORS, Figure, quiet_axes

__all__ = ["draw_cobb_angles"]

_TITLES = ("first angle (main curve)", "second angle", "third angle")


def draw_cobb_angles(pred: ArrayLike, target: ArrayLike) -> Figure:
    """Draw the predicted against the true Cobb angles, with the mean absolute error, in one panel per angle.

    On the diagonal both angles are equal. The gray band covers errors of up to 5 degrees.

    Args:
        pred: predicted angles (B, 3) in degrees, as from :func:`monai_landmarks.metrics.cobb_angles`.
        target: true angles (B, 3) in degrees. An angle that is NaN in one of the two arrays is not drawn.

    Returns:
        A matplotlib figure. ``figure.savefig(path)`` writes it.
    """
    pred, target = to_array(pred), to_array(target)
    figure = Figure(figsize=(7.2, 2.9), dpi=150, layout="constrained")
    known = np.concatenate([pred.ravel(), target.ravel()])
    known = known[np.isfinite(known)]
    limit = 10 * np.ceil((known.max() if len(known) else 0) / 10 + 0.1)
    for axes, title, x, y in zip(figure.subplots(1, 3, sharex=True, sharey=True), _TITLES, target.T, pred.T):
        quiet_axes(axes)
        both = np.isfinite(x) & np.isfinite(y)
        axes.fill_between([0, limit], [-5, limit - 5], [5, limit + 5], color="0.94", linewidth=0)
        axes.plot([0, limit], [0, limit], color="0.6", linewidth=0.8)
        axes.plot(x[both], y[both], "o", markersize=3, color=COLORS["line"], alpha=0.55, markeredgewidth=0)
        error = f"{np.abs(y - x)[both].mean():.1f}" if both.any() else "unknown"
        axes.set_title(f"{title}\nn = {both.sum()}, mean absolute error {error}°", fontsize=8, loc="left")
        axes.set_xlim(0, limit)
        axes.set_ylim(0, limit)
        axes.set_aspect("equal")
        axes.set_xlabel("true angle [°]", fontsize=8)
    figure.axes[0].set_ylabel("predicted angle [°]", fontsize=8)
    return figure
