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

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.utils import optional_import

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure, _ = optional_import("matplotlib.figure", name="Figure")

__all__ = ["COLORS", "Figure", "quiet_axes", "to_array"]

# told apart on a gray image, on white paper, and by most color-blind readers
COLORS = {"pred": "#ff7a1a", "truth": "#22c7e8", "error": "#ffe14d", "line": "#1f6fb4", "line2": "#c8501e"}


def to_array(values: Any) -> np.ndarray:
    """A tensor of any device, a `MetaTensor` or an array as a float64 numpy array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def quiet_axes(axes: Any) -> None:
    """A plain frame for a curve: no box, a light grid, small figures."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color="0.6")
