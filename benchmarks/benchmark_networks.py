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


"""Time and memory of one training step of each network, and of the losses; see README.md.

python benchmarks/benchmark_networks.py [--device cuda] [--threads 2] [--quick]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import fire
import torch
from compare import compare, measure, print_table, program, random_points
from monai.networks.nets import BasicUNet
from monai.transforms import GenerateHeatmap
from torch.nn.functional import mse_loss
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils.flop_counter import FlopCounterMode

from monai_landmarks.losses import AdaptiveWingLoss, CoarseToFineLoss, EWCLoss, GaussianTarget, HeatmapL2Loss, SCNLoss
from monai_landmarks.networks.nets import SCN, FARNet, LocalizationUNet

SIGMA = 10.0  # of FARNet's targets, as published
PATIENCE = 40.0  # seconds, for a step that takes many on a CPU

# what makes a network, and what makes its loss from it
Recipe = tuple[Callable[[], torch.nn.Module], Callable[[torch.nn.Module], torch.nn.Module]]


def recipes(num_landmarks: int, quick: bool) -> dict[str, Recipe]:
    """Return the networks, as published or with default settings, each with its loss."""
    unet_features = (4,) * 6 if quick else (32, 32, 64, 128, 256, 32)

    def heatmap_loss(net: torch.nn.Module) -> torch.nn.Module:
        return HeatmapL2Loss(GaussianTarget(SIGMA))

    def scn(local_appearance: str) -> Recipe:
        options: dict[str, Any] = {"local_appearance": local_appearance, "unet_features": unet_features}
        make = partial(SCN, 2, 1, num_landmarks, features=4 if quick else 128, **options)
        return make, lambda net: SCNLoss(num_landmarks, 2)

    def farnet(backbone: str) -> Recipe:
        options = {"features": 16, "num_stages": 4} if quick else {"features": 256}
        make = partial(FARNet, 2, 1, num_landmarks, backbone, **options)
        return make, lambda net: CoarseToFineLoss(EWCLoss(GaussianTarget(SIGMA)), net)

    return {
        "MONAI BasicUNet": (partial(BasicUNet, 2, 1, num_landmarks, features=unet_features), heatmap_loss),
        "U-Net": (partial(LocalizationUNet, 2, 1, num_landmarks, features=unet_features), heatmap_loss),
        "SCN": scn("additive"),
        "SCN, BasicUNet as local appearance": scn("unet"),
        **{f"FARNet, {name}": farnet(name) for name in (("resnet18",) if quick else ("densenet121", "resnet50"))},
    }


def billion_operations(make_network: Callable[[], torch.nn.Module], shape: torch.Size) -> float:
    """Count the additions and multiplications of one forward and backward pass in units of 1e9, without computing them."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        make_network()(torch.zeros(shape)).sum().backward()
    return counter.get_total_flops() / 1e9


class TrainingStep:
    """
    A network with its loss and optimizer. A call is one step: forward, loss from points, backward, optimizer.

    Args:
        recipe: makes the network and its loss.
        image: (1, 1, H, W).
        points: index points (1, N, 2).
        layout: memory format of weights and image.
    """

    def __init__(self, recipe: Recipe, image: torch.Tensor, points: torch.Tensor, layout: torch.memory_format) -> None:
        make_network, make_loss = recipe
        self.net = convert_conv2d_weight_memory_format(make_network().to(image.device), layout).train()
        self.loss = make_loss(self.net).to(image.device)
        self.image, self.points = image.to(memory_format=layout), points
        parameters = [*self.net.parameters(), *self.loss.parameters()]
        # so small a rate that the weights stay what they are
        self.optimizer = torch.optim.SGD(parameters, 1e-9, momentum=0.99, nesterov=True)
        self.scaler = torch.amp.GradScaler(image.device.type)

    def __call__(self, precision: torch.dtype) -> None:
        with torch.autocast(self.image.device.type, precision, enabled=precision != torch.float32):
            prediction = self.net(self.image)
        loss = self.loss(prediction, self.points)
        if precision == torch.float16:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        # here and not before the next step: gradients are memory of the step that made them
        self.optimizer.zero_grad()


