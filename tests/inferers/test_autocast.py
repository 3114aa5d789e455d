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
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from monai_landmarks.inferers import AutocastInferer, Precision, choose_dtype


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
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_computes_in_half_and_gives_float(spatial_dims: int, precision: Precision, device: torch.device) -> None:
    network = Watched(spatial_dims).to(device)
    image = torch.randn(2, 1, *[16] * spatial_dims, device=device)
    heatmaps = AutocastInferer(precision=precision)(image, network)
    assert network.computed == {getattr(torch, precision)} and heatmaps.dtype == torch.float32
    # bfloat16 keeps eight bits
    torch.testing.assert_close(heatmaps, network(image), rtol=2e-2, atol=2e-2)
    heatmaps.sum().backward()
    assert network.conv.weight.grad is not None and network.conv.weight.grad.dtype == torch.float32


def test_goes_around_another_inferer(device: torch.device) -> None:
    network = Watched(2).to(device)
    image = torch.randn(1, 1, 40, 40, device=device)
    heatmaps = AutocastInferer(SlidingWindowInferer(roi_size=(24, 24)), precision="bfloat16")(image, network)
    assert network.computed == {torch.bfloat16} and heatmaps.shape == (1, 2, 40, 40)


def test_float32_changes_nothing(device: torch.device) -> None:
    network = Watched(2).to(device)
    image = torch.randn(1, 1, 16, 16, device=device)
    torch.testing.assert_close(AutocastInferer(precision="float32")(image, network), network(image), rtol=0, atol=0)
    assert network.computed == {torch.float32}


def test_autocast_that_is_on_already_decides(device: torch.device) -> None:
    network = Watched(2).to(device)
    image = torch.randn(1, 1, 16, 16, device=device)
    with torch.autocast(device.type, dtype=torch.float16):
        heatmaps = AutocastInferer(precision="bfloat16")(image, network)
    assert network.computed == {torch.float16} and heatmaps.dtype == torch.float16


def test_heatmaps_of_interleaved_channels_become_contiguous(device: torch.device) -> None:
    """Losses and the decoder read each heatmap as a whole."""
    network = Watched(2).to(device, memory_format=torch.channels_last)
    image = torch.randn(1, 1, 16, 16, device=device).to(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        assert not network(image).is_contiguous()
    assert AutocastInferer(precision="bfloat16")(image, network).is_contiguous()


def test_float64_stays(device: torch.device) -> None:
    """Nothing that is more than float32 is made less."""
    network = torch.nn.Identity()
    image = torch.randn(1, 1, 4, 4, device=device, dtype=torch.float64)
    assert AutocastInferer(precision="bfloat16")(image, network).dtype == torch.float64


@pytest.mark.parametrize("precision", ["bfloat61", "float64", "int8", torch.bfloat16, None])
def test_other_names_are_refused(precision: object) -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, float32, bfloat16, float16"):
        AutocastInferer(precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "able, expected",
    [({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16), ({}, torch.float32)],
)
def test_auto_follows_the_processor(
    able: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False} | able)
    inferer, network = AutocastInferer(), Watched(2)
    with caplog.at_level("INFO"):
        for _ in range(2):
            inferer(torch.zeros(1, 1, 8, 8), network)
    assert network.computed == {expected}
    assert [record.getMessage() for record in caplog.records] == [
        f"The network computes in {expected} on cpu (precision: auto)."
    ]


@pytest.mark.parametrize(
    "capability, expected", [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_auto_follows_the_card(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda", 0)) == expected


def test_auto_is_float32_elsewhere() -> None:
    assert choose_dtype("auto", torch.device("meta")) == torch.float32


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_sees_a_plain_tensor(precision: Precision, device: torch.device) -> None:
    """A MetaTensor makes each operation of the network slower."""
    seen = []

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append(type(image))
        return image

    AutocastInferer(precision=precision)(MetaTensor(torch.zeros(1, 1, 8, 8, device=device)), network)
    assert seen == [torch.Tensor]


@pytest.mark.parametrize(
    "width, size", [(3, (2, 4, 7)), (5, (4, 8, 14)), (5, (3, 3, 3)), (7, (6, 10, 6)), (3, (6, 5, 6))]
)
def test_gradients_of_kernels_wider_than_their_input(width: int, size: tuple[int, ...], device: torch.device) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(45, 32, width, padding=width // 2).to(device)
    image = torch.randn(1, 45, *size, device=device)
    gradients = []
    for precision in ("bfloat16", "float32"):
        network.zero_grad()
        AutocastInferer(precision=precision)(image, network).sin().sum().backward()
        assert network.weight.grad is not None
        gradients.append(network.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=0, atol=0.02 * float(gradients[1].abs().max()))
