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
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engines import Regressor, make_cases, make_evaluator, make_trainer
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.handlers import CheckpointSaver, LrScheduleHandler, ValidationHandler
from monai.transforms import Compose, RandRotate90
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

from monai_landmarks.handlers import ResumeTraining, resume_training
from monai_landmarks.handlers.learning_rate_plan import LearningRatePlan
from monai_landmarks.handlers.plain_errors import _PlainHook, note_continuation
from monai_landmarks.handlers.resume_training import _BestModel, _RandomState, _validation_part


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
    evaluator = make_evaluator(make_cases(), [best], network=network, scores=scores)
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


@pytest.mark.parametrize(("replaced", "epoch"), [(False, 1), (True, 2)])
def test_interrupt_while_the_file_is_written(replaced, epoch, tmp_path, monkeypatch, capsys):
    """Ctrl-C right before or right after the second file takes its place: what is printed is true of the file."""
    path, replace = tmp_path / "training_state.pt", os.replace

    def press(source, target):
        second = Path(target) == path and path.exists()
        if replaced or not second:
            replace(source, target)
        if second:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", press)
    trainer = training(tmp_path, 3)[0]
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.run()
        with pytest.raises(SystemExit):
            _PlainHook()(KeyboardInterrupt, KeyboardInterrupt(), None)
    finally:
        note_continuation(None)
    assert f"Interrupted. {path} is at epoch {epoch}. To continue, repeat" in capsys.readouterr().err
    monkeypatch.undo()
    trainer = training(tmp_path, 3)[0]
    epochs = []
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
    trainer.run()
    assert epochs[0] == epoch + 1


def test_interrupt_before_the_first_file(tmp_path, capsys):
    with pytest.raises(StoppedError):
        training(tmp_path, 3, stop_at=2)[0].run()
    try:
        with pytest.raises(SystemExit):
            _PlainHook()(KeyboardInterrupt, KeyboardInterrupt(), None)
    finally:
        note_continuation(None)
    assert "Interrupted. No epoch was completed, so there is nothing to continue." in capsys.readouterr().err


def test_another_frozen_part_is_not_overwritten(tmp_path):
    """A part that does not learn, such as a coarse network that was trained again, is not that of the file."""

    def with_part(value):
        network = Regressor()
        network.part = torch.nn.Linear(1, 1).requires_grad_(False)
        torch.nn.init.constant_(network.part.weight, value)
        torch.nn.init.zeros_(network.part.bias)
        return network

    run_until_stopped(tmp_path, 3, stop_at=4, network=with_part(1.0))
    with pytest.raises(
        ValueError, match="other weights in 'model' where it does not learn, the first of them part.weight"
    ):
        training(tmp_path, 3, network=with_part(2.0))[0].run()
    trainer = training(tmp_path, 3, network=with_part(1.0))[0]
    trainer.run()
    assert trainer.state.epoch == 3


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


def test_a_scaler_is_restored_and_what_is_not_used_is_said(tmp_path, caplog):
    scales = []
    for number, scaler in enumerate((torch.amp.GradScaler("cpu", init_scale=4.0), torch.amp.GradScaler("cpu"), None)):
        with caplog.at_level(logging.WARNING):
            trainer = training(tmp_path, number + 1)[0]
            # MONAI makes the scaler when the training starts, but only for mixed precision on a GPU
            trainer.add_event_handler(Events.STARTED, lambda engine, scaler=scaler: setattr(engine, "scaler", scaler))
            started = trainer._event_handlers[Events.STARTED]
            started.insert(0, started.pop())
            trainer.run()
        scales.append(scaler and scaler.get_scale())
    assert scales == [4.0, 4.0, None]
    assert "also contains ['scaler'], which this training does not use" in caplog.text


def test_a_trainer_that_runs_twice_saves_once_per_epoch(tmp_path, monkeypatch):
    trainer = training(tmp_path, 1)[0]
    trainer.run()
    saved = []
    monkeypatch.setattr(resume_training, "atomic_save", lambda state, path: saved.append(state["trainer"]["epoch"]))
    trainer.state.max_epochs = 3
    trainer.run()
    assert saved == [2, 3]


@pytest.mark.parametrize("count, restored", [(2, True), (1, False)])
def test_random_transforms_are_restored_if_their_number_is_the_same(count, restored):
    def states(seed, count):
        transforms = Compose([RandRotate90() for _ in range(count)]).set_random_state(seed)
        loader = DataLoader(Dataset([1], transforms))
        return _RandomState(SimpleNamespace(state=SimpleNamespace(dataloader=loader)))

    first, other = states(0, 2), states(7, count)
    other.load_state_dict(first.state_dict())
    expected = first if restored else states(7, count)
    assert [random.rand() for random in other.transforms] == [random.rand() for random in expected.transforms]


