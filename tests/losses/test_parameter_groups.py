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

"""Parameters with and without weight decay."""

from __future__ import annotations

import torch
import torch.nn as nn

from monai_landmarks.losses import SCNLoss, parameter_groups


def test_only_kernels_are_decayed():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.Conv2d(2, 2, 3, bias=False))
    loss = SCNLoss(num_landmarks=2, spatial_dims=2)
    decayed, kept = parameter_groups(network, loss, weight_decay=0.1)
    assert {id(p) for p in decayed["params"]} == {id(network[0].weight), id(network[2].weight)}
    assert {id(p) for p in kept["params"]} == {
        id(p) for p in [network[0].bias, network[1].weight, network[1].bias, *loss.parameters()]
    }
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


def test_a_step_without_gradient_shrinks_kernels_and_nothing_else():
    network, loss = nn.Conv2d(1, 1, 1), SCNLoss(num_landmarks=1, spatial_dims=2)
    before = [p.detach().clone() for p in (network.weight, network.bias, loss.sigma)]
    optimizer = torch.optim.SGD(parameter_groups(network, loss, weight_decay=0.5), lr=0.1)
    for parameter in [*network.parameters(), *loss.parameters()]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(network.weight, before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(network.bias, before[1]) and torch.equal(loss.sigma, before[2])


def test_frozen_and_absent_parameters_make_no_group():
    network = nn.Conv2d(1, 1, 1, bias=False)
    assert len(parameter_groups(network)) == 1
    assert parameter_groups(network.requires_grad_(False)) == []
