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

"""Prediction, evaluation, report and check of many images: throughput, overheads, memory and sizes; see README.md.

python benchmarks/study_cohort.py [--images 10000] [--sample 200] [--out cohort]
python benchmarks/study_cohort.py --bundle ceph_xray_landmarks_scn --images_dir FILMS --spacing 0.3 [--sample 60] [--out films]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import LoadImaged
from PIL import Image

from monai_landmarks.data import hand_phantom, write_landmark_table

DISTINCT = 20  # phantoms; the other images are copies under other names
PROGRAM = ["-m", "monai_landmarks"]
BASE = 100  # images after which memory should not grow any more
LARGEST_REPORT = 20_000_000  # bytes


@dataclass(frozen=True)
class Model:
    """A bundle, and the pixel size of its images in mm.

    Args:
        bundle: name of a bundle with weights.
        spacing: in mm.
    """

    bundle: str
    spacing: float

    @property
    def options(self) -> list[str]:
        """Options of all commands."""
        return ["--spacing", str(self.spacing)]

    def predict(self, images: Path, out: Path) -> list[str]:
        """Return the command that predicts a folder of images."""
        return ["predict", self.bundle, str(images), "--out", str(out), "--device", "cpu", *self.options]


class Clock:
    """CPU time in parts of a program. Time in a part inside of another part counts for the inner one."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._parts: list[str] = []
        self._since = 0.0

    def _pass(self) -> None:
        """Add the time since the last change to the part that ran."""
        now = time.process_time()
        if self._parts:
            self.seconds[self._parts[-1]] += now - self._since
        self._since = now

    def watch(self, holder: Any, name: str, part: str) -> None:
        """Measure each call of a method of a class, or of a function of a module."""
        function = getattr(holder, name)

        @wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self._pass()
            self._parts.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._pass()
                self._parts.pop()

        setattr(holder, name, measured)


def draw(folder: Path, images: int) -> None:
    """Write phantom hands and a table with their landmarks, unless they are there."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    sets = {}
    sources = []
    for i in range(min(images, DISTINCT)):
        pixels, landmarks = hand_phantom(i)
        sources.append((folder / f"source_{i}.png", landmarks))
        Image.fromarray(np.round(255 * pixels.T).astype(np.uint8)).save(sources[-1][0])
    for i in range(images):
        path = folder / "images" / f"{i:05d}.png"
        source, sets[path.name] = sources[i % DISTINCT]
        if not path.exists():
            shutil.copyfile(source, path)
    write_landmark_table(folder / "landmarks.csv", sets)


def link(folder: Path, images_dir: Path, images: int) -> None:
    """Fill the folder with copies of one's own images, which take no space."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    sources = sorted(path for path in images_dir.iterdir() if path.is_file())
    for i in range(images):
        source = sources[i % len(sources)]
        path = folder / "images" / f"{i:05d}{source.suffix}"
        if not path.exists():
            path.symlink_to(source.resolve())


def few(folder: Path, images: int) -> Path:
    """Return a folder with the first images."""
    found = folder / f"images_{images}"
    found.mkdir(exist_ok=True)
    for path in sorted((folder / "images").iterdir())[:images]:
        if not (found / path.name).exists():
            (found / path.name).symlink_to(path.resolve())
    return found


def throughput(out: Path) -> float:
    """Return images per second, from the first file to the last one, so that the start of Python does not count."""
    times = sorted(path.stat().st_mtime for path in out.glob("*.mrk.json"))
    skip = len(times) // 10  # while the workers start
    return (len(times) - 1 - skip) / (times[-1] - times[skip])


def predict(
    model: Model, images: Path, out: Path, *more: str, start: tuple[str, ...] = (), threads: int | None = None
) -> float:
    """Predict in a new process, and return the images per second."""
    shutil.rmtree(out, ignore_errors=True)
    environment = dict(os.environ)
    environment.pop("OMP_NUM_THREADS", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [*start, *PROGRAM, *model.predict(images, out), *more]
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} has failed:\n{done.stderr[-2000:]}")
    return throughput(out)


def compare_processes(model: Model, images: Path, out: Path, rounds: int) -> None:
    """Print the throughput of one process on one core, of one on all cores, and of two processes of torchrun."""
    two = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0")
    kinds: dict[str, dict[str, Any]] = {
        "one process, one thread, no workers (limit)": {"more": ("--workers", "0"), "threads": 1},
        "one process, all defaults": {"more": ()},
        "torchrun, two processes, no workers": {"more": ("--workers", "0"), "start": two, "threads": 1},
        "torchrun, two processes, all defaults": {"more": (), "start": two},
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):  # in turns, so that other programs slow down all of them
        for name, kind in kinds.items():
            more, start, threads = kind.get("more", ()), kind.get("start", ()), kind.get("threads")
            found[name].append(predict(model, images, out, *more, start=start, threads=threads))
    limit = statistics.median(next(iter(found.values())))
    print("| predict | images/s | range | of the limit |\n|---|---|---|---|")
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} | {min(values):.2f} to {max(values):.2f} | {middle / limit:.2f} |", flush=True)