def test_ranks_and_gpus(monkeypatch):
    """A rank keeps its own random numbers, because the file has those of one rank; a single process restores each GPU."""
    state = _RandomState(SimpleNamespace(state=SimpleNamespace(dataloader=None)))
    saved = {**state.state_dict(), "cuda": [torch.tensor([1]), torch.tensor([2])]}
    before, restored = torch.get_rng_state(), []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    expected = torch.rand(1)
    state.load_state_dict(saved)
    assert torch.equal(torch.rand(1), expected) and [int(part) for part in restored] == [1, 2]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    torch.set_rng_state(before)
    torch.rand(1)
    state.load_state_dict(saved)
    assert not torch.equal(torch.rand(1), expected) and len(restored) == 2


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


SCHEDULES = {
    "OneCycleLR": lambda optimizer, steps: OneCycleLR(optimizer, max_lr=0.01, total_steps=steps, pct_start=0.2),
    "CosineAnnealingLR": lambda optimizer, steps: CosineAnnealingLR(optimizer, T_max=steps),
    "PolynomialLR": lambda optimizer, steps: PolynomialLR(optimizer, total_iters=steps, power=0.9),
    "ExponentialLR": lambda optimizer, steps: ExponentialLR(optimizer, 0.9),
    "SequentialLR": lambda optimizer, steps: SequentialLR(
        optimizer, [ConstantLR(optimizer, 1.0), ConstantLR(optimizer, 0.5, 1000)], milestones=[steps // 2]
    ),
}


def network_and_optimizer():
    """The same weights each time."""
    torch.manual_seed(3)
    network = Regressor()
    return network, torch.optim.Adam(network.parameters(), 1e-3)


def scheduled(folder, name, max_epochs, images=5, by_epoch=False):
    """Train with a schedule; the learning rate and the first momentum of each iteration."""
    network, optimizer = network_and_optimizer()
    length = -(-images // 2)
    scheduler = SCHEDULES[name](optimizer, max_epochs * (1 if by_epoch else length))
    resume = ResumeTraining({"model": network, "optimizer": optimizer, "lr_scheduler": scheduler}, folder)
    handlers = [resume, LrScheduleHandler(scheduler, epoch_level=by_epoch, print_lr=False)]
    trainer = make_trainer(make_cases(images, seed=1), network, optimizer, max_epochs, handlers)
    rates = []

    def record(_engine):
        group = optimizer.param_groups[0]
        rates.append((group["lr"], group["betas"][0]))

    trainer.add_event_handler(Events.ITERATION_STARTED, record)
    trainer.run()
    return np.array(rates)


@pytest.mark.parametrize("by_epoch", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_more_epochs_continue_the_schedule_of_the_new_length(name, by_epoch, tmp_path):
    scheduled(tmp_path / "a", name, 2, by_epoch=by_epoch)
    longer = scheduled(tmp_path / "a", name, 6, by_epoch=by_epoch)
    whole = scheduled(tmp_path / "b", name, 6, by_epoch=by_epoch)
    np.testing.assert_allclose(longer, whole[2 * 3 :], rtol=1e-12)


@pytest.mark.parametrize("images", [5, 2])
@pytest.mark.parametrize("name", SCHEDULES)
def test_fewer_epochs_than_were_trained_are_complete(name, images, tmp_path, caplog):
    scheduled(tmp_path, name, 3)
    with caplog.at_level(logging.INFO):
        assert len(scheduled(tmp_path, name, 2, images)) == 0
    assert "this training is complete" in caplog.text and "is at epoch 3 of max_epochs=2" in caplog.text


@pytest.mark.parametrize("name", SCHEDULES)
def test_more_images_continue_the_schedule_at_the_same_epoch(name, tmp_path, caplog):
    scheduled(tmp_path / "a", name, 2, images=5)
    more = scheduled(tmp_path / "a", name, 4, images=9)
    whole = scheduled(tmp_path / "b", name, 4, images=9)
    np.testing.assert_allclose(more, whole[2 * 5 :], rtol=1e-12)
    assert "an epoch had 3 iterations and now has 5" in caplog.text


@pytest.mark.parametrize("event", [Events.EPOCH_COMPLETED, Events.ITERATION_COMPLETED])
def test_a_schedule_without_a_handler_continues_at_the_same_epoch(event, tmp_path):
    """The number of steps shows if they are epochs or iterations. An epoch has 3 iterations, then 5."""

    def rate(folder, max_epochs, images):
        network, optimizer = network_and_optimizer()
        scheduler = ExponentialLR(optimizer, 0.9)
        resume = ResumeTraining({"model": network, "optimizer": optimizer, "lr_scheduler": scheduler}, folder)
        trainer = make_trainer(make_cases(images, seed=1), network, optimizer, max_epochs, [])
        trainer.add_event_handler(event, lambda engine: scheduler.step())  # before the state is saved
        resume.attach(trainer)
        trainer.run()
        return optimizer.param_groups[0]["lr"]

    rate(tmp_path, 2, images=5)
    steps = 4 * (1 if event == Events.EPOCH_COMPLETED else 5)
    assert rate(tmp_path, 4, images=9) == pytest.approx(1e-3 * 0.9**steps)


def test_a_schedule_that_has_no_such_step(tmp_path):
    """A file of 6 steps is resumed with a schedule of 4."""
    scheduled(tmp_path, "OneCycleLR", 2)
    network, optimizer = network_and_optimizer()
    scheduler = SCHEDULES["OneCycleLR"](optimizer, 4)
    resume = ResumeTraining({"model": network, "optimizer": optimizer, "lr_scheduler": scheduler}, tmp_path)
    handlers = [resume, LrScheduleHandler(scheduler, epoch_level=False, print_lr=False)]
    with pytest.raises(ValueError, match="lr_scheduler has no learning rate for step 6: .* Plan it for more steps"):
        make_trainer(make_cases(seed=1), network, optimizer, 3, handlers).run()


def test_rounds_continue_a_schedule_that_does_not_end(tmp_path):
    network, optimizer = network_and_optimizer()
    scheduler = ExponentialLR(optimizer, 0.9)
    resume = ResumeTraining({"model": network, "lr_scheduler": scheduler}, tmp_path, enabled=False)
    handlers = [resume, LrScheduleHandler(scheduler, print_lr=False)]
    trainer = make_trainer(make_cases(), network, optimizer, 1, handlers)
    trainer.run()
    trainer.state.max_epochs = 3
    trainer.run()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.9**3)


def test_a_schedule_of_an_unknown_number_of_steps_is_not_too_short():
    """Only an ``LrScheduleHandler`` shows how many steps the training makes."""
    network = Regressor()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    plan = LearningRatePlan(SCHEDULES["OneCycleLR"](optimizer, 4))
    trainer = make_trainer(make_cases(), network, optimizer, 9)
    plan.require_length(trainer, "lr_scheduler")
    assert not plan.start_again(trainer)
    LrScheduleHandler(plan.scheduler, epoch_level=False, print_lr=False).attach(trainer)
    trainer.state.epoch_length = 3
    with pytest.raises(ValueError, match="planned for 4 steps, but the training ends at step 27"):
        plan.require_length(trainer, "lr_scheduler")


def test_rounds_without_loading_start_a_schedule_again_that_would_end(tmp_path):
    """As in federated learning, where each round adds epochs to the trainer."""
    network, optimizer = network_and_optimizer()
    scheduler = SCHEDULES["OneCycleLR"](optimizer, 2 * 3)
    resume = ResumeTraining({"model": network, "lr_scheduler": scheduler}, tmp_path, enabled=False)
    handlers = [resume, LrScheduleHandler(scheduler, epoch_level=False, print_lr=False)]
    trainer, rates = make_trainer(make_cases(), network, optimizer, 2, handlers), []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: rates.append(optimizer.param_groups[0]["lr"]))
    for _ in range(3):
        trainer.run()
        trainer.state.max_epochs = trainer.state.epoch + 2
    assert rates == pytest.approx(3 * rates[:6]) and len(set(rates)) > 4


def test_a_schedule_that_is_too_short_is_named_at_the_start(tmp_path):
    network, optimizer = network_and_optimizer()
    scheduler = SCHEDULES["OneCycleLR"](optimizer, 4)
    resume = ResumeTraining({"model": network, "lr_scheduler": scheduler}, tmp_path)
    handlers = [resume, LrScheduleHandler(scheduler, epoch_level=False, print_lr=False)]
    with pytest.raises(ValueError, match="lr_scheduler is planned for 4 steps, but the training ends at step 6"):
        make_trainer(make_cases(), network, optimizer, 2, handlers).run()


def test_a_best_metric_of_other_validation_images_is_not_kept(tmp_path, caplog):
    run_until_stopped(tmp_path, 5, stop_at=7, scores=[3.0, 1.0])
    trainer, evaluator, network, _ = training(tmp_path, 3, scores=[0, 0, 2.0])
    evaluator.data_loader.dataset.data[0]["label"] = evaluator.data_loader.dataset.data[0]["label"] + 1.0
    trainer.run()
    assert (evaluator.state.best_metric, evaluator.state.best_metric_epoch) == (2.0, 3)
    assert "The best metric so far, 1.0000 at epoch 2, is not kept, because the validation images" in caplog.text
    kept = torch.load(tmp_path / "model.pt", weights_only=True)
    torch.testing.assert_close(kept, dict(network.state_dict()), rtol=0, atol=0)


def test_other_validation_images_before_the_first_validation(tmp_path, caplog):
    """There is no best metric that could be lost."""
    cases, state = make_cases(seed=1), []
    for number in range(2):
        network, optimizer = network_and_optimizer()
        evaluator = make_evaluator(make_cases(seed=number), network=network)
        resume = ResumeTraining({"model": network}, tmp_path, validator=evaluator)
        trainer = make_trainer(cases, network, optimizer, 1 + number, [resume, ValidationHandler(2, evaluator)])
        with caplog.at_level(logging.WARNING):
            trainer.run()
        state.append((evaluator.state.best_metric_epoch, "is not kept" in caplog.text))
    assert state == [(-1, False), (2, False)]


def test_a_second_best_model_that_cannot_be_used_is_forgotten(tmp_path):
    def best_two(validator):
        saver = CheckpointSaver(
            str(tmp_path),
            {"model": torch.nn.Linear(1, 1)},
            save_key_metric=True,
            key_metric_n_saved=2,
            key_metric_negative_sign=True,
        )
        saver.attach(validator)
        return saver

    names = {-2.0: "model_2.pt", -1.0: "model_1.pt"}
    for name in names.values():
        torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / name)
    validator = make_evaluator(make_cases())
    saver = best_two(validator)
    saver.load_state_dict({"_saved": list(names.items())})
    validator.state.best_metric, validator.state.best_metric_epoch = 1.0, 4
    state = _BestModel(validator, None).state_dict()
    for damaged, kept, epoch in (("model_2.pt", ["model_1.pt"], 4), ("model_1.pt", [], -1)):
        (tmp_path / damaged).write_bytes(b"no weights")
        validator = make_evaluator(make_cases())
        saver = best_two(validator)
        _BestModel(validator, None).load_state_dict(state)
        assert [item.filename for item in saver._key_metric_checkpoint._saved] == kept
        assert validator.state.best_metric_epoch == epoch


