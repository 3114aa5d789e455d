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


"""Autocast happens where it should, and what comes out is float32."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from monai_landmarks.inferers import AutocastInferer


class Watched(torch.nn.Module):
    """A convolution that remembers in which type it computed."""

    def __init__(self, spatial_dims: int) -> None:
        super().__init__()
        self.conv = (torch.nn.Conv2d if spatial_dims == 2 else torch.nn.Conv3d)(1, 2, 3, padding=1)
        self.computed: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heatmaps = self.conv(x)
        self.computed.add(heatmaps.dtype)
        return heatmaps


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_computes_in_half_and_gives_float(spatial_dims: int, dtype: str | torch.dtype, device: torch.device) -> None:
    network = Watched(spatial_dims).to(device)
    image = torch.randn(2, 1, *[16] * spatial_dims, device=device)
    heatmaps = AutocastInferer(dtype=dtype)(image, network)
    assert network.computed == {torch.bfloat16} and heatmaps.dtype == torch.float32
    # bfloat16 keeps eight bits
    torch.testing.assert_close(heatmaps, network(image), rtol=2e-2, atol=2e-2)
    heatmaps.sum().backward()
    assert network.conv.weight.grad is not None and network.conv.weight.grad.dtype == torch.float32


def test_goes_around_another_inferer(device: torch.device) -> None:
    network = Watched(2).to(device)
    image = torch.randn(1, 1, 40, 40, device=device)
    heatmaps = AutocastInferer(SlidingWindowInferer(roi_size=(24, 24)))(image, network)
    assert network.computed == {torch.bfloat16} and heatmaps.shape == (1, 2, 40, 40)


def test_switched_off_changes_nothing(device: torch.device) -> None:
    network = Watched(2).to(device)
    image = torch.randn(1, 1, 16, 16, device=device)
    torch.testing.assert_close(AutocastInferer(enabled=False)(image, network), network(image), rtol=0, atol=0)
    assert network.computed == {torch.float32}


def test_autocast_that_is_on_already_decides(device: torch.device) -> None:
    network = Watched(2).to(device)
    image = torch.randn(1, 1, 16, 16, device=device)
    with torch.autocast(device.type, dtype=torch.float16):
        heatmaps = AutocastInferer()(image, network)
    assert network.computed == {torch.float16} and heatmaps.dtype == torch.float16


def test_heatmaps_of_interleaved_channels_become_contiguous(device: torch.device) -> None:
    """Losses and the decoder read each heatmap as a whole."""
    network = Watched(2).to(device, memory_format=torch.channels_last)
    image = torch.randn(1, 1, 16, 16, device=device).to(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert not network(image).is_contiguous()
    assert AutocastInferer()(image, network).is_contiguous()


def test_float64_stays(device: torch.device) -> None:
    """Nothing that is more than float32 is made less."""
    network = torch.nn.Identity()
    image = torch.randn(1, 1, 4, 4, device=device, dtype=torch.float64)
    assert AutocastInferer()(image, network).dtype == torch.float64


@pytest.mark.parametrize("dtype", ["bfloat61", "int8", torch.int8, "nn"])
def test_other_types_are_refused(dtype: str | torch.dtype) -> None:
    with pytest.raises(ValueError, match="floating-point type"):
        AutocastInferer(dtype=dtype)


@pytest.mark.parametrize(
    "width, size", [(3, (2, 4, 7)), (5, (4, 8, 14)), (5, (3, 3, 3)), (7, (6, 10, 6)), (3, (6, 5, 6))]
)
def test_gradients_of_kernels_wider_than_their_input(width: int, size: tuple[int, ...], device: torch.device) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(45, 32, width, padding=width // 2).to(device)
    image = torch.randn(1, 45, *size, device=device)
    gradients = []
    for enabled in (True, False):
        network.zero_grad()
        AutocastInferer(enabled=enabled)(image, network).sin().sum().backward()
        assert network.weight.grad is not None
        gradients.append(network.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=0, atol=0.02 * float(gradients[1].abs().max()))
