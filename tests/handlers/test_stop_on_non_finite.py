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
"""A training stops at the first loss that is not finite, and says where and why."""

from __future__ import annotations

import pytest
import torch
from engines import Regressor, make_cases, make_evaluator, make_trainer
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator

from monai_landmarks.handlers import StopOnNonFinite
from monai_landmarks.handlers.engine_output import loss_of
from monai_landmarks.inferers import CloseLookInferer
from monai_landmarks.networks.nets import CloseLookNet


def trainer_of(cases, network=None):
    torch.manual_seed(0)
    network = network or Regressor()
    optimizer = torch.optim.SGD(network.parameters(), 0.25)
    return make_trainer(cases, network, optimizer, 3, [StopOnNonFinite()]), network


def test_the_message_of_a_loss_that_is_not_finite():
    trainer, network = trainer_of(make_cases(4))

    def spoil(engine):
        if engine.state.iteration == 3:
            engine.loss_function = lambda pred, target: pred.mean() * torch.inf

    trainer.add_event_handler(Events.ITERATION_STARTED, spoil)
    message = (
        r"The loss is -?inf at iteration 3 \(epoch 2 of 3\), learning rate 0.25. Try a smaller learning rate "
        r"\(--learning_rate\).*The images of this batch were /data/a/case\d.png, /data/a/case\d.png.*--resume true"
    )
    with pytest.raises(ValueError, match=message):
        trainer.run()


def test_an_image_that_is_not_finite_is_named():
    cases = make_cases(4)
    cases[2]["image"][0, 3, 4:6] = torch.nan
    trainer, _ = trainer_of(cases)
    with pytest.raises(
        ValueError, match=r"images contain voxels that are NaN or infinite: /data/a/case2.png \(2 voxels\)"
    ):
        trainer.run()


def test_weights_after_the_last_step_of_an_epoch():
    trainer, network = trainer_of(make_cases(4))

    def spoil(engine):
        with torch.no_grad():
            network.layers[1].bias[0] = torch.nan

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), spoil)
    with pytest.raises(
        ValueError, match=r"The weights are lost at iteration 2 .*: 1 of the 6 values of 'layers.1.bias'"
    ):
        trainer.run()


def test_the_output_of_an_evaluator():
    network = Regressor()
    evaluator = make_evaluator(make_cases(2), [StopOnNonFinite()], network=network)
    evaluator.run()
    with torch.no_grad():
        network.layers[1].bias[0] = torch.nan
    network(torch.zeros(1, 256))  # outside of the engine nothing is checked
    with pytest.raises(
        ValueError, match=r"output of the network is NaN or infinite for /data/a/case0.png, /data/a/case1"
    ):
        evaluator.run()


class WithNames(Regressor):
    """A network with a second output that is not a tensor."""

    def forward(self, image):
        return super().forward(image), "names"


@pytest.mark.parametrize(
    "image_key, names", [("image", "/data/a/case0.png, /data/a/case1.png"), ("scan", "this batch")]
)
def test_one_of_several_outputs(image_key, names):
    network = WithNames()
    evaluator = make_evaluator(make_cases(2), [StopOnNonFinite(image_key=image_key)], network=network)
    with torch.no_grad():
        network.layers[1].weight[0] = torch.inf
    with pytest.raises(ValueError, match=f"The output of the network is NaN or infinite for {names}. If"):
        evaluator.run()


def test_the_loss_of_an_iteration_is_read_once():
    """A GPU is waited for once. So a second handler of the iteration gets the first value, though the tensor changed."""
    engine = Engine(lambda engine, batch: None)
    loss = torch.tensor([1.0, 3.0])
    engine.state.iteration, engine.state.output = 1, [{"loss": loss}]
    assert loss_of(engine, "loss") == 2.0
    loss += 5
    assert loss_of(engine, "loss") == 2.0
    engine.state.iteration = 2
    assert loss_of(engine, "loss") == 7.0
    engine.state.output = [{"loss": torch.tensor(4.0)}]
    assert loss_of(engine, "loss") == 4.0 and loss_of(engine, "other") is None


@pytest.mark.parametrize("damaged", ["coarse", "fine"])
def test_both_networks_of_a_close_look(damaged):
    """Its inferer calls them one by one, and never the network as a whole."""
    network = CloseLookNet(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Conv2d(1, 3, 3, padding=1))
    image = MetaTensor(torch.rand(1, 64, 48), affine=torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0])))
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset([{"image": image}]), batch_size=1),
        network=network,
        inferer=CloseLookInferer((16, 16), 0.5),
        val_handlers=[StopOnNonFinite()],
        decollate=False,
        prepare_batch=lambda batch, *args, **options: (batch["image"], None),
    )
    evaluator.run()
    torch.nn.init.constant_(getattr(network, damaged).weight, float("nan"))
    with pytest.raises(ValueError, match="output of the network is NaN or infinite"):
        evaluator.run()
    torch.nn.init.ones_(getattr(network, damaged).weight)
    evaluator.run()
