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
"""Images whose landmarks can be measured: a blob per point, and where it is afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def blob_image(points: np.ndarray, shape: Sequence[int], sigma: float | Sequence[float] = 1.0) -> torch.Tensor:
    """One channel per point with a Gaussian at its index position, (N, *shape) float64."""
    sigmas = np.broadcast_to(np.asarray(sigma, dtype=float), (len(shape),))
    maps = []
    for point in points:
        value = np.ones(())
        for axis, size in enumerate(shape):
            value = np.multiply.outer(value, np.exp(-0.5 * ((np.arange(size) - point[axis]) / sigmas[axis]) ** 2))
        maps.append(value)
    return torch.from_numpy(np.stack(maps))


def centroids(image: torch.Tensor) -> np.ndarray:
    """Center of mass of every channel in index coordinates, (N, D)."""
    values = torch.as_tensor(image.as_tensor() if hasattr(image, "as_tensor") else image).double().cpu().numpy()
    mass = values.reshape(len(values), -1).sum(1)
    result = []
    for axis, size in enumerate(values.shape[1:]):
        others = tuple(a for a in range(1, values.ndim) if a != axis + 1)
        result.append((values.sum(others) * np.arange(size)).sum(1) / mass)
    return np.stack(result, 1)


def inner_points(shape: Sequence[int], count: int, seed: int = 0, low: float = 0.35, high: float = 0.65) -> np.ndarray:
    """Random sub-pixel index points around the middle of an image, (count, D)."""
    return np.random.RandomState(seed).uniform(low, high, (count, len(shape))) * np.asarray(shape)


def oblique(spacing: Sequence[float]) -> torch.Tensor:
    """An affine of this spacing whose axes are turned and exchanged, 4x4 float64."""
    dims = len(spacing)
    turn = np.linalg.qr(np.random.default_rng(dims).normal(size=(dims, dims)))[0]
    affine = np.eye(4)
    affine[:dims, :dims] = turn * spacing
    affine[:dims, 3] = np.arange(dims) + 5
    return torch.from_numpy(affine)


def causes(error: BaseException | None) -> str:
    """The messages of an error and of all errors that caused it."""
    text = ""
    while error is not None:
        text, error = text + str(error), error.__cause__
    return text
