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
"""Memory: counted in closed form for a network small enough for that, and a real network keeps what was counted."""

from __future__ import annotations

import os

import pytest
import torch
from summaries import GIB

from monai_landmarks.networks.nets import SCN
from monai_landmarks.planning import Machine, TrainingMemory, machine, measure_training


class OneLayer(torch.nn.Module):
    """A convolution of one voxel and a rectifier, which keep their input and their output."""

    def __init__(self, spatial_dims: int, in_channels: int, num_landmarks: int) -> None:
        super().__init__()
        self.layer = (torch.nn.Conv2d, torch.nn.Conv3d)[spatial_dims - 2](in_channels, num_landmarks, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("maps", [1, 7])
def test_in_closed_form(dims, maps):
    network = {"_target_": f"{__name__}.OneLayer", "spatial_dims": dims, "in_channels": 2, "num_landmarks": maps}
    memory = measure_training(network, num_cached=10)
    kept = 2 + maps  # input and output
    assert memory.per_voxel == pytest.approx(2 * 4 * (kept + 4 * maps))
    assert memory.weights == 4 * 4 * (2 * maps + maps) and memory.cached_per_voxel == 40
    assert memory.needed(1000, 3) == pytest.approx(memory.weights + 3000 * memory.per_voxel + 40 * 1000)


def test_a_network_keeps_what_was_counted(monkeypatch):
    """At another size and with the width of the configuration. Normalization is the plain one, as on a GPU."""
    plain = "monai_landmarks.networks.layers.instance_norm_activation.needs_plain_graph"
    monkeypatch.setattr(plain, lambda x: True)
    options = {"spatial_dims": 2, "in_channels": 1, "num_landmarks": 3, "local_appearance": "unet", "features": 8}
    options |= {"unet_features": [4, 4, 8, 8, 8, 4], "norm": "instance", "spatial_factor": 8}
    kept = {}

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    network = SCN(**options)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(1, 1, 96, 160))
    counted = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (96 * 160)
    measured = measure_training({"_target_": "monai_landmarks.networks.nets.SCN", **options})
    assert measured.per_voxel / 2 - 16 * 3 == pytest.approx(counted, rel=0.05)


def test_voxels_and_memory_belong_together():
    memory = TrainingMemory(weights=1000.0, per_voxel=10.0, cached_per_voxel=5.0)
    voxels = memory.voxels_in(5000.0, batch_size=2)
    assert memory.needed(voxels, 2) <= 5000 < memory.needed(voxels + 1, 2)
    assert memory.voxels_in(500.0) == 0


def test_this_machine():
    here = Machine.here("cpu")
    assert 0.01 * GIB < here.memory < 1e5 * GIB and not here.on_gpu
    assert Machine.here("cuda", 10 * GIB) == Machine("cuda", 6 * GIB) and Machine("cuda", 1).on_gpu
    assert Machine.here(memory=GIB).device == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="this machine has no GPU"):
            Machine.here("cuda")


def test_memory_that_the_gpu_reports(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10 * GIB, 80 * GIB))
    assert Machine.here() == Machine.here("cuda") == Machine("cuda", 6 * GIB)


def test_memory_of_systems_that_do_not_report_what_is_free(monkeypatch):
    """Half of all memory; without any report, 4 GiB."""

    def no_file(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(machine, "open", no_file, raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**22}.__getitem__, raising=False)
    assert Machine.here("cpu") == Machine.here("cpu", 8 * GIB)
    monkeypatch.delattr(os, "sysconf")
    assert Machine.here("cpu") == Machine.here("cpu", 4 * GIB)
