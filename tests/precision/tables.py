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


"""Validations made from lists, and a simulated training."""

from __future__ import annotations

import torch

from monai_landmarks.precision import Decision, PrecisionController, ValidationResult

NAN = float("nan")

__all__ = ["NAN", "Bandit", "evaluation"]


def evaluation(sigma, error, square=None, progress=0.5, train_loss=None, radius=None, peak=None):
    """A validation made from lists. Values that are not given are NaN."""
    count = len(sigma)
    columns = [torch.tensor([NAN] * count if column is None else column) for column in (train_loss, radius, peak)]
    square = [e * e for e in error] if square is None else square
    return ValidationResult(progress, torch.tensor(sigma), torch.tensor(error), torch.tensor(square), *columns)


class Bandit:
    """
    Landmarks whose error has its minimum at a known sigma, by a parabola over ln sigma, and is measured with noise.

    Args:
        best: (N,) those sigmas.
        noise: relative standard deviation of a measured error.
    """

    def __init__(self, best, noise=0.02, slope=0.5, seed=0):
        self.best, self.noise, self.slope = torch.tensor(best), noise, slope
        self.generator = torch.Generator().manual_seed(seed)

    def run(self, controller: PrecisionController, steps: int, sigma: float = 4.0) -> list[Decision]:
        """Return all decisions of a training with that many validations."""
        now, decisions = controller.start(torch.full_like(self.best, sigma)), []
        for step in range(1, steps + 1):
            decisions.append(controller.update(self.measure(now, step / steps)))
            now = decisions[-1].sigma
        return decisions

    def measure(self, sigma: torch.Tensor, progress: float) -> ValidationResult:
        """Return the result of a validation."""
        error = 1 + self.slope * (sigma / self.best).log().square()
        error = error * (1 + self.noise * torch.randn(error.shape, generator=self.generator))
        unknown = torch.full_like(error, NAN)
        return ValidationResult(progress, sigma, error, error.square(), torch.ones_like(error), unknown, unknown)
