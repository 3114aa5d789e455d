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
import torch

from monai_landmarks.losses.targets import GaussianTarget
from monai_landmarks.uncertainty import ensemble_covariance, ensemble_landmarks, sigma_covariance

NAN = float("nan")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spread_is_the_sample_covariance(dims, dtype, device):
    points = torch.randn(6, 4, 3, dims, dtype=dtype, device=device)
    found = ensemble_covariance(points)
    assert found.dtype == dtype and found.device == points.device
    for b in range(4):
        for n in range(3):
            expected = np.cov(points[:, b, n].double().cpu().numpy().T)
            np.testing.assert_allclose(found[b, n].cpu().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_mixture_is_the_law_of_total_covariance():
    points, own = torch.randn(5, 2, 3), torch.rand(5, 2, 3, 3)
    own = own @ own.transpose(-1, -2)
    torch.testing.assert_close(ensemble_covariance(points, own), ensemble_covariance(points) + own.mean(dim=0))


def test_members_that_do_not_find_a_landmark():
    points = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]]])
    found = ensemble_covariance(points)
    torch.testing.assert_close(found[0], torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    assert found[1].isnan().all()


def random_members(members, dims, apart):
    torch.manual_seed(dims)
    points = 20 + apart * torch.randn(members, 5, dims)
    root = torch.randn(members, 5, dims, dims)
    return points, 0.2 + torch.rand(members, 5), root @ root.transpose(-1, -2) + 4 * torch.eye(dims)


@pytest.mark.parametrize("apart", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("dims, members", [(2, 2), (2, 5), (3, 2), (3, 4)])
def test_point_is_the_highest_of_the_mean_peak(dims, members, apart, device):
    """No place of a fine grid around any member is higher, and the score is the height there."""
    points, score, covariance = (values.to(device) for values in random_members(members, dims, apart))
    found, height, spread = ensemble_landmarks(points, score, covariance)
    assert found.dtype == points.dtype and found.device == points.device

    def mean_peak(at):  # (K, N, D)
        away = (at[None] - points[:, None]).double()
        exponent = torch.einsum("mkni,mnij,mknj->mkn", away, torch.linalg.inv(covariance.double()), away)
        return (score[:, None] * torch.exp(-0.5 * exponent)).mean(dim=0)

    torch.testing.assert_close(mean_peak(found[None])[0].to(height), height, rtol=1e-4, atol=1e-6)
    near = torch.randn(4000, 1, dims, generator=torch.Generator().manual_seed(0)).to(device)
    everywhere = torch.cat([near * size + point for point in points for size in (0.05, 3.0)])
    assert (mean_peak(everywhere) <= height * (1 + 1e-5)).all()
    torch.testing.assert_close(spread, ensemble_covariance(points, covariance))


def test_members_that_agree_and_one_that_has_jumped():
    """Equal peaks meet in the middle; a lower one far away moves nothing, but is seen in the covariance."""
    own = torch.eye(2).expand(3, 1, 2, 2)
    points = torch.tensor([[[10.0, 10.0]], [[11.0, 10.0]], [[90.0, 10.0]]])
    found, score, covariance = ensemble_landmarks(points, torch.tensor([[1.0], [1.0], [0.9]]), own)
    torch.testing.assert_close(found, torch.tensor([[10.5, 10.0]]))
    torch.testing.assert_close(score, torch.tensor([2 / 3 * np.exp(-0.125)], dtype=torch.float32))
    assert covariance[0, 0, 0] > 30**2 and covariance[0, 1, 1].item() == pytest.approx(1)


def test_members_without_a_peak_say_nothing_where_others_have_one():
    points = torch.tensor([[[1.0, 2.0]] * 3, [[5.0, 6.0]] * 3])
    points[0, 1] = NAN
    score = torch.tensor([[0.5, NAN, -0.5], [0.0, 0.4, -0.2]])
    own = torch.eye(2).repeat(2, 3, 1, 1)
    own[score.nan_to_num() <= 0] = NAN
    found, height, covariance = ensemble_landmarks(points, score, own)
    assert found.tolist() == [[1.0, 2.0], [5.0, 6.0], [5.0, 6.0]]
    torch.testing.assert_close(height, torch.tensor([0.25, 0.2, -0.2]))
    assert covariance.isnan().all()
    assert ensemble_landmarks(points[:, :0], score[:, :0], own[:, :0])[0].shape == (0, 2)
    sharp = ensemble_landmarks(points[:, :1], torch.ones(2, 1), torch.zeros(2, 1, 2, 2))
    assert sharp[0].tolist() in ([[1.0, 2.0]], [[5.0, 6.0]]) and sharp[1].item() == pytest.approx(0.5)


def test_learned_sigma():
    target = GaussianTarget(sigma=[2.0, 3.0, 5.0], learnable=True)
    covariance = sigma_covariance(target.sigma_table(3, 2))
    assert not covariance.requires_grad
    torch.testing.assert_close(covariance, torch.stack([torch.eye(2) * s**2 for s in (2.0, 3.0, 5.0)]))
