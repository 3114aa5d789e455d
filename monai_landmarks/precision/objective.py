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


"""What a search minimizes, and the reward of an action."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .actions import Action
from .evaluation import Evaluation, discounted_mean, spread

__all__ = ["PrecisionObjective", "PrecisionReward"]


class PrecisionObjective:
    r"""
    The cost of a landmark's sigma, from the last validations; smaller is better.

    .. math::
        J_n = (1 - c) \ln \bar e_n + c \left(\ln \sigma_n + \frac{k^2\, \overline{e_n^2}}{2 D \sigma_n^2}\right)

    with the radial error e and means over the last validations, in which an older one counts less.

    The first term is the localization error. It hardly depends on sigma where the label itself is uncertain, and there
    its noise hides what dependence there is. The second is how badly a Gaussian of width :math:`\sigma_n / k`, put at the
    predicted point, foretells the label of a held-out image: its negative log-likelihood per axis, less a constant. It
    falls with the error, too, and has its minimum where sigma is k times the error that remains,
    :math:`\sigma_n^2 = k^2\, \overline{e_n^2} / D`.

    Args:
        spatial_dims: D.
        calibration: c, between 0 (the error alone) and 1.
        margin: k. Targets that are wider than the error that remains are easier to learn from: where sigma was tuned by
            hand for the cephalograms of this package's bundles, it is a bit more than twice that error.
        decay: weight of a validation relative to the next.
        window: how many validations count.

    Raises:
        ValueError: for a calibration outside [0, 1] or a margin that is not positive.
    """

    def __init__(
        self, spatial_dims: int, calibration: float = 0.5, margin: float = 2.0, decay: float = 0.9, window: int = 3
    ) -> None:
        if not 0 <= calibration <= 1:
            raise ValueError(f"calibration must be between 0 and 1, got {calibration}.")
        if not margin > 0:
            raise ValueError(f"margin must be positive, got {margin}.")
        self.spatial_dims, self.calibration, self.margin = spatial_dims, calibration, margin
        self.decay, self.window = decay, window

    def error(self, history: Sequence[Evaluation]) -> torch.Tensor:
        """(N,) the mean error over the last validations."""
        return discounted_mean([e.error for e in history], self.decay, self.window)

    def deviation(self, history: Sequence[Evaluation]) -> torch.Tensor:
        """(N,) the error that remains, as a standard deviation along an axis, times the margin."""
        square = discounted_mean([e.square_error for e in history], self.decay, self.window)
        return self.margin * (square / self.spatial_dims).sqrt()

    def __call__(self, history: Sequence[Evaluation]) -> torch.Tensor:
        """
        Args:
            history: validations, oldest first.

        Returns:
            (N,) costs with the sigma of the last validation, NaN where no error is known.
        """
        sigma = history[-1].sigma
        likelihood = sigma.log() + 0.5 * (self.deviation(history) / sigma).square()
        return (1 - self.calibration) * self.error(history).clamp(min=1e-6).log() + self.calibration * likelihood


class PrecisionReward:
    r"""
    Reward of the actions between two validations.

    .. math::
        r_n = \mathrm{clip}\left(\frac{J_n - J_n'}{\kappa s_n + f}, -1, 1\right), \quad
        R_n = r_n + m\, \overline{r} - a \cdot [\text{sigma was changed}]

    s is the standard deviation of the logarithm of the error over the last four validations: in a noisy landmark a
    change must be larger to mean something. The mean over all landmarks, :math:`\overline r`, is for what a landmark does
    to the others through the network that they share.

    Args:
        noise: kappa.
        floor: f; since costs are logarithms, 0.02 stands for 2 % of the error.
        shared: m.
        action_cost: a, so that nothing is changed for nothing.
    """

    def __init__(self, noise: float = 1.0, floor: float = 0.02, shared: float = 0.3, action_cost: float = 0.01) -> None:
        self.noise, self.floor, self.shared, self.action_cost = noise, floor, shared, action_cost

    def __call__(
        self, before: torch.Tensor, after: torch.Tensor, history: Sequence[Evaluation], actions: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            before: (N,) costs when the actions were chosen.
            after: (N,) costs now.
            history: validations up to now, oldest first.
            actions: (N,) of :class:`Action`.

        Returns:
            (N,) rewards, 0 for a landmark whose cost is not known.
        """
        noise = spread([e.error.clamp(min=1e-6).log() for e in history])
        own = ((before - after) / (self.noise * noise + self.floor)).clamp(-1, 1)
        known = ~own.isnan()
        moved = (actions == Action.SHRINK) | (actions == Action.GROW)
        total = own.nan_to_num() + self.shared * own.nanmean().nan_to_num() - self.action_cost * moved
        return total * known
