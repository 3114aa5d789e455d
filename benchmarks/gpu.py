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

"""Ten minutes on one GPU: step times, the CUDA tests, and three trainings side by side; see README.md.

python benchmarks/gpu.py --dataset_dir my/isbi2015 --out gpu_results [--minutes 10] [--device cuda] [--quick]
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fire
import torch
from compare import synchronize
from monai.bundle import ConfigParser

from monai_landmarks.data import atomic_write
from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.inferers import AutocastInferer, Precision

ROOT = Path(__file__).parents[1]
# what is trained side by side: name, bundle, its configurations, seed
TRAININGS = (
    ("scn_seed0", "ceph_xray_landmarks_scn", ("train", "all_training_images"), 0),
    ("unet_seed0", "ceph_xray_landmarks_scn", ("train", "unet", "all_training_images"), 0),
    ("scn_seed1", "ceph_xray_landmarks_scn", ("train", "all_training_images"), 1),
)
# a step that is measured: name, bundle, configurations, precision, channels last
Step = tuple[str, str, tuple[str, ...], Precision, bool]
STEPS: tuple[Step, ...] = (
    ("SCN", "ceph_xray_landmarks_scn", ("train",), "bfloat16", False),
    ("U-Net", "ceph_xray_landmarks_scn", ("train", "unet"), "bfloat16", False),
    ("SCN", "ceph_xray_landmarks_scn", ("train",), "bfloat16", True),
    ("SCN", "ceph_xray_landmarks_scn", ("train",), "float16", False),
    ("SCN", "ceph_xray_landmarks_scn", ("train",), "float32", False),
    ("SCN full", "ceph_xray_landmarks_scn", ("train", "full"), "bfloat16", False),
    ("FARNet", "ceph_xray_landmarks_farnet", ("train",), "bfloat16", False),
    ("FARNet full", "ceph_xray_landmarks_farnet", ("train", "full"), "bfloat16", False),
)
# on any CPU
QUICK_STEPS: tuple[Step, ...] = (
    ("SCN", "ceph_xray_landmarks_scn", ("train",), "float32", False),
    ("U-Net", "ceph_xray_landmarks_scn", ("train", "unet"), "float32", True),
)
TESTS = ("heatmaps", "losses", "transforms", "networks", "metrics", "inferers", "handlers")
KEPT = (".pt", ".csv", ".png", ".txt", ".json")
SIZE, BATCH = [640, 800], 4
# share of the time that a training may take; the rest is for its start and its end
SAFE = 0.85


def write_json(path: Path, value: Any) -> None:
    """Write a file as a whole: a cut leaves the old one."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1), encoding="utf-8")


def configuration(bundle: str, configs: tuple[str, ...], **options: Any) -> ConfigParser:
    """Return the configuration of a bundle."""
    parser = ConfigParser()
    parser.read_config([ROOT / "bundles" / bundle / "configs" / f"{name}.json" for name in configs])
    parser.update({"bundle_root": str(ROOT / "bundles" / bundle), **options})
    return parser


def training_step(
    parser: ConfigParser, size: list[int], batch: int, precision: Precision, channels_last: bool, device: str
) -> Callable[[], Any]:
    """Return a function that trains one step on random images."""
    parser.update({"device": torch.device(device), "spatial_size": size, "precision": precision})
    if "backbone_weights" in parser:
        parser["backbone_weights"] = None
    network, loss, optimizer = (parser.get_parsed_content(name) for name in ("network", "loss", "optimizer"))
    if channels_last:
        network.to(memory_format=torch.channels_last)
    inferer = AutocastInferer(precision=precision)
    image = torch.randn(batch, 1, *size, device=device)
    points = torch.rand(batch, len(parser.get_parsed_content("names")), 2, device=device) * min(size)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(inferer(image, network), points).backward()
        optimizer.step()

    return step


def milliseconds(run: Callable[[], Any], device: str, repeats: int) -> float:
    """Return the mean time of a call, after as many that warm up."""
    for _ in range(repeats):
        run()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize(device)
    return 1e3 * (time.perf_counter() - start) / repeats