def variant(precision: torch.dtype, layout: torch.memory_format = torch.contiguous_format) -> str:
    name = str(precision).removeprefix("torch.")
    return f"{name}, channels_last" if layout == torch.channels_last else name


def training_steps(num_landmarks: int, shape: tuple[int, int], device: str, repeats: int, quick: bool) -> None:
    image = torch.rand(1, 1, *shape, device=device)
    points = random_points(num_landmarks, shape, device)[None]
    precisions = [torch.float32, torch.bfloat16] + ([torch.float16] if device.startswith("cuda") else [])
    candidates: dict[tuple[str, str], Callable[[], Any]] = {}
    parameters: dict[str, float] = {}
    operations: dict[str, float] = {}
    for name, recipe in recipes(num_landmarks, quick).items():
        operations[name] = billion_operations(recipe[0], image.shape)
        for layout in (torch.contiguous_format, torch.channels_last):
            step = TrainingStep(recipe, image, points, layout)
            parameters[name] = sum(p.numel() for p in step.net.parameters()) / 1e6
            for precision in precisions:
                candidates[name, variant(precision, layout)] = partial(step, precision)
    size, name = 64 if quick else 4096, "torch.matmul (limit)"
    operations[name] = 2 * size**3 / 1e9
    for precision in precisions:
        matrix = torch.ones(size, size, device=device, dtype=precision)
        candidates[name, variant(precision)] = partial(torch.matmul, matrix, matrix)

    costs = measure(candidates, device, repeats, PATIENCE)
    rate = {key: 1e3 * operations[key[0]] / cost.milliseconds for key, cost in costs.items()}
    plain = variant(torch.float32)
    title = f"Training step: {num_landmarks} landmarks, one image of {' x '.join(map(str, shape))}"
    facts = {"M param.": parameters, "GFLOP": operations, "GFLOP/s": {name: rate[name, plain] for name in operations}}
    print_table(f"{title}, {plain}", {name: costs[name, plain] for name in operations}, facts)
    for name in operations:
        own = {how: cost for (whose, how), cost in costs.items() if whose == name}
        print_table(f"{name}: precision and memory format", own, {"GFLOP/s": {how: rate[name, how] for how in own}})


def losses(num_landmarks: int, shape: tuple[int, int], device: str, repeats: int) -> None:
    points = random_points(num_landmarks, shape, device)
    stored = GaussianTarget(SIGMA).to(device)(points[None], shape)
    prediction = torch.rand_like(stored).requires_grad_()
    encode = GenerateHeatmap(sigma=SIGMA)

    def run(loss: Callable[..., torch.Tensor], target: torch.Tensor) -> None:
        loss(prediction, target).backward()
        prediction.grad = None

    def encode_and_run() -> None:
        run(mse_loss, torch.as_tensor(encode(points, spatial_shape=shape), device=device)[None])

    exponential = EWCLoss(GaussianTarget(SIGMA)).to(device)
    candidates: dict[str, Callable[[], Any]] = {
        "mse_loss, target maps stored (limit)": partial(run, mse_loss, stored),
        "HeatmapL2Loss from points": partial(run, HeatmapL2Loss(GaussianTarget(SIGMA)).to(device), points[None]),
        "SCNLoss from points": partial(run, SCNLoss(num_landmarks, 2).to(device), points[None]),
        "EWCLoss, target maps stored": partial(run, exponential, stored),
        "EWCLoss from points": partial(run, exponential, points[None]),
        "AdaptiveWingLoss from points": partial(run, AdaptiveWingLoss(GaussianTarget(SIGMA)).to(device), points[None]),
        "MONAI GenerateHeatmap and mse_loss": encode_and_run,
    }
    title = f"Loss and its gradient: {num_landmarks} maps of {' x '.join(map(str, shape))}, float32"
    compare(title, candidates, device, repeats)


@program
def main(device: str, quick: bool) -> None:
    # matrix products are allowed what convolutions are, or they would be no limit
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    num_landmarks, shape = (3, (48, 32)) if quick else (19, (800, 640))
    repeats = 1 if quick else 15
    losses(num_landmarks, shape, device, repeats)
    training_steps(num_landmarks, shape, device, repeats, quick)


if __name__ == "__main__":
    fire.Fire(main)
