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


"""Sigmas after each action, and the actions that are allowed."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.precision import Action, SigmaRange


def test_apply():
    sigma_range = SigmaRange(1.0, 10.0, step=1.25)
    sigma = torch.tensor([4.0, 4.0, 4.0, 4.0, 1.1, 9.0])
    actions = torch.tensor([Action.SHRINK, Action.KEEP, Action.GROW, Action.STOP, Action.SHRINK, Action.GROW])
    torch.testing.assert_close(sigma_range.apply(sigma, actions), torch.tensor([3.2, 4.0, 5.0, 4.0, 1.0, 10.0]))


def test_actions_beyond_the_bounds_are_not_allowed():
    allowed = SigmaRange(1.0, 10.0).allowed(torch.tensor([1.0, 3.0, 10.0]))
    assert allowed.tolist() == [[False, True, True, True], [True] * 4, [True, True, False, True]]


@pytest.mark.parametrize("arguments", [(0.0, 1.0), (2.0, 1.0), (1.0, 2.0, 1.0)])
def test_bad_ranges(arguments):
    with pytest.raises(ValueError, match="low"):
        SigmaRange(*arguments)
