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

"""The search for the precision of target heatmaps by reinforcement learning, in parts, and the schedules beside it."""

from __future__ import annotations

from .actions import Action, SigmaRange
from .agent import DoubleDQNAgent, DuelingQNetwork, RandomAgent
from .controller import Decision, PrecisionController
from .evaluation import Evaluation, discounted_mean, spread
from .exploration import LinearExploration
from .objective import PrecisionObjective, PrecisionReward
from .observation import FEATURES, PrecisionObservation
from .population import Population
from .replay import ReplayBuffer
from .schedules import Adaloss, CalibratedSigma, FixedSigma, LinearSigma, ReplayedSigma
from .search import PrecisionSearch
from .stopping import Decisions, NoImprovement, Oscillation, Settled, StopChosen, StopRule, default_stop_rules
from .trajectory import PrecisionTrajectory

__all__ = [
    "Action",
    "Adaloss",
    "CalibratedSigma",
    "Decision",
    "Decisions",
    "DoubleDQNAgent",
    "DuelingQNetwork",
    "Evaluation",
    "FEATURES",
    "FixedSigma",
    "LinearExploration",
    "LinearSigma",
    "NoImprovement",
    "Oscillation",
    "Population",
    "PrecisionController",
    "PrecisionObjective",
    "PrecisionObservation",
    "PrecisionReward",
    "PrecisionSearch",
    "PrecisionTrajectory",
    "RandomAgent",
    "ReplayBuffer",
    "ReplayedSigma",
    "Settled",
    "SigmaRange",
    "StopChosen",
    "StopRule",
    "default_stop_rules",
    "discounted_mean",
    "spread",
]
