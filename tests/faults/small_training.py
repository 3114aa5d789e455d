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
"""A training of a fraction of a second with the handlers of a bundle, in a process that can be killed."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import resource
import signal
import traceback
from pathlib import Path
from typing import Any

import torch
from engines import NAMES, Regressor, make_cases, make_evaluator, make_trainer
from matplotlib.figure import Figure
from monai.handlers import LrScheduleHandler, ValidationHandler
from one_pixel import save_one_pixel
from torch.optim.lr_scheduler import OneCycleLR
from warm_python import START_METHOD

from monai_landmarks.handlers import (
    PredictionSaver,
    ResumeTraining,
    SafeCheckpointSaver,
    StopOnNonFinite,
    TrainingCurve,
)

EPOCHS = 5
SAVES = 2 * EPOCHS + 1  # of the state and of the best model in each epoch, and of the final model
# its processes are forked from one that has imported everything, so they start in milliseconds
_CONTEXT: Any = multiprocessing.get_context(START_METHOD)


def training(folder: Path, epochs: int = EPOCHS, resume: bool = True, images: int = 5, size: int = 16) -> Any:
    """Return a trainer. Its validation improves with each epoch, so each epoch saves a best model."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = Regressor(size)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    models = {"save_dir": str(folder), "save_dict": {"model": network}}
    best = SafeCheckpointSaver(
        **models, save_key_metric=True, key_metric_filename="model.pt", key_metric_negative_sign=True
    )
    saver = PredictionSaver(folder / "predictions", NAMES, formats=("mrk.json",), best_only=True)
    scores = [10.0 - epoch for epoch in range(epochs)]
    evaluator = make_evaluator(make_cases(size=size), [best, saver], network=network, scores=scores)
    total = epochs * -(-images // 2)
    scheduler = OneCycleLR(optimizer, max_lr=1e-3, total_steps=total)
    holders = {"model": network, "optimizer": optimizer, "lr_scheduler": scheduler}
    handlers = [
        ResumeTraining(holders, folder, validator=evaluator, enabled=resume),
        StopOnNonFinite(),
        LrScheduleHandler(scheduler, epoch_level=False, print_lr=False),
        ValidationHandler(1, evaluator),
        SafeCheckpointSaver(**models, save_final=True, final_filename="model_final.pt"),
        TrainingCurve(folder / "training_curve.png", validator=evaluator),
    ]
    return make_trainer(make_cases(images, size=size, seed=1), network, optimizer, epochs, handlers)


def _train(folder: Path, report: Path, die_in_save: int | None, file_size: int | None, options: dict[str, Any]) -> None:
    Figure.savefig = save_one_pixel  # written as any other file, only faster
    if die_in_save is not None:
        torch.save = _Dying(die_in_save)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    try:
        training(folder, **options).run()
    except BaseException:
        report.write_text(traceback.format_exc())
        os._exit(1)


class _Dying:
    """``torch.save`` that is killed in the middle of its n-th file."""

    def __init__(self, number: int) -> None:
        self.left, self.save = number, torch.save

    def __call__(self, content: Any, file: Any) -> None:
        self.left -= 1
        if self.left:
            self.save(content, file)
            return
        whole = io.BytesIO()
        self.save(content, whole)
        half = whole.getvalue()[: len(whole.getvalue()) // 2]
        if hasattr(file, "write"):
            file.write(half)
            file.flush()
        else:
            Path(file).write_bytes(half)
        os.kill(os.getpid(), signal.SIGKILL)


def start(
    folder: Path, report: Path, die_in_save: int | None = None, file_size: int | None = None, **options: Any
) -> Any:
    """Start a training in a process of its own; if it ends with an error, the report is its traceback."""
    arguments = (folder, report, die_in_save, file_size, options)
    process = _CONTEXT.Process(target=_train, args=arguments)
    process.start()
    return process


def run(folder: Path, report: Path, **options: Any) -> int:
    """Run a training in a process of its own, and return its exit code."""
    process = start(folder, report, **options)
    process.join(240)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"the training in {folder} did not end within 240 seconds.")
    return process.exitcode


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def check_files(folder: Path) -> None:
    """Every file is complete."""
    for path in folder.glob("[!.]*.pt"):
        load(path)
    for path in folder.rglob("[!.]*.csv"):
        text = path.read_text()
        rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
        assert text.endswith("\n") and len({len(row) for row in rows}) == 1, path
    for path in folder.rglob("[!.]*.png"):
        assert path.read_bytes()[-8:-4] == b"IEND", path


__all__ = ["EPOCHS", "SAVES", "check_files", "load", "run", "start", "training"]
