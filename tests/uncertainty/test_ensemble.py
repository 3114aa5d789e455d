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
from monai_landmarks.uncertainty import ensemble_covariance, sigma_covariance

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


def test_learned_sigma():
    target = GaussianTarget(sigma=[2.0, 3.0, 5.0], learnable=True)
    covariance = sigma_covariance(target.sigma_table(3, 2))
    assert not covariance.requires_grad
    torch.testing.assert_close(covariance, torch.stack([torch.eye(2) * s**2 for s in (2.0, 3.0, 5.0)]))