def test_the_validation_part_is_that_of_the_files_and_labels(tmp_path):
    """It is the same in another folder and another order, but not with other images or points."""

    def part(folder, names, points=(1.0, 2.0)):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        items = [{"image": str(folder / name), "label": [list(points)], "coordinate_system": "RAS"} for name in names]
        return _validation_part(SimpleNamespace(data_loader=DataLoader(Dataset(items))))

    first = part(tmp_path / "a", ["1.png", "2.png"])
    assert first == part(tmp_path / "b", ["2.png", "1.png"])
    assert first not in (part(tmp_path / "c", ["1.png", "3.png"]), part(tmp_path / "d", ["1.png", "2.png"], (1.0, 2.5)))
    assert _validation_part(SimpleNamespace(data_loader=[1, 2])) is None


def test_a_label_file_that_was_corrected_is_another_label(tmp_path):
    for name in ("1.png", "1.mrk.json"):
        (tmp_path / name).write_text("first")
    items = [{"image": str(tmp_path / "1.png"), "label": str(tmp_path / "1.mrk.json")}]
    validator = SimpleNamespace(data_loader=DataLoader(Dataset(items)))
    first = _validation_part(validator)
    assert _validation_part(validator) == first
    (tmp_path / "1.mrk.json").write_text("moved")
    assert _validation_part(validator) != first


