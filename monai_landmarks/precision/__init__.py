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

"""Sigma of the target heatmaps during a training: a search by reinforcement learning, schedules, and their record."""

from __future__ import annotations

from .agent import DoubleDQNAgent, RandomAgent
from .controller import Action, Decision, PrecisionController, SigmaRange, ValidationResult
from .objective import PrecisionObjective, PrecisionReward
from .schedules import Adaloss, CalibratedSigma, FixedSigma, LinearSigma, ReplayedSigma
from .search import EarlyStop, PrecisionSearch
from .trajectory import PrecisionTrajectory

__all__ = [
    "Action",
    "Adaloss",
    "CalibratedSigma",
    "Decision",
    "DoubleDQNAgent",
    "EarlyStop",
    "FixedSigma",
    "LinearSigma",
    "PrecisionController",
    "PrecisionObjective",
    "PrecisionReward",
    "PrecisionSearch",
    "PrecisionTrajectory",
    "RandomAgent",
    "ReplayedSigma",
    "SigmaRange",
    "ValidationResult",
]
