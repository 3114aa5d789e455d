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


"""The scale of float16 fits from the first step on, whatever the range of the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from monai_landmarks.handlers import GradientClipping, GradientScale, ResumeTraining
from monai_landmarks.inferers import AutocastInferer, Precision


class Recorder:
    """Records the scale and the gradients of each step."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network
        self.gradients: list[list[torch.Tensor]] = []
        self.scales: list[float] = []

    def note(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.gradients.append([p.grad.clone() for p in self.network.parameters() if p.grad is not None])


def train(
    precision: Precision,
    factor: float,
    steps: int = 6,
    clip: float | None = None,
    state: Path | None = None,
    epochs: int = 1,
    **options: Any,
) -> tuple[Recorder, SupervisedTrainer, torch.nn.Module]:
    """A few steps of a small network, whose loss is a sum times a factor."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3, padding=1)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    recorder = Recorder(network)
    optimizer.register_step_pre_hook(recorder.note)
    data = [{"image": torch.randn(1, 1, 16, 16), "label": torch.randn(1, 2, 16, 16)} for _ in range(steps)]
    inferer = AutocastInferer(precision=precision)
    resume = (
        [] if state is None else [ResumeTraining({"network": network, "optimizer": optimizer}, state, enabled=True)]
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=data,  # type: ignore[arg-type]
        network=network,
        optimizer=optimizer,
        loss_function=lambda pred, label: factor * ((pred - label) ** 2).sum(),
        inferer=inferer,
        train_handlers=[GradientScale(optimizer, inferer, **options), *resume, GradientClipping(optimizer, clip)],
    )
    trainer.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED,
        lambda engine: recorder.scales.append(engine.scaler.get_scale() if engine.scaler else 1.0),
    )
    trainer.run()
    return recorder, trainer, network


@pytest.mark.parametrize("factor", [1e-3, 1.0, 30.0])
def test_no_step_is_lost(factor: float) -> None:
    """With a factor of 1 or 30, the first scale of torch, 65536, overflows."""
    expected, _, _ = train("float32", factor)
    found, trainer, _ = train("float16", factor)
    assert trainer.scaler is not None and len(found.gradients) == len(expected.gradients) == 6
    for step, (ours, exact) in enumerate(zip(found.gradients, expected.gradients)):
        for gradient, reference in zip(ours, exact):
            # float16 keeps eleven bits
            torch.testing.assert_close(
                gradient, reference, rtol=0, atol=0.02 * float(reference.abs().max()), msg=str(step)
            )


@pytest.mark.parametrize("factor", [1e-3, 1.0, 30.0])
def test_the_scale_follows_the_gradients(factor: float) -> None:
    recorder, trainer, _ = train("float16", factor)
    assert trainer.scaler is not None
    greatest = max(float(g.abs().max()) for g in recorder.gradients[-1])
    assert 512 < greatest * trainer.scaler.get_scale() <= 1024


def test_clipping_sees_unscaled_gradients() -> None:
    recorder, _, _ = train("float16", 30.0, clip=0.5)
    for gradients in recorder.gradients:
        assert float(torch.cat([g.flatten() for g in gradients]).norm()) == pytest.approx(0.5, rel=1e-3)


def test_a_step_that_overflows_is_skipped() -> None:
    """The gradients of this loss do not even fit with a scale of 1."""
    recorder, trainer, network = train("float16", 1e6, steps=4)
    assert trainer.scaler is not None and 0 < len(recorder.gradients) < 4
    assert trainer.scaler.get_scale() < 1
    assert all(torch.isfinite(p).all() for p in network.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_precisions_have_no_scale(precision: Precision) -> None:
    recorder, trainer, _ = train(precision, 30.0, steps=1)
    assert trainer.scaler is None and not trainer.amp and len(recorder.gradients) == 1


@pytest.mark.parametrize("largest", [0.0, -1.0, 65504.0])
def test_an_aim_outside_float16_is_refused(largest: float) -> None:
    with pytest.raises(ValueError, match="largest"):
        train("float16", 1.0, largest=largest)


def test_a_resumed_training_continues_with_its_scale(tmp_path: Path) -> None:
    """Scale and gradients of each step are those of a training that was not interrupted."""
    whole, _, _ = train("float16", 30.0, epochs=2)
    first, _, _ = train("float16", 30.0, state=tmp_path, epochs=1)
    second, _, _ = train("float16", 30.0, state=tmp_path, epochs=2)
    assert first.scales + second.scales == whole.scales and whole.scales[6] != 1
    found = first.gradients + second.gradients
    assert len(found) == len(whole.gradients) == 12
    for step, (ours, reference) in enumerate(zip(found, whole.gradients)):
        for gradient, expected in zip(ours, reference):
            torch.testing.assert_close(gradient, expected, rtol=0, atol=0, msg=str(step))


def test_a_training_without_a_scale_resumes_in_float16(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As where the precision is chosen by the GPU, and the next one is older."""
    train("bfloat16", 30.0, state=tmp_path, epochs=1)
    with caplog.at_level("INFO"):
        recorder, trainer, _ = train("float16", 30.0, state=tmp_path, epochs=2)
    assert recorder.scales[0] == 1 and len(recorder.gradients) == 6 and trainer.state.epoch == 2
    assert "has no gradient scale: it starts anew" in caplog.text
