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


"""What a search minimizes, the reward of an action, and the state that the agent receives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .controller import Action, SigmaRange, ValidationResult

__all__ = ["FEATURES", "PrecisionObjective", "PrecisionObservation", "PrecisionReward", "discounted_mean", "spread"]

# number of changes of the error in a state
_CHANGES = 4

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


def discounted_mean(values: Sequence[torch.Tensor], decay: float = 0.9, window: int = 3) -> torch.Tensor:
    """
    Mean of the latest values, in which older values weigh less. NaN is left out.

    Args:
        values: tensors (N,), oldest first.
        decay: weight of a value relative to the next one.
        window: number of values to use.

    Returns:
        (N,) means, NaN where no value is known.

    Example:
        >>> discounted_mean([torch.tensor([4.0]), torch.tensor([1.0])], decay=0.5)
        tensor([2.])
    """
    last = torch.stack(list(values[-window:]))
    weight = decay ** torch.arange(len(last) - 1, -1, -1, dtype=last.dtype)[:, None] * ~last.isnan()
    return (weight * last.nan_to_num()).sum(dim=0) / weight.sum(dim=0)


def spread(values: Sequence[torch.Tensor], window: int = 4) -> torch.Tensor:
    """
    Standard deviation of the latest values. NaN is left out.

    Args:
        values: tensors (N,), oldest first.
        window: number of values to use.

    Returns:
        (N,) standard deviations, 0 where fewer than two values are known.
    """
    last = torch.stack(list(values[-window:]))
    return (last - last.nanmean(dim=0)).square().nanmean(dim=0).sqrt().nan_to_num()


def _log_error(error: torch.Tensor) -> torch.Tensor:
    """Logarithm of an error, finite for an error of 0."""
    return error.clamp(min=1e-6).log()


class PrecisionObjective:
    r"""
    The cost of a landmark's sigma, from the latest validations. Smaller is better.

    .. math::
        J_n = (1 - c) \ln \bar e_n + c \left(\ln \sigma_n + \frac{k^2\, \overline{e_n^2}}{2 D \sigma_n^2}\right)

    Here e is the radial error. The means are over the latest validations; older ones weigh less.

    The first term is the localization error. It hardly depends on sigma for a landmark whose annotation is uncertain,
    and its noise hides the rest. The second term measures how well a Gaussian of width :math:`\sigma_n / k` around the
    predicted point predicts the annotation of a held-out image. It is the negative log-likelihood per axis, without its
    constant. It decreases with the error, too. Its minimum is at a sigma of k times the remaining error,
    :math:`\sigma_n^2 = k^2\, \overline{e_n^2} / D`.

    Args:
        spatial_dims: D.
        calibration: c, between 0 (the error alone) and 1.
        margin: k. Networks learn more easily from targets that are wider than the remaining error. On the cephalograms
            of this package's bundles, the sigma that was tuned by hand is a little more than twice that error.
        decay: weight of a validation relative to the next one.
        window: number of validations to use.

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

    def error(self, history: Sequence[ValidationResult]) -> torch.Tensor:
        """Return the mean error over the latest validations, (N,)."""
        return discounted_mean([v.error for v in history], self.decay, self.window)

    def deviation(self, history: Sequence[ValidationResult]) -> torch.Tensor:
        """Return the remaining error as a standard deviation per axis, times the margin, (N,)."""
        square = discounted_mean([v.square_error for v in history], self.decay, self.window)
        return self.margin * (square / self.spatial_dims).sqrt()

    def __call__(self, history: Sequence[ValidationResult]) -> torch.Tensor:
        """
        Compute the costs of the sigmas of the latest validation.

        Args:
            history: validations, oldest first.

        Returns:
            (N,) costs, NaN where no error is known.
        """
        sigma = history[-1].sigma
        likelihood = sigma.log() + 0.5 * (self.deviation(history) / sigma).square()
        return (1 - self.calibration) * _log_error(self.error(history)) + self.calibration * likelihood


