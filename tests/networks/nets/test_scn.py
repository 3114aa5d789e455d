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

"""SCN compared to its published layer table, and in all common uses of a network."""

from __future__ import annotations

import pytest
import torch
import torch.nn as nn
from monai.utils import optional_import

from monai_landmarks.networks.nets import SCN

SMALL = {"features": 8, "spatial_factor": 4, "spatial_kernel": 3}
onnxruntime, has_onnxruntime = optional_import("onnxruntime")
_, has_onnxscript = optional_import("onnxscript")


def assert_equal_up_to_rounding(found, expected):
    """Scripted and exported networks call other functions for some layers. Errors are relative to the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.detach().abs().max()))


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "dims,landmarks,local,spatial,total",
    [(2, 19, 1.79, 4.55, 6.35), (2, 37, None, None, 6.93), (3, 26, 1.37, 3.95, 5.33), (3, 32, None, None, 5.60)],
)
def test_published_parameter_counts(dims, landmarks, local, spatial, total):
    net = SCN(dims, 1, landmarks)
    assert round(count(net) / 1e6, 2) == total
    if local:
        assert round(count(net.local_appearance) / 1e6, 2) == local
        assert round(count(net.spatial_configuration) / 1e6, 2) == spatial


def reference_local_appearance(net, image, dims):
    """The additive U-Net of section 1.2.1 in words, from the weights of ``net``."""
    body, head = net.local_appearance
    up = {"scale_factor": 2, "mode": "bilinear" if dims == 2 else "trilinear", "align_corners": False}
    pool = nn.functional.avg_pool2d if dims == 2 else nn.functional.avg_pool3d

    def conv(sequence, x):
        return nn.functional.leaky_relu(sequence[0](x), 0.1)

    x = conv(body.stem, image)
    parallel = []
    for level in range(4):
        first, second = body.contracting[level]
        x = conv(second, conv(first, x if level == 0 else pool(x, 2)))
        parallel.append(conv(body.skips[level], x))
    u = parallel[3]
    for level in (2, 1, 0):
        u = parallel[level] + nn.functional.interpolate(u, **up)
    return head(u)


@pytest.mark.parametrize("dims,size", [(2, (64, 48)), (3, (32, 40, 32))])
def test_forward_is_the_published_computation(dims, size):
    torch.manual_seed(0)
    net = SCN(dims, 1, 3, features=6, spatial_factor=4).eval()
    for head in (net.local_appearance[-1], net.spatial_configuration[-2]):
        nn.init.normal_(head.weight, std=0.1)  # away from zero, so that a difference shows
    image = torch.randn(1, 1, *size)
    heatmaps, local, configuration = net.forward_maps(image)
    assert torch.allclose(local, reference_local_appearance(net, image, dims), atol=1e-5)
    pool = nn.functional.avg_pool2d if dims == 2 else nn.functional.avg_pool3d
    x = pool(local, 4)
    for layer in (0, 1, 2):
        x = nn.functional.leaky_relu(net.spatial_configuration[layer][0](x), 0.1)
    x = torch.tanh(net.spatial_configuration[3](x))
    assert torch.allclose(configuration, net.refine(x), atol=1e-5)
    assert torch.equal(heatmaps, local * configuration)
    assert torch.equal(net(image), heatmaps)


@pytest.mark.parametrize("dims,std", [(2, 1e-4), (3, 1e-3)])
def test_published_initialization(dims, std):
    torch.manual_seed(0)
    net = SCN(dims, 1, 19)
    for head in (net.local_appearance[-1], net.spatial_configuration[-2]):
        # the truncation at two standard deviations leaves 0.88 of the standard deviation
        assert head.weight.std().item() == pytest.approx(0.88 * std, rel=0.05)
        assert head.weight.abs().max() <= 2 * std
        assert head.bias.abs().max() == 0
    hidden = net.local_appearance[0].contracting[1][0][0]
    assert hidden.weight.std().item() == pytest.approx((2 / hidden.weight[0].numel()) ** 0.5, rel=0.05)


def test_published_form_has_no_normalization_and_half_dropout():
    modules = list(SCN(2, 1, 19).modules())
    assert not [m for m in modules if "Norm" in type(m).__name__]
    # element-wise dropout, after the first convolution of each of the four contracting blocks
    dropouts = [m for m in modules if isinstance(m, nn.modules.dropout._DropoutNd)]
    assert [(type(m), m.p) for m in dropouts] == [(nn.Dropout, 0.5)] * 4


@pytest.mark.parametrize("dims,mode", [(2, {"zeros"}), (3, {"zeros", "reflect"})])
def test_published_padding(dims, mode):
    convs = [m for m in SCN(dims, 1, 5, features=4).modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))]
    assert {c.padding_mode for c in convs} == mode
    # the head of the local appearance pads with zeros in either dimension
    assert SCN(dims, 1, 5, features=4).local_appearance[-1].padding_mode == "zeros"


@pytest.mark.parametrize("form", ["mia2019", "verse2019", "miccai2016"])
@pytest.mark.parametrize("size", [(40, 52), (37, 50), (33, 20, 18)])
def test_any_form_and_size(form, size):
    net = SCN(len(size), 2, 5, form=form, **SMALL).eval()
    assert net(torch.zeros(1, 2, *size)).shape == (1, 5, *size)


def test_verse_form_has_concatenated_skips_and_a_quarter_grid():
    net = SCN(3, 1, 5, form="verse2019", features=4)
    assert net.spatial_factor == 4
    expanding = net.local_appearance[0].expanding
    assert [block[0][0].in_channels for block in expanding] == [8, 8, 8]


def test_miccai_form_lets_no_map_see_itself():
    torch.manual_seed(0)
    net = SCN(2, 1, 4, form="miccai2016", features=4, spatial_kernel=3, head_init_std=0.5)
    maps = torch.randn(1, 4, 8, 8, requires_grad=True)
    for landmark in range(4):
        (gradient,) = torch.autograd.grad(net.spatial_configuration(maps)[:, landmark].sum(), maps)
        seen = gradient.abs().sum(dim=(0, 2, 3)) > 0
        assert seen.tolist() == [other != landmark for other in range(4)]


def test_spatial_bias_starts_as_the_local_appearance():
    net = SCN(2, 1, 3, spatial_bias=1.0, **SMALL).eval()
    _, _, configuration = net.forward_maps(torch.randn(1, 1, 64, 64))
    inner = configuration[..., 16:-16, 16:-16]
    assert torch.allclose(inner, torch.tanh(torch.tensor(1.0)).expand_as(inner), atol=1e-2)


@pytest.mark.parametrize("options", [{"norm": "instance"}, {"local_appearance": "unet"}, {"local_appearance": "plain"}])
def test_options_train(options):
    torch.manual_seed(0)
    net = SCN(2, 1, 3, **SMALL, **options)
    net(torch.randn(1, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("options", [{}, {"form": "verse2019"}, {"form": "miccai2016"}, {"local_appearance": "unet"}])
@pytest.mark.parametrize("dims", [2, 3])
def test_torchscript(dims, options):
    torch.manual_seed(0)
    net = SCN(dims, 1, 3, **SMALL, **options, head_init_std=0.1).eval()
    image = torch.randn(1, 1, *(40, 24, 17)[:dims])
    with torch.no_grad():
        expected = net(image)
        assert_equal_up_to_rounding(torch.jit.script(net)(image), expected)
        traced = torch.jit.trace(net, image, check_trace=False)  # the next line compares the results
        assert_equal_up_to_rounding(traced(image), expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.skipif(not (has_onnxruntime and has_onnxscript), reason="needs onnxscript and onnxruntime, extra 'export'")
def test_onnx(dims, tmp_path):
    # in 2-D with the options of the bundles
    unet = {"local_appearance": "unet", "unet_features": [8] * 6, "norm": "instance", "spatial_bias": 1.0}
    net = SCN(dims, 1, 3, **SMALL, **(unet if dims == 2 else {}), head_init_std=0.1).eval()
    image = torch.randn(1, 1, *(32, 32, 24)[:dims])
    path = tmp_path / "scn.onnx"
    torch.onnx.export(net, (image,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert torch.allclose(torch.as_tensor(result), net(image), atol=1e-4)


def test_compiled_graph_is_whole():
    # the "eager" backend checks that the whole forward is one graph, without the minutes that a C++ compiler takes
    torch.manual_seed(0)
    net = SCN(2, 1, 3, **SMALL, head_init_std=0.1).eval()
    image = torch.randn(1, 1, 37, 50)
    assert_equal_up_to_rounding(torch.compile(net, backend="eager", fullgraph=True)(image), net(image))


@pytest.mark.parametrize("dims", [2, 3])
def test_mixed_precision_and_channels_last(dims, device):
    torch.manual_seed(0)
    net = SCN(dims, 1, 3, **SMALL, head_init_std=0.1).to(device).eval()
    image = torch.randn(1, 1, *(32, 32, 16)[:dims], device=device)
    expected = net(image)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mixed = net(image)
    assert (mixed - expected).abs().max() < 0.05 * expected.abs().max()
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    last = net.to(memory_format=layout)(image.to(memory_format=layout))
    assert torch.allclose(last, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"spatial_dims": 1}, "spatial_dims"),
        ({"form": "mia2020"}, "form"),
        ({"local_appearance": "resnet"}, "local_appearance"),
        ({"spatial_kernel": 4}, "odd"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SCN(**{"spatial_dims": 2, "in_channels": 1, "num_landmarks": 3, **arguments})


def test_too_small_an_image_says_so():
    with pytest.raises(ValueError, match="too short"):
        SCN(3, 1, 3, features=4)(torch.zeros(1, 1, 16, 16, 16))
