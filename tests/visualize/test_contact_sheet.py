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

from __future__ import annotations

import numpy as np
import pytest

from monai_landmarks.visualize import draw_contact_sheet, landmark_view


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 12)])
def test_every_landmark_has_its_color_on_every_image(shape):
    dims = len(shape)
    points = np.random.default_rng(0).uniform(2, 10, (4, 5, dims))
    points[1, 2] = np.nan
    views = [landmark_view(np.zeros(shape), rows, title=f"image {i}") for i, rows in enumerate(points)]
    figure = draw_contact_sheet(views, "abcde", flagged=[False, True, False, False])
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == (4 if dims == 2 else 12)
    colors = [tuple(line.get_color()) for line in panels[0].lines]
    assert len(set(colors)) == 5
    of_second = panels[1 if dims == 2 else 3]
    assert [tuple(line.get_color()) for line in of_second.lines] == [*colors[:2], *colors[3:]]
    assert [text.get_text() for text in of_second.texts] == ["1", "2", "4", "5"]
    np.testing.assert_allclose([line.get_xydata()[0] for line in panels[0].lines], points[0][:, :2])
    titles = [axes.title for axes in panels if axes.get_title().startswith("image")]
    assert [title.get_text()[:7] for title in titles] == [f"image {i}" for i in range(4)]
    assert [title.get_color() == "k" for title in titles] == [True, False, True, True]
    legend = [text.get_text() for text in figure.texts][1::2]
    assert legend == ["1 a", "2 b", "3 c", "4 d", "5 e"]
    assert [tuple(text.get_color()) for text in figure.texts][::2] == colors


def test_no_numbers_among_many():
    view = landmark_view(np.zeros((50, 50)), np.random.default_rng(0).uniform(0, 50, (21, 2)))
    figure = draw_contact_sheet([view], [f"n{i}" for i in range(21)])
    assert not figure.axes[0].texts and figure.texts[1].get_text() == "n0"
    with pytest.raises(ValueError, match="at least one view"):
        draw_contact_sheet([], [])
