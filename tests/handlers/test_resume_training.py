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
"""A training that is stopped and resumed has the same result as an uninterrupted one."""

from __future__ import annotations

import logging

import pytest
import torch
from engines import Regressor, make_cases, make_evaluator, make_trainer
from ignite.engine import Events
from monai.handlers import CheckpointSaver, LrScheduleHandler, ValidationHandler
from torch.optim.lr_scheduler import ExponentialLR

from monai_landmarks.handlers import ResumeTraining


class StoppedError(Exception):
    """Simulates a crash."""


def training(folder, max_epochs, stop_at=None, enabled=True, scores=None, network=None, extra=None, interval=1):
    """A trainer with validation, scheduler and best model; ``scores`` are the validation's errors, epoch by epoch."""
    torch.manual_seed(3)
    network = network or Regressor()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    scheduler = ExponentialLR(optimizer, 0.8)
    best = CheckpointSaver(
        str(folder),
        {"model": network},
        save_key_metric=True,
        key_metric_filename="model.pt",
        key_metric_negative_sign=True,
    )
    evaluator = make_evaluator(make_cases(), [best], network=network)
    if scores is not None:
        # before the metric is compared, so that the test rules it
        key_metric = evaluator._event_handlers[Events.EPOCH_COMPLETED]
        evaluator.add_event_handler(
            Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(val_mre=scores[e.state.epoch - 1])
        )
        key_metric.insert(1, key_metric.pop())
    load_dict = {"model": network, "optimizer": optimizer, "scheduler": scheduler, **(extra or {})}
    resume = ResumeTraining(load_dict, folder, validator=evaluator, enabled=enabled, save_interval=interval)
    handlers = [resume, ValidationHandler(1, evaluator), LrScheduleHandler(scheduler, print_lr=False)]
    trainer = make_trainer(make_cases(seed=1), network, optimizer, max_epochs, handlers)
    if stop_at is not None:

        def stop(engine):
            if engine.state.iteration == stop_at:
                raise StoppedError

        trainer.add_event_handler(Events.ITERATION_COMPLETED, stop)
    return trainer, evaluator, network, optimizer


def run_until_stopped(*args, **kwargs):
    with pytest.raises(StoppedError):
        training(*args, **kwargs)[0].run()


def test_goes_on_as_it_would_have(tmp_path, caplog):
    trainer, whole_evaluator, whole, whole_optimizer = training(tmp_path / "whole", 5)
    trainer.run()
    # three iterations an epoch: stopped in the middle of the fourth
    run_until_stopped(tmp_path / "parts", 5, stop_at=11)
    with caplog.at_level(logging.INFO):
        trainer, evaluator, network, optimizer = training(tmp_path / "parts", 5)
        epochs = []
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
        trainer.run()
    assert epochs == [4, 5] and trainer.state.iteration == 15
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)
    assert optimizer.param_groups[0]["lr"] == whole_optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.8**5)
    assert evaluator.state.best_metric == whole_evaluator.state.best_metric
    assert "resumed model, optimizer, scheduler" in caplog.text and "epoch 3 of 5, iteration 9" in caplog.text


def test_a_worse_model_does_not_replace_the_best_after_resuming(tmp_path):
    scores = [3.0, 1.0, 2.0, 1.5, 0.5]
    run_until_stopped(tmp_path, 5, stop_at=7, scores=scores)
    best = torch.load(tmp_path / "model.pt", weights_only=True)
    trainer, evaluator, network, _ = training(tmp_path, 4, scores=scores)
    trainer.run()  # epochs 3 and 4 are worse than 2
    assert (evaluator.state.best_metric, evaluator.state.best_metric_epoch) == (1.0, 2)
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.testing.assert_close(kept, best, rtol=0, atol=0)
    trainer, evaluator, network, _ = training(tmp_path, 5, scores=scores)
    trainer.run()  # epoch 5 is better
    assert (evaluator.state.best_metric, evaluator.state.best_metric_epoch) == (0.5, 5)
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.testing.assert_close(kept, dict(network.state_dict()), rtol=0, atol=0)


def test_a_best_model_that_was_removed_is_made_again(tmp_path):
    scores = [1.0, 2.0, 3.0]
    run_until_stopped(tmp_path, 3, stop_at=5, scores=scores)
    (tmp_path / "model.pt").unlink()
    training(tmp_path, 3, scores=scores)[0].run()
    assert (tmp_path / "model.pt").is_file()


def test_a_complete_training_is_said_to_be_complete(tmp_path, caplog):
    training(tmp_path, 2)[0].run()
    for max_epochs in (2, 1):
        with caplog.at_level(logging.INFO):
            trainer, _, network, _ = training(tmp_path, max_epochs)
            before = {name: value.clone() for name, value in network.state_dict().items()}
            trainer.run()
        assert trainer.state.iteration == 6
        assert (
            f"this training is complete: {tmp_path / 'training_state.pt'} is at epoch 2 of max_epochs={max_epochs}"
            in caplog.text
        )
        assert not torch.equal(before["layers.1.bias"], network.state_dict()["layers.1.bias"])


def test_disabled_starts_anew_and_replaces_the_file(tmp_path, caplog):
    training(tmp_path, 2)[0].run()
    trainer = training(tmp_path, 1, enabled=False)[0]
    trainer.run()
    assert trainer.state.iteration == 3
    assert torch.load(tmp_path / "training_state.pt", weights_only=True)["trainer"]["epoch"] == 1
    with caplog.at_level(logging.INFO):
        training(tmp_path / "new", 1)[0].run()
    assert "nothing to resume" in caplog.text


def test_save_interval_and_last_epoch(tmp_path):
    run_until_stopped(tmp_path, 9, stop_at=11, interval=2)
    assert torch.load(tmp_path / "training_state.pt", weights_only=True)["trainer"]["epoch"] == 2
    training(tmp_path, 5, interval=2)[0].run()
    assert torch.load(tmp_path / "training_state.pt", weights_only=True)["trainer"]["epoch"] == 5


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    training(tmp_path, 1)[0].run()
    with pytest.raises(ValueError, match=r"training_state.pt does not contain \['loss'\].*enabled=False"):
        training(tmp_path, 2, extra={"loss": torch.nn.Linear(1, 1)})[0].run()
    with pytest.raises(ValueError, match="'model' in .* does not match this training(.|\n)*layers.1.weight"):
        training(tmp_path, 2, network=Regressor(size=8))[0].run()


def test_more_iterations_an_epoch_keep_the_epoch(tmp_path, caplog):
    training(tmp_path, 2)[0].run()
    trainer = training(tmp_path, 3)[0]
    trainer.state.epoch_length = 2
    trainer.run()
    assert (trainer.state.epoch, trainer.state.iteration) == (3, 6)
    assert "an epoch had 3 iterations and now has 2" in caplog.text


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="load_dict"):
        ResumeTraining({}, tmp_path)
    with pytest.raises(ValueError, match="trainer"):
        ResumeTraining({"trainer": torch.nn.Identity()}, tmp_path)
    assert ResumeTraining({"a": torch.nn.Identity()}, tmp_path / "x.pt").path == tmp_path / "x.pt"
