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
"""Weights for other landmarks: the heatmaps of the kept ones are those of the old network."""

from __future__ import annotations

import pytest
import torch
import torch.nn as nn

from monai_landmarks.networks import learned_weights
from monai_landmarks.networks.nets import SCN, FARNet, LocalizationUNet

OLD = 4
# new landmark to old one: exchanged; one new; one left out, and one more new than left out
KEPT = {"exchanged": [1, 0, 3, 2], "new": [0, None, 1, 2, 3], "renamed": [3, None, 1, 0], "fewer": [2, 0]}
BACKBONE = ("densenet", {"init_features": 8, "growth_rate": 4, "block_config": [1, 1, 1, 1]})
NETWORKS = {
    "scn": lambda n, d: SCN(d, 1, n, features=8, spatial_factor=4, spatial_kernel=3, padding_mode="zeros", dropout=0.0),
    "scn-unet": lambda n, d: SCN(
        d, 1, n, features=8, local_appearance="unet", unet_features=(8,) * 6, norm="instance", spatial_kernel=3,
        spatial_factor=4, padding_mode="zeros", head_init_std=0.1, spatial_bias=1.0,
    ),
    "scn-2016": lambda n, d: SCN(d, 1, n, form="miccai2016", features=8, spatial_kernel=3, spatial_factor=4),
    "farnet": lambda n, d: FARNet(d, 1, n, backbone=BACKBONE, features=32, norm="instance", backbone_norm="instance"),
    "unet": lambda n, d: LocalizationUNet(d, 1, n, features=(8,) * 6),
    "unet-stride": lambda n, d: LocalizationUNet(d, 1, n, features=(8,) * 6, stride=2),
    "unet-deep": lambda n, d: LocalizationUNet(d, 1, n, features=(8,) * 6, deep_supervision=2),
}  # fmt: skip


def make(name, num_landmarks, dims):
    torch.manual_seed(num_landmarks)
    network = NETWORKS[name](num_landmarks, dims).eval()
    with torch.no_grad():  # as after a training: no weight is as it was initialized
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def silence(network, left_out):
    """Make the maps of landmarks that are left out zero where they are an input."""
    if isinstance(network, SCN):
        parts = (network.local_appearance[1],)
    else:
        parts = (network.coarse_head.project,) if isinstance(network, FARNet) else ()
    with torch.no_grad():
        for head in parts:
            head.weight[left_out] = 0
            head.bias[left_out] = 0


CASES = [(name, kept, 2) for name in NETWORKS for kept in KEPT]
CASES += [(name, "renamed", 3) for name in NETWORKS if name != "unet-stride"]  # which is 2-D only


@pytest.mark.parametrize(("name", "kept", "dims"), CASES)
def test_heatmaps_of_kept_landmarks_do_not_change(name, kept, dims):
    kept = KEPT[kept]
    old, new = make(name, OLD, dims), make(name, len(kept), dims)
    fresh = {key: value.clone() for key, value in new.state_dict().items()}
    state = learned_weights(new, {key: value.half().float() for key, value in old.state_dict().items()}, kept)
    torch.testing.assert_close(new.state_dict(), fresh, rtol=0, atol=0)  # it is not changed
    old.load_state_dict({key: value.half().float() for key, value in old.state_dict().items()})
    new.load_state_dict(state)
    silence(old, [row for row in range(OLD) if row not in kept])
    image = torch.randn(1, 1, 64, *(32,) * (dims - 1))
    with torch.no_grad():
        before, after = old(image), new(image)
    common = [i for i, row in enumerate(kept) if row is not None]
    expected = before[:, [kept[i] for i in common]]
    assert expected.std() > 0
    torch.testing.assert_close(after[:, common], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    if kept == KEPT["exchanged"] and name != "farnet":
        for key, axes in new.landmark_axes().items():  # nothing of the fresh weights is left
            assert not torch.equal(state[key], fresh[key]) and axes


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_of_new_landmarks_are_fresh(name):
    new = make(name, 3, 2)
    state = learned_weights(new, make(name, OLD, 2).state_dict(), [2, None, 0])
    outputs = {key: axes[-1] for key, axes in new.landmark_axes().items() if axes[-1].axis == 0}
    assert outputs
    for key, axis in outputs.items():
        rows = slice(axis.block, 2 * axis.block)
        torch.testing.assert_close(state[key][rows], new.state_dict()[key][rows], rtol=0, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_landmarks_is_in_the_stated_parameters_only(name):
    """Of two networks, exactly the stated parameters differ in shape, and those of the hidden channels of FARNet."""
    shapes = [{key: value.shape for key, value in make(name, n, 2).state_dict().items()} for n in (3, 5)]
    differing = {key for key in shapes[0] if shapes[0][key] != shapes[1][key]}
    assert differing == set(make(name, 3, 2).landmark_axes())


@pytest.mark.parametrize("name", NETWORKS)
def test_first_layers_exist(name):
    network = make(name, 3, 2)
    parameters = [key for key, _ in network.named_parameters()]
    first = [key for key in parameters if key.startswith(network.first_layers())]
    assert all(any(key.startswith(f"{layer}.") for key in parameters) for layer in network.first_layers())
    assert first[0] == parameters[0] and 0 < len(first) < len(parameters)
    assert not set(first) & set(network.landmark_axes())


def test_what_does_not_fit_is_refused():
    new = make("unet", 2, 2)
    for weights, message in (
        (make("scn", 2, 2).state_dict(), "the weights are not of this LocalizationUNet: they "),
        (LocalizationUNet(2, 3, 2, features=(8,) * 6).state_dict(), r"shape \[8, 3, 3, 3\], which does not fit"),
        (make("unet", 1, 2).state_dict(), "final_conv.weight' of the weights has the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            learned_weights(new, weights, [0, 1])
    with pytest.raises(ValueError, match="Conv2d does not state which of its parameters belong to landmarks"):
        learned_weights(nn.Conv2d(1, 2, 3), {}, [0, 1])
