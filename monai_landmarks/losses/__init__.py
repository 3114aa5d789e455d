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

"""Losses between predicted heatmaps and landmarks."""

from __future__ import annotations

from .adaptive_precision import AdaptivePrecisionLoss
from .adaptive_wing import AdaptiveWingLoss
from .coarse_to_fine import CoarseToFineLoss
from .exponential_weighted_center import EWCLoss, ExponentialWeightedCenterLoss
from .heatmap_cross_entropy import HeatmapCrossEntropyLoss
from .heatmap_l2 import HeatmapL2Loss
from .learned_covariance import LearnedCovarianceLoss
from .parameter_groups import parameter_groups
from .scn import SCNLoss
from .targets import GaussianTarget, LearnedCovarianceTarget, TargetSigma, ensure_batch_points
from .voxelwise import VoxelwiseLoss

__all__ = [
    "AdaptivePrecisionLoss",
    "AdaptiveWingLoss",
    "CoarseToFineLoss",
    "EWCLoss",
    "ExponentialWeightedCenterLoss",
    "GaussianTarget",
    "HeatmapCrossEntropyLoss",
    "HeatmapL2Loss",
    "LearnedCovarianceLoss",
    "LearnedCovarianceTarget",
    "SCNLoss",
    "TargetSigma",
    "VoxelwiseLoss",
    "ensure_batch_points",
    "parameter_groups",
]
