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

"""Clipping inside MONAI's trainer."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from monai_landmarks.handlers import GradientClipping


@pytest.mark.parametrize("max_norm,scale", [(0.5, 0.1), (100.0, 1.0), (None, 1.0)])
def test_a_step_is_not_longer_than_the_norm_allows(max_norm, scale):
    # loss = 5 w on a single weight: the gradient is 5, and a step of SGD with learning rate 1 shows it
    network = torch.nn.Linear(1, 1, bias=False)
    before = network.weight.item()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader([{"image": torch.tensor([5.0]), "label": torch.tensor([0.0])}]),
        network=network,
        optimizer=optimizer,
        loss_function=lambda prediction, _: prediction.sum(),
        train_handlers=[GradientClipping(optimizer, max_norm)],
    )
    trainer.run()
    assert network.weight.item() == pytest.approx(before - 5.0 * scale, rel=1e-5)


def test_gradients_are_clipped_without_the_loss_scale():
    """Mixed precision multiplies the loss by a factor, which does not count for the norm."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def update(engine, _):
        scaler.scale(5 * weight.sum()).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        scaler.step(optimizer)
        scaler.update()

    trainer = Engine(update)
    trainer.register_events(*IterationEvents)
    trainer.scaler = scaler
    GradientClipping(optimizer, 0.5).attach(trainer)
    trainer.run([0])
    assert weight.item() == pytest.approx(-0.5, rel=1e-5)


def test_bad_norm():
    with pytest.raises(ValueError, match="positive"):
        GradientClipping(torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0), 0.0)
