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
"""The time that a training takes, estimated from measured steps, and plans for a given time."""

from __future__ import annotations

import contextlib
import io
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.bundle import ConfigParser

from .batch import choose_max_epochs
from .choice import Choice, Choices
from .close_look import close_val_interval, looks_per_image
from .data_summary import DataSummary
from .groups import centers_epochs
from .machine import Machine
from .patches import volume_size

__all__ = [
    "Budget",
    "Pace",
    "choose_epochs_in",
    "close_look_seconds",
    "duration_text",
    "measure_pace",
    "centers_seconds",
    "parse_duration",
    "training_seconds",
    "validation_seconds",
]

_LONGEST = 1.5  # seconds to measure
_STEPS = 3  # steps to measure at most
_OVERNIGHT = 10 * 3600.0
_USED = 0.85  # part of the budget for training steps; validation, reading and augmentation take the rest
_MORE = 2  # more training steps than this multiple of the usual number hardly help
_LEAST = 0.25  # of the usual number of voxels; smaller images lose too much


@dataclass(frozen=True)
class Pace:
    """Measured speed of a network.

    Args:
        train: seconds of a training step per voxel of each image in the batch.
        infer: seconds of a prediction per voxel.
    """

    train: float
    infer: float


@dataclass(frozen=True)
class Budget:
    """Time for a training.

    Args:
        seconds: the time.
        pace: measured speed.
    """

    seconds: float
    pace: Pace

    def voxels(self, steps: int, batch_size: int, usual: int) -> tuple[int, str]:
        """Return the number of voxels of an image with which so many training steps fit, and the reason.

        Args:
            steps: usual number of training steps.
            batch_size: number of images in a step.
            usual: usual limit of the number of voxels. The result is at least a quarter of it.
        """
        fitting = int(_USED * self.seconds / (steps * batch_size * self.pace.train))
        least = int(_LEAST * usual)
        if fitting < least:
            return least, f"a quarter of the usual limit, although {duration_text(self.seconds)} would require fewer"
        return fitting, f"with which {steps} training steps take {duration_text(self.seconds)}"


def parse_duration(text: str) -> float:
    """Return a duration in seconds.

    Args:
        text: ``"15min"``, ``"1.5h"`` or ``"overnight"``, which is 10 hours.

    Raises:
        ValueError: for another text.

    Example:
        >>> parse_duration("15min"), parse_duration("1.5h")
        (900.0, 5400.0)
    """
    if text.strip() == "overnight":
        return _OVERNIGHT
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(min|h)\s*", text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration; expected for example 15min, 1.5h or overnight.")
    return float(match[1]) * (60 if match[2] == "min" else 3600)


def duration_text(seconds: float) -> str:
    """Return a duration as text with two digits.

    Example:
        >>> duration_text(42), duration_text(754), duration_text(5400)
        ('42 s', '13 min', '1.5 h')
    """
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 99 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 99 else f"{seconds:.0f} s"


def measure_pace(
    config: Mapping[str, Any], num_landmarks: int, size: Sequence[int], machine: Machine, batch_size: int = 1
) -> Pace | None:
    """Measure training steps and predictions on random images, for a second or two.

    The network, loss and optimizer are those of the configuration. A first step is not measured. On a CPU, the time is
    proportional to the number of images, so one image is measured.

    Args:
        config: configuration of training.
        num_landmarks: N.
        size: size of the input of the network in voxels.
        machine: machine for the training.
        batch_size: number of images in a training step.

    Returns:
        The speed. None if the device of the training is not on this machine.
    """
    if machine.on_gpu and not torch.cuda.is_available():
        return None
    count = batch_size if machine.on_gpu else 1
    parser = ConfigParser(dict(config))
    # names and weights do not change the speed, and their files may not exist
    replaced = {
        "names": [f"landmark {i}" for i in range(num_landmarks)],
        "device": f"$torch.device('{machine.device}')",
    }
    parser.update({**replaced, **({"backbone_weights": None} if "backbone_weights" in config else {})})
    device = torch.device(machine.device)
    with contextlib.redirect_stdout(io.StringIO()), torch.random.fork_rng(enabled=not machine.on_gpu, devices=[]):
        network, loss, optimizer, inferer = (
            parser.get_parsed_content(name) for name in ("network", "loss", "optimizer", "train#inferer")
        )
        images = torch.randn(count, 1, *size, device=device)
        points = torch.rand(count, num_landmarks, len(size), device=device) * torch.tensor(size, device=device)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(inferer(images, network), points).backward()
            optimizer.step()

        def predict() -> None:
            with torch.no_grad():
                inferer(images, network)

        voxels = count * math.prod(size)
        train = _seconds(step, machine, _LONGEST) / voxels
        network.eval()
        return Pace(train, _seconds(predict, machine, _LONGEST / 3) / voxels)


