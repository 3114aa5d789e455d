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


"""Seeds, and the switch of cuDNN."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from monai.data import Dataset, DistributedSampler
from monai.transforms import Compose, RandShiftIntensity

from monai_landmarks.handlers import start_reproducible


@pytest.fixture(autouse=True)
def cudnn() -> Iterator[None]:
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@pytest.mark.parametrize("deterministic", [False, True])
def test_seeds_and_algorithms(deterministic: bool) -> None:
    drawn = []
    for _ in range(2):
        start_reproducible(3, deterministic)
        drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
    assert torch.backends.cudnn.deterministic == deterministic
    assert torch.backends.cudnn.benchmark != deterministic


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_draw_different_numbers_and_share_the_order(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 draws what a single process draws."""
    shift = RandShiftIntensity(offsets=1.0, prob=1.0)

    def drawn() -> tuple[float, float, float]:
        start_reproducible(3)
        return random.random(), float(torch.rand(())), float(Compose([shift])(torch.zeros(1))[0])

    alone = drawn()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: rank)
    assert [one == other for one, other in zip(alone, drawn())] == [rank == 0] * 3
    order = list(DistributedSampler(Dataset(range(8)), num_replicas=2, rank=rank))
    start_reproducible(11)
    assert order == list(DistributedSampler(Dataset(range(8)), num_replicas=2, rank=rank))
