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


"""The fast layers against the layers that they replace: outputs, gradients, names of parameters, TorchScript, export."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from functools import cache

import pytest
import torch
import torch.nn as nn
from monai.networks.nets import BasicUNet
from torch.testing import assert_close

from monai_landmarks.networks.layers import (
    InstanceNormActivation,
    LeanUpCat,
    SliceGradientConv3d,
    UncountedBatchNorm,
    instance_norm_activation,
    slice_gradient_conv,
    use_fast_layers,
)

ACTIVATIONS = {"relu": nn.ReLU(inplace=True), "leaky": nn.LeakyReLU(0.1, inplace=True), "none": nn.Identity()}
NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def norm_and_activation(spatial_dims: int, affine: bool, activation: str) -> nn.Sequential:
    torch.manual_seed(0)
    norm = NORMS[spatial_dims](5, affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return nn.Sequential(norm, nn.Dropout(0.0), deepcopy(ACTIVATIONS[activation]))


def results(net: nn.Module, *inputs: torch.Tensor, target: torch.Tensor | None = None) -> list[torch.Tensor]:
    """The output, and the gradients of inputs and parameters."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    output = net(*leaves)
    target = torch.sin(torch.arange(output.numel()).to(output)).view_as(output) if target is None else target
    return [output, *torch.autograd.grad(output, [*leaves, *net.parameters()], target)]


@pytest.mark.parametrize("part", [1, 40, 2**18])  # one channel, some channels, several images at a time
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape, dtype", [((3, 5, 4, 6), torch.float32), ((2, 5, 3, 2, 4), torch.float64)])
def test_norm_and_activation_are_those_of_torch(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    affine: bool,
    activation: str,
    part: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instance_norm_activation, "_PART", part)
    plain = norm_and_activation(len(shape) - 2, affine, activation).to(dtype)
    fast = InstanceNormActivation.convert(deepcopy(plain))
    assert plain.state_dict().keys() == fast.state_dict().keys()
    x = torch.randn(shape, dtype=dtype) * 3 + 1
    assert_close(results(fast, x), results(plain, x), rtol=2e-5, atol=2e-5)
    with torch.no_grad():
        assert_close(fast.eval()(x), plain.eval()(x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("affine, activation", [(False, "leaky"), (True, "relu")])
def test_gradients_of_norm_and_activation(affine: bool, activation: str) -> None:
    fast = InstanceNormActivation.convert(norm_and_activation(2, affine, activation)).double()
    assert torch.autograd.gradcheck(fast, torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("activation", ["leaky", "none"])
def test_memory_formats_of_input_and_gradient(activation: str) -> None:
    plain = norm_and_activation(2, False, activation)
    fast = InstanceNormActivation.convert(deepcopy(plain))
    x = torch.randn(2, 5, 4, 6).to(memory_format=torch.channels_last)
    assert fast(x).is_contiguous()
    # as from a concatenation of channels, and as from a sum
    for gradient in (torch.randn(2, 9, 4, 6)[:, 2:7], torch.ones(()).expand(2, 5, 4, 6)):
        assert_close(results(fast, x, target=gradient), results(plain, x, target=gradient))


def test_the_output_without_activation_may_be_changed_in_place() -> None:
    """As in a residual block: norm, sum, ReLU in place."""
    plain = nn.InstanceNorm2d(5)
    fast = InstanceNormActivation.convert(nn.Sequential(deepcopy(plain)))
    x = torch.randn(2, 5, 4, 6)

    def gradient(norm: nn.Module) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        out = norm(leaf)
        out += leaf
        return torch.autograd.grad(nn.functional.relu_(out).square().sum(), leaf)[0]

    assert_close(gradient(fast), gradient(plain))


def test_the_variance_of_one_voxel_is_an_error_as_in_torch() -> None:
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        InstanceNormActivation(5)(torch.zeros(1, 5, 1, 1))


def test_the_normalized_values_are_not_stored() -> None:
    sizes: list[int] = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.numel())
        return x

    fast = InstanceNormActivation.convert(norm_and_activation(2, False, "leaky"))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        fast(torch.randn(2, 5, 8, 8, requires_grad=True))
    assert sorted(sizes) == [10, 10, 640]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel, padding", [(3, 1), (5, (2, 1, 0)), (3, (0, 2, 1))])
def test_gradients_of_a_convolution_slice_by_slice(
    kernel: int, padding: int | tuple[int, int, int], bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_gradient_conv, "_is_faster_here", lambda: True)
    monkeypatch.setattr(slice_gradient_conv, "_LEAST_VOXELS", 1)
    torch.manual_seed(0)
    plain = nn.Conv3d(3, 4, kernel, padding=padding, bias=bias)
    fast = SliceGradientConv3d.convert(nn.Sequential(deepcopy(plain)))
    x = torch.randn(2, 3, 6, 7, 5)
    found, expected = results(fast, x), results(plain, x)
    assert "SliceGradient" in type(fast(x).grad_fn).__name__
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"stride": 2}, {"dilation": 2}, {"groups": 3}, {"padding_mode": "reflect"}])
def test_other_convolutions_are_those_of_torch(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_gradient_conv, "_is_faster_here", lambda: True)
    monkeypatch.setattr(slice_gradient_conv, "_LEAST_VOXELS", 1)
    torch.manual_seed(0)
    plain = nn.Conv3d(3, 3, 3, padding=1, **options)
    fast = SliceGradientConv3d.convert(nn.Sequential(deepcopy(plain)))
    x = torch.randn(1, 3, 6, 7, 5)
    assert_close(results(fast, x), results(plain, x), rtol=0, atol=0)