def training_seconds(choices: Choices, summary: DataSummary, pace: Pace, multiple: int) -> float:
    """Return the estimated time of a training in seconds, without reading of images and augmentation."""
    value = {name: choice.value for name, choice in choices.items()}
    validations = value["max_epochs"] // value["val_interval"]
    one = _epoch_seconds(choices, summary, pace)
    return value["max_epochs"] * one + validations * validation_seconds(choices, summary, pace, multiple)


def validation_seconds(choices: Choices, summary: DataSummary, pace: Pace, multiple: int) -> float:
    """Return the estimated time of one validation in seconds."""
    size, windows = choices.network_size, 1
    if choices.in_patches:
        volume = volume_size(summary, choices["spacing_mm"].value, multiple)
        step = 1 - choices["overlap"].value
        windows = math.prod(math.ceil(max(0, n - p) / (p * step)) + 1 for n, p in zip(volume, size))
    return summary.counts[1] * windows * math.prod(size) * pace.infer


def close_look_seconds(choices: Choices, summary: DataSummary, coarse: Pace, fine: Pace, multiple: int) -> float:
    """Return the estimated time of the second training of a close look in seconds, like :func:`training_seconds`.

    Args:
        choices: all choices.
        summary: summary of the data.
        coarse: measured speed of the coarse network. Its points are corrected in each validation.
        fine: measured speed of the fine network.
        multiple: factor by which the coarse network downsamples each axis.
    """
    value = {name: choice.value for name, choice in choices.items()}
    patch, epochs = math.prod(value["close_size"]), value["max_epochs"]
    train = epochs * summary.counts[0] * value["close_patches_per_image"] * patch * fine.train
    patches = summary.counts[1] * looks_per_image(choices, summary) * patch * fine.infer
    found = validation_seconds(choices, summary, coarse, multiple) * (2 if value["close_mirrored"] else 1)
    return train + epochs // close_val_interval(choices, summary) * (patches + found)


def centers_seconds(choices: Choices, summary: DataSummary, pace: Pace, multiple: int) -> float:
    """Return the estimated time of the training of the centers of groups, like :func:`training_seconds`."""
    one = summary.counts[0] * math.prod(choices.network_size) * pace.train
    return centers_epochs(summary) * one + validation_seconds(choices, summary, pace, multiple)


def choose_epochs_in(
    budget: Budget, choices: Choices, summary: DataSummary, steps: int, multiple: int, each_epoch: bool
) -> Choice:
    """Choose the number of epochs for a given time.

    Args:
        budget: time and speed.
        choices: choices so far, among them the grid and the batch size.
        summary: summary of the data.
        steps: usual number of training steps.
        multiple: factor by which the network downsamples each axis.
        each_epoch: whether each epoch has a validation.
    """
    batch_size = choices["batch_size"].value
    usual = choose_max_epochs(summary, batch_size, steps).value
    one = _epoch_seconds(choices, summary, budget.pace)
    checked = validation_seconds(choices, summary, budget.pace, multiple)
    # about 12 validations, or one per epoch
    time_left = _USED * budget.seconds if each_epoch else max(_USED * budget.seconds - 12 * checked, one)
    fitting = int(time_left / (one + (checked if each_epoch else 0)))
    epochs = min(max(1, fitting), _MORE * usual)
    per_step = math.ceil(summary.counts[0] / batch_size)
    whole = duration_text(budget.seconds)
    if epochs == _MORE * usual:
        return Choice(
            epochs, f"{_MORE} times the usual {steps} training steps; more hardly help, so {whole} are not used up"
        )
    few = f", fewer than the usual {steps}" if epochs < usual else ""
    return Choice(
        epochs, f"{epochs * per_step} training steps{few}, which take {whole} with an epoch of {duration_text(one)}"
    )


def _epoch_seconds(choices: Choices, summary: DataSummary, pace: Pace) -> float:
    patches = choices["patches_per_image"].value if choices.in_patches else 1
    return summary.counts[0] * patches * math.prod(choices.network_size) * pace.train


def _seconds(run: Any, machine: Machine, longest: float) -> float:
    """Return the mean time of a call, after a first one."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        if machine.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    first = timed()
    if first > 2 * longest:  # another one would take too long, and start-up costs are small against this
        return first
    times: list[float] = []
    while len(times) < _STEPS and sum(times) < longest:
        times.append(timed())
    return sum(times) / len(times)
