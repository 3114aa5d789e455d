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
"""Coordinates divided by the size of the image, against plain sums and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_landmarks.metrics import coordinate_correlation, normalized_mse

NAN = float("nan")


def test_normalized_mse():
    truth = torch.rand(2, 6, 2, dtype=torch.float64) * 100
    error = torch.randn_like(truth)
    error[0, 3] = NAN
    size = torch.tensor([[100.0, 300.0], [50.0, 60.0]])
    first = (error[0, [0, 1, 2, 4, 5]] / size[0]).square().sum() / 10
    second = (error[1] / size[1]).square().sum() / 12
    torch.testing.assert_close(normalized_mse(truth + error, truth, size), torch.stack([first, second]))


@pytest.mark.parametrize("dims", [2, 3])
def test_correlation_is_that_of_numpy(dims):
    truth = torch.rand(5, 7, dims)
    pred = truth + 0.1 * torch.randn_like(truth)
    pred[0, 3], truth[1, 2, 0] = NAN, NAN
    known = ~(pred.isnan() | truth.isnan()).any(-1)
    expected = np.corrcoef(pred[known].ravel(), truth[known].ravel())[0, 1]
    assert float(coordinate_correlation(pred, truth)) == pytest.approx(expected, abs=1e-6)


def test_correlation_does_not_change_with_scale_and_place():
    truth = torch.rand(4, 2)
    assert float(coordinate_correlation(3 * truth + 1, truth)) == pytest.approx(1)
    assert float(coordinate_correlation(-truth, truth)) == pytest.approx(-1)


def test_correlation_without_points_is_unknown():
    assert coordinate_correlation(torch.full((3, 2), NAN), torch.rand(3, 2)).isnan()
