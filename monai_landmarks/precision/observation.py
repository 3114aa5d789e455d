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


"""The state of a landmark, as an agent sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .actions import SigmaRange
from .evaluation import Evaluation, spread
from .objective import PrecisionObjective

__all__ = ["FEATURES", "PrecisionObservation"]

FEATURES = (
    "log_sigma",
    "above_low",
    "below_high",
    "change_1",
    "change_2",
    "change_3",
    "change_4",
    "error_to_median",
    "loss_slope",
    "radius_to_sigma",
    "peak_to_median",
    "noise",
    "progress",
    "steps_since_change",
    "active",
    "error_to_sigma",
    "last_move",
    "cost_slope",
)


class PrecisionObservation:
    """
    Eighteen numbers a landmark, all without unit and of about unit size, so that one agent serves all landmarks in 2-D
    and 3-D: see ``FEATURES``.

    Where sigma is, between its bounds; the last four changes of the error (logarithms of ratios, newest first); how hard
    the landmark is beside the others; whether its training loss still falls; how wide and how high its predicted heatmap
    is; the noise of its error; how far the training is; when sigma was last changed, in tens of decisions; whether it is
    still searched; the error that remains beside sigma; the last change of the logarithm of sigma; and how the cost has
    gone with it: the slope of its changes over those of the logarithm of sigma, where the change that all landmarks have
    in common, since the network learns, is taken out. What is not known is 0.

    Args:
        sigma_range: bounds of sigma.
        objective: which mean of the errors is looked at.
    """

    num_features = len(FEATURES)

    def __init__(self, sigma_range: SigmaRange, objective: PrecisionObjective) -> None:
        self.sigma_range, self.objective = sigma_range, objective

    def __call__(
        self, history: Sequence[Evaluation], steps_since_change: torch.Tensor, active: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            history: validations, oldest first; the last has the present sigma.
            steps_since_change: (N,) decisions since the last change of sigma.
            active: (N,) bool, whether the landmark is still searched.

        Returns:
            (N, 18).
        """
        now, low, high = history[-1], self.sigma_range.low, self.sigma_range.high
        extent = torch.tensor(high / low).log()
        above = (now.sigma / low).log() / extent
        errors = [self.objective.error(history[:end]) for end in range(max(1, len(history) - 4), len(history) + 1)]
        changes = [(new / old).log() for old, new in zip(errors[-2::-1], errors[:0:-1])]
        changes += [torch.zeros_like(now.sigma)] * (4 - len(changes))
        slope = (now.train_loss - history[-2].train_loss) / history[-2].train_loss.abs() if len(history) > 1 else 0
        columns = [
            (now.sigma / (low * high) ** 0.5).log(),
            above,
            1 - above,
            *changes,
            (errors[-1] / errors[-1].nanmedian()).log(),
            slope + torch.zeros_like(now.sigma),
            (now.radius / now.sigma).log(),
            (now.peak / now.peak.nanmedian()).log(),
            spread([e.error.clamp(min=1e-6).log() for e in history]),
            torch.full_like(now.sigma, now.progress),
            steps_since_change / 10,
            active,
            (self.objective.deviation(history) / now.sigma).log(),
            (now.sigma / history[-2].sigma).log() if len(history) > 1 else torch.zeros_like(now.sigma),
            self._cost_slope(history),
        ]
        # an absent heatmap has a logarithm of minus infinity
        return torch.stack([c.float() for c in columns], dim=1).nan_to_num(nan=0.0).clamp(-3, 3)

    def _cost_slope(self, history: Sequence[Evaluation]) -> torch.Tensor:
        if len(history) < 2:
            return torch.zeros_like(history[-1].sigma)
        cost = torch.stack([self.objective([e]) for e in history]).diff(dim=0)
        move = torch.stack([e.sigma.log() for e in history]).diff(dim=0)
        cost = (cost - cost.nanmean(dim=1, keepdim=True)).nan_to_num()
        # a quarter of a step is added, so that no slope is made of almost no change
        return (cost * move).sum(dim=0) / (move.square().sum(dim=0) + 0.05**2)
