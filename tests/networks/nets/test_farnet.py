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


"""FARNet compared to its published layer table, and in all common uses of a network."""

from __future__ import annotations

import copy
from importlib.util import find_spec

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from monai_landmarks.networks.layers import BatchStatisticsNorm, InstanceNormActivation, UncountedBatchNorm
from monai_landmarks.networks.nets import FARNet

DENSENET = ("densenet", {"init_features": 8, "growth_rate": 4, "block_config": (1, 2, 1, 1)})
RESNET = ("resnet18", {"layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8]})
SMALL = {"backbone": RESNET, "features": 16}


def small(dims=2, landmarks=3, in_channels=1, seed=0, **options):
    torch.manual_seed(seed)
    return FARNet(dims, in_channels, landmarks, **{**SMALL, **options})


def running_statistics(net):
    return {k: v.clone() for k, v in net.state_dict().items() if "running" in k}


def count(module):
    return sum(p.numel() for p in module.parameters())


def table(landmarks, stem_kernel, taps=(64, 256, 512, 1024, 1024)):
    """
    Weights outside the backbone, layer by layer as the authors' code has them: kernel, inputs and outputs.

    Without the biases that a normalization takes out, and that of a head's first convolution, which its second has.
    """
    l1, l2, l3, l4, l5 = taps
    normalized = [
        *[(3, l5, 512), (1, 512, 256), (1, 256 + l4, 256), (1, 256 + l3, 256), (1, 256 + l2, 256)],
        *[(3, 256, 512), (1, 768, 512), (3, 512, 1024), (1, 1280, 1024), (3, 1024, 2048), (3, 2304, 1024)],
        *[(1, 1024, 256), (1, 1280, 256), (1, 768, 256), (1, 512, 128), (1, 128 + l1, 64), (stem_kernel, 3, 32)],
    ]
    total = sum(k * k * i * o + 2 * o for k, i, o in normalized)
    for width in (64, 64 + 32 + landmarks):
        total += 9 * width * width + width * landmarks + landmarks
    return total


# the paper drew a stem of 3x3, its code has 1x1
@pytest.mark.parametrize("landmarks,options,stem_kernel", [(19, {"stem_kernel": 1}, 1), (37, {}, 3)])
def test_published_parameter_counts(landmarks, options, stem_kernel):
    with torch.device("meta"):
        net = FARNet(2, 1, landmarks, **options)
    outside = count(net) - count(net.backbone)
    assert outside == table(landmarks, stem_kernel)
    assert round(outside / 1e6, 1) == 54.3
    assert round(count(net) / 1e6, 1) == (61.2 if landmarks == 19 else 61.3)
    # most of it is in two convolutions
    sizes = sorted(p.numel() for p in net.aggregation.parameters())
    assert sizes[-2:] == [9 * 1024 * 2048, 9 * 2304 * 1024]


def reference_forward(net, image):
    """Sections "aggregation" and "refinement" of the paper in words, with the weights of ``net``, in evaluation mode."""
    dims = image.dim() - 2
    conv_nd = F.conv2d if dims == 2 else F.conv3d
    mode = "bilinear" if dims == 2 else "trilinear"

    def cna(layer, x, stride=1):
        x = conv_nd(x, layer.conv.weight, None, stride, layer.conv.weight.shape[-1] // 2)
        return layer.adn.A(layer.adn.N(x))

    def up(x, *others):
        return torch.cat([F.interpolate(x, scale_factor=2, mode=mode, align_corners=False), *others], dim=1)

    def head(layer, x):
        x = conv_nd(x, layer.conv.weight, None, 1, 1)
        return conv_nd(x, layer.project.weight, layer.project.bias)

    l0 = (image - net.statistics.mean) / net.statistics.std if dims == 2 else image
    l1, l2, l3, l4, l5 = net.backbone(l0)
    agg = net.aggregation
    a5 = cna(agg.squeeze[1], cna(agg.squeeze[0], l5))
    a4 = cna(agg.up[0], up(a5, l4))
    a3 = cna(agg.up[1], up(a4, l3))
    b2 = cna(agg.up[2], up(a3, l2))
    b3 = cna(agg.merge[0], torch.cat([cna(agg.down[0], b2, 2), a3], dim=1))
    b4 = cna(agg.merge[1], torch.cat([cna(agg.down[1], b3, 2), a4], dim=1))
    x = cna(agg.merge[2][0], torch.cat([cna(agg.down[2], b4, 2), a5], dim=1))
    x = cna(agg.merge[2][1], x)
    x = cna(agg.up_again[0], up(x, b4))
    x = cna(agg.up_again[1], up(x, b3))
    x = cna(agg.up_again[2], up(x, b2))
    features = cna(agg.up_again[3], up(x, l1))
    coarse = head(net.coarse_head, features)
    stem = cna(net.refinement.stem, l0)
    return head(net.refinement.head, torch.cat([up(features), stem, up(coarse)], dim=1)), coarse


@pytest.mark.parametrize("backbone", [DENSENET, RESNET], ids=["densenet", "resnet"])
@pytest.mark.parametrize("dims,size", [(2, (64, 96)), (3, (32, 64, 32))])
def test_forward_is_the_published_computation(backbone, dims, size):
    net = small(dims, backbone=backbone).eval()
    image = torch.rand(1, 1, *size)
    fine, coarse = net.forward_maps(image)
    expected_fine, expected_coarse = reference_forward(net, image)
    assert torch.allclose(fine, expected_fine, rtol=1e-4, atol=1e-5)
    assert torch.allclose(coarse, expected_coarse, rtol=1e-4, atol=1e-5)
    assert torch.equal(net(image), fine)


@pytest.mark.parametrize("dims,size", [(2, (64, 96)), (3, (32, 64, 32))])
def test_without_refinement_the_coarse_heatmaps_are_interpolated(dims, size):
    whole, coarse_only = small(dims).eval(), small(dims, refinement=False).eval()
    left = coarse_only.load_state_dict(whole.state_dict(), strict=False)
    assert not left.missing_keys and {key.partition(".")[0] for key in left.unexpected_keys} == {"refinement"}
    image = torch.rand(1, 1, *size)
    coarse = whole.forward_maps(image)[1]
    fine = F.interpolate(coarse, scale_factor=2, mode="bilinear" if dims == 2 else "trilinear", align_corners=False)
    assert torch.allclose(coarse_only(image), fine, atol=1e-6)
    assert "refinement.head.conv.weight" not in coarse_only.landmark_axes()


@pytest.mark.parametrize("dims,size", [(2, (64, 96)), (3, (32, 64, 32))])
@pytest.mark.parametrize("stages", [4, 5])
def test_without_aggregation_there_is_one_path_up(dims, size, stages):
    net = small(dims, aggregation=False, num_stages=stages, norm="instance").eval()
    image = torch.rand(1, 1, *size)
    mode = "bilinear" if dims == 2 else "trilinear"
    taps = net.backbone(net.statistics(image))

    def layer(module, x):
        conv = F.conv2d if dims == 2 else F.conv3d
        x = F.instance_norm(conv(x, module.conv.weight))
        return F.relu(x) if dims == 2 else F.leaky_relu(x)

    x = layer(net.aggregation.squeeze, taps[-1])
    for skip, module in zip(taps[-2::-1], net.aggregation.up, strict=True):
        x = layer(module, torch.cat([F.interpolate(x, scale_factor=2, mode=mode, align_corners=False), skip], dim=1))
    assert x.shape == (1, 4, *[length // 2 for length in size])
    assert torch.allclose(net.aggregation(taps), x, atol=1e-4)
    assert net(image).shape == (1, 3, *size)


@pytest.mark.parametrize("options", [{"aggregation": False}, {"refinement": False}, {"backbone": "efficientnet_lite0"}])
def test_variants_train_every_parameter_and_are_scripted(options):
    net = small(**{"act": "leakyrelu", **options})
    net(torch.rand(2, 1, 64, 96)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    net, image = net.eval(), torch.rand(1, 1, 64, 64)
    assert torch.allclose(torch.jit.script(net)(image), net(image), atol=1e-5)
    assert torch.allclose(torch.jit.trace(net, image, check_trace=False)(image), net(image), atol=1e-5)


@pytest.mark.parametrize("features,limit,widths", [(16, None, (16, 32, 64, 128)), (32, 64, (32, 64, 64, 64))])
def test_widths_are_in_proportion_and_limited(features, limit, widths):
    net = small(features=features, max_features=limit)
    assert [net.aggregation.squeeze[1].conv.out_channels, *[d.conv.out_channels for d in net.aggregation.down]] == [
        *widths
    ]
    assert net.aggregation.up_again[-1].conv.out_channels == features // 4
    assert net.refinement.stem.conv.out_channels == features // 8


def test_three_dimensions_are_narrower():
    with torch.device("meta"):
        net = FARNet(3, 1, 5, backbone=RESNET, num_stages=4)
    assert max(c.out_channels for c in net.aggregation.modules() if isinstance(c, nn.Conv3d)) == 256
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    assert {type(m) for m in norms} == {InstanceNormActivation}
    # leaky outside the backbone
    assert {m.negative_slope for m in net.aggregation.modules() if isinstance(m, InstanceNormActivation)} == {0.01}


@pytest.mark.parametrize("backbone", [DENSENET, RESNET], ids=["densenet", "resnet"])
@pytest.mark.parametrize("stages", [4, 5])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_fine_heatmaps_train_every_parameter(backbone, stages, dims):
    net = small(dims, backbone=backbone, num_stages=stages, act="leakyrelu")
    net(torch.rand(2, 1, *(64, 32, 32)[:dims])).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("size", [(64, 96), (45, 77), (33, 32), (40, 32, 33)])
@pytest.mark.parametrize("stages", [4, 5])
def test_any_size(size, stages):
    net = small(len(size), landmarks=5, num_stages=stages).eval()
    tapped = []
    net.coarse.register_forward_hook(lambda module, inputs, output: tapped.append(output))
    image = torch.rand(1, 1, *size)
    fine = net(image)
    (coarse,) = tapped
    assert fine.shape == (1, 5, *size)
    assert coarse.shape == (1, 5, *[(length + 1) // 2 for length in size])
    # as if the user had repeated the border up to a multiple of the stride
    stride = 2**stages
    indices = [torch.arange(-(-length // stride) * stride).clamp(max=length - 1) for length in size]
    padded = image[(slice(None), slice(None), *torch.meshgrid(*indices, indexing="ij"))]
    fine_padded, coarse_padded = net.forward_maps(padded)
    assert torch.equal(fine, fine_padded[(..., *[slice(length) for length in size])])
    assert torch.equal(coarse, coarse_padded[(..., *[slice((length + 1) // 2) for length in size])])


@pytest.mark.parametrize("compile", [lambda net: net, torch.jit.script], ids=["eager", "script"])
def test_images_that_do_not_fit_say_so(compile):
    net = compile(small())
    for size, message in (
        ((1, 32, 32), "too small"),
        ((1, 31, 96), "too small"),
        ((2, 64, 64), "2, 64, 64.*1 channels"),
        ((64, 64), "2 spatial axes"),
    ):
        # a scripted function raises torch.jit.Error with the same text
        with pytest.raises((ValueError, torch.jit.Error), match=message):
            net(torch.zeros(1, *size))


def test_what_to_change_for_a_small_image():
    with pytest.raises(ValueError, match=r"\[32, 32\] is too small.*32 times coarser.*num_stages=4"):
        small()(torch.zeros(1, 1, 32, 32))
    assert small(num_stages=4)(torch.zeros(1, 1, 32, 32)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"16 times coarser.*larger image\.$"):
        small(num_stages=4)(torch.zeros(1, 1, 16, 16))


def test_gray_is_rgb_with_equal_channels():
    gray, rgb = small(in_channels=1).eval(), small(in_channels=3).eval()
    image = torch.rand(1, 1, 64, 64)
    assert torch.allclose(gray(image), rgb(image.expand(1, 3, 64, 64)), atol=1e-6)


def test_imagenet_statistics_are_applied_inside():
    inside, outside = small(in_channels=3).eval(), small(in_channels=3, input_statistics=None).eval()
    outside.load_state_dict(inside.state_dict())
    image = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    assert torch.allclose(inside(image), outside((image - mean) / std), atol=1e-6)


def test_statistics_of_efficientnet_lite():
    inside = small(backbone="efficientnet_lite0").eval()
    outside = small(backbone="efficientnet_lite0", in_channels=3, input_statistics=None).eval()
    outside.load_state_dict(inside.state_dict())
    image = torch.rand(1, 1, 64, 64)
    assert torch.allclose(inside(image), outside((255 * image.expand(1, 3, 64, 64) - 127) / 128), atol=1e-5)


@pytest.mark.parametrize(
    "dims,channels,statistics,seen", [(2, 1, "auto", 3), (2, 3, "auto", 3), (2, 2, "auto", 2), (3, 1, "auto", 1)]
)
def test_channels_that_the_backbone_sees(dims, channels, statistics, seen):
    net = small(dims, in_channels=channels, input_statistics=statistics)
    assert net.backbone.stages[0].conv1.in_channels == net.refinement.stem.conv.in_channels == seen
    assert small(dims, in_channels=channels, input_statistics=None).refinement.stem.conv.in_channels == channels


def test_weights_reach_the_backbone(tmp_path):
    source = small(seed=1)
    torch.save(source.backbone.state_dict(), tmp_path / "weights.pth")
    net = small(weights=tmp_path / "weights.pth")
    assert all(torch.equal(a, b) for a, b in zip(net.backbone.parameters(), source.backbone.parameters(), strict=True))
    assert not torch.equal(net.refinement.head.conv.weight, source.refinement.head.conv.weight)


def test_batch_statistics_at_test_time():
    running, batch = small(), small(batch_statistics=True)
    batch.load_state_dict(running.state_dict())
    image = torch.rand(2, 1, 64, 64)
    before = running_statistics(batch)
    tested = batch.eval()(image)
    assert all(torch.equal(value, before[key]) for key, value in running_statistics(batch).items())
    # a network in training mode uses the statistics of the batch
    assert torch.equal(tested, running.train()(image))
    assert not torch.allclose(tested, running.eval()(image), atol=1e-3)
    batch.train()(image)
    changed = running_statistics(batch)
    assert before and not any(torch.equal(value, before[key]) for key, value in changed.items())
    assert not [m for m in batch.modules() if isinstance(m, (nn.BatchNorm2d, UncountedBatchNorm))]
    assert [m for m in batch.backbone.modules() if isinstance(m, BatchStatisticsNorm)]


def test_batch_statistics_without_batch_normalization_are_refused():
    with pytest.raises(ValueError, match="this network has none: norm is .*instance"):
        small(norm="instance", backbone_norm="instance", batch_statistics=True)


@pytest.mark.parametrize("backbone", [DENSENET, RESNET], ids=["densenet", "resnet"])
def test_instance_normalization_learns_scale_and_shift(backbone):
    net = small(backbone=backbone, norm="instance", backbone_norm="instance")
    norms = [m for m in net.modules() if "Norm" in type(m).__name__]
    assert {type(m) for m in norms} == {InstanceNormActivation}
    assert all(m.affine for m in norms)
    plain = small(norm=("instance", {"affine": False}))
    assert not plain.refinement.stem.adn.N.affine


def test_group_normalization_makes_images_independent_of_their_batch():
    group = ("group", {"num_groups": 2})
    net = small(norm=group, backbone_norm=group).train()
    images = torch.rand(2, 1, 64, 64)
    assert torch.allclose(net(images)[:1], net(images[:1]), atol=1e-5)


def test_heads_start_small():
    net = small(landmarks=50, features=64, head_init_std=1e-3)
    for head in (net.coarse_head, net.refinement.head):
        assert head.project.weight.std().item() == pytest.approx(1e-3, rel=0.1)
        assert not head.project.bias.any()
        assert head.conv.weight.std() > 1e-2


def test_names_of_the_weights():
    parts = {key.partition(".")[0] for key in small().state_dict()}
    assert parts == {"backbone", "aggregation", "coarse_head", "refinement"}


@pytest.mark.parametrize("dims,backbone", [(2, DENSENET), (3, RESNET)], ids=["2d-densenet", "3d-resnet"])
def test_torchscript(dims, backbone):
    net = small(dims, backbone=backbone).eval()
    image = torch.rand(1, 1, *(70, 40, 33)[:dims])
    with torch.no_grad():
        expected = net(image)
        assert torch.allclose(torch.jit.script(net)(image), expected, atol=1e-5)
        traced = torch.jit.trace(net, image, check_trace=False)  # the next line compares the results
        assert torch.allclose(traced(image), expected, atol=1e-5)


def test_scripted_network_takes_any_size():
    net = small(batch_statistics=True).eval()
    scripted = torch.jit.script(net)
    for size in ((64, 64), (77, 45), (32, 100)):
        image = torch.rand(2, 1, *size)
        assert torch.allclose(scripted(image), net(image), atol=1e-5)


def test_exported_with_free_batch_and_size():
    net = small(num_stages=4).eval()
    height, width = torch.export.Dim("h", min=2, max=20), torch.export.Dim("w", min=2, max=20)
    shapes = {"x": {0: torch.export.Dim("b"), 2: 16 * height, 3: 16 * width}}
    exported = torch.export.export(net, (torch.rand(2, 1, 64, 48),), dynamic_shapes=shapes).module()
    image = torch.rand(3, 1, 32, 64)
    assert torch.allclose(exported(image), net(image), atol=1e-5)


@pytest.mark.parametrize("dims,backbone", [(2, DENSENET), (3, RESNET)], ids=["2d-densenet", "3d-resnet"])
@pytest.mark.skipif(
    not (find_spec("onnxruntime") and find_spec("onnxscript")),
    reason="needs onnxscript and onnxruntime, extra 'export'",
)
def test_onnx(dims, backbone, tmp_path):
    import onnxruntime

    net = small(dims, backbone=backbone, num_stages=4, batch_statistics=dims == 2).eval()
    image = torch.rand(1, 1, *(37, 40, 20)[:dims])
    path = tmp_path / "farnet.onnx"
    torch.onnx.export(net, (image,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert torch.allclose(torch.as_tensor(result), net(image), atol=1e-4)


def test_compiled_graph_is_whole():
    # the "eager" backend checks that the whole forward is one graph, without the minutes that a C++ compiler takes
    net = small(num_stages=4).eval()
    image = torch.rand(1, 1, 37, 50)
    assert torch.allclose(torch.compile(net, backend="eager", fullgraph=True)(image), net(image), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_mixed_precision_and_channels_last(dims, device):
    net = small(dims, num_stages=4).to(device).eval()
    image = torch.rand(1, 1, *(64, 45, 32)[:dims], device=device)
    expected = net(image).detach()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mixed = net(image)
    # single pixels of a deep, hardly trained net differ by more
    assert (mixed - expected).norm() < 0.1 * expected.norm()
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    last = net.to(memory_format=layout)(image.to(memory_format=layout))
    assert torch.allclose(last, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("dims", [2, 3])
def test_mixed_precision_trains(dims, device):
    net = small(dims).to(device).train()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        loss = net(torch.rand(2, 1, *(64, 45, 32)[:dims], device=device)).float().square().mean()
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


def test_a_copy_has_its_own_coarse_layer():
    net = small().eval()
    other = copy.deepcopy(net)
    tapped = []
    other.coarse.register_forward_hook(lambda module, inputs, output: tapped.append(output))
    image = torch.rand(1, 1, 64, 64)
    assert torch.equal(net(image), other(image))
    assert len(tapped) == 1


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"spatial_dims": 1}, "spatial_dims"),
        ({"num_stages": 6}, "num_stages"),
        ({"features": 20}, "multiples of 8"),
        ({"stem_kernel": 2}, "odd"),
        ({"input_statistics": "cifar"}, "cifar"),
        ({"input_statistics": "imagenet", "in_channels": 2}, "1 or 3 channels.*None"),
        ({"input_statistics": "imagenet", "spatial_dims": 3}, "3-D.*None"),
        ({"backbone": "unet"}, "unet.*densenet121"),
        ({"spatial_dims": 3, "weights": "imagenet"}, "2-D"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        FARNet(**{"spatial_dims": 2, "in_channels": 1, "num_landmarks": 3, **SMALL, **arguments})
