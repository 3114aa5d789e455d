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
"""Points of an item as a landmark set: spaces, shapes, what belongs to them, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.data import CoordinateSystem, landmark_set_of

NAN, INF = float("nan"), float("inf")
AFFINE = torch.tensor([[0, -2.0, 0, 5], [3, 0, 0, 7], [0, 0, 4, 9], [0, 0, 0, 1]])


def image(dims: int) -> MetaTensor:
    return MetaTensor(torch.zeros(1, *(4,) * dims), affine=AFFINE)


@pytest.mark.parametrize("lead", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_points_of_every_space_become_ras(dims: int, lead: bool, device: torch.device) -> None:
    index = torch.tensor([[10.0, 100, 1], [0, 1, 2]])[:, :dims].to(device)
    world = [[-195.0, 37, 13], [3, 7, 17]]
    given = index[None] if lead else index
    own = MetaTensor(given, affine=AFFINE)
    other = MetaTensor(torch.zeros(1, *(4,) * dims), affine=torch.eye(4))
    for points, picture in ((own, None), (own, other), (given, image(dims)), (given.cpu().numpy(), image(dims))):
        found = landmark_set_of(points, picture)
        assert found.coordinate_system == CoordinateSystem.RAS and found.names == ("1", "2")
        assert found.points.tolist() == [row[:dims] for row in world]
    assert landmark_set_of(given).points.tolist() == index.tolist()  # nothing leads elsewhere
    assert landmark_set_of(MetaTensor(given), image(dims)).points.tolist() == index.tolist()  # in the world already


def test_what_belongs_to_the_points(device: torch.device) -> None:
    points, scores = torch.rand(1, 2, 3, device=device), torch.tensor([0.5, 0.25], device=device)
    covariances = torch.eye(3, device=device).expand(2, 3, 3) * torch.tensor([1.0, 2.0], device=device)[:, None, None]
    for lead in (False, True):
        own = (values[None] if lead else values for values in (scores, covariances))
        found = landmark_set_of(points, None, ["a", "b"], *own)
        assert found.names == ("a", "b") and found.scores.tolist() == [0.5, 0.25]
        assert found.covariances.tolist() == covariances.tolist()
    bare = landmark_set_of(points)
    assert bare.scores is None and bare.covariances is None


def test_points_that_are_not_finite_are_missing() -> None:
    points = [[1.0, 2], [NAN, 2], [INF, -INF], [NAN, NAN]]
    found = landmark_set_of(torch.tensor(points))
    assert found.missing.tolist() == [False, True, True, True] and found.points[0].tolist() == [1, 2]
    for half in (points[1], points[2]):
        with pytest.raises(ValueError, match="expected finite numbers"):
            landmark_set_of(torch.tensor([half]), strict=True)
    assert landmark_set_of(torch.tensor([points[3], points[0]]), strict=True).missing.tolist() == [True, False]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="^truth: there are 2 points, but 1 landmark names"):
        landmark_set_of(np.zeros((2, 2)), names=["a"], what="truth")
    with pytest.raises(ValueError, match=r"^truth must have shape \(N, D\)"):
        landmark_set_of(np.zeros((2, 2, 2)), what="truth")
    with pytest.raises(ValueError, match="scores has shape"):
        landmark_set_of(np.zeros((2, 2)), scores=[1])
