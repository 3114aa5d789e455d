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
"""Chains whose shift is known, and a plain loop."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.metrics import best_chain_shift

NAN = float("nan")


def chain(count=8, size=4, dims=2):
    generator = torch.Generator().manual_seed(dims)
    corners = 4 * torch.rand(size, dims, generator=generator, dtype=torch.float64)
    steps = torch.zeros(count, dims, dtype=torch.float64)
    steps[:, -1] = 10 + torch.arange(count)  # no two steps are equal
    return (steps.cumsum(0)[:, None] + corners).flatten(0, 1)


def loop(pred, target, size, shift):
    count = len(pred) // size
    errors = [NAN] * len(pred)
    for row in range(len(pred)):
        other = row + shift * size
        if 0 <= other < count * size:
            errors[row] = float((pred[row] - target[other]).square().sum().sqrt())
    return errors


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shift", [-2, -1, 0, 1, 2])
def test_the_shift_of_a_chain_is_found(shift, dims):
    truth, noise = chain(dims=dims), torch.randn(32, dims, dtype=torch.float64)
    longer = chain(12, dims=dims)
    # the prediction shows structure v + shift where the ground truth has v
    pred = longer[8 + 4 * shift : 40 + 4 * shift] + 0.1 * noise
    found, errors = best_chain_shift(torch.stack([longer[8:40], pred]), longer[8:40].expand(2, -1, -1), size=4)
    assert found.tolist() == [0, shift]
    torch.testing.assert_close(
        errors[1], torch.tensor(loop(pred, longer[8:40], 4, shift), dtype=torch.float64), equal_nan=True
    )
    assert errors[1].nanmean() < 0.3 and truth.shape == pred.shape


def test_missing_points_and_ties():
    truth = torch.tensor([[0.0, 0.0], [0.0, 10.0], [0.0, 20.0], [0.0, 30.0]])
    pred = truth + torch.tensor([0.0, 5.0])  # as far from the own as from the next one
    pred[1] = NAN
    shift, errors = best_chain_shift(pred, truth)
    assert shift == 0
    torch.testing.assert_close(errors, torch.tensor([5.0, NAN, 5.0, 5.0]), equal_nan=True)
    shift, errors = best_chain_shift(torch.full_like(truth, NAN), truth)
    assert shift == 0 and errors.isnan().all()


@pytest.mark.parametrize(("pred", "size"), [(torch.zeros(5, 2), 4), (torch.zeros(4, 3), 4)])
def test_points_of_another_shape_are_refused(pred, size):
    with pytest.raises(ValueError, match="must be a multiple of 4"):
        best_chain_shift(pred, torch.zeros(len(pred), 2), size)
