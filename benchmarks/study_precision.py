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


"""Searched target precision beside its baselines, on a phantom whose labels jitter by a known amount; see README.md.

python benchmarks/study_precision.py [--out study.json] [--methods search,random] [--seeds 3] [--device cuda] [--quick]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from PIL import Image

from monai_landmarks.data import load_landmark_datalist
from monai_landmarks.data.phantom import HAND_LANDMARKS, write_hand_phantom
from monai_landmarks.losses import AdaptivePrecisionLoss, SCNLoss
from monai_landmarks.networks.nets import LocalizationUNet
from monai_landmarks.precision import (
    Adaloss,
    CalibratedSigma,
    DoubleDQNAgent,
    Evaluation,
    FixedSigma,
    LinearSigma,
    PrecisionController,
    PrecisionObjective,
    PrecisionSearch,
    RandomAgent,
)
from monai_landmarks.transforms import HeatmapToLandmarks

GRID = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0)


def search(seed: int, count: int, agent: Any = DoubleDQNAgent, **options: Any) -> PrecisionSearch:
    return PrecisionSearch(count, 2, agent=agent(seed=seed), **options)


# by name: makes what sets the sigmas (voxels) from the seed and the number of landmarks
METHODS: dict[str, Callable[[int, int], PrecisionController]] = {
    "search": search,
    "random": lambda seed, count: search(seed, count, RandomAgent),
    **{f"fixed {sigma:g}": lambda seed, count, sigma=sigma: FixedSigma(sigma) for sigma in GRID},
    "linear 6 to 1.5": lambda seed, count: LinearSigma(6.0, 1.5),
    "adaloss": lambda seed, count: Adaloss(),
    "learned (SCN)": lambda seed, count: PrecisionController(),
    "calibrated": lambda seed, count: CalibratedSigma(2),
    # what the parts of the search are for
    "search by error only": lambda seed, count: search(seed, count, objective=PrecisionObjective(2, calibration=0.0)),
    "search at margin 1": lambda seed, count: search(seed, count, objective=PrecisionObjective(2, margin=1.0)),
    "random without early stop": lambda seed, count: search(seed, count, RandomAgent, stop_rules=()),
}


class Phantom:
    """Small hand radiographs; of some of their landmarks the labels for training and validation jitter, up to 4 pixels."""

    def __init__(self, size: int, landmarks: int, images: int, device: str) -> None:
        self.index = np.linspace(0, len(HAND_LANDMARKS) - 1, landmarks).round().astype(int)
        # in an order that has nothing to do with the hand
        self.jitter = torch.tensor(np.random.default_rng(5).permutation(np.linspace(0.0, 4.0, landmarks)))
        with tempfile.TemporaryDirectory() as folder:
            spacing = 236 / size
            per_landmark = np.zeros(len(HAND_LANDMARKS))
            per_landmark[self.index] = self.jitter * spacing
            options = {"validation_fraction": 0.2, "testing_fraction": 0.3, "spacing": spacing}
            datalist = write_hand_phantom(
                folder, images, size=(size, size), label_jitter=per_landmark.tolist(), **options
            )
            sections = ("training", "validation", "testing")
            self.data = {s: self._read(load_landmark_datalist(datalist, s), device) for s in sections}

    def _read(self, items: list[dict[str, Any]], device: str) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = np.stack([np.asarray(Image.open(item["image"]), dtype=np.float32).T for item in items])
        images = torch.from_numpy(pictures)[:, None]
        images = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)
        points = torch.tensor(np.array([np.asarray(item["label"], dtype=np.float32)[self.index] for item in items]))
        return images.to(device), points.to(device)


def augment(images: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift by up to 4 whole pixels, change contrast and brightness."""
    shift = torch.randint(-4, 5, (2,)).tolist()
    gain, offset = (0.2 * torch.randn(len(images), 1, 1, 1).to(images.device) for _ in range(2))
    points = points + torch.tensor(shift, device=points.device)
    return images.roll(shift, dims=(2, 3)) * (1 + gain) + offset, points


@torch.no_grad()
def validate(network: torch.nn.Module, data: tuple[torch.Tensor, torch.Tensor], softmax: bool) -> dict[str, Any]:
    """What a validation says about each landmark; errors beyond 20 pixels count as 20."""
    network.eval()
    maps = torch.cat([network(images) for images in data[0].split(16)])
    decode = HeatmapToLandmarks(
        spatial_dims=2, return_score=True, return_covariance=True, softmax=softmax, threshold=None
    )
    points, score, covariance = decode(maps)
    error = (points - data[1]).norm(dim=-1).nan_to_num(nan=20.0).clamp(max=20.0).cpu()
    radius = covariance.diagonal(dim1=-2, dim2=-1).mean(-1).sqrt().nanmean(0).cpu()
    return {
        "error": error.mean(0),
        "square_error": error.square().mean(0),
        "radius": radius,
        "peak": score.mean(0).cpu(),
    }


