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


"""The search: an agent changes the sigma of each landmark during a training until an early stop ends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from .agent import DoubleDQNAgent, RandomAgent
from .controller import Action, Decision, PrecisionController, SigmaRange, ValidationResult
from .objective import PrecisionObjective, PrecisionObservation, PrecisionReward

__all__ = ["EarlyStop", "PrecisionSearch"]

# validations that a state needs: four changes of a mean over three validations
_HISTORY = 7
# fraction of the search over which the exploration decreases
_EXPLORATION_UNTIL = 0.5


class EarlyStop:
    """
    End the search of a landmark, and choose the sigma that it keeps.

    There are four rules. If several apply, the first in this order gives the reason and the sigma:

    ==================  =======================================================  =================================
    reason              applies if                                               sigma that is kept
    ==================  =======================================================  =================================
    ``stop chosen``     ``STOP`` had the highest value in the last decisions     the current one
    ``settled``         no move was better than ``KEEP`` in the last decisions   the current one
    ``oscillation``     the last changes of sigma alternated in direction        geometric mean of the last two
    ``no improvement``  the lowest cost is some decisions old                    the one with the lowest cost
    ==================  =======================================================  =================================

    Each rule has a number of decisions; 0 disables the rule.

    Args:
        stop_chosen: number of decisions in a row.
        settled: number of decisions in a row.
        oscillation: number of alternating changes in a row.
        no_improvement: age of the lowest cost in decisions.
        least_gain: a move is better than ``KEEP`` if its value is higher by at least this much.
    """

    def __init__(
        self,
        stop_chosen: int = 2,
        settled: int = 3,
        oscillation: int = 4,
        no_improvement: int = 6,
        least_gain: float = 0.02,
    ) -> None:
        self.stop_chosen, self.settled, self.oscillation = stop_chosen, settled, oscillation
        self.no_improvement, self.least_gain = no_improvement, least_gain

    def __call__(
        self, sigma: torch.Tensor, cost: torch.Tensor, best_action: torch.Tensor, gain: torch.Tensor
    ) -> tuple[torch.Tensor, list[str]]:
        """
        Apply the rules to all decisions of a search so far, the latest one included.

        Args:
            sigma: (T, N) sigmas before each action, oldest first.
            cost: (T, N) costs with these sigmas.
            best_action: (T, N) actions with the highest value.
            gain: (T, N) value of the best move minus the value of ``KEEP``, NaN for an agent without values.

        Returns:
            (N,) sigmas to keep, NaN for landmarks whose search continues, and N reasons, empty for these landmarks.
        """
        now = sigma[-1]
        found: dict[str, torch.Tensor] = {}
        if self.stop_chosen:
            found["stop chosen"] = now.where(_all_last(best_action == Action.STOP, self.stop_chosen), torch.nan)
        if self.settled:
            found["settled"] = now.where(_all_last(gain < self.least_gain, self.settled), torch.nan)
        if self.oscillation:
            found["oscillation"] = self._middle(sigma)
        if self.no_improvement:
            found["no improvement"] = self._best(sigma, cost)
        kept, reasons = torch.full_like(now, torch.nan), [""] * len(now)
        for reason, values in found.items():
            for n, value in enumerate(values.tolist()):
                if value == value and not reasons[n]:
                    kept[n], reasons[n] = value, reason
        return kept, reasons

    def _middle(self, sigma: torch.Tensor) -> torch.Tensor:
        last = sigma[-self.oscillation - 1 :].log()
        direction = last.diff(dim=0).sign()
        alternates = (direction[1:] * direction[:-1] == -1).all(dim=0) & (len(direction) == self.oscillation)
        return last[-2:].mean(dim=0).exp().where(alternates, torch.nan)

    def _best(self, sigma: torch.Tensor, cost: torch.Tensor) -> torch.Tensor:
        cost = cost.nan_to_num(nan=torch.inf)
        best = cost.argmin(dim=0, keepdim=True)
        old = (len(cost) - 1 - best[0] >= self.no_improvement) & cost.isfinite().any(dim=0)
        return sigma.gather(0, best)[0].where(old, torch.nan)


def _all_last(table: torch.Tensor, count: int) -> torch.Tensor:
    """Whether the last ``count`` rows exist and are all True, per column."""
    last = table[-count:]
    return last.all(dim=0) & (len(last) == count)


class PrecisionSearch(PrecisionController):
    """
    Search the sigma of each landmark's target heatmap while the network trains.

    The idea is that of Zhou et al. (IEEE JBHI 2021): network and target precision are optimized together, a
    reinforcement-learning agent searches the precision of each landmark during the training, and an early stop ends the
    search landmark by landmark. Only the abstract of the paper was accessible. State, actions, reward, agent and stop
    rules are this package's own.

    After each validation, for each landmark that is still searched:

    1. its state is computed,
    2. the change of its cost gives the reward of the last action,
    3. the agent learns,
    4. the agent chooses whether to shrink, keep or grow sigma, or to stop.

    The search starts after the warm-up, because the network cannot locate landmarks before. Landmarks that are still
    searched at ``until`` keep their sigma, and the rest is plain training.

    With more than one child, several copies of the network try different random actions for each decision, one after
    the other. The agent learns from all of them, and the training continues with the child that has the smallest mean
    error. There are fewer decisions before ``until`` then, unless the training is longer.

    Args:
        num_landmarks: N.
        spatial_dims: D, for the default objective.
        sigma_range: bounds and step of sigma.
        agent: the agent, :class:`DoubleDQNAgent` by default.
        objective: cost of a sigma.
        reward: reward of an action.
        exploration: probability of a random action at the start of the search and from its middle on. It decreases
            linearly in between.
        early_stop: rules that end the search of a landmark.
        warmup: fraction of the training before the first decision.
        until: fraction of the training after which sigma stays the same.
        stop_from: fraction of the search, 0 to 1, before which the agent cannot choose ``STOP`` and no stop rule is
            applied. An untrained agent would stop at an arbitrary sigma.
        children: number of copies of the network.
        imagine: also learn from the actions that were not taken, as if they had led to the same errors. The fit between
            sigma and errors can be computed for every sigma, so the actions in a state are compared without the other
            causes that change the errors. It has no effect for an objective that is the error alone.

    Raises:
        ValueError: unless 0 <= warmup < until <= 1, for probabilities outside [0, 1], or for fewer than one child.

    Example:
        >>> search = PrecisionSearch(num_landmarks=2, spatial_dims=2, warmup=0.0)
        >>> known, unknown = torch.tensor([2.0, 2.0]), torch.full((2,), float("nan"))
        >>> now = ValidationResult(0.1, torch.tensor([4.0, 4.0]), known, known**2, known, known, unknown)
        >>> decision = search.update(now)
        >>> decision.sigma.shape, decision.values.shape, decision.stopped
        (torch.Size([2]), torch.Size([2, 4]), ('', ''))
    """

    def __init__(
        self,
        num_landmarks: int,
        spatial_dims: int,
        sigma_range: SigmaRange | None = None,
        agent: RandomAgent | None = None,
        objective: PrecisionObjective | None = None,
        reward: PrecisionReward | None = None,
        exploration: Sequence[float] = (0.5, 0.05),
        early_stop: EarlyStop | None = None,
        warmup: float = 0.15,
        until: float = 0.75,
        stop_from: float = 0.7,
        children: int = 1,
        imagine: bool = True,
    ) -> None:
        if not 0 <= warmup < until <= 1:
            raise ValueError(f"expected 0 <= warmup < until <= 1, got warmup={warmup} and until={until}.")
        if children < 1:
            raise ValueError(f"children must be at least 1, got {children}.")
        if len(exploration) != 2 or not all(0 <= probability <= 1 for probability in exploration):
            raise ValueError(f"exploration must be two probabilities, got {exploration}.")
        self.num_landmarks = num_landmarks
        self.sigma_range = sigma_range or SigmaRange()
        self.agent = agent or DoubleDQNAgent()
        self.objective = objective or PrecisionObjective(spatial_dims)
        self.reward = reward or PrecisionReward()
        self.early_stop = early_stop or EarlyStop()
        self.observe = PrecisionObservation(self.sigma_range, self.objective)
        self.exploration = tuple(exploration)
        self.warmup, self.until, self.stop_from, self.children = warmup, until, stop_from, children
        self.imagine = imagine and self.objective.calibration > 0
        self.stopped = [""] * num_landmarks
        self._since_change = torch.zeros(num_landmarks)
        self._history: list[ValidationResult] = []
        self._decisions: list[dict[str, torch.Tensor]] = []
        # the decision that is being tried: its sigmas, costs and states; the actions and validations of each child
        self._pending: dict[str, torch.Tensor] = {}
        self._trials: list[torch.Tensor] = []
        self._evaluated: list[ValidationResult] = []

    @property
    def active(self) -> torch.Tensor:
        """(N,) bool, True for landmarks that are still searched."""
        return torch.tensor([not reason for reason in self.stopped])

    @property
    def done(self) -> bool:
        """True if the search of all landmarks has ended."""
        return all(self.stopped)

    def update(self, validation: ValidationResult) -> Decision:
        """
        Make the next decision, or start the next child.

        Args:
            validation: result of the latest validation. With several children it is that of one child.

        Returns:
            The decision.
        """
        self._evaluated.append(validation)
        last = len(self._evaluated) - 1
        if last + 1 < len(self._trials):  # all children start from the same network
            sigma = self.sigma_range.apply(self._pending["sigma"], self._trials[last + 1])
            return Decision(sigma, save_as=f"child {last}", load="start", complete=False)
        best = self._best_child()
        earlier: dict[str, Any] = {}
        if self._trials:
            earlier = {"reward": self._learn(best), "previous_action": self._trials[best]}
        if len(self._trials) > 1:
            earlier |= {"save_as": f"child {last}", "load": f"child {best}", "validation": self._evaluated[best]}
        self._history = [*self._history, self._evaluated[best]][-_HISTORY:]
        self._trials, self._evaluated = [], []
        return replace(self._decide(), **earlier)

    def _best_child(self) -> int:
        errors = torch.tensor([v.mean_error for v in self._evaluated]).nan_to_num(nan=torch.inf)
        return int(errors.argmin())

    def _learn(self, best: int) -> torch.Tensor:
        """Let the agent learn from the actions of all children; return the rewards of the best child, (N,)."""
        active, rows, rewards = self.active, [], []
        for actions, validation in zip(self._trials, self._evaluated):
            # until a stop rule applies, STOP has the same effect as KEEP
            actions = actions.where(actions != Action.STOP, int(Action.KEEP))
            rows.append(self._transition(actions, validation))
            rewards.append(rows[-1]["reward"].where(active, torch.nan))
            rows += self._imagined(actions, validation)
        self._since_change = self._steps_after(self._trials[best])
        self.agent.learn(**{name: torch.cat([row[name][active] for row in rows]) for name in rows[0]})
        return rewards[best]

    def _imagined(self, actions: torch.Tensor, validation: ValidationResult) -> list[dict[str, torch.Tensor]]:
        """Transitions of the two moves that were not taken, with the errors of the one that was."""
        if not self.imagine:
            return []
        others = [(actions + shift) % int(Action.STOP) for shift in (1, 2)]
        sigma = self._pending["sigma"]
        return [self._transition(a, replace(validation, sigma=self.sigma_range.apply(sigma, a))) for a in others]

    def _transition(self, actions: torch.Tensor, validation: ValidationResult) -> dict[str, torch.Tensor]:
        history = [*self._history, validation]
        return {
            "state": self._pending["state"],
            "action": actions,
            "reward": self.reward(self._pending["cost"], self.objective(history), history, actions),
            "next_state": self.observe(history, self._steps_after(actions), self.active),
            "next_allowed": self._allowed(validation),
        }

    def _steps_after(self, actions: torch.Tensor) -> torch.Tensor:
        moved = (actions == Action.SHRINK) | (actions == Action.GROW)
        return (self._since_change + 1).masked_fill(moved, 0.0)

    def _part(self, validation: ValidationResult) -> float:
        """Fraction of the search that is done, 0 to 1."""
        return (validation.progress - self.warmup) / (self.until - self.warmup)

    def _epsilon(self, part: float) -> float:
        """Probability of a random action at a fraction of the search."""
        first, last = self.exploration
        return first + (last - first) * min(max(part / _EXPLORATION_UNTIL, 0.0), 1.0)

    def _allowed(self, validation: ValidationResult) -> torch.Tensor:
        allowed = self.sigma_range.allowed(validation.sigma)
        allowed[:, Action.STOP] = self._part(validation) >= self.stop_from
        return allowed

    def _decide(self) -> Decision:
        """The next decision, from the history."""
        now = self._history[-1]
        if now.progress >= self.until:
            self.stopped = [reason or "end of search" for reason in self.stopped]
        if now.progress < self.warmup or self.done:
            return Decision(now.sigma, stopped=tuple(self.stopped))
        cost, state = self.objective(self._history), self.observe(self._history, self._since_change, self.active)
        allowed, values = self._allowed(now), self.agent.values(state)
        epsilon = self._epsilon(self._part(now))
        chosen, best = zip(*(self.agent.act(state, allowed, epsilon) for _ in range(self.children)))
        gain = values[:, : Action.STOP].masked_fill(~allowed[:, : Action.STOP], -torch.inf).amax(dim=1)
        self._decisions.append(
            {"sigma": now.sigma, "cost": cost, "best_action": best[0], "gain": gain - values[:, Action.KEEP]}
        )
        sigma = self._stop_early()
        keep = torch.full_like(chosen[0], int(Action.KEEP))
        if not self.done:
            self._trials = [actions.where(self.active, keep) for actions in chosen]
            self._pending = {"sigma": sigma, "cost": cost, "state": state}
        first = self._trials[0] if self._trials else keep
        return Decision(self.sigma_range.apply(sigma, first), action=first, values=values, stopped=tuple(self.stopped))

    def _stop_early(self) -> torch.Tensor:
        """End searches by the stop rules; return the current sigmas, or the kept ones where a search ends now, (N,)."""
        sigma = self._history[-1].sigma.clone()
        if self._part(self._history[-1]) < self.stop_from:
            return sigma
        names = ("sigma", "cost", "best_action", "gain")
        kept, reasons = self.early_stop(**{name: torch.stack([row[name] for row in self._decisions]) for name in names})
        for n, reason in enumerate(reasons):
            if reason and not self.stopped[n]:
                self.stopped[n], sigma[n] = reason, kept[n]
        return sigma

    def state_dict(self) -> dict[str, Any]:
        """Return the agent, with its replay buffer and random state, and all decisions."""
        return {
            "agent": self.agent.state_dict(),
            "stopped": list(self.stopped),
            "since_change": self._since_change,
            "history": [v.state_dict() for v in self._history],
            "decisions": list(self._decisions),
            "pending": dict(self._pending),
            "trials": list(self._trials),
            "evaluated": [v.state_dict() for v in self._evaluated],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a :meth:`state_dict`.

        Raises:
            ValueError: if the saved search has another number of landmarks.
        """
        if len(state["stopped"]) != self.num_landmarks:
            raise ValueError(f"a search of {len(state['stopped'])} landmarks does not fit one of {self.num_landmarks}.")
        self.agent.load_state_dict(state["agent"])
        self.stopped = list(state["stopped"])
        self._since_change = state["since_change"]
        self._history = [ValidationResult.from_state_dict(v) for v in state["history"]]
        self._evaluated = [ValidationResult.from_state_dict(v) for v in state["evaluated"]]
        self._decisions, self._trials = list(state["decisions"]), list(state["trials"])
        self._pending = dict(state["pending"])
