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
"""Execution of the runs of a study: several at once, each done once, the others going on where one fails."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

from monai_landmarks.data import atomic_write

from .locks import TAKEN, held
from .plan import DONE, STARTED, StudyPlan, load_timing, save_plan
from .runs import Run

# the memory of a network is measured with torch's global state, and MONAI looks for components in all imported modules,
# whose number a launch may change
_PLANNING = threading.Lock()

__all__ = ["Launch", "Outcome", "Process", "execute_runs"]

_LOG = "run.log"
_POLL = 0.2  # seconds between two looks at a process
_LINE = 20.0  # seconds between two lines of progress, where the output is not a terminal
_PROBE = (1, 4)  # epochs of the two trainings that measure the time of a step


class Process(Protocol):
    """A running program, as :class:`subprocess.Popen`."""

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit code."""


#: starts ``python ARGUMENTS`` with its output appended to a file, with further variables and an inherited file descriptor
Launch = Callable[[Sequence[str], Path, Mapping[str, str], "int | None"], Process]


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Args:
        run: the run.
        state: ``"done"``, ``"failed"``, or ``"elsewhere"`` if another process is executing it.
        reason: reason of a failure.
        log: file with the output of the training.
    """

    run: Run
    state: Literal["done", "failed", "elsewhere"]
    reason: str = ""
    log: Path | None = None


def execute_runs(
    plan: StudyPlan,
    runs: Sequence[Run],
    workers: int = 1,
    *,
    force: bool = False,
    stream: TextIO | None = None,
    launch: Launch | None = None,
) -> list[Outcome]:
    """Execute those of the runs that are not done.

    Each run is a bundle in ``runs/<name>``, which is trained and evaluated by ``python -m monai.bundle run``. A
    training that was interrupted continues. The file ``done.json`` is written last.

    Args:
        plan: the plan of the study.
        runs: the runs to execute.
        workers: number of trainings at the same time. They share the cores of the CPU.
        force: whether runs that were made with other settings are removed and made again.
        stream: output for the progress. Default: standard error.
        launch: function that starts a Python program. Default: :class:`subprocess.Popen`.

    Returns:
        The outcome of each run that was not done before.

    Raises:
        ValueError: if runs were made with other settings, without ``force``.
    """
    launch, stop = launch or _popen, threading.Event()
    environment = {"PYTHONUNBUFFERED": "1"}
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    programs = _Programs(launch, environment, stop)
    if plan.study.budget.kind == "seconds":
        with held(plan.folder / ".plan.lock", patient=True):
            load_timing(plan)
            _measure_steps(plan, programs)
    changed = [run for run in runs if plan.state(run) == "changed"]
    if changed and not force:
        raise ValueError(
            f"{len(changed)} runs were made with other settings, the first in {plan.run_folder(changed[0])}; give the study"
            " another output folder, or remove them and make them again with --force."
        )
    todo = [run for run in runs if plan.state(run) != "done"]
    if not todo:
        return []
    progress = _Progress(plan, len(runs), len(runs) - len(todo), stream or sys.stderr)
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_execute, plan, run, force, programs, progress): run for run in todo}
        waiting: set[Future[Outcome]] = set(futures)
        try:
            while waiting:
                ended, waiting = wait(waiting, progress.pause, FIRST_COMPLETED)
                outcomes += [future.result() for future in ended]
                progress.show(outcomes)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            progress.close()
    return outcomes


def _execute(plan: StudyPlan, run: Run, force: bool, programs: _Programs, progress: _Progress) -> Outcome:
    folder = plan.run_folder(run)
    with held(folder.parent / f".{run.name}.lock") as lock:
        if lock is TAKEN:
            return Outcome(run, "elsewhere")
        state = plan.state(run)  # another process may have been faster
        if state == "done":
            return Outcome(run, "done")
        log = folder / _LOG
        try:
            if state == "changed" and force:
                shutil.rmtree(folder)
            with _PLANNING:
                _prepare(plan, run)
            progress.started(run)
            continued = log.is_file()  # the time of earlier starts is not known
            begin = time.monotonic()
            if reason := _train_and_evaluate(folder, log, lock, programs):
                return Outcome(run, "failed", reason, log)
            seconds = None if continued else round(time.monotonic() - begin, 1)
            _write_json(folder / DONE, {"fingerprint": plan.fingerprint(run), "seconds": seconds})
        except Exception as error:  # it must not end the other runs
            return Outcome(run, "failed", f"{type(error).__name__}: {error}", log if log.is_file() else None)
        finally:
            progress.ended(run)
    return Outcome(run, "done")


def _prepare(plan: StudyPlan, run: Run) -> None:
    """Write the bundle of a run, unless it is there."""
    folder = plan.run_folder(run)
    if (folder / STARTED).is_file():
        return
    if folder.exists():
        if (folder / "models").exists():
            raise ValueError(f"{folder}: has weights, but no {STARTED}; remove or rename the folder.")
        shutil.rmtree(folder)  # the bundle of a process that was killed before it started the training
    plan.write_bundle(run)
    _write_json(folder / STARTED, {"fingerprint": plan.fingerprint(run), **plan.settings(run)})


def _train_and_evaluate(folder: Path, log: Path, lock: int | None, programs: _Programs) -> str:
    """Train and evaluate the bundle. Return the reason of a failure, or an empty string."""
    configs = [f"{folder}/configs/{name}.json" for name in ("train", "study", "evaluate")]
    for what, files, more in (("training", configs[:2], ["--resume", "true"]), ("evaluating", configs, [])):
        arguments = ["-m", "monai.bundle", "run", what, "--bundle_root", str(folder)]
        code = programs.run([*arguments, "--config_file", str(files), *more], log, lock)
        if code is None:
            return "interrupted"
        if code:
            return f"{what} ended with exit code {code}: {_last_line(log)}"
    if not any((folder / "eval" / "testing" / "predictions").glob("*")):
        return "the evaluation wrote no predictions"
    return ""


def _measure_steps(plan: StudyPlan, programs: _Programs) -> None:
    """Measure the time of a training step of each configuration, from the difference of two short trainings."""
    for run in plan.runs:
        label = run.configuration.name
        if label in plan.seconds_per_step:
            continue
        folder = plan.folder / "timing" / label
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe = Run(f"../timing/{label}", run.configuration, run.part, run.seed, run.datalist)
        plan.write_bundle(probe)
        seconds = []
        for epochs in _PROBE:
            files = str([f"{folder}/configs/{name}.json" for name in ("train", "study")])
            arguments = ["-m", "monai.bundle", "run", "training", "--bundle_root", str(folder), "--config_file", files]
            begin = time.monotonic()
            code = programs.run(
                [*arguments, "--max_epochs", str(epochs), "--val_interval", str(epochs)], folder / _LOG, None
            )
            if code:
                raise ValueError(f"{label}: the timing ended with exit code {code}, see {folder / _LOG}.")
            seconds.append(time.monotonic() - begin)
        given = plan.given(run)
        steps = -(-len(plan.datalists[run.datalist]["training"]) // given["batch_size"])
        plan.seconds_per_step[label] = max(1e-4, (seconds[1] - seconds[0]) / (_PROBE[1] - _PROBE[0]) / steps)
        shutil.rmtree(folder, ignore_errors=True)
    save_plan(plan)


@dataclass(frozen=True)
class _Programs:
    """Runs Python programs, and ends them when the study is interrupted."""

    launch: Launch
    environment: Mapping[str, str]
    stop: threading.Event

    def run(self, arguments: Sequence[str], log: Path, lock: int | None) -> int | None:
        """Run a program. Return its exit code, or None if it was interrupted."""
        if self.stop.is_set():
            return None
        with _PLANNING:
            process = self.launch(arguments, log, self.environment, lock)
        try:
            while (code := process.poll()) is None and not self.stop.is_set():
                time.sleep(_POLL)
        except BaseException:  # an interruption of the main thread, which measures the time of a step
            self._end(process)
            raise
        if code is None:
            self._end(process)
        return code

    @staticmethod
    def _end(process: Process) -> None:
        process.terminate()
        process.wait(60)


class _Progress:
    """One line about all runs: how many are done, which are running, and the time left."""

    def __init__(self, plan: StudyPlan, total: int, before: int, stream: TextIO) -> None:
        self._plan, self._total, self._before, self._stream = plan, total, before, stream
        self._terminal = stream.isatty()
        self._begin = self._shown = time.monotonic()
        self._running: dict[str, Run] = {}
        self._first: dict[str, float] = {}  # part of each run that was done before this process
        self._width = 0
        self.pause = 1.0 if self._terminal else _LINE

    def started(self, run: Run) -> None:
        """Note that a run has started or continues."""
        self._first[run.name] = self._part(run)
        self._running[run.name] = run

    def ended(self, run: Run) -> None:
        """Note that a run has ended."""
        self._running.pop(run.name, None)

    def show(self, outcomes: Sequence[Outcome]) -> None:
        """Write the line, or replace it on a terminal."""
        running = list(self._running.values())
        parts = {run.name: self._part(run) for run in running}
        done = sum(outcome.state == "done" for outcome in outcomes)
        failed = sum(outcome.state == "failed" for outcome in outcomes)
        texts = [f"study: {self._before + done} of {self._total} runs done"]
        if failed:
            texts.append(f"{failed} failed")
        if running:
            texts.append("running " + ", ".join(f"{run.name} ({100 * parts[run.name]:.0f} %)" for run in running))
        elapsed = time.monotonic() - self._begin
        texts.append(f"{_clock(elapsed)} elapsed")
        made = done + sum(max(0.0, parts[name] - self._first.get(name, 0)) for name in parts)
        left = self._total - self._before - len(outcomes) - sum(parts.values())
        if made > 0 and left > 0:
            texts.append(f"about {_clock(elapsed / made * left)} left")
        line = ", ".join(texts)
        if self._terminal:
            self._stream.write(f"\r{line[:200].ljust(self._width)}")
            self._width = min(len(line), 200)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line on a terminal."""
        if self._terminal and self._width:
            self._stream.write("\n")

    def _part(self, run: Run) -> float:
        """Return which part of the training of a run is done, from the table that it writes after each epoch."""
        try:
            with open(self._plan.run_folder(run) / "eval" / "training_curve.csv", newline="") as file:
                epochs = sum(1 for _ in csv.DictReader(file))
            return min(1.0, epochs / self._plan.max_epochs(run))
        except (OSError, ValueError):
            return 0.0


def _popen(arguments: Sequence[str], log: Path, environment: Mapping[str, str], lock: int | None) -> Process:
    inherited = () if lock is None else (lock,)
    with open(log, "ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            pass_fds=inherited,
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8")


def _last_line(log: Path) -> str:
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 4000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1][-300:] if lines else ""


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
