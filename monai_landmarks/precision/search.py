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


"""The search: an agent changes the sigma of each landmark while the network trains, until the landmark's search ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from .actions import Action, SigmaRange
from .agent import DoubleDQNAgent, RandomAgent
from .controller import Decision, PrecisionController
from .evaluation import Evaluation
from .exploration import LinearExploration
from .objective import PrecisionObjective, PrecisionReward
from .observation import PrecisionObservation
from .stopping import Decisions, StopRule, default_stop_rules

__all__ = ["PrecisionSearch"]

_HISTORY = 7  # validations: four changes of a mean over three


class PrecisionSearch(PrecisionController):
    """
    Searches the sigma of each landmark's target heatmap while the network trains.

    The idea is that of Zhou et al. (IEEE JBHI 2021): network and target precision are optimized together, an agent of
    reinforcement learning searches the precision of each landmark during the training, and an early stop ends its search
    landmark by landmark. Only their abstract could be read: state, actions, reward, agent and rules are this package's own.

    After each validation, for each landmark that is still searched: its state is observed, the last action is rewarded
    by what became of its cost, the agent learns, and chooses whether to shrink, keep or grow sigma, or to stop. Nothing is
    done during the warm-up, when the network is yet to find the landmarks at all. What is searched still at ``until`` is
    frozen, so that the rest is plain training.

    With ``children`` above 1, each decision is tried by several copies of the network with different random draws, one
    after the other; the agent learns from all, and the one with the smallest mean error goes on. The time until ``until``
    then holds fewer decisions, or the training must be longer.

    Args:
        num_landmarks: N.
        spatial_dims: D, for the default objective.
        sigma_range: bounds and step of sigma.
        agent: :class:`DoubleDQNAgent` by default.
        objective: cost of a sigma.
        reward: of an action.
        exploration: probability of a random action over the search.
        stop_rules: reasons to end the search of a landmark; the first that holds.
        warmup: part of the training before the first decision.
        until: part of the training after which sigma stays.
        stop_from: part of the search, 0 to 1, before which neither stop may be chosen nor a rule is asked: an agent that has
            not learned yet would end the search with a sigma that is nothing special.
        children: copies of the network in a population.
        imagine: let the agent learn from the actions that were not taken, too, as they would have been with the same
            errors. How well sigma fits the errors is known for every sigma, so that the actions in a state are compared
            free of whatever else has changed the errors. Of no use with an objective that is the error alone.

    Raises:
        ValueError: unless 0 <= warmup < until <= 1, or for fewer than one child.

    Example:
        >>> search = PrecisionSearch(num_landmarks=2, spatial_dims=2, warmup=0.0)
        >>> known, unknown = torch.tensor([2.0, 2.0]), torch.full((2,), float("nan"))
        >>> now = Evaluation(0.1, torch.tensor([4.0, 4.0]), known, known**2, known, known, unknown)
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
        exploration: LinearExploration | None = None,
        stop_rules: Sequence[StopRule] | None = None,
        warmup: float = 0.15,
        until: float = 0.75,
        stop_from: float = 0.7,
        children: int = 1,
        imagine: bool = True,
    ) -> None:
        if not 0 <= warmup < until <= 1:
            raise ValueError(f"expected 0 <= warmup < until <= 1, got {warmup} and {until}.")
        if children < 1:
            raise ValueError(f"children must be at least 1, got {children}.")
        self.num_landmarks = num_landmarks
        self.sigma_range = sigma_range or SigmaRange()
        self.agent = agent or DoubleDQNAgent()
        self.objective = objective or PrecisionObjective(spatial_dims)
        self.reward = reward or PrecisionReward()
        self.exploration = exploration or LinearExploration()
        self.stop_rules = default_stop_rules() if stop_rules is None else tuple(stop_rules)
        self.observe = PrecisionObservation(self.sigma_range, self.objective)
        self.warmup, self.until, self.stop_from, self.children = warmup, until, stop_from, children
        self.imagine = imagine and self.objective.calibration > 0
        self.stopped = [""] * num_landmarks
        self._since_change = torch.zeros(num_landmarks)
        self._history: list[Evaluation] = []
        self._decisions: list[dict[str, torch.Tensor]] = []
        # the decision that is being tried: what it was made from, the actions of each child, and what came of them
        self._pending: dict[str, torch.Tensor] = {}
        self._trials: list[torch.Tensor] = []
        self._evaluated: list[Evaluation] = []

    @property
    def active(self) -> torch.Tensor:
        """(N,) bool, which landmarks are still searched."""
        return torch.tensor([not reason for reason in self.stopped])

    @property
    def done(self) -> bool:
        """Whether the search of all landmarks has ended."""
        return all(self.stopped)

    def update(self, evaluation: Evaluation) -> Decision:
        """
        Args:
            evaluation: the validation that is just done: of one child, where there are several.

        Returns:
            what holds until the next.
        """
        self._evaluated.append(evaluation)
        last = len(self._evaluated) - 1
        if last + 1 < len(self._trials):  # the next child starts from where this one did
            sigma = self.sigma_range.apply(self._pending["sigma"], self._trials[last + 1])
            return Decision(sigma, save_as=f"child {last}", load="start", complete=False)
        best = self._best_child()
        earlier: dict[str, Any] = {}
        if self._trials:
            earlier = {"reward": self._learn(best), "taken": self._trials[best]}
        if len(self._trials) > 1:
            earlier |= {"save_as": f"child {last}", "load": f"child {best}", "evaluation": self._evaluated[best]}
        self._history = [*self._history, self._evaluated[best]][-_HISTORY:]
        self._trials, self._evaluated = [], []
        return replace(self._decide(), **earlier)

    def _best_child(self) -> int:
        errors = torch.tensor([e.mean_error for e in self._evaluated]).nan_to_num(nan=torch.inf)
        return int(errors.argmin())

    def _learn(self, best: int) -> torch.Tensor:
        """Reward all children's actions and let the agent learn from them; the rewards of the best one, (N,)."""
        active, rows, rewards = self.active, [], []
        for actions, evaluation in zip(self._trials, self._evaluated):
            # as long as no rule ends the search, to stop is to keep
            actions = actions.where(actions != Action.STOP, int(Action.KEEP))
            rows.append(self._transition(actions, evaluation))
            rewards.append(rows[-1]["reward"].where(active, torch.nan))
            rows += self._imagined(actions, evaluation)
        self._since_change = self._steps_after(self._trials[best])
        self.agent.learn(**{name: torch.cat([row[name][active] for row in rows]) for name in rows[0]})
        return rewards[best]

    def _imagined(self, actions: torch.Tensor, evaluation: Evaluation) -> list[dict[str, torch.Tensor]]:
        """The transitions of the actions that were not taken, as they would have been with the same errors."""
        if not self.imagine:
            return []
        others = [(actions + shift) % int(Action.STOP) for shift in (1, 2)]
        sigma = self._pending["sigma"]
        return [self._transition(a, replace(evaluation, sigma=self.sigma_range.apply(sigma, a))) for a in others]

    def _transition(self, actions: torch.Tensor, evaluation: Evaluation) -> dict[str, torch.Tensor]:
        history = [*self._history, evaluation]
        return {
            "state": self._pending["state"],
            "action": actions,
            "reward": self.reward(self._pending["cost"], self.objective(history), history, actions),
            "next_state": self.observe(history, self._steps_after(actions), self.active),
            "next_allowed": self._allowed(evaluation),
        }

    def _steps_after(self, actions: torch.Tensor) -> torch.Tensor:
        moved = (actions == Action.SHRINK) | (actions == Action.GROW)
        return (self._since_change + 1).masked_fill(moved, 0.0)

    def _part(self, evaluation: Evaluation) -> float:
        """How much of the search is done, 0 to 1."""
        return (evaluation.progress - self.warmup) / (self.until - self.warmup)

    def _allowed(self, evaluation: Evaluation) -> torch.Tensor:
        allowed = self.sigma_range.allowed(evaluation.sigma)
        allowed[:, Action.STOP] = self._part(evaluation) >= self.stop_from
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
        epsilon = self.exploration(self._part(now))
        chosen, best = zip(*(self.agent.act(state, allowed, epsilon) for _ in range(self.children)))
        gain = values[:, : Action.STOP].masked_fill(~allowed[:, : Action.STOP], -torch.inf).amax(dim=1)
        self._decisions.append(
            {"sigma": now.sigma, "cost": cost, "best_action": best[0], "gain": gain - values[:, Action.KEEP]}
        )
        sigma = self._stop_where_a_rule_holds()
        keep = torch.full_like(chosen[0], int(Action.KEEP))
        if not self.done:
            self._trials = [actions.where(self.active, keep) for actions in chosen]
            self._pending = {"sigma": sigma, "cost": cost, "state": state}
        first = self._trials[0] if self._trials else keep
        return Decision(self.sigma_range.apply(sigma, first), action=first, values=values, stopped=tuple(self.stopped))

    def _stop_where_a_rule_holds(self) -> torch.Tensor:
        """End searches; (N,) the present sigmas, with those to stay with where a search ends now."""
        sigma = self._history[-1].sigma.clone()
        if self._part(self._history[-1]) < self.stop_from:
            return sigma
        names = ("sigma", "cost", "best_action", "gain")
        decisions = Decisions(**{name: torch.stack([row[name] for row in self._decisions]) for name in names})
        for rule in self.stop_rules:
            for n, value in enumerate(rule(decisions).tolist()):
                if value == value and not self.stopped[n]:
                    self.stopped[n], sigma[n] = rule.reason, value
        return sigma

    def state_dict(self) -> dict[str, Any]:
        """The agent, with its replay buffer and random state, and all that has been decided."""
        return {
            "agent": self.agent.state_dict(),
            "stopped": list(self.stopped),
            "since_change": self._since_change,
            "history": [e.state_dict() for e in self._history],
            "decisions": list(self._decisions),
            "pending": dict(self._pending),
            "trials": list(self._trials),
            "evaluated": [e.state_dict() for e in self._evaluated],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a :meth:`state_dict`.

        Raises:
            ValueError: where it is of another number of landmarks.
        """
        if len(state["stopped"]) != self.num_landmarks:
            raise ValueError(f"a search of {len(state['stopped'])} landmarks does not fit one of {self.num_landmarks}.")
        self.agent.load_state_dict(state["agent"])
        self.stopped = list(state["stopped"])
        self._since_change = state["since_change"]
        self._history = [Evaluation.from_state(e) for e in state["history"]]
        self._evaluated = [Evaluation.from_state(e) for e in state["evaluated"]]
        self._decisions, self._trials = list(state["decisions"]), list(state["trials"])
        self._pending = dict(state["pending"])
