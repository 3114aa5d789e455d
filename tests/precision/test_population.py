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


"""A child's training leaves no trace in what the next one starts from."""

from __future__ import annotations

import pytest
import torch

from monai_landmarks.precision import Population


def test_children_start_alike(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), 0.1)

    def train(steps):
        for step in range(steps):
            optimizer.zero_grad()
            network(torch.full((1, 3), 1.0 + step)).square().sum().backward()
            optimizer.step()

    train(2)
    population = Population({"model": network, "optimizer": optimizer})
    population.save("start")
    found = []
    for _ in range(2):
        population.load("start")
        train(3)
        found.append(network.weight.detach().clone())
    assert torch.equal(*found)
    population.save("child 0")
    train(5)
    # copies go through a file
    torch.save(population.state_dict(), tmp_path / "population.pt")
    other = Population({"model": network, "optimizer": optimizer})
    other.load_state_dict(torch.load(tmp_path / "population.pt", weights_only=True))
    other.load("child 0")
    assert torch.equal(network.weight, found[0])
    other.forget("start")
    with pytest.raises(KeyError):
        other.load("child 0")
    with pytest.raises(ValueError, match="needs what to copy"):
        Population({})
