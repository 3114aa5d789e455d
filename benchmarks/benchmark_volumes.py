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


"""Time and memory of losses and sliding-window inference in volumes, compared with dense maps; see README.md.

python benchmarks/benchmark_volumes.py [--device cuda] [--threads 2] [--quick]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import fire
import torch
from compare import compare, measure, print_table, program, random_points
from monai.inferers import SlidingWindowInferer

from monai_landmarks.heatmaps import decode_heatmaps, gaussian_heatmaps
from monai_landmarks.inferers import SlidingWindowLandmarkInferer
from monai_landmarks.losses import EWCLoss, GaussianTarget, HeatmapL2Loss, SCNLoss
from monai_landmarks.networks.nets import LocalizationUNet

SIGMA = 4.0


class DenseSCNLoss(SCNLoss):
    """Compute SCN's loss from stored target maps with automatic differentiation."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        maps = self.target(target, input.shape[2:])
        return (0.5 * (input - maps).square().sum() + 0.5 * self.sigma_weight * self.sigma.square().sum()) / len(input)


def losses(num_landmarks: int, side: int, device: str, repeats: int) -> None:
    """Compare losses and their gradients with respect to the heatmaps, and to sigma for SCN."""
    shape = (side,) * 3
    points = random_points(num_landmarks, shape, device)[None]
    prediction = torch.rand(1, num_landmarks, *shape, device=device).requires_grad_()

    def step(loss: torch.nn.Module) -> None:
        loss(prediction, points).backward()
        prediction.grad = None

    def dense(loss: Any) -> None:
        loss(prediction, loss.target(points, shape)).backward()
        prediction.grad = None

    candidates: dict[str, Callable[[], Any]] = {
        "gradient of the sum of squares (limit)": lambda: torch.autograd.grad(prediction.square().sum(), prediction)
    }
    target = GaussianTarget(SIGMA)
    for name, loss in (("HeatmapL2Loss", HeatmapL2Loss(target)), ("EWCLoss", EWCLoss(target))):
        candidates[f"{name}, dense targets"] = partial(dense, loss.to(device))
        candidates[f"{name} from points"] = partial(step, loss.to(device))
    candidates["SCNLoss, dense targets"] = partial(step, DenseSCNLoss(num_landmarks, 3).to(device))
    candidates["SCNLoss from points"] = partial(step, SCNLoss(num_landmarks, 3).to(device))
    compare(f"Loss and its gradient: {num_landmarks} maps of {side}^3, float32", candidates, device, repeats)


class Blobs(torch.nn.Module):
    """
    Stands for a network of no cost: heatmaps of points, from an image that holds the coordinates of its voxels.

    Args:
        points: index points (N, 3).
        size: of the windows.
    """

    def __init__(self, points: torch.Tensor, size: tuple[int, ...]) -> None:
        super().__init__()
        self.points, self.size = points, size

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        corners = windows[:, :, 0, 0, 0]
        return gaussian_heatmaps(self.points - corners[:, None], self.size, SIGMA)


def inference(num_landmarks: int, side: int, device: str, repeats: int) -> None:
    """Compare sliding windows of half the side length, up to the points."""
    axis = torch.arange(side, dtype=torch.float32, device=device)
    image = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
    roi_size = (side // 2,) * 3
    network = Blobs(random_points(num_landmarks, (side,) * 3, device), roi_size)
    options: dict[str, Any] = {"roi_size": roi_size, "overlap": 0.25, "mode": "gaussian"}
    windows: Any = SlidingWindowInferer(**options)
    points = SlidingWindowLandmarkInferer(**options)

    def one_channel(window: torch.Tensor) -> torch.Tensor:
        network(window)
        return window[:, :1].clone()  # MONAI multiplies it in place, and the window is a view of the image

    candidates = {
        "MONAI, one map stitched (limit)": lambda: windows(image, one_channel),
        "MONAI, all maps stitched, then decoded": lambda: decode_heatmaps(windows(image, network), 3),
        "SlidingWindowLandmarkInferer": lambda: points(image, network),
    }
    title = f"Sliding windows of {side // 2}^3 to points: {num_landmarks} landmarks, {side}^3, without the network"
    compare(title, candidates, device, repeats)


def inference_with_network(
    num_landmarks: int, side: int, window_side: int, features: Sequence[int], device: str, repeats: int
) -> None:
    """Compare sliding windows with a network that takes most of the time."""
    torch.manual_seed(0)
    network = LocalizationUNet(3, 1, num_landmarks, features=features).to(device).eval()
    image = torch.rand(1, 1, *(side,) * 3, device=device)
    options: dict[str, Any] = {"roi_size": window_side, "overlap": 0.25, "mode": "gaussian"}
    windows: Any = SlidingWindowInferer(**options)
    points = SlidingWindowLandmarkInferer(**options)
    runs: dict[str, Callable[[Any], Any]] = {
        "MONAI, all maps stitched (limit)": lambda network: windows(image, network),
        "MONAI, all maps stitched, then decoded": lambda network: decode_heatmaps(windows(image, network), 3),
        "SlidingWindowLandmarkInferer": lambda network: points(image, network),
    }
    counts: dict[str, float] = {}

    @torch.no_grad()
    def run_and_count(name: str) -> None:
        def counted(window: torch.Tensor) -> torch.Tensor:
            counts[name] += len(window)
            return network(window)

        counts[name] = 0
        runs[name](counted)

    title = f"Sliding windows of {window_side}^3 to points: {num_landmarks} landmarks, {side}^3, with a U-Net"
    costs = measure({name: partial(run_and_count, name) for name in runs}, device, repeats, patience=60)
    print_table(title, costs, {"windows": counts})


@program
def main(device: str, quick: bool) -> None:
    sides, numbers = ((24,), (2, 4)) if quick else ((64, 96, 128), (5, 20, 100))
    for side, num_landmarks in itertools.product(sides, numbers):
        losses(num_landmarks, side, device, 1 if quick else 5)
    for side, num_landmarks in itertools.product(sides, numbers):
        inference(num_landmarks, side, device, 1 if quick else 3)
    # the coarsest level of the U-Net has a sixteenth of the window
    side, window_side, features = (32, 32, (4,) * 6) if quick else (96, 48, (32, 32, 64, 128, 256, 32))
    for num_landmarks in numbers[:1] if quick else numbers:
        inference_with_network(num_landmarks, side, window_side, features, device, 1 if quick else 3)


if __name__ == "__main__":
    fire.Fire(main)