@pytest.mark.parametrize("damage", ["cut", "nan"])
def test_a_best_model_that_cannot_be_used_is_not_the_best(damage, tmp_path, caplog):
    run_until_stopped(tmp_path, 5, stop_at=7, scores=[3.0, 1.0])
    path = tmp_path / "model.pt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        weights = torch.load(path, weights_only=True)
        weights["layers.1.bias"][0] = torch.nan
        torch.save(weights, path)
    trainer, evaluator, network, _ = training(tmp_path, 3, scores=[0, 0, 2.0])
    trainer.run()
    assert (evaluator.state.best_metric, evaluator.state.best_metric_epoch) == (2.0, 3)
    assert f"is not kept, because {path}" in caplog.text
    kept = torch.load(path, weights_only=True)
    torch.testing.assert_close(kept, dict(network.state_dict()), rtol=0, atol=0)


def test_a_damaged_state_is_named(tmp_path):
    training(tmp_path, 1)[0].run()
    path = tmp_path / "training_state.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        ValueError, match=r"training_state.pt: the file is damaged, for example cut off.*--resume false"
    ):
        training(tmp_path, 2)[0].run()


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="load_dict"):
        ResumeTraining({}, tmp_path)
    with pytest.raises(ValueError, match="trainer"):
        ResumeTraining({"trainer": torch.nn.Identity()}, tmp_path)
    assert ResumeTraining({"a": torch.nn.Identity()}, tmp_path / "x.pt").path == tmp_path / "x.pt"