@pytest.mark.parametrize("instructions, is_faster, words", [("AVX2", True, "slice by"), ("AVX512", False, "by torch")])
def test_the_choice_for_a_processor_is_logged_once(
    instructions: str, is_faster: bool, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    monkeypatch.setattr(slice_gradient_conv, "_is_faster_here", cache(slice_gradient_conv._is_faster_here.__wrapped__))
    caplog.set_level("INFO")
    net = SliceGradientConv3d.convert(nn.Sequential(nn.Conv3d(1, 1, 3)))
    for images in (0, 1):
        output = net(torch.zeros(images, 1, 20, 20, 21))
        assert ("SliceGradient" in type(output.grad_fn).__name__) == is_faster
    (line,) = caplog.messages
    assert instructions in line and words in line


@pytest.mark.parametrize("shape", [(32, 48), (37, 45), (32, 33, 34)])  # even sizes, and odd ones that need padding
def test_a_u_net_is_that_of_monai(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain = BasicUNet(len(shape), 1, 2, features=(4,) * 6, norm="instance").double()
    fast = use_fast_layers(deepcopy(plain))
    assert plain.state_dict().keys() == fast.state_dict().keys()
    assert sum(isinstance(layer, LeanUpCat) for layer in fast.modules()) == 4
    x = torch.randn(1, 1, *shape, dtype=torch.float64)
    assert_close(results(fast, x), results(plain, x))


def test_torchscript_and_export() -> None:
    torch.manual_seed(0)
    plain = BasicUNet(2, 1, 2, features=(4,) * 6)
    fast = use_fast_layers(deepcopy(plain))
    x = torch.randn(1, 1, 32, 48)
    expected = plain(x)
    assert_close(torch.jit.script(fast)(x), expected)
    assert_close(torch.jit.trace(fast, x)(x), expected)
    assert_close(torch.export.export(fast, (x,)).module()(x), expected)
    assert pickle.loads(pickle.dumps(fast))(x).equal(fast(x))


@pytest.mark.parametrize("layer, shape", [(nn.BatchNorm2d, (2, 3, 5, 4)), (nn.BatchNorm3d, (2, 3, 4, 3, 2))])
def test_batch_norm_without_a_count_has_the_same_statistics(
    layer: Callable[..., nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(layer(3, momentum=0.3, eps=0.1))
    fast = UncountedBatchNorm.convert(deepcopy(plain))
    for step in range(2):
        x = torch.randn(shape) + step
        assert_close(results(fast, x), results(plain, x))
    count = "0.num_batches_tracked"
    expected = plain.state_dict()
    assert int(expected.pop(count)) == 2 and int(fast.state_dict()[count]) == 0
    assert_close({key: value for key, value in fast.state_dict().items() if key != count}, dict(expected))
    assert_close(fast.eval()(x), plain.eval()(x))
    assert_close(torch.jit.script(fast)(x), plain(x))
    fast.load_state_dict(plain.state_dict())
    data = [torch.randn(shape) * (step + 1) + 10 * step for step in range(3)]
    for network in (plain, fast):  # sets the momentum to None, for the mean over all batches
        torch.optim.swa_utils.update_bn(data, network)
    assert_close(fast.state_dict(), plain.state_dict())
    assert_close(fast[0].running_mean, torch.stack([x.transpose(0, 1).flatten(1).mean(1) for x in data]).mean(0))
    for kept in (layer(3, momentum=None), layer(3, track_running_stats=False)):
        assert type(UncountedBatchNorm.convert(kept)) is layer
