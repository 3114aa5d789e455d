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


"""Searched target precision compared with baselines, on a phantom with known random errors of the annotations.

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
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from monai_landmarks.data import atomic_write, load_landmark_datalist
from monai_landmarks.data.datasets.phantom import HAND_LANDMARKS, write_hand_phantom
from monai_landmarks.losses import AdaptivePrecisionLoss, SCNLoss
from monai_landmarks.networks.nets import LocalizationUNet
from monai_landmarks.precision import (
    Adaloss,
    CalibratedSigma,
    DoubleDQNAgent,
    EarlyStop,
    FixedSigma,
    LinearSigma,
    PrecisionController,
    PrecisionObjective,
    PrecisionSearch,
    RandomAgent,
    ValidationResult,
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
    "search without imagination": lambda seed, count: search(seed, count, imagine=False),
    "search by error only": lambda seed, count: search(seed, count, objective=PrecisionObjective(2, calibration=0.0)),
    "search at margin 1": lambda seed, count: search(seed, count, objective=PrecisionObjective(2, margin=1.0)),
    "random without early stop": lambda seed, count: search(seed, count, RandomAgent, early_stop=EarlyStop(0, 0, 0, 0)),
}


class Phantom:
    """Load small hand radiographs. Some training and validation annotations have random errors of up to 3 pixels."""

    def __init__(self, size: int, landmarks: int, images: int, device: str) -> None:
        self.index = np.linspace(0, len(HAND_LANDMARKS) - 1, landmarks).round().astype(int)
        # in an order that has nothing to do with the hand
        self.jitter = torch.tensor(np.random.default_rng(5).permutation(np.linspace(0.0, 3.0, landmarks)))
        with tempfile.TemporaryDirectory() as folder:
            spacing = 236 / size
            per_landmark = np.zeros(len(HAND_LANDMARKS))
            per_landmark[self.index] = self.jitter * spacing
            options = {"val_frac": 0.2, "test_frac": 0.3, "spacing": spacing}
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
    """Shift image and points by up to 4 whole pixels and change contrast and brightness."""
    shift = torch.randint(-4, 5, (2,)).tolist()
    gain, offset = (0.2 * torch.randn(len(images), 1, 1, 1).to(images.device) for _ in range(2))
    points = points + torch.tensor(shift, device=points.device)
    return images.roll(shift, dims=(2, 3)) * (1 + gain) + offset, points


@torch.no_grad()
def validate(network: torch.nn.Module, data: tuple[torch.Tensor, torch.Tensor], softmax: bool) -> dict[str, Any]:
    """Summarize a validation per landmark; errors above 20 pixels count as 20."""
    network.eval()
    maps = torch.cat([network(images) for images in data[0].split(16)])
    points, scores, covariances = HeatmapToLandmarks(spatial_dims=2, softmax=softmax, threshold=None)(maps)
    error = (points - data[1]).norm(dim=-1).nan_to_num(nan=20.0).clamp(max=20.0).cpu()
    radius = covariances.diagonal(dim1=-2, dim2=-1).mean(-1).sqrt().nanmean(0).cpu()
    return {
        "error": error.mean(0),
        "square_error": error.square().mean(0),
        "radius": radius,
        "peak": scores.mean(0).cpu(),
    }


def train(
    phantom: Phantom,
    method: str,
    seed: int,
    epochs: int,
    features: Sequence[int],
    after_epoch: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """Train once and return errors in pixels, sigmas after each epoch, and the seconds used by the controller."""
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
    evaluations = []
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
        sigma, train_loss = loss.sigma.detach().cpu().clone(), torch.stack(losses).nanmean(0)
        evaluations.append(ValidationResult(epoch / epochs, sigma, train_loss=train_loss, **found))
        before = time.perf_counter()
        decided = controller.update(evaluations[-1]).sigma
        deciding += time.perf_counter() - before
        if not learned:
            loss.set_sigma(decided)
        after_epoch()
    test = validate(network, phantom.data["testing"], not learned)["error"]
    return {
        "method": method,
        "seed": seed,
        "validation": float(found["error"].mean()),
        "test": float(test.mean()),
        "test_errors": test.tolist(),
        "rank": rank_correlation(evaluations[-1].sigma, phantom.jitter),
        "stopped": list(getattr(controller, "stopped", [])),
        "seconds": time.perf_counter() - started,
        "deciding": deciding,
        "evaluations": {
            key: [[round(v, 4) for v in getattr(e, key).tolist()] for e in evaluations]
            for key in ("sigma", "error", "square_error")
        },
    }


def rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Compute Spearman's rank correlation. Equal values share their mean rank; NaN if an input is constant.

    >>> rank_correlation(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, 5.0, 5.0]))
    1.0
    """
    ranks = [((x[:, None] > x).double() + 0.5 * (x[:, None] == x).double()).sum(1) for x in (a.double(), b.double())]
    centered = [r - r.mean() for r in ranks]
    scale = (centered[0].norm() * centered[1].norm()).item()
    return round(float(centered[0] @ centered[1]) / scale, 6) if scale > 0 else float("nan")