def train(phantom: Phantom, method: str, seed: int, epochs: int, features: Sequence[int]) -> dict[str, Any]:
    """Train once; errors in pixels, the last sigmas, and the seconds that the controller took."""
    torch.manual_seed(seed)
    images, points = phantom.data["training"]
    device, count, learned = images.device, points.shape[1], method.startswith("learned")
    network = LocalizationUNet(2, 1, count, features=tuple(features)).to(device)
    loss: Any = SCNLoss(count, 2) if learned else AdaptivePrecisionLoss(count, 2)
    loss.to(device)
    steps = epochs * -(-len(images) // 8)
    optimizer = torch.optim.AdamW([*network.parameters(), *loss.parameters()], 4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.2)
    controller = METHODS[method](seed, count)
    if not learned:
        loss.set_sigma(controller.start(loss.sigma.cpu()))
    started, deciding = time.perf_counter(), 0.0
    sigmas = []
    for epoch in range(1, epochs + 1):
        network.train()
        losses = []
        for rows in torch.randperm(len(images)).split(8):
            batch, target = augment(images[rows], points[rows])
            value = loss(network(batch), target)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            losses.append(torch.zeros(count) if learned else loss.landmark_loss.cpu())
        found = validate(network, phantom.data["validation"], not learned)
        sigma = loss.sigma.detach().cpu().clone()
        if not learned:
            before = time.perf_counter()
            evaluation = Evaluation(epoch / epochs, sigma, train_loss=torch.stack(losses).nanmean(0), **found)
            loss.set_sigma(controller.update(evaluation).sigma)
            deciding += time.perf_counter() - before
        sigmas.append(sigma.tolist())
    test = validate(network, phantom.data["testing"], not learned)["error"]
    return {
        "method": method,
        "seed": seed,
        "validation": float(found["error"].mean()),
        "test": float(test.mean()),
        "test_errors": test.tolist(),
        "sigma": sigmas[-1],
        "sigmas": sigmas,
        "rank": rank_correlation(torch.tensor(sigmas[-1]), phantom.jitter),
        "stopped": list(getattr(controller, "stopped", [])),
        "seconds": time.perf_counter() - started,
        "deciding": deciding,
    }


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's, where equal values share their mean rank; NaN where one does not vary.

    >>> rank_correlation(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, 5.0, 5.0]))
    1.0
    """
    ranks = [((x[:, None] > x).double() + 0.5 * (x[:, None] == x).double()).sum(1) for x in (a.double(), b.double())]
    centered = [r - r.mean() for r in ranks]
    scale = (centered[0].norm() * centered[1].norm()).item()
    return round(float(centered[0] @ centered[1]) / scale, 6) if scale > 0 else float("nan")


def report(runs: list[dict[str, Any]]) -> str:
    """The table: mean and standard deviation over the seeds."""

    def cell(values: list[float], digits: int = 3) -> str:
        known = [v for v in values if v == v]
        return f"{np.mean(known):.{digits}f} ± {np.std(known):.{digits}f}" if known else "-"

    lines = ["| method | seeds | validation error | test error | rank correlation of sigma with jitter | deciding |"]
    lines.append("|---|---|---|---|---|---|")
    for method in METHODS:
        rows = [run for run in runs if run["method"] == method]
        if rows:
            share = 100 * sum(run["deciding"] for run in rows) / sum(run["seconds"] for run in rows)
            columns = [cell([run[key] for run in rows]) for key in ("validation", "test")]
            columns.append(cell([run["rank"] for run in rows], 2))
            lines.append(f"| {method} | {len(rows)} | {' | '.join(columns)} | {share:.1f} % |")
    return "\n".join(lines)


def main(
    out: str | None = None,
    methods: str | Sequence[str] | None = None,
    seeds: int = 3,
    size: int = 64,
    landmarks: int = 12,
    images: int = 200,
    epochs: int = 40,
    features: Sequence[int] = (16, 16, 32, 32, 32, 16),
    device: str = "cpu",
    threads: int = 1,
    quick: bool = False,
) -> None:
    """
    Args:
        out: file of the results; runs that it has are not run again.
        methods: some of them, separated by commas; all by default.
        seeds: trainings of each method.
        size: pixels along an axis.
        landmarks: how many of the hand's 37.
        images: half of them for training, a fifth for validation, the rest, with exact labels, for testing.
        epochs: of a training; each ends with a validation and a decision.
        features: of the U-Net.
        device: cpu or cuda.
        threads: of torch, on the CPU.
        quick: one seed, a few images and epochs: only to see that it runs.
    """
    torch.set_num_threads(threads)
    if quick:
        seeds, size, landmarks, images, epochs, features = 1, 32, 4, 20, 4, (4, 4, 4, 4, 4, 4)
    chosen = (
        list(METHODS)
        if methods is None
        else [m.strip() for m in methods.split(",")] if isinstance(methods, str) else list(methods)
    )
    path = None if out is None else Path(out)
    runs = json.loads(path.read_text()) if path is not None and path.is_file() else []
    phantom = Phantom(size, landmarks, images, device)
    for seed in range(seeds):
        for method in chosen:
            if any(run["method"] == method and run["seed"] == seed for run in runs):
                continue
            runs.append(train(phantom, method, seed, epochs, features))
            run = runs[-1]
            print(
                f"{method}, seed {seed}: test error {run['test']:.3f}, rank correlation {run['rank']:.2f}, {run['seconds']:.0f} s"
            )
            if path is not None:
                path.write_text(json.dumps(runs))
    print(report(runs))


if __name__ == "__main__":
    fire.Fire(main)
