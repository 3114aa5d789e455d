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


"""The statistics of the batch at test time, in closed form."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn

from monai_landmarks.networks.layers import BatchStatisticsNorm


@pytest.fixture(params=[2, 3], ids=["2d", "3d"])
def layer(request):
    torch.manual_seed(0)
    layer = (nn.BatchNorm2d if request.param == 2 else nn.BatchNorm3d)(3, momentum=0.3)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    image = 4 + 3 * torch.randn(2, 3, *(5,) * request.param)
    return layer.double(), image.double()


def test_evaluation_uses_the_batch_and_keeps_the_running_statistics(layer):
    batch_norm, image = layer
    converted = BatchStatisticsNorm.convert(batch_norm).eval()
    axes = [0, *range(2, image.dim())]
    normal = (image - image.mean(axes, keepdim=True)) / (image.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
    shape = (1, 3, *[1] * (image.dim() - 2))
    expected = normal * batch_norm.weight.view(shape) + batch_norm.bias.view(shape)
    assert torch.allclose(converted(image), expected)
    assert converted.running_mean.eq(0).all() and converted.running_var.eq(1).all()


def test_training_is_that_of_batch_normalization(layer):
    batch_norm, image = layer
    converted = BatchStatisticsNorm.convert(copy.deepcopy(batch_norm))
    for _ in range(3):
        assert torch.equal(converted(image), batch_norm(image))
    assert not converted.running_mean.eq(0).any()
    assert torch.equal(converted.running_mean, batch_norm.running_mean)
    assert torch.equal(converted.running_var, batch_norm.running_var)


def test_conversion_reaches_every_layer_and_keeps_the_rest():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(nn.BatchNorm2d(4, affine=False)), nn.GroupNorm(2, 4)).eval()
    parameters, names = list(net.parameters()), list(net.state_dict())
    assert BatchStatisticsNorm.convert(net) is net
    assert [type(m).__name__ for m in net.modules() if "Norm" in type(m).__name__] == [
        "BatchStatisticsNorm",
        "GroupNorm",
    ]
    assert not net[1][0].training
    assert list(net.state_dict()) == names
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))


def test_scripted_and_exported(layer):
    batch_norm, image = layer
    converted = BatchStatisticsNorm.convert(batch_norm).eval()
    assert torch.allclose(torch.jit.script(converted)(image), converted(image))
    assert torch.allclose(torch.export.export(converted, (image,)).module()(image), converted(image))


def test_one_value_has_no_statistics():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        BatchStatisticsNorm(3).eval()(torch.zeros(1, 3, 1, 1))
