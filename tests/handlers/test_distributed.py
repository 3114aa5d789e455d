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
"""The device and the process group of a process of torchrun, without GPUs and without other processes."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.handlers.distributed import finish_distributed, local_device, start_distributed


@pytest.mark.parametrize("gpu, device, backend", [(True, "cuda:3", "nccl"), (False, "cpu", "gloo")])
def test_each_process_has_its_own_gpu(monkeypatch, gpu, device, backend):
    calls = []
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(str(device)))
    monkeypatch.setattr(torch.distributed, "init_process_group", calls.append)
    assert local_device() == torch.device(device)
    start_distributed()
    assert calls == ([device, backend] if gpu else [backend])


def test_a_group_is_not_joined_twice(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: pytest.fail("joined twice"))
    start_distributed()


@pytest.mark.parametrize("joined", [False, True])
def test_a_group_is_left_if_it_was_joined(monkeypatch, joined):
    calls = []
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: joined)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    for name in ("barrier", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda name=name: calls.append(name))
    finish_distributed()
    assert calls == (["barrier", "destroy_process_group"] if joined else [])


def test_without_torchrun(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(RuntimeError, match="Start it with 'torchrun"):
        start_distributed()