def best_fixed(runs: list[dict[str, Any]]) -> str:
    """Return the fixed sigma with the smallest mean validation error over the seeds; empty if there are no runs."""
    errors: dict[str, list[float]] = {}
    for run in runs:
        if run["method"].startswith("fixed "):
            errors.setdefault(run["method"], []).append(run["validation"])
    return min(errors, key=lambda method: float(np.mean(errors[method])), default="")


def report(runs: list[dict[str, Any]]) -> str:
    """Return the table of means and standard deviations over the seeds."""

    def cell(values: list[float], digits: int = 3) -> str:
        known = [v for v in values if v == v]
        spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
        return f"{np.mean(known):.{digits}f}{spread}" if known else "-"

    lines = ["| method | seeds | validation error | test error | rank correlation of sigma with jitter | deciding |"]
    lines.append("|---|---|---|---|---|---|")
    for method in METHODS:
        rows = [run for run in runs if run["method"] == method]
        if rows:
            share = 100 * sum(run["deciding"] for run in rows) / sum(run["seconds"] for run in rows)
            columns = [cell([run[key] for run in rows]) for key in ("validation", "test")]
            columns.append(cell([run["rank"] for run in rows], 2))
            name = f"{method} (the best by validation)" if method == best_fixed(runs) else method
            lines.append(f"| {name} | {len(rows)} | {' | '.join(columns)} | {share:.1f} % |")
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], jitter: Sequence[float]) -> Figure:
    """Draw the test errors of all runs, and the final sigmas over the errors of the annotations."""
    methods = [method for method in METHODS if any(run["method"] == method for run in runs)]
    figure = Figure(figsize=(11, 4.2), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    for row, method in enumerate(methods):
        errors = [run["test"] for run in runs if run["method"] == method]
        left.plot(errors, [row] * len(errors), "o", color="C0", markersize=4, alpha=0.6)
        left.plot(np.mean(errors), row, "|", color="k", markersize=14)
    left.set_yticks(range(len(methods)), methods, fontsize=8)
    left.invert_yaxis()
    left.grid(axis="x", alpha=0.3)
    left.set_xlabel("test error (pixels): each seed, and the mean")
    shown = [(m, marker) for m, marker in (("search", "o"), ("random", "x"), ("calibrated", "+")) if m in methods]
    for color, (method, marker) in enumerate(shown):
        points = [
            point for run in runs if run["method"] == method for point in zip(jitter, run["evaluations"]["sigma"][-1])
        ]
        right.plot(*zip(*points), marker, color=f"C{color}", label=method, alpha=0.7)
    if shown:
        right.legend()
    right.set_xlabel("jitter of the landmark's labels (pixels)")
    right.set_ylabel("last sigma (pixels)")
    right.grid(alpha=0.3)
    return figure


def read_runs(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read the runs of an earlier call.

    Raises:
        ValueError: when they were made with other settings.
    """
    if not path.is_file():
        return []
    content = json.loads(path.read_text())
    if content["settings"] != settings:
        raise ValueError(f"{path} was made with {content['settings']}, not with {settings}: choose another --out.")
    return list(content["runs"])


def main(
    out: str | None = None,
    methods: str | Sequence[str] | None = None,
    seeds: int = 3,
    size: int = 48,
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
        out: file of the results, such as study.json, with the table (.md) and a picture (.png) beside it; runs that it
            has are not run again.
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
    if isinstance(methods, str):
        methods = [method.strip() for method in methods.split(",")]
    settings = {"size": size, "landmarks": landmarks, "images": images, "epochs": epochs, "features": list(features)}
    path = None if out is None else Path(out)
    runs = [] if path is None else read_runs(path, settings)
    done = {(run["method"], run["seed"]) for run in runs}
    asked = [(method, seed) for seed in range(seeds) for method in methods or METHODS]
    missing = [pair for pair in asked if pair not in done]
    phantom = Phantom(size, landmarks, images, device)
    with tqdm(total=len(missing) * epochs, unit="epoch") as bar:
        for method, seed in missing:
            bar.set_description(f"{method}, seed {seed}")
            run = train(phantom, method, seed, epochs, features, bar.update)
            runs.append(run)
            bar.write(f"{method}, seed {seed}: test error {run['test']:.3f}, rank correlation {run['rank']:.2f}")
            if path is not None:
                with atomic_write(path) as temporary:
                    temporary.write_text(json.dumps({"settings": settings, "runs": runs}))
    print(report(runs))
    if path is not None and runs:
        path.with_suffix(".md").write_text(report(runs) + "\n")
        draw(runs, phantom.jitter.tolist()).savefig(path.with_suffix(".png"))


if __name__ == "__main__":
    fire.Fire(main)
