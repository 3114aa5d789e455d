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

"""The localization U-Net."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.networks.nets import LocalizationUNet


@pytest.mark.parametrize("shape", [(2, 1, 48, 40), (1, 1, 35, 51), (1, 2, 32, 40, 33)])
def test_one_map_per_landmark_at_the_size_of_the_image(shape):
    net = LocalizationUNet(len(shape) - 2, shape[1], num_landmarks=7).eval()
    assert net(torch.zeros(shape)).shape == (shape[0], 7, *shape[2:])


def test_two_million_parameters():
    # MONAI's BasicUNet with these channels and 19 outputs, the baseline of the cephalometric study
    count = sum(p.numel() for p in LocalizationUNet(2, 1, 19).parameters())
    assert round(count / 1e6) == 2


@pytest.mark.parametrize("stride", [2, 4])
def test_a_stride_keeps_the_size_and_saves_time(stride):
    features = (8, 8, 8, 8, 8, 8)
    net = LocalizationUNet(2, 1, 5, features, stride=stride).eval()
    x = torch.rand(2, 1, 32 * stride, 40 * stride)
    maps = net(x)
    assert maps.shape == (2, 5, *x.shape[2:])
    torch.testing.assert_close(torch.jit.script(net)(x), maps)
    # the U-Net itself sees an image that is smaller by the stride
    seen = []
    net.conv_0[-1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    net(x)
    assert seen == [(2, 8, 32, 40)]


@pytest.mark.parametrize("dims,stride,message", [(2, 3, "power of two"), (2, 0, "power of two"), (3, 2, "2-D only")])
def test_a_stride_that_is_impossible(dims, stride, message):
    with pytest.raises(ValueError, match=message):
        LocalizationUNet(dims, 1, 5, stride=stride)
