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
"""Held layers do not move in the first epochs, whatever the optimizer, and move later."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer

from monai_landmarks.handlers import GradientClipping, HoldLayers
from monai_landmarks.networks.nets import CloseLookNet, LocalizationUNet


def train(network, optimizer, handlers, epochs=3):
    """Return the weights after each epoch."""
    weights = []
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader([{"image": torch.ones(2), "label": torch.zeros(2)}] * 2),
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        train_handlers=handlers,
    )
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED,
        lambda: weights.append({name: value.clone() for name, value in network.state_dict().items()}),
    )
    trainer.run()
    return weights


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.5),
    ],
    ids=["adamw", "sgd"],
)
def test_layers_move_after_the_held_epochs(make):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = make(network.parameters())
    after = train(network, optimizer, [HoldLayers(network, 2, ["0"]), GradientClipping(optimizer, 1.0)])
    for epoch, state in enumerate(after, 1):
        for name, value in state.items():
            assert torch.equal(value, before[name]) == (name.startswith("0.") and epoch <= 2), (epoch, name)
    again = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    again.load_state_dict(before)
    [free] = train(again, make(again.parameters()), [HoldLayers(again, 0, ["0"])], epochs=1)
    assert not any(torch.equal(free[name], value) for name, value in before.items())


def test_layers_are_those_of_the_network():
    fine = LocalizationUNet(2, 1, 3, features=(4,) * 6)
    for network, part in ((fine, fine), (CloseLookNet(LocalizationUNet(2, 1, 3, features=(4,) * 6), fine), fine)):
        held = {id(parameter) for parameter in HoldLayers(network, 1).parameters}
        assert held == {id(p) for n, p in part.named_parameters() if n.startswith(("conv_0.", "down_"))}


def test_wrong_layers():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Sequential does not state its first layers"):
        HoldLayers(network, 1)
    with pytest.raises(ValueError, match="Sequential has no layer 'body'"):
        HoldLayers(network, 1, ["body"])
