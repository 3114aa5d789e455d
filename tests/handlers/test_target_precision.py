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


"""Target precision in MONAI's engines: input of the controller, sigmas of the loss, the record, and resuming."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engines import NAMES, AddPrediction, make_cases, prepare_batch
from matplotlib.figure import Figure
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from PIL import Image

from monai_landmarks.handlers import ResumeTraining, TargetPrecision, wrap_distributed
from monai_landmarks.handlers.target_precision import _Population
from monai_landmarks.losses import AdaptivePrecisionLoss, SCNLoss
from monai_landmarks.precision import (
    Decision,
    DoubleDQNAgent,
    EarlyStop,
    LinearSigma,
    PrecisionController,
    PrecisionSearch,
    PrecisionTrajectory,
    RandomAgent,
)


class Spy(PrecisionController):
    """Stores its input. The sigmas increase by one voxel each time."""

    def __init__(self):
        self.told = []

    def start(self, sigma):
        return sigma * 0 + 1

    def update(self, evaluation):
        self.told.append(evaluation)
        return Decision(evaluation.sigma + 1)


class StoppedError(Exception):
    """Simulates a crash."""


def training(
    folder,
    controller=None,
    epochs=4,
    loss=None,
    stop_at=None,
    validated=True,
    children=False,
    seed=3,
    postprocessing=None,
    rank=None,
    **options,
):
    """A trainer of a convolution. Its evaluator has known errors: case i is i mm away from the ground truth."""
    torch.manual_seed(seed)
    validation, cases = make_cases(), make_cases(seed=1)
    network = torch.nn.Conv2d(1, 3, 3, padding=1)
    if rank is not None:  # of two processes, each with its own part
        validation = validation[:1] if rank == 0 else validation[1:]
        cases, network = cases[2 * rank : 2 * rank + 2], wrap_distributed(network, torch.device("cpu"))
    loss = loss or AdaptivePrecisionLoss(3, 2, sigma=4.0)
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], 1e-2)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(validation), batch_size=2),
        network=getattr(network, "module", network),
        prepare_batch=prepare_batch,
        postprocessing=postprocessing or AddPrediction(),
    )
    population = {"model": network, "optimizer": optimizer} if children else None
    handler = TargetPrecision(
        loss,
        controller,
        evaluator if validated else None,
        NAMES,
        folder / "precision.json",
        population=population,
        **options,
    )
    load_dict = {"model": network, "loss": loss, "optimizer": optimizer, "precision": handler}
    handlers = [ResumeTraining(load_dict, folder), ValidationHandler(1, evaluator), handler]
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(Dataset(cases), batch_size=2, shuffle=True),
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        prepare_batch=prepare_batch,
        train_handlers=handlers,
    )
    if stop_at is not None:

        def stop(engine):
            if engine.state.iteration == stop_at:
                raise StoppedError

        trainer.add_event_handler("ITERATION_COMPLETED", stop)
    return trainer, handler, network, loss


def test_what_is_told_and_done(tmp_path):
    spy = Spy()
    trainer, handler, _, loss = training(tmp_path, spy, max_error=2.5)
    seen = []
    trainer.add_event_handler("EPOCH_STARTED", lambda engine: seen.append(loss.sigma.tolist()))
    trainer.run()
    assert seen == [[1.0] * 3, [2.0] * 3, [3.0] * 3, [4.0] * 3] and loss.sigma.tolist() == [5.0] * 3
    assert [e.progress for e in spy.told] == [0.25, 0.5, 0.75, 1.0]
    assert [e.sigma.tolist() for e in spy.told] == seen
    # the five errors are 0, 1, 2, 3, 4 mm, at most 2.5 counts; the third landmark is missing in the second case
    errors = np.array([0, 1, 2, 2.5, 2.5])
    for e in spy.told:
        np.testing.assert_allclose(e.error, [errors.mean()] * 2 + [np.delete(errors, 1).mean()], rtol=1e-5)
        np.testing.assert_allclose(
            e.square_error, [(errors**2).mean()] * 2 + [(np.delete(errors, 1) ** 2).mean()], rtol=1e-5
        )
        np.testing.assert_allclose(e.radius, [0.5] * 3)  # of covariances of 1/4 mm^2
        np.testing.assert_allclose(e.peak, np.linspace(0.5, 0.9, 3), rtol=1e-6)
    rows = handler.trajectory.decisions
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4] and rows[0]["sigma"] == [1.0] * 3
    assert PrecisionTrajectory.read(tmp_path / "precision.json").decisions == rows and handler.trajectory.names == list(
        NAMES
    )
    with Image.open(tmp_path / "precision.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100


@pytest.mark.usefixtures("unpainted")
def test_keys_of_covariances_and_scores_can_be_chosen(tmp_path):
    class Renamed(AddPrediction):
        def __call__(self, item):
            item = super().__call__(item)
            return {
                **{key: item[key] for key in ("image", "label", "pred_points")},
                "shape": torch.eye(2).expand(3, 2, 2) * 4.0,
                "height": torch.tensor([0.1, 0.2, 0.3]),
            }

    for keys, radius, peak in (
        ({"covariance_key": "shape", "score_key": "height"}, [2.0] * 3, [0.1, 0.2, 0.3]),
        ({}, [np.nan] * 3, [np.nan] * 3),
    ):
        spy = Spy()
        training(tmp_path / str(len(keys)), spy, epochs=1, postprocessing=Renamed(), **keys)[0].run()
        np.testing.assert_allclose(spy.told[0].radius, radius)
        np.testing.assert_allclose(spy.told[0].peak, peak, rtol=1e-6)


@pytest.mark.usefixtures("unpainted")
def test_training_losses_are_means_of_each_landmark(tmp_path):
    spy = Spy()
    trainer, _, _, loss = training(tmp_path, spy, epochs=2)
    collected = []
    trainer.add_event_handler("ITERATION_COMPLETED", lambda engine: collected.append(loss.landmark_loss.numpy()))
    trainer.run()
    # three iterations an epoch; a landmark that a batch has not does not count
    for epoch, told in enumerate(spy.told):
        np.testing.assert_allclose(told.train_loss, np.nanmean(collected[3 * epoch : 3 * epoch + 3], axis=0), rtol=1e-5)


@pytest.mark.usefixtures("unpainted")
def test_gross_errors_count_as_half_of_the_extent(tmp_path):
    class Far(AddPrediction):
        def __call__(self, item):
            item = super().__call__(item)
            item["pred_points"] = item["pred_points"] + 1000.0
            return item

    spy = Spy()
    training(tmp_path, spy, epochs=1, postprocessing=Far())[0].run()
    known = [points[~points.isnan().any(-1)] for points in (case["label"][0].as_tensor() for case in make_cases())]
    limit = 0.5 * max(float((p.amax(0) - p.amin(0)).max()) for p in known)
    np.testing.assert_allclose(spy.told[0].error, [limit] * 3, rtol=1e-5)
    # where the points have no extent, there is no such limit
    alone = make_cases()
    for case in alone:
        case["label"][:] = 5.0
    spy = Spy()
    trainer, handler, _, _ = training(tmp_path / "alone", spy, epochs=1)
    handler.validator.data_loader = DataLoader(Dataset(alone), batch_size=5)
    trainer.run()
    np.testing.assert_allclose(spy.told[0].error, [2.0] * 3, rtol=1e-5)  # the mean of 0, 1, 2, 3 and 4

    class Infinite(AddPrediction):
        def __call__(self, item):
            item = super().__call__(item)
            if item["number"] == 4:
                item["pred_points"] = item["pred_points"] + float("inf")
            return item

    spy = Spy()
    trainer, handler, _, _ = training(tmp_path / "infinite", spy, epochs=1, postprocessing=Infinite())
    handler.validator.data_loader = DataLoader(Dataset(alone), batch_size=5)
    trainer.run()
    np.testing.assert_allclose(spy.told[0].error, [1.5] * 3, rtol=1e-5)  # an infinite error does not count


@pytest.mark.usefixtures("unpainted")
def test_a_schedule_needs_no_validation(tmp_path):
    trainer, handler, _, loss = training(tmp_path, LinearSigma(6.0, 2.0, until=1.0), validated=False)
    trainer.run()
    assert [row["sigma"][0] for row in handler.trajectory.decisions] == [6.0, 5.0, 4.0, 3.0, 2.0]
    assert loss.sigma.tolist() == [2.0] * 3


@pytest.mark.usefixtures("unpainted")
def test_a_schedule_keeps_no_copies_of_the_training(tmp_path):
    trainer, handler, _, loss = training(tmp_path, LinearSigma(6.0, 2.0, until=1.0), epochs=2, children=True)
    handler.population.save("start")
    trainer.run()
    assert handler.population.state_dict() == {"copies": {}} and loss.sigma.tolist() == [2.0] * 3


@pytest.mark.usefixtures("unpainted")
def test_a_learned_sigma_is_recorded(tmp_path):
    trainer, handler, _, loss = training(tmp_path, loss=SCNLoss(3, 2, sigma=2.0))
    trainer.run()
    recorded = handler.trajectory.column("sigma")
    np.testing.assert_allclose(recorded[-1], loss.sigma.detach(), rtol=1e-5)
    assert recorded[0] == [2.0] * 3 and recorded[1] != recorded[2] and handler.trajectory.unit == "voxel"


def test_drawing_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    drawn, now = [], [0.0]

    def slow_drawing(*args):
        now[0] += 2.0
        drawn.append(now[0])
        return Figure()

    module = "monai_landmarks.handlers.target_precision"
    monkeypatch.setattr(f"{module}.draw_precision", slow_drawing)
    monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    trainer, *_ = training(tmp_path, Spy(), epochs=8, seconds=0.0)

    @trainer.on("EPOCH_STARTED")
    def pass_time(engine):
        now[0] += 30.0

    trainer.run()
    # after epoch 1, no sooner than 50 times the 2 seconds later, and at the end
    assert drawn == [32.0, 154.0, 244.0 + 2.0]


@pytest.mark.usefixtures("unpainted")
def test_a_validation_outside_of_the_training_decides_nothing(tmp_path):
    spy = Spy()
    trainer, handler, _, _ = training(tmp_path, spy, epochs=1)
    handler.validator.run()
    trainer.run()
    handler.validator.run()
    assert len(spy.told) == 1


def search(children=1):
    agent = DoubleDQNAgent(hidden=8, updates=3, seed=1)
    return PrecisionSearch(3, 2, agent=agent, warmup=0.0, until=0.9, stop_from=0.3, children=children)


@pytest.mark.parametrize("children,stop_at", [(1, 14), (2, 14), (2, 17)])
@pytest.mark.usefixtures("unpainted")
def test_a_resumed_training_goes_on_as_it_would_have(tmp_path, children, stop_at, caplog):
    options = {"epochs": 10, "children": children > 1}
    whole_trainer, whole, whole_network, whole_loss = training(tmp_path / "whole", search(children), **options)
    whole_trainer.run()
    trainer, *_ = training(tmp_path / "parts", search(children), stop_at=stop_at, **options)
    with pytest.raises(StoppedError):
        trainer.run()
    with caplog.at_level(logging.INFO):
        # made with other random numbers: all must come from the file
        trainer, handler, network, loss = training(tmp_path / "parts", search(children), seed=7, **options)
        trainer.run()
    assert "resumed model, loss, optimizer, precision" in caplog.text
    assert handler.trajectory.decisions == whole.trajectory.decisions
    assert torch.equal(loss.sigma, whole_loss.sigma)
    for name, value in whole_network.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    files = [(tmp_path / part / "precision.json").read_text() for part in ("whole", "parts")]
    assert files[0] == files[1]
    assert len({tuple(row["sigma"]) for row in whole.trajectory.decisions}) > 2


@pytest.mark.usefixtures("unpainted")
def test_children_train_from_the_same_weights(tmp_path):
    class Moves(RandomAgent):
        def act(self, state, allowed, epsilon):
            chosen = torch.randint(3, (len(state),), generator=self.generator)
            return chosen, chosen

    one = PrecisionSearch(3, 2, agent=Moves(), warmup=0.0, until=1.0, early_stop=EarlyStop(0, 0, 0, 0), children=2)
    trainer, handler, network, loss = training(tmp_path, one, epochs=7, children=True)
    starts, sigmas = [], []
    trainer.add_event_handler("EPOCH_STARTED", lambda engine: starts.append(network.weight.detach().clone()))
    trainer.add_event_handler("EPOCH_STARTED", lambda engine: sigmas.append(loss.sigma.clone()))
    trainer.run()
    # epoch 1 comes before the first decision; then two children a decision
    assert torch.equal(starts[1], starts[2]) and torch.equal(starts[3], starts[4])
    assert not torch.equal(starts[2], starts[3]) and not torch.equal(sigmas[1], sigmas[2])
    assert [row["epoch"] for row in handler.trajectory.decisions] == [0, 1, 3, 5, 7]
    with pytest.raises(ValueError, match="set population="):
        training(tmp_path, PrecisionSearch(3, 2, children=2))


@pytest.mark.usefixtures("unpainted")
def test_copies_of_a_training_are_independent(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(network.parameters(), 0.1)

    def train(steps):
        for step in range(steps):
            optimizer.zero_grad()
            network(torch.full((1, 3), 1.0 + step)).square().sum().backward()
            optimizer.step()

    train(2)
    population = _Population({"model": network, "optimizer": optimizer})
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
    other = _Population({"model": network, "optimizer": optimizer})
    other.load_state_dict(torch.load(tmp_path / "population.pt", weights_only=True))
    other.load("child 0")
    assert torch.equal(network.weight, found[0])
    other.clear()
    with pytest.raises(KeyError):
        other.load("child 0")
