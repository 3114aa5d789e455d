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
"""A small evaluator and trainer on points, for the tests of the handlers."""

from __future__ import annotations

import numpy as np
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, from_engine

from monai_landmarks.metrics import PointErrorMetric, error_is_lower

NAMES = ("sella", "nasion", "menton")
AFFINE = torch.diag(torch.tensor([-0.5, -0.5, 1.0, 1.0], dtype=torch.float64))


def make_cases(count=5, folders=("a",), size=16, dims=2, seed=0):
    """Random images with points. The prediction of case i is (0.6, 0.8) * i mm beside the ground truth."""
    rng = np.random.RandomState(seed)
    cases = []
    for i in range(count):
        path = f"/data/{folders[i % len(folders)]}/case{i // len(folders)}.png"
        image = MetaTensor(
            torch.as_tensor(rng.rand(1, *(size,) * dims)).float(), affine=AFFINE.clone(), meta={"filename_or_obj": path}
        )
        index = torch.as_tensor(rng.uniform(2, size - 2, (1, len(NAMES), dims)))
        if i == 1:
            index[0, 2] = float("nan")
        cases.append({"image": image, "label": MetaTensor(index, affine=AFFINE.clone()), "number": i})
    return cases


class AddPrediction:
    """Replace decoding by world points at a known distance from the ground truth: the number of the case, in mm."""

    def __call__(self, item):
        label, dims = item["label"], item["label"].shape[-1]
        world = label.as_tensor().double() @ AFFINE[:dims, :dims].T
        offset = torch.zeros(dims, dtype=torch.float64)
        offset[:2] = torch.tensor([0.6, 0.8]) * float(item["number"])
        item["pred_points"] = MetaTensor(torch.nan_to_num(world, nan=1.0) + offset, affine=torch.eye(4))
        item["pred_scores"] = torch.linspace(0.5, 0.9, len(NAMES))
        item["pred_covariances"] = torch.eye(dims).expand(len(NAMES), dims, dims) * 0.25
        return item


def prepare_batch(batch, device, non_blocking, **kwargs):
    """Prepare a batch as MONAI does by default."""
    return batch["image"].to(device), batch["label"].to(device)


def make_evaluator(
    cases, handlers=(), additional=None, batch_size=2, sampler=None, network=None, postprocessing=None, scores=None
):
    """Return an evaluator whose key metric is the mean point error, or epoch by epoch the next one of ``scores``."""
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases), batch_size=batch_size, sampler=sampler),
        network=network or torch.nn.Identity(),
        prepare_batch=prepare_batch,
        postprocessing=postprocessing or AddPrediction(),
        key_val_metric={
            "val_mre": IgniteMetricHandler(
                metric_fn=PointErrorMetric(), output_transform=from_engine(["pred_points", "label"])
            )
        },
        additional_metrics=additional,
        metric_cmp_fn=error_is_lower,
        val_handlers=list(handlers),
    )
    if scores is not None:
        calls = evaluator._event_handlers[Events.EPOCH_COMPLETED]
        evaluator.add_event_handler(
            Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update(val_mre=scores[e.state.epoch - 1])
        )
        calls.insert(1, calls.pop())  # before the metric is compared with the best one
    return evaluator


class Regressor(torch.nn.Module):
    """Network from an image to three points, with dropout, so that the random state matters."""

    def __init__(self, size=16):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size * size, 6), torch.nn.Dropout(0.2))

    def forward(self, image):
        return self.layers(image).reshape(-1, 1, 3, 2)


def points_loss(pred, target):
    """Mean squared error over the known coordinates."""
    target = target.as_tensor().float()
    known = ~target.isnan()
    return ((pred - target)[known] ** 2).mean()


def make_trainer(cases, network, optimizer, max_epochs, handlers=(), batch_size=2):
    """Return a trainer that shuffles its data."""
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(Dataset(cases), batch_size=batch_size, shuffle=True),
        network=network,
        optimizer=optimizer,
        loss_function=points_loss,
        prepare_batch=prepare_batch,
        train_handlers=list(handlers),
    )


__all__ = ["NAMES", "Regressor", "make_cases", "make_evaluator", "make_trainer"]
