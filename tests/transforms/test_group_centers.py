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

"""Groups of landmarks and their centers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_landmarks.data import AASCE_LANDMARKS
from monai_landmarks.transforms import GroupCenters, GroupCentersd, LandmarkGroups, groups_by_name

NAN = float("nan")


def test_groups_of_the_spine():
    groups = groups_by_name(AASCE_LANDMARKS)
    assert groups.groups == [[4 * v, 4 * v + 1, 4 * v + 2, 4 * v + 3] for v in range(17)]
    assert groups.num_channels == 4 and groups.channels == [0, 1, 2, 3] * 17
    mixed = groups_by_name(["a_1_x", "b", "a_1_y", "_c"], shared=False)
    assert mixed.groups == [[0, 2], [1], [3]]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_centers_are_means_of_what_is_known(shape, dims):
    points = np.random.default_rng(dims).normal(size=(*shape, dims))
    points[..., 1, :] = NAN
    points[..., 4, :] = NAN
    groups = LandmarkGroups(5, [[0, 1, 2], [3], [4]])
    centers = GroupCenters(groups)(points)
    expected = np.stack([points[..., [0, 2], :].mean(-2), points[..., 3, :], points[..., 4, :]], axis=-2)
    assert isinstance(centers, np.ndarray)
    np.testing.assert_allclose(centers, expected)


def test_affine_and_metadata_are_kept():
    points = MetaTensor(torch.rand(1, 4, 2), affine=torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])), meta={"a": 1})
    item = GroupCentersd("label", LandmarkGroups(4, [[0, 1], [2, 3]]))({"label": points, "other": 2})
    assert torch.equal(item["label"].affine, points.affine) and item["label"].meta["a"] == 1 and item["other"] == 2
    with pytest.raises(ValueError, match="of 3 landmarks, but got 4"):
        GroupCentersd("label", LandmarkGroups(3))({"label": points})


def test_integers_have_centers_between_them():
    for points in (np.array([[0, 0], [1, 3]]), torch.tensor([[0, 0], [1, 3]])):
        centers = GroupCenters(LandmarkGroups(2, [[0, 1]]))(points)
        assert type(centers) is type(points) and np.asarray(centers).tolist() == [[0.5, 1.5]]