class PrecisionReward:
    r"""
    The reward of the actions between two validations.

    .. math::
        r_n = \mathrm{clip}\left(\frac{J_n - J_n'}{\kappa s_n + f}, -1, 1\right), \quad
        R_n = r_n + m\, \overline{r} - a \cdot [\text{sigma was changed}]

    Here s is the standard deviation of the logarithm of the error over the last four validations: the noisier the error
    of a landmark, the larger a significant change. The mean over all landmarks, :math:`\overline r`, accounts for the
    effect of a landmark on the others through the shared network.

    Args:
        noise: :math:`\kappa`.
        floor: f. Costs are logarithms, so 0.02 means 2 % of the error.
        shared: m.
        action_cost: a. It prevents changes without benefit.
    """

    def __init__(self, noise: float = 1.0, floor: float = 0.02, shared: float = 0.3, action_cost: float = 0.01) -> None:
        self.noise, self.floor, self.shared, self.action_cost = noise, floor, shared, action_cost

    def __call__(
        self, before: torch.Tensor, after: torch.Tensor, history: Sequence[ValidationResult], actions: torch.Tensor
    ) -> torch.Tensor:
        """
        Compute the rewards.

        Args:
            before: (N,) costs when the actions were chosen.
            after: (N,) costs at the latest validation.
            history: validations up to the latest, oldest first.
            actions: (N,) values of :class:`Action`.

        Returns:
            (N,) rewards, 0 for a landmark whose cost is unknown.
        """
        noise = spread([_log_error(v.error) for v in history])
        own = ((before - after) / (self.noise * noise + self.floor)).clamp(-1, 1)
        known = ~own.isnan()
        moved = (actions == Action.SHRINK) | (actions == Action.GROW)
        total = own.nan_to_num() + self.shared * own.nanmean().nan_to_num() - self.action_cost * moved
        return total * known


class PrecisionObservation:
    """
    The state of each landmark: 18 numbers without unit, of magnitude about 1.

    One agent can therefore serve all landmarks, in 2-D and 3-D. Unknown values are 0. The order is that of
    ``FEATURES``:

    ========================  ======================================================================================
    ``log_sigma``             logarithm of sigma over the geometric mean of its bounds
    ``above_low``             position of sigma between its bounds, on a logarithmic scale, from 0 to 1
    ``below_high``            1 minus that position
    ``change_1`` to ``_4``    the last four changes of the error, newest first, as logarithms of ratios
    ``error_to_median``       error of the landmark relative to the median over the landmarks, as a logarithm
    ``loss_slope``            relative change of the training loss
    ``radius_to_sigma``       width of the predicted heatmap relative to sigma, as a logarithm
    ``peak_to_median``        height of the predicted heatmap relative to the median, as a logarithm
    ``noise``                 standard deviation of the logarithm of the error
    ``progress``              fraction of the training that is done
    ``steps_since_change``    decisions since the last change of sigma, divided by 10
    ``active``                1 while the landmark is searched
    ``error_to_sigma``        remaining error times the margin, relative to sigma, as a logarithm
    ``last_move``             last change of the logarithm of sigma
    ``cost_slope``            change of the cost per change of the logarithm of sigma, after subtraction of the mean
                              change over the landmarks, which is due to the training of the network
    ========================  ======================================================================================

    Args:
        sigma_range: bounds of sigma.
        objective: the cost, which also sets how errors are averaged.
    """

    def __init__(self, sigma_range: SigmaRange, objective: PrecisionObjective) -> None:
        self.sigma_range, self.objective = sigma_range, objective

    def __call__(
        self, history: Sequence[ValidationResult], steps_since_change: torch.Tensor, active: torch.Tensor
    ) -> torch.Tensor:
        """
        Compute the state after the latest validation.

        Args:
            history: validations, oldest first. The last one has the current sigmas.
            steps_since_change: (N,) decisions since the last change of sigma.
            active: (N,) bool, True for landmarks that are still searched.

        Returns:
            (N, 18).
        """
        now, low, high = history[-1], self.sigma_range.low, self.sigma_range.high
        extent = torch.tensor(high / low).log()
        above = (now.sigma / low).log() / extent
        first = max(1, len(history) - _CHANGES)
        errors = [self.objective.error(history[:end]) for end in range(first, len(history) + 1)]
        changes = [(new / old).log() for old, new in zip(errors[-2::-1], errors[:0:-1])]
        changes += [torch.zeros_like(now.sigma)] * (_CHANGES - len(changes))
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
            spread([_log_error(v.error) for v in history]),
            torch.full_like(now.sigma, now.progress),
            steps_since_change / 10,
            active,
            (self.objective.deviation(history) / now.sigma).log(),
            (now.sigma / history[-2].sigma).log() if len(history) > 1 else torch.zeros_like(now.sigma),
            self._cost_slope(history),
        ]
        # the logarithm of the width or height of an empty heatmap is minus infinity
        return torch.stack([c.float() for c in columns], dim=1).nan_to_num(nan=0.0).clamp(-3, 3)

    def _cost_slope(self, history: Sequence[ValidationResult]) -> torch.Tensor:
        if len(history) < 2:
            return torch.zeros_like(history[-1].sigma)
        cost = torch.stack([self.objective([v]) for v in history]).diff(dim=0)
        move = torch.stack([v.sigma.log() for v in history]).diff(dim=0)
        cost = (cost - cost.nanmean(dim=1, keepdim=True)).nan_to_num()
        # ridge regression: about a quarter of a step, ln 1.25 / 4, damps the slope where sigma hardly moved
        return (cost * move).sum(dim=0) / (move.square().sum(dim=0) + 0.05**2)
