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

"""Functions of arrays and tensors: one result for both, of the type that came in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_landmarks.metrics import (
    angle_smape,
    cobb_angles,
    identification,
    image_specific_error,
    outlier_count,
    point_error,
    success_detection_rate,
)
from monai_landmarks.metrics.functional import known_max, known_mean, known_median, known_std

NAN, INF = float("nan"), float("inf")


def points(seed, *shape):
    """Points with missing ones, and one infinite coordinate."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 100, shape)
    values[rng.random(shape[:-1]) < 0.2] = NAN
    values[0, 0, 0] = INF
    return values


PRED, TRUE = points(0, 9, 8, 2), points(1, 9, 8, 2)
ERRORS = np.where(np.random.default_rng(2).random((6, 5)) < 0.2, NAN, np.random.default_rng(3).uniform(0, 6, (6, 5)))
LOST = np.where(ERRORS > 5, INF, ERRORS)
CASES = {
    "point_error": (point_error, [PRED, TRUE]),
    "point_error of spacing": (lambda p, t: point_error(p, t, (0.5, 2)), [PRED, TRUE]),
    "identification": (identification, [PRED, TRUE]),
    "identification without limit": (lambda p, t: identification(p, t, None), [PRED, TRUE]),
    "cobb_angles": (cobb_angles, [PRED]),
    "cobb_angles of height": (lambda p: cobb_angles(p, 100.0), [np.nan_to_num(PRED, posinf=7)]),
    "angle_smape": (angle_smape, [ERRORS, ERRORS[::-1].copy()]),
    "image_specific_error": (image_specific_error, [LOST]),
    "rate": (success_detection_rate, [LOST]),
    "rate of landmarks": (lambda e: success_detection_rate(e, (1, 3), strict=True, dim=0), [LOST]),
    "one rate": (lambda e: success_detection_rate(e, 2.0), [LOST]),
    "outliers of images": (lambda e: outlier_count(e, (1, 3), dim=1), [LOST]),
    "mean": (known_mean, [ERRORS]),
    "std": (known_std, [ERRORS]),
    "median": (known_median, [ERRORS]),
    "median of an even number": (known_median, [np.array([3.0, NAN, 1.0, 2.0, 8.0])]),
    "max": (known_max, [LOST]),
    **{f"{f.__name__} of nothing": (f, [np.full(3, NAN)]) for f in (known_mean, known_std, known_median, known_max)},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_one_result_for_both(case, dtype, device):
    function, arguments = CASES[case]
    tensors = [torch.tensor(values, dtype=dtype, device=device) for values in arguments]
    found, expected = function(*tensors), function(*(tensor.cpu().numpy() for tensor in tensors))
    assert type(found) is torch.Tensor and found.device.type == device.type
    assert isinstance(expected, (np.ndarray, np.generic)) and not isinstance(expected, torch.Tensor)
    assert found.dtype == torch.as_tensor(expected).dtype
    torch.testing.assert_close(found.cpu(), torch.as_tensor(expected), equal_nan=True)


def test_whole_numbers_have_no_whole_errors():
    pred, true = [[1, 1], [3, 4]], [[0, 0], [0, 0]]
    assert point_error(torch.tensor(pred), torch.tensor(true)).tolist() == pytest.approx([2**0.5, 5])
    assert point_error(np.array(pred), np.array(true)).tolist() == pytest.approx([2**0.5, 5])
    half = point_error(torch.tensor(pred).half(), torch.tensor(true).half())
    assert half.dtype == torch.float32