def measure_overheads(model: Model, images: Path, out: Path) -> None:
    """Print the CPU time per image in the network and around it, in one process and one thread."""
    from monai_landmarks.evaluation import cohort_prediction, predict_landmarks

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    clock = Clock()
    clock.watch(torch.nn.Module, "__call__", "network")
    clock.watch(LoadImaged, "__call__", "reading")
    clock.watch(Dataset, "_transform", "preprocessing")
    clock.watch(cohort_prediction, "measure_images", "measuring")
    clock.watch(cohort_prediction.CohortPrediction, "_record", "writing")
    counts: list[tuple[int, dict[str, float]]] = []
    for count in (8, len(list(images.iterdir()))):  # the difference has no start and no drawing of the report
        shutil.rmtree(out, ignore_errors=True)
        clock.seconds.clear()
        found, start = few(images.parent, count), time.process_time()
        predict_landmarks(model.bundle, found, out, device="cpu", spacing=model.spacing, workers=0)
        counts.append((count, {**clock.seconds, "total": time.process_time() - start}))
    (first, before), (last, after) = counts
    parts = {name: (after[name] - before[name]) / (last - first) for name in after}
    total, network = parts.pop("total"), parts["network"]
    parts["patches, decoding, doubts, engine"] = total - sum(parts.values())
    torch.set_num_threads(threads)
    print("\n| CPU time per image | ms | of the network |\n|---|---|---|")
    for name, seconds in parts.items():
        print(f"| {name} | {1e3 * seconds:.1f} | {100 * seconds / network:.1f} % |", flush=True)


def resident(process: int) -> int:
    """Return the memory of a process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def watch_memory(model: Model, images: Path, out: Path, marks: tuple[int, ...]) -> None:
    """Predict, and print the memory of the main process after some numbers of images, and at its peak."""
    shutil.rmtree(out, ignore_errors=True)
    command = [*PROGRAM, *model.predict(images, out)]
    start = time.monotonic()
    with open(out.with_suffix(".txt"), "w") as log:
        process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
    left, found, peak, records = list(marks), {}, 0, out / "progress" / "part_1_of_1.jsonl"
    offset = done = 0
    while process.poll() is None:
        time.sleep(0.5)
        memory = resident(process.pid)
        peak = max(peak, memory)
        if records.exists():
            with open(records, "rb") as file:
                file.seek(offset)
                new = file.read()
            offset, done = offset + len(new), done + new.count(b"\n")
        while left and done > left[0]:
            found[left.pop(0)] = memory
    if process.returncode:
        raise RuntimeError(f"predict has failed, see {out.with_suffix('.txt')}")
    seconds = time.monotonic() - start
    print(f"\nall {len(list(images.iterdir()))} images: {seconds:.0f} s, {throughput(out):.2f} images/s")
    print("| after images | memory of the main process, MiB | relative |\n|---|---|---|")
    first = found.get(BASE, next(iter(found.values())))
    for count, memory in {**found, "all, with tables and report": peak}.items():
        print(f"| {count} | {memory / 2**20:.0f} | {100 * memory / first:.1f} % |", flush=True)


def run_commands(model: Model, folder: Path, out: Path) -> None:
    """Print time and peak memory of the other commands, and the size of the report."""
    compared = [str(out), str(folder / "landmarks.csv"), "--images", str(folder / "images"), *model.options]
    report, checked = folder / "report.html", folder / "checked"
    drawn = [str(folder / "images"), str(folder / "landmarks.csv"), "--out", str(checked), *model.options]
    commands = {
        "predict again, nothing to do": model.predict(folder / "images", out),
        "evaluate": ["evaluate", *compared, "--out", str(folder / "evaluation")],
        "report": ["report", *compared, "--out", str(report)],
        "check, one process": ["check", *drawn, "--workers", "0"],
        "check, all defaults": ["check", *drawn],
    }
    print("\n| command | s | CPU s | peak memory, MiB |\n|---|---|---|---|")
    script = (
        "import json, resource, subprocess, sys, time; start = time.monotonic();"
        "code = subprocess.run([sys.executable, *json.loads(sys.argv[1])], stdout=subprocess.DEVNULL).returncode;"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(json.dumps([code, time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))"
    )
    for name, command in commands.items():
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps([*PROGRAM, *command])], check=True, capture_output=True, text=True
        )
        code, seconds, used, memory = json.loads(done.stdout)
        failed = "" if code == 0 else f" (exit code {code})"
        print(f"| {name}{failed} | {seconds:.1f} | {used:.1f} | {memory:.0f} |", flush=True)
    size = report.stat().st_size
    print(f"\nreport.html: {size / 1e6:.2f} MB ({'at most' if size <= LARGEST_REPORT else 'more than'} 20 MB)")


def main(
    images: int = 1000,
    sample: int = 200,
    rounds: int = 3,
    out: str = "cohort",
    only: str = "",
    bundle: str = "hand_xray_landmarks_scn",
    images_dir: str = "",
    spacing: float = 0.92,
    quick: bool = False,
) -> None:
    """Run all parts, and print their tables.

    Args:
        images: number of images of the cohort.
        sample: number of images with which processes are compared and overheads are measured.
        rounds: number of rounds in which the processes take turns.
        out: folder for images and results.
        only: one part: processes, overheads, memory or commands (which needs the results of memory).
        bundle: name of a bundle with weights.
        images_dir: folder of images for the bundle. They have no ground truth here, so only processes and overheads are
            measured. Empty: phantom hands.
        spacing: pixel size in mm.
        quick: few images and one round, to see that it runs; the numbers mean nothing.
    """
    if quick:
        images, sample, rounds = 24, 12, 1
    folder, model = Path(out).resolve(), Model(bundle, spacing)
    if images_dir:
        link(folder, Path(images_dir), sample)
    else:
        draw(folder, max(images, sample))
    some, marks = few(folder, sample), tuple(count for count in (10, 100, 1000, 3000, 10000) if count < images)
    if only in ("", "processes"):
        compare_processes(model, some, folder / "sample", rounds)
    if only in ("", "overheads"):
        measure_overheads(model, some, folder / "sample")
    if only in ("", "memory") and not images_dir:
        watch_memory(model, folder / "images", folder / "predictions", marks)
    if only in ("", "commands") and not images_dir:
        run_commands(model, folder, folder / "predictions")


if __name__ == "__main__":
    fire.Fire(main)