def probe(
    out: Path, device: str, steps: tuple[Step, ...], size: list[int], batch: int, repeats: int, end: float
) -> list[dict[str, Any]]:
    """Measure step times, decoding and encoding. ``probe.json`` is written again after each row."""
    rows: list[dict[str, Any]] = []

    def note(**row: Any) -> None:
        rows.append(row)
        print(row, flush=True)
        write_json(out / "probe.json", rows)

    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    note(name="machine", device=name, torch=torch.__version__, cores=os.cpu_count())
    torch.backends.cudnn.benchmark = True
    for name, bundle, configs, precision, channels_last in steps:
        row: dict[str, Any] = {"name": name, "precision": precision, "channels_last": channels_last}
        if time.monotonic() > end:
            note(**row, skipped="no time was left")
            continue
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        try:
            step = training_step(configuration(bundle, configs), size, batch, precision, channels_last, device)
            row["ms"] = round(milliseconds(step, device, repeats), 2)
        except (RuntimeError, ValueError) as error:  # one row that fails must not cost the others
            row["error"] = str(error)[:300]
        if device.startswith("cuda"):
            row["gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            torch.cuda.empty_cache()
        note(**row)
    maps, points = torch.rand(batch, 19, *size, device=device), torch.rand(batch, 19, 2, device=device) * min(size)
    note(name="decode", ms=round(milliseconds(lambda: decode_heatmaps(maps, 2), device, repeats), 2))
    note(name="amax (limit of decoding)", ms=round(milliseconds(lambda: maps.amax((2, 3)), device, repeats), 2))
    note(name="encode", ms=round(milliseconds(lambda: gaussian_heatmaps(points, size, 3.0), device, repeats), 2))
    return rows


def choose_epochs(step_ms: list[float], steps_per_epoch: int, seconds: float) -> int:
    """Return the number of epochs that trainings side by side finish in some seconds.

    A GPU works on their kernels in turns: a step of one takes as long as a step of each.
    """
    return max(1, math.floor(SAFE * seconds / (sum(step_ms) / 1e3 * steps_per_epoch)))


def commands(out: Path, dataset_dir: str, device: str, epochs: int, options: dict[str, Any]) -> Iterator[list[str]]:
    """Return the command of each training, with its output folder."""
    for name, bundle, configs, seed in TRAININGS:
        root = ROOT / "bundles" / bundle
        files = [str(root / "configs" / f"{config}.json") for config in configs]
        # an evaluation takes the time of several epochs; the weights are evaluated afterwards, on any machine
        handlers = configuration(bundle, configs)["train#handlers"]
        settings = {
            "bundle_root": str(root),
            "dataset_dir": dataset_dir,
            "output_dir": str(out / name),
            "ckpt_dir": str(out / name),
            "device": f"$torch.device('{device}')",
            "seed": seed,
            "max_epochs": epochs,
            "train#handlers": [h for h in handlers if h["_target_"] != "ValidationHandler"],
            **options,
        }
        arguments = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        yield [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(files), *arguments]


def wait(out: Path, running: list[subprocess.Popen], work: Path, end: float, every: float) -> None:
    """Wait for the trainings, and keep what they have written every minute."""
    while any(process.poll() is None for process in running) and time.monotonic() < end:
        time.sleep(min(every, max(0.1, end - time.monotonic())))
        keep(work, out)
    for process in running:
        if process.poll() is None:
            process.terminate()  # what it has written is kept
            process.wait()
    keep(work, out)


def keep(work: Path, out: Path) -> None:
    """Copy weights, training states (each epoch), tables and curves of the trainings to the results, each as a whole."""
    for path in work.rglob("*"):
        if path.suffix in KEPT and path.is_file() and not path.name.startswith("."):
            with atomic_write(out / path.relative_to(work)) as temporary:
                shutil.copyfile(path, temporary)


def main(
    dataset_dir: str, out: str = "gpu_results", minutes: float = 10, device: str = "cuda", quick: bool = False
) -> None:
    """Run everything.

    Args:
        dataset_dir: folder of the ISBI 2015 images and tables.
        out: folder for the results. It is complete after each minute.
        minutes: time for everything.
        device: ``cuda`` or ``cpu``.
        quick: tiny sizes, to see that it runs; the numbers mean nothing.
    """
    end = time.monotonic() + 60 * minutes
    results, (size, batch) = Path(out).absolute(), ([64, 64], 1) if quick else (SIZE, BATCH)
    results.mkdir(parents=True, exist_ok=True)
    work = results / "work"
    repeats = 1 if quick else 8
    rows = probe(
        results, device, QUICK_STEPS if quick else STEPS, size, batch, repeats, time.monotonic() + 60 * minutes * 0.15
    )

    selected = [str(ROOT / "tests" / folder) for folder in (TESTS[:1] if quick else TESTS)]
    tests = [sys.executable, "-m", "pytest", "-q", "-n", str(min(12, os.cpu_count() or 1)), "-k", "cuda", *selected]
    with open(results / "tests.txt", "w", encoding="utf-8") as file:
        limit = max(30.0, 60 * minutes * 0.15)
        try:
            code = subprocess.run(tests, cwd=ROOT, stdout=file, stderr=file, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
    print(f"CUDA tests: exit code {code}, see {results / 'tests.txt'}", flush=True)

    measured = {}
    for row in rows:
        if "precision" in row and "ms" in row:
            measured.setdefault(row["name"], row["ms"])  # the first of each, which is trained
    step_ms = [measured["U-Net" if name.startswith("unet") else "SCN"] for name, *_ in TRAININGS]
    parser = configuration(TRAININGS[0][1], ("train",), dataset_dir=dataset_dir)
    images = sum(len(parser.get_parsed_content(f"{part}#dataset#data")) for part in ("train", "validate"))
    epochs = 1 if quick else choose_epochs(step_ms, math.ceil(images / batch), end - time.monotonic())
    print(f"{len(TRAININGS)} trainings of {epochs} epochs, {images} images, steps of {step_ms} ms", flush=True)
    options: dict[str, Any] = {"spatial_size": size, "batch_size": batch}
    if quick:
        options |= {"precision": "float32"}
    running = []
    for (name, *_), command in zip(TRAININGS, commands(work, dataset_dir, device, epochs, options)):
        (work / name).mkdir(parents=True, exist_ok=True)
        with open(work / name / "log.txt", "w", encoding="utf-8") as log:
            running.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))
    wait(results, running, work, end - 15, every=5 if quick else 60)
    shutil.rmtree(work)
    ended = {name: process.returncode for (name, *_), process in zip(TRAININGS, running)}
    write_json(results / "trainings.json", {"epochs": epochs, "step_ms": step_ms, "exit_codes": ended})
    print(f"exit codes {ended}; everything is in {results}")
    if any(ended.values()):
        sys.exit(1)


if __name__ == "__main__":
    fire.Fire(main)
