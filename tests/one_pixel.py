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

"""Figures that are composed, but saved as one pixel: painting takes most of the time of a small training."""

from __future__ import annotations

from typing import Any

from PIL import Image


def save_one_pixel(_figure: Any, path: Any, **_options: Any) -> None:
    """Use this in place of ``matplotlib.figure.Figure.savefig``."""
    Image.new("L", (1, 1)).save(path, format="png")
